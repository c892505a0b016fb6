"""Figures of studies with two settings: tuning, encoders and models, and shifts of domain."""

from __future__ import annotations

from collections.abc import Sequence

from trustvlm.benchmark.drawing import Drawing
from trustvlm.benchmark.heat_map import heat_map
from trustvlm.benchmark.metric_columns import METRIC_COLUMNS
from trustvlm.benchmark.results import Row
from trustvlm.benchmark.table import slug

__all__ = ["encoder_figure", "sensitivity_figure", "shift_figure"]


def sensitivity_figure(
    rows: Sequence[Row],
    metric: str,
    *,
    chosen: tuple[float, float] | None = (1.0, 0.01),
    banner: str = "",
    convention: str = "exact",
) -> Drawing:
    """Draw a metric by weight and temperature; a frame marks the chosen pair.

    Parameters
    ----------
    rows
        As of `Results`, of one score, with `weight` and `temperature`.
    metric
        Its name.
    chosen
        Weight and temperature that are framed; the untuned setting by default.
    banner, convention
        As of `heat_map`.
    """
    return heat_map(
        rows,
        metric,
        keys=("weight", "temperature"),
        words=("weight r of the visual term", "temperature T of the prototypes"),
        name=f"sensitivity-{slug(metric)}",
        title=f"{METRIC_COLUMNS[metric].title} by weight and temperature",
        framed=chosen,
        banner=banner,
        convention=convention,
    )


def encoder_figure(rows: Sequence[Row], metric: str, *, convention: str = "exact") -> Drawing:
    """Draw a metric by the model that predicts and the encoder that verifies.

    Parameters
    ----------
    rows
        As of `Results`, of one score and one number of shots, with `vlm` and `vision`.
    metric
        Its name.
    convention
        Of the metric.
    """
    return heat_map(
        rows,
        metric,
        keys=("vlm", "vision"),
        words=("predicting model", "verifying encoder"),
        name=f"encoders-{slug(metric)}-{slug(str(rows[0]['score']))}" if rows else "encoders",
        title=f"{METRIC_COLUMNS[metric].title} by model and encoder",
        convention=convention,
    )


def shift_figure(
    rows: Sequence[Row], metric: str, *, name: str = "", of: str = "", convention: str = "exact"
) -> Drawing:
    """Draw a metric by the domain that the shots are from and the data set that is tested.

    Parameters
    ----------
    rows
        As of `Results`, with `support`; of one number of shots.
    metric
        Its name.
    name, of, convention
        As of `heat_map`.
    """
    return heat_map(
        rows,
        metric,
        keys=("support", "dataset"),
        words=("shots from", "tested on"),
        name=name or f"shift-{slug(metric)}",
        title=f"{METRIC_COLUMNS[metric].title} with shots of another domain",
        of=of,
        shade_columns=True,
        convention=convention,
    )
