"""The same metrics as a subclass of `torchmetrics.Metric`."""

from __future__ import annotations

from functools import cache
from typing import Any

from trustvlm import metrics
from trustvlm.adapters.accumulating import SelectiveMetric, as_array, torchmetric
from trustvlm.extras import require

__all__ = ["metric_class"]


@cache
def metric_class(metric: str) -> Any:
    """Make the class of one metric; torchmetrics is imported here and nowhere else."""
    torchmetrics = require("torchmetrics", extra="torchmetrics", purpose="A torchmetrics metric")
    torch = require("torch", extra="torchmetrics", purpose="A torchmetrics metric")
    base: Any = torchmetrics.Metric

    class SelectiveTorchMetric(base):  # type: ignore[misc]
        """See `accumulating.torchmetric`."""

        full_state_update = False
        is_differentiable = False
        higher_is_better = SelectiveMetric(metric).higher_is_better

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name in ("confidence", "correct"):
                self.add_state(name, default=[], dist_reduce_fx="cat")

        def __reduce__(self) -> tuple[Any, ...]:
            # A class made by a function has no name to be found by.
            return torchmetric, (metric,), self.__getstate__()

        def update(self, confidence: Any, correct: Any) -> None:
            checked = SelectiveMetric(metric)
            checked.update(confidence, correct)
            for name, values in zip(("confidence", "correct"), checked.samples(), strict=True):
                getattr(self, name).append(torch.as_tensor(values, device=self.device))

        def compute(self) -> Any:
            held = [self.confidence, self.correct]
            # Gathered from several processes, a state is one tensor already.
            whole = [torch.cat(part) if isinstance(part, list) and part else part for part in held]
            found = getattr(metrics, metric)(*map(as_array, whole))
            return torch.tensor(found, dtype=torch.float64, device=self.device)

    return SelectiveTorchMetric
