"""The facts of each metric: title, the unit papers print it in, which end is good, meaning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """What is to be said of one metric.

    Attributes
    ----------
    name
        Its function in `trustvlm.metrics`, and for all but `nll` its attribute of
        `metrics.Evaluation`.
    title
        Its usual abbreviation.
    scale
        Factor to the unit it is printed in: 1000 for the AURC family, 100 for percent, 1 for
        nats.
    higher_is_better
        Which end is good.
    meaning
        One sentence for readers who have not met the metric.
    """

    name: str
    title: str
    scale: int
    higher_is_better: bool
    meaning: str

    @property
    def unit(self) -> str:
        """The unit it is printed in, in ASCII.

        Examples
        --------
        >>> METRIC_INFO["auroc"].unit, METRIC_INFO["aurc"].unit
        ('%', 'x1000')
        """
        return {1: "nats", 100: "%"}.get(self.scale, f"x{self.scale}")


METRIC_INFO = {
    info.name: info
    for info in (
        MetricInfo(
            "accuracy",
            "Accuracy",
            100,
            True,
            "Share of the images whose predicted label is right.",
        ),
        MetricInfo(
            "aurc",
            "AURC",
            1000,
            False,
            "Area under the risk-coverage curve: the share of wrong labels among the "
            "accepted images, averaged over every possible number of accepted images.",
        ),
        MetricInfo(
            "eaurc",
            "E-AURC",
            1000,
            False,
            "Excess AURC: what is left of the AURC when that of a perfect order (all right "
            "labels first) is subtracted, so that only the quality of the order counts.",
        ),
        MetricInfo(
            "augrc",
            "AUGRC",
            1000,
            False,
            "Area under the generalised risk-coverage curve: the share of all images that "
            "are accepted and wrong, averaged over every possible number of accepted images.",
        ),
        MetricInfo(
            "eaugrc",
            "E-AUGRC",
            1000,
            False,
            "Excess AUGRC: what is left of the AUGRC when that of a perfect order (all right "
            "labels first) is subtracted.",
        ),
        MetricInfo(
            "auroc",
            "AUROC",
            100,
            True,
            "How often a right prediction is trusted more than a wrong one, over all such "
            "pairs; 50 % is a coin toss.",
        ),
        MetricInfo(
            "fpr95",
            "FPR95",
            100,
            False,
            "Share of the wrong predictions that are still accepted when the threshold "
            "lets 95 % of the right ones through.",
        ),
        MetricInfo(
            "aupr_success",
            "AUPR-success",
            100,
            True,
            "Area under the precision-recall curve that looks for right predictions among "
            "the most trusted; its floor is the accuracy.",
        ),
        MetricInfo(
            "aupr_error",
            "AUPR-error",
            100,
            True,
            "Area under the precision-recall curve that looks for wrong predictions among "
            "the least trusted; its floor is the error rate.",
        ),
        MetricInfo(
            "nll",
            "NLL",
            1,
            False,
            "Negative log-likelihood (log loss) of the probabilities of being right: large where "
            "a label that is nearly certain turns out otherwise.",
        ),
    )
}
"""Every metric by name, in the order of tables."""

METRICS = tuple(name for name in METRIC_INFO if name not in ("eaugrc", "nll"))
"""The metrics of tables and studies: those of a confidence that both conventions define."""
