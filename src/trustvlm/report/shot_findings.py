"""What is remarkable about the examples of a model, in words, for terminal and page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trustvlm.report.wording import counted, percent

if TYPE_CHECKING:
    from trustvlm.decisions.health import Health
    from trustvlm.pipeline.shot_health import ShotHealth

__all__ = ["ShotCase", "ShotGroup", "shot_groups", "shot_summary"]


@dataclass(frozen=True)
class ShotCase:
    """One thing to look at.

    Attributes
    ----------
    shots
        Indices of the examples that show it; none where it is about whole classes.
    text
        What it is.
    """

    shots: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class ShotGroup:
    """Things of one kind to look at, the most telling first."""

    title: str
    meaning: str
    cases: tuple[ShotCase, ...]


def shot_summary(found: ShotHealth) -> str:
    """Say in a sentence how the examples are."""
    health = found.health
    of = (
        f"{counted(health.n_shots, 'example image')} of "
        f"{counted(health.n_classes, 'class', 'classes')}"
    )
    if health.sound:
        return f"{of}: nothing remarkable was found."
    parts = [
        (len(health.suspects), "label looks wrong", "labels look wrong"),
        (len(health.odd), "example is odd", "examples are odd"),
        (len(health.copies), "pair is nearly the same image", "pairs are nearly the same image"),
        (len(health.relatives), "pair of classes is hard to tell apart", ""),
        (len(health.thin), "class has too few examples", "classes have too few examples"),
    ]
    plural = "pairs of classes are hard to tell apart"
    told = [counted(n, one, many or plural) for n, one, many in parts if n]
    return f"{of}: {', '.join(told)}."


def shot_groups(found: ShotHealth) -> list[ShotGroup]:
    """Return everything to look at, group by group; groups without cases are left out."""
    health, names = found.health, found.class_names
    groups = [
        ShotGroup("Labels that look wrong", _about_suspects(health), _suspects(found)),
        ShotGroup(
            "Odd examples",
            "They resemble the rest of their class far less than is usual, and no other class "
            "explains them. Look at them: a wrong crop, a broken file, another view?",
            tuple(
                ShotCase(
                    (odd.shot,),
                    f"in '{names[odd.label]}': cosine {odd.similarity:.2f} to the rest, usually "
                    f"{odd.usual:.2f}",
                )
                for odd in health.odd
            ),
        ),
        ShotGroup(
            "Nearly the same image",
            f"Pairs with a cosine of {health.alike_from:.3f} or more. A copy adds nothing to its "
            "class; one filed under two classes is wrong in one of them.",
            _copies(found),
        ),
        ShotGroup(
            "Classes that are hard to tell apart",
            "Judged by the examples of both, each without itself; 50\N{NO-BREAK SPACE}% is a coin "
            "toss. Two names for one thing should be merged; close relatives want more examples.",
            tuple(
                ShotCase(
                    (),
                    f"'{names[pair.one]}' and '{names[pair.other]}': told apart in "
                    f"{percent(pair.separability, 0)} of cases"
                    + ("; nothing shows that these are two classes" if pair.duplicate else ""),
                )
                for pair in health.relatives
            ),
        ),
        ShotGroup(
            "Classes with too few examples",
            "Certainty is the expected cosine of the class's prototype with that of endlessly many "
            "examples. Below 0.80 a few more examples pay most.",
            tuple(
                ShotCase(
                    (),
                    f"'{names[thin.label]}': "
                    f"{counted(thin.shots, 'example') if thin.shots else 'no example'}, certainty "
                    f"{thin.certainty:.2f}; about {thin.enough} would reach 0.90",
                )
                for thin in health.thin
            ),
        ),
    ]
    return [group for group in groups if group.cases]


def _about_suspects(health: Health) -> str:
    right = sum(1.0 - suspect.probability for suspect in health.suspects)
    return (
        "Judged by all other examples, they show another class. About "
        f"{max(right, 0.05):.1f} of these {len(health.suspects)} are expected to be right after "
        "all: correct or remove what you find wrong, and fit again."
    )


def _suspects(found: ShotHealth) -> tuple[ShotCase, ...]:
    names = found.class_names
    return tuple(
        ShotCase(
            (suspect.shot,),
            f"labelled '{names[suspect.label]}', looks like '{names[suspect.looks_like]}'; "
            f"probably wrong ({percent(suspect.probability, 0)})",
        )
        for suspect in found.health.suspects
    )


def _copies(found: ShotHealth) -> tuple[ShotCase, ...]:
    return tuple(
        ShotCase(
            (pair.image, pair.other),
            f"cosine {pair.cosine:.3f}, {_classes(found, (pair.image, pair.other))}",
        )
        for pair in found.health.copies
    )


def _classes(found: ShotHealth, shots: Iterable[int]) -> str:
    names = list(dict.fromkeys(found.class_names[found.labels[shot]] for shot in shots))
    if len(names) == 1:
        return f"both in '{names[0]}'"
    return f"filed under two classes, '{names[0]}' and '{names[1]}'"
