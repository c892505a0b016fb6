"""Metrics fed batch by batch, as torchmetrics does, with torch and without."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustvlm import metrics
from trustvlm.environment import require
from trustvlm.exceptions import InputError
from trustvlm.metrics.conventions import EXACT, check_convention
from trustvlm.metrics.info import METRIC_INFO
from trustvlm.metrics.inputs import confidence_array, correctness_array

# Metrics that are fed batch by batch, with the methods of torchmetrics and without torch.


class SelectiveMetric:
    """A metric of failure prediction over all batches seen since the last `reset`.

    These metrics rank all samples together: the value over two batches is not the mean of their
    values, so every confidence is kept, in 9 bytes a sample.

    Parameters
    ----------
    metric
        One name from `metrics.METRICS`, such as "aurc", or "eaugrc".
    convention
        `exact` or `trustvlm`; the latter has no "eaugrc".

    Raises
    ------
    InputError
        For an unknown metric or convention.

    Examples
    --------
    >>> metric = SelectiveMetric("auroc")
    >>> metric.update([0.9, 0.2], [1, 0])
    >>> metric.update([0.5], [1])
    >>> metric.compute()
    1.0
    """

    higher_is_better: bool

    def __init__(self, metric: str, *, convention: str = "exact") -> None:
        if metric not in EXACT:
            raise InputError(
                f"Expected `metric` to be among {', '.join(EXACT)}, but got {metric!r}."
            )
        check_convention(convention, metric=metric)
        self.metric, self.convention = metric, convention
        self.higher_is_better = METRIC_INFO[metric].higher_is_better
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._confidence: list[NDArray[np.float64]] = []
        self._correct: list[NDArray[np.bool_]] = []

    def update(self, confidence: Any, correct: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        confidence
            `(k,)` real numbers, higher is more trusted: an array, a list, or a tensor on any
            device.
        correct
            `(k,)` booleans, or zeros and ones: whether each prediction is right, such as
            `logits.argmax(1) == target`.

        Raises
        ------
        InputError
            For shapes that do not fit, NaN, infinity, or correctness that is not 0 or 1. The
            batch is then left out as a whole.
        """
        score = confidence_array(as_array(confidence), "confidence")
        right = correctness_array(as_array(correct), len(score), "correct", "confidence")
        self._confidence.append(score.astype(np.float64))
        self._correct.append(right)

    def compute(self) -> float:
        """Return the metric over all batches, a fraction; NaN with a warning if undefined."""
        return self._value(*self.samples())

    def samples(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return `(n,)` confidences and `(n,)` correctness of all batches."""
        confidence = np.concatenate([np.empty(0), *self._confidence])
        return confidence, np.concatenate([np.empty(0, dtype=bool), *self._correct])

    def merge_state(self, other: SelectiveMetric) -> None:
        """Add all batches of another one, such as that of another process."""
        self._confidence += other._confidence
        self._correct += other._correct

    def __call__(self, confidence: Any, correct: Any) -> float:
        """Add a batch, and return the metric over it alone."""
        self.update(confidence, correct)
        return self._value(self._confidence[-1], self._correct[-1])

    def _value(self, confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
        return float(getattr(metrics, self.metric)(confidence, correct, convention=self.convention))

    def __len__(self) -> int:
        return sum(map(len, self._correct))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric!r}, convention={self.convention!r})"


class AURC(SelectiveMetric):
    """Area under the risk-coverage curve over all batches, a fraction; lower is better.

    Geifman et al. 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers".

    Examples
    --------
    >>> metric = AURC()
    >>> metric.update([0.9, 0.2], [1, 0])
    >>> metric.compute()
    0.25
    """

    def __init__(self, *, convention: str = "exact") -> None:
        super().__init__("aurc", convention=convention)


class AUGRC(SelectiveMetric):
    """Area under the generalised risk-coverage curve over all batches; lower is better.

    Traub et al. 2024 (arXiv 2407.01032).

    Examples
    --------
    >>> metric = AUGRC()
    >>> metric.update([0.9, 0.2], [1, 0])
    >>> metric.compute()
    0.25
    """

    def __init__(self, *, convention: str = "exact") -> None:
        super().__init__("augrc", convention=convention)


def torchmetric(metric: str = "aurc") -> Any:
    """Return the metric as a `torchmetrics.Metric`, for `MetricCollection` and many processes.

    Parameters
    ----------
    metric
        One name from `metrics.METRICS`, or "eaugrc"; in the `exact` convention.

    Returns
    -------
    torchmetrics.Metric
        With `update(confidence, correct)`; its value is a float64 tensor.

    Raises
    ------
    MissingExtraError
        Without the extra `torchmetrics`.
    InputError
        For an unknown metric.
    """
    return metric_class(SelectiveMetric(metric).metric)()


def as_array(values: Any) -> Any:
    """Bring a tensor on any device, with gradients or not, to NumPy; leave the rest as it is."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        return (values.double() if values.is_floating_point() else values).numpy()
    return values


# The same metrics as a subclass of `torchmetrics.Metric`.


@cache
def metric_class(metric: str) -> Any:
    """Make the class of one metric; torchmetrics is imported here and nowhere else."""
    torchmetrics = require("torchmetrics", extra="torchmetrics", purpose="A torchmetrics metric")
    torch = require("torch", extra="torchmetrics", purpose="A torchmetrics metric")
    base: Any = torchmetrics.Metric

    class SelectiveTorchMetric(base):  # type: ignore[misc]
        """See `torchmetric`."""

        full_state_update = False
        is_differentiable = False
        higher_is_better = SelectiveMetric(metric).higher_is_better

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            for name in ("confidence", "correct"):
                self.add_state(name, default=[], dist_reduce_fx="cat")

        def __reduce__(self) -> tuple[Any, ...]:
            # A class made by a function has no name to be imported by.
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
            value = getattr(metrics, metric)(*map(as_array, whole))
            return torch.tensor(value, dtype=torch.float64, device=self.device)

    return SelectiveTorchMetric
