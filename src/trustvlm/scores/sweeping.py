"""Many settings of weight and temperature on the same images, at the cost of few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trustvlm.exceptions import InputError
from trustvlm.scores.comparison import Comparison, compare
from trustvlm.scores.evidence import Evidence
from trustvlm.scores.registry import ScoreResult, get
from trustvlm.scores.visual import prototype_softmax, verified, voted

__all__ = ["Setting", "sweep", "sweep_comparison"]

Setting = tuple[float, float | None]


def sweep(
    name: str,
    evidence: Evidence,
    *,
    weights: Iterable[float] = (1.0,),
    temperatures: Iterable[float] = (0.01,),
) -> Iterator[tuple[Setting, ScoreResult]]:
    """Yield (weight, temperature) and the result of `trustvlm` or `trustvlm_star` for each pair.

    Cosines and softmax are computed once, the prototype softmax once a temperature. This shows how
    much settings matter. To choose one, use images that are not tested: `TrustVLM.fit(select=...)`.

    Parameters
    ----------
    name
        `trustvlm`, whose temperature is None, or `trustvlm_star`.
    evidence
        With `features` and `bank`, of n images.
    weights, temperatures
        The values of each.

    Raises
    ------
    InputError
        For another score, or a temperature that is not above 0.
    EvidenceMissingError
        If features or prototypes are not there.

    Examples
    --------
    >>> images = Evidence.of(logits=[[0.0, 0.0]], features=[[1.0, 0.0]],
    ...                      support_features=[[1.0, 0.0]], support_labels=[0])
    >>> [(setting, found.confidence.tolist())
    ...  for setting, found in sweep("trustvlm", images, weights=(0.0, 1.0))]
    [((0.0, None), [0.5]), ((1.0, None), [1.5])]
    """
    evidence.demand(get(name).needs, by=name)
    yield from sweep_comparison(name, compare(evidence), weights, temperatures)


def sweep_comparison(
    name: str, found: Comparison, weights: Iterable[float], temperatures: Iterable[float]
) -> Iterator[tuple[Setting, ScoreResult]]:
    """Sweep over a comparison that has been made already, such as that of held-out shots."""
    weights = tuple(weights)
    if name == "trustvlm":
        for weight in weights:
            yield (weight, None), verified(found, weight=weight)
    elif name == "trustvlm_star":
        for temperature in temperatures:
            votes = prototype_softmax(found.similarities, found.present, temperature)
            for weight in weights:
                yield (weight, temperature), voted(found, votes, weight=weight)
    else:
        raise InputError(f"Expected `trustvlm` or `trustvlm_star` to sweep, but got `{name}`.")
