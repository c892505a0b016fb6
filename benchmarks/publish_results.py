"""Make docs/results.md, its figures and the README's table and figure, from ready-made embeddings.

    python benchmarks/publish_results.py CLIP STANDINS [--jobs 2] [--draws 5] [--root .]

CLIP and STANDINS are folders of `<set>__train.npz` and `<set>__test*.npz` as `trustvlm bench
arrays` reads them: of real CLIP models, and of the offline stand-ins. What was measured once is
kept in `examples/published-results`; same arrays and same code give the same files.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import results_data as study
from trustvlm.files import write_text
from trustvlm.metrics.paired import holm
from trustvlm.plots.figure import MUTED, Figure
from trustvlm.plots.panels import Curve, Panel, small_multiples
from trustvlm.plots.risk_coverage import risk_coverage_panel
from trustvlm.risk_control.tests import fewest_images
from trustvlm.scores import get
from trustvlm.tables.markup import render_markdown
from trustvlm.tables.metrics import columns_of, describe_unit
from trustvlm.tables.scores import sight_table, signs_of
from trustvlm.tables.table import UNDEFINED, Cell, Head, Line, Table, signed
from trustvlm.text import join_names

Row = Mapping[str, Any]
BEGIN, END = "<!-- made by `make results`: begin -->", "<!-- made by `make results`: end -->"
TITLES = {
    "dtd_clip_vitb32": "DTD",
    "sun397_clip_vitb32": "SUN397",
    "caltech61_clip_vitb32": "Caltech-61",
    "cifar10_openclip_vitb32": "CIFAR-10",
}
CERTIFIED_WITH = 300

HEAD = """# Results

How well do the scores tell right labels from wrong ones, and how many labels can be accepted
unseen? First with **real CLIP**, then with this project's **offline stand-ins, not CLIP**.

* **Models.** OpenAI's CLIP ViT-B/32 on DTD (47 textures), SUN397 (397 scenes) and 61 classes of
  Caltech-101; OpenCLIP's ViT-B/32 (LAION-2B) on 608 images of CIFAR-10, with bare class names, a
  poor prompt. The encoder that verifies is CLIP's own image encoder. **Nothing was measured with
  DINOv2 as the second encoder**, nor with ViT-B/16, ViT-L/14 or SigLIP: such embeddings were not at
  hand. So these figures compare with no table of the paper.
* **Examples** ("shots"). 1, 4 or 16 a class, drawn five times from other images than those
  tested. SUN397 has 8 a class: where 16 are asked for these are all, and there is one draw.
* **Numbers.** ± is one standard deviation over the draws. In brackets is the 95 % interval over
  images ([how it is made](research/intervals.md); its ends averaged over the draws): how far a
  number would move on other images of the same kind, not with other classes or models.
* **Caution.** The scores whose names begin with `auto` are this project's own, and were developed
  with these sets in view ([how](research/auto.md)): expect a little less elsewhere. The others are
  published methods with their defaults.

All numbers of this page and of the README's table and figure are made by `make results`;
[measured.csv](results/measured.csv) has every metric, also of the stand-ins with fewer examples.
"""

TEAMS = """## What can be accepted

`trustvlm calibrate --risk` takes labelled images and certifies a threshold: with 95 % probability
at most so many of the accepted labels are wrong. The tables show what it then accepts of the
images that were not calibrated on. A split stands for a team that happens to label other images.
"""

RESEARCHERS = """## How the scores compare
"""

STANDINS = """## The offline stand-ins, not CLIP

A weak zero-shot classifier with good image features: ConSE on EfficientNet-Lite0 and MiniLM
predicts, EfficientNet-Lite2 verifies, a second encoder that was trained on ImageNet's labels.
Samples of nine image sets; the splits marked "shift" are of another kind of picture than the
examples. They say how the scores compare, not how good CLIP is.
"""

FOOT = """## Sources

Only figures computed from the embeddings are published here; the project holds none of them.
Image embeddings of DTD, SUN397 and Caltech: github.com/bunnieslala/IMAS at 34a935a (no licence);
text embeddings: github.com/gstoica27/KnOTS at baa35e8 (MIT), github.com/facebookresearch/Detic at
436cda2 (Apache-2.0). CIFAR-10:
github.com/manu-kick/Deep-subspace-aligment-and-modality-gap-dimensions at 241b47d (no licence).
SUN397's order of labels was inferred from the majority prediction of each class; each of its
examples is the mean of ten augmentations of one image. DTD's examples are its validation split.

```
make results CLIP=../shared/embeddings_clip STANDINS=../shared/embeddings
```

takes less than ten minutes, and seconds where nothing changed. How weights, encoders,
missing classes or other domains matter on your own images:
[Compare confidence scores](compare-scores.md).
"""


@dataclass(frozen=True)
class Measured:
    """The rows of one folder of arrays: one for each test split and number of shots."""

    rows: Sequence[Row]

    @property
    def tests(self) -> list[str]:
        """Names of the test splits, those with a title first, in its order."""
        order = [f"{name}__test" for name in TITLES]
        return sorted(
            {row["test"] for row in self.rows},
            key=lambda test: (order.index(test) if test in order else len(order), test),
        )

    @property
    def shots(self) -> list[int]:
        """Numbers of shots, ascending."""
        return sorted({row["shots"] for row in self.rows})

    def row(self, test: str, shots: int | None = None) -> Row:
        """What was measured on one split, by default with the most shots."""
        wanted = shots or self.shots[-1]
        return next(r for r in self.rows if r["test"] == test and r["shots"] == wanted)

    def most(self) -> list[Row]:
        """The rows with the most shots, in the order of the splits."""
        return [self.row(test) for test in self.tests]

    def over_sets(self, shots: int, statistic: Callable[[Sequence[Row]], float]) -> list[float]:
        """A statistic of all splits, and its percentile interval over image sets.

        Sets are resampled, each with all of its splits, which share images or examples.
        """
        by_set: dict[str, list[Row]] = {}
        for row in self.rows:
            if row["shots"] == shots:
                by_set.setdefault(row["set"], []).append(row)
        sets = list(by_set.values())
        rng = np.random.default_rng(0)
        drawn = [
            statistic([row for at in rng.integers(len(sets), size=len(sets)) for row in sets[at]])
            for _ in range(2000)
        ]
        low, high = np.quantile(drawn, (0.025, 0.975))
        return [statistic([row for rows in sets for row in rows]), 0.0, float(low), float(high)]


def title(test: str) -> str:
    name, _, split = test.partition("__test")
    shift = split.strip("_").replace("_", " ")
    return TITLES.get(name, f"{name}, {shift} (shift)" if shift else name)


def examples(shots: int) -> str:
    return f"{shots} example{'' if shots == 1 else 's'} a class"


def ranged(value: Sequence[float | None], scale: float = 100, digits: int = 1) -> Cell:
    """Write a mean, ± over draws, and the interval in brackets."""
    mean, sd, low, high = (math.nan if v is None else scale * v for v in value)
    if math.isnan(mean):
        return Cell(UNDEFINED)
    spread = f"± {sd:.{digits}f} " if sd > 0 else ""
    return Cell(f"{mean:.{digits}f}", f"{spread}[{low:.{digits}f}, {high:.{digits}f}]")


def change(value: Sequence[float], scale: float, *, star: bool = False) -> Cell:
    """Write a difference and its interval."""
    low, high = (signed(scale * end, 1) for end in value[1:3])
    return Cell(signed(scale * value[0], 1, star=star), f"[{low}, {high}]")


def shares(found: Mapping[str, float] | None, digits: int = 1) -> Cell:
    """Write the share that certified thresholds accept, and what most splits lie between."""
    if found is None:
        return Cell(UNDEFINED)
    low, high = (f"{100 * found[part]:.0f}" for part in ("low", "high"))
    return Cell(f"{100 * found['coverage']:.{digits}f}", f"({low}–{high})")


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# What the tables come to, in sentences.


def against(results: Measured, own: str) -> dict[tuple[str, str], tuple[Sequence[float], bool]]:
    """AURC of a score less that of each other that judges like labels, by (score, split).

    With each difference stands whether it is significant, corrected for the scores of a split.
    """
    rivals = [n for n in study.published() if n != own and get(n).corrects == get(own).corrects]
    found = {}
    for row in results.most():
        pairs = []
        for rival in rivals:
            pair = row["differences"].get(f"{own} - {rival}")
            if pair is None:
                difference, low, high, p = row["differences"][f"{rival} - {own}"]["aurc"]
                pairs.append((-difference, -high, -low, p))
            else:
                pairs.append(pair["aurc"])
        adjusted = holm([pair[3] for pair in pairs])
        for rival, pair, p in zip(rivals, pairs, adjusted, strict=True):
            found[rival, row["test"]] = pair, bool(p <= 0.05)
    return found


def tally(results: Measured, own: str) -> str:
    """Say how often a score is better or worse than the others."""
    found = against(results, own)
    better = sum(significant and pair[0] < 0 for pair, significant in found.values())
    worse = [
        f"`{rival}` on {title(test)}"
        for (rival, test), (pair, significant) in found.items()
        if significant and pair[0] > 0
    ]
    rest = len(found) - better - len(worse)
    often = f"all {better}" if better == len(found) else f"{better} of {len(found)}"
    return (
        f"By AURC `{own}` is significantly better in {often} comparisons with scores that "
        f"{'may correct' if get(own).corrects else 'keep'} the label too"
        + (f", and significantly worse than {join_names(worse)}" if worse else "")
        + (f"; in {rest} nothing can be said." if rest else ".")
    )


def gains(results: Measured, score: str) -> str:
    """Say by how many points of AUROC a score exceeds MSP."""
    points = [
        100 * (row["scores"][score]["auroc"][0] - row["scores"]["msp"]["auroc"][0])
        for row in results.most()
    ]
    return f"{min(points):.0f} to {max(points):.0f}"


def corrected(results: Measured, shots: int) -> str:
    """Say what correcting does to the accuracy, and where it does significant harm."""
    found = {
        test: results.row(test, shots)["differences"]["auto_star - msp"]["accuracy"]
        for test in results.tests
    }
    points = [100 * value[0] for value in found.values()]
    harmed = [title(test) for test, value in found.items() if value[2] < 0]
    return (
        f"by {signed(min(points), 1)} to {signed(max(points), 1)} points with {examples(shots)}"
        + (f" (significantly fewer right on {join_names(harmed)})" if harmed else "")
    )


def findings(clip: Measured) -> str:
    least, most = clip.shots[0], clip.shots[-1]
    what = f"{study.RISKS[-1]} {CERTIFIED_WITH}"
    accepted = {
        score: mean(row["certified"][score][what]["coverage"] for row in clip.most()
                    if what in row["certified"][score])
        for score in study.PRACTICAL
    }  # fmt: skip
    paragraphs = (
        f"**For teams.** `auto_star` may correct the VLM's label; the share of right ones changes "
        f"{corrected(clip, least)}, and {corrected(clip, most)}. Certified with {CERTIFIED_WITH} "
        f"labelled images so that at most {100 * study.RISKS[-1]:.0f} % of the accepted labels are "
        f"wrong, it accepts {100 * accepted['auto_star']:.0f} % of new images on average over the "
        f"sets, `auto`, which never changes a label, {100 * accepted['auto']:.0f} %, the paper's "
        f"`trustvlm` {100 * accepted['trustvlm']:.0f} % and MSP, the softmax probability alone, "
        f"{100 * accepted['msp']:.0f} %. What can be accepted depends far more on how good the VLM "
        f"is on the set than on anything else.",
        f"**For researchers.** With {examples(most)}, `auto` has {gains(clip, 'auto')} points of "
        f"AUROC more than MSP, `trustvlm` {gains(clip, 'trustvlm')}. {tally(clip, 'auto')} "
        f"{tally(clip, 'auto_star')} The [tables](#how-the-scores-compare) have each difference.",
    )
    return "\n\n".join(map(wrapped, paragraphs)) + "\n"


def wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


# For teams.


def accepted_table(clip: Measured) -> Table:
    shown = [(score, risk) for risk in study.RISKS[1:] for score in study.PRACTICAL]
    return Table(
        "accepted",
        f"How much is accepted with {CERTIFIED_WITH} labelled images",
        "Percent of new images accepted where at most 5 or 10 % of the accepted labels may be "
        "wrong: mean over random splits, and what four fifths of them lie between; "
        f"{examples(clip.shots[-1])}.",
        (Head("Test images of"), *(Head(f"{s}, {100 * r:.0f} %") for s, r in shown)),
        tuple(
            Line(
                title(row["test"]),
                tuple(shares(row["certified"][s].get(f"{r} {CERTIFIED_WITH}")) for s, r in shown),
            )
            for row in clip.most()
        ),
        notes=f"{study.SPLITS} random splits into calibration and new images for every draw of the "
        "examples. auto_star may correct labels, the others keep the VLM's.",
    )


def honoured(clip: Measured) -> str:
    """Say how often the guarantee did not hold."""
    broken = [
        found["broken"]
        for row in clip.rows
        for of_score in row["certified"].values()
        for found in of_score.values()
    ]
    text = (
        "The guarantee allows that in 5 % of the splits more is wrong than was asked for, among "
        f"all images of the set above the threshold. So it was in {100 * mean(broken):.1f} % on "
        f"average over {len(broken)} combinations of set, score, risk, examples and labelled "
        f"images, and in {100 * max(broken):.0f} % in the worst of them."
    )
    return wrapped(text) + "\n"


def sizes_table(clip: Measured) -> Table:
    """How much auto_star may accept, by examples and labelled images."""
    largest = f"{study.RISKS[0]} {study.SIZES[-1]}"
    tests = [t for t in clip.tests if largest in clip.row(t)["certified"]["auto_star"]]
    columns = [("msp", clip.shots[-1]), *(("auto_star", shots) for shots in clip.shots)]

    def cell(score: str, shots: int, what: str) -> Cell:
        found = [clip.row(test, shots)["certified"][score][what]["coverage"] for test in tests]
        return Cell(f"{100 * mean(found):.0f}" if found else UNDEFINED)

    return Table(
        "sizes",
        "With how many examples and labelled images",
        f"Percent of new images accepted, mean over {join_names(list(map(title, tests)))}: by MSP, "
        "which needs no examples, and by auto_star.",
        (
            Head("Wrong at most, labelled images"),
            Head("msp"),
            *(Head(f"auto_star, {examples(shots)}") for shots in clip.shots),
        ),
        tuple(
            Line(
                f"{100 * risk:.0f} %, {size:,}",
                tuple(cell(*column, f"{risk} {size}") for column in columns),
            )
            for risk in study.RISKS
            for size in study.SIZES
        ),
        notes="Whatever the score, it takes at least "
        + join_names(
            [f"{fewest_images(r)} labelled images for {100 * r:.0f} %" for r in study.RISKS]
        )
        + ".",
    )


def accuracy_table(clip: Measured) -> Table:
    shown = [(name, shots) for name in ("auto_star", "trustvlm_star") for shots in clip.shots]
    return Table(
        "corrected",
        "Whether corrected labels are better",
        "Percent right of the VLM, and how many points more (+) or fewer (−) of the corrected "
        "labels are right, by examples a class; 95 % interval of the paired difference.",
        (Head("Test images of"), Head("VLM", "%"), *(Head(f"{n}, {k}") for n, k in shown)),
        tuple(
            Line(
                title(test),
                (
                    ranged(clip.row(test)["scores"]["msp"]["accuracy"]),
                    *(
                        change(clip.row(test, k)["differences"][f"{n} - msp"]["accuracy"], 100)
                        for n, k in shown
                    ),
                ),
            )
            for test in clip.tests
        ),
        notes="msp, trustvlm and auto keep the VLM's label.",
    )


def outside_table(clip: Measured) -> Table:
    columns = (*study.PRACTICAL, study.GATED, "stopped")
    lines = [
        Line(
            f"{title(test)} with {title(outside['of'])}'s, {examples(shots)}",
            tuple(ranged(outside["accepted"][name]) for name in columns),
        )
        for test in clip.tests
        for shots in clip.shots
        if (outside := clip.row(test, shots).get("outside"))
    ]
    return Table(
        "outside",
        "Images of none of the classes",
        f"Percent of another set's images that are accepted at the threshold that keeps "
        f"{100 * study.KEPT:.0f} % of the right labels; {100 * study.OUTSIDE:.0f} % of the batch "
        "are such images.",
        (Head("Batch"), *map(Head, (*columns[:-1], "price of the gate"))),
        tuple(lines),
        notes="The gate is that of predict and calibrate, which sends what resembles the examples "
        "too little to review; its price is the percentage of the right labels above the threshold "
        "that it stops too. A certificate speaks of such images only if the calibration images "
        "hold them in the same proportion.",
    )


# For researchers.


def sees_table() -> Table:
    """What the published scores see, and why those that correct are not compared with the rest."""
    table = sight_table(study.published())
    return replace(
        table,
        legend="† may change the label; ‡ sees the whole batch.",
        notes=f"{table.notes} Of scores with †, measures of the order alone (AUROC, FPR95, E-AURC) "
        "judge other labels, so that only accuracy and AURC compare with scores without †.",
    )


def metric_tables(results: Measured, shots: int) -> Iterator[str]:
    columns = columns_of(study.METRICS)
    for row in (results.row(test, shots) for test in results.tests):
        wrong = round(row["n"] * (1 - row["scores"]["msp"]["accuracy"][0]))
        held, draws = row["shots_held"], row["draws"]
        yield render_markdown(
            Table(
                f"metrics-{shots}-{row['test']}",
                f"{title(row['test'])}, {examples(shots)}",
                f"{row['n']:,} images of {row['classes']} classes; the VLM has {wrong:,} wrong. "
                + (f"The set has {held:g} examples a class on average. " if held < shots else "")
                + f"{draws} draw{'s' if draws > 1 else ''}.",
                (Head("Score"), *(Head(c.title, c.sign) for c in columns)),
                tuple(
                    Line(
                        name,
                        tuple(ranged(values[c.name], c.scale) for c in columns),
                        signs=signs_of(name),
                    )
                    for name, values in row["scores"].items()
                ),
            )
        )


def difference_table(results: Measured, own: str) -> Table:
    found = against(results, own)
    rivals = list(dict.fromkeys(rival for rival, _ in found))
    return Table(
        f"against-{own}",
        f"{own} against the others",
        f"AURC of {own} less that of the other score, ×1000: below 0, {own} is better. "
        f"{examples(results.shots[-1])}; 95 % interval of the paired difference; *: p ≤ 0.05 after "
        "Holm's correction in a column.",
        (Head(f"{own} less"), *(Head(title(test)) for test in results.tests)),
        tuple(
            Line(
                rival,
                tuple(
                    change(found[rival, test][0], 1000, star=found[rival, test][1])
                    for test in results.tests
                ),
            )
            for rival in rivals
        ),
    )


# The stand-ins.


def standin_table(results: Measured) -> Table:
    shown = (
        *(("accuracy", score) for score in ("msp", "auto_star")),
        *(("auroc", score) for score in ("msp", "trustvlm", "auto")),
        *(("aurc", score) for score in ("trustvlm_star", "auto_star", "auto_adapted_star")),
    )
    column = {c.name: c for c in columns_of(study.METRICS)}
    least = results.shots[0]
    lines = [
        Line(
            title(row["test"]),
            (
                *(ranged(row["scores"][s][m], column[m].scale) for m, s in shown),
                change(_gained(results.row(row["test"], least)), 100),
            ),
        )
        for row in results.most()
    ]
    return Table(
        "standins",
        f"Each split, {examples(results.shots[-1])}",
        "AUROC of scores that keep the label, AURC of scores that may correct it. Last: how many "
        f"points more labels auto_star has right than the VLM with {examples(least)}.",
        (
            Head("Test images of"),
            *(Head(f"{s}: {column[m].title}", column[m].sign) for m, s in shown),
            Head(f"auto_star, {least}", "points"),
        ),
        tuple(lines),
        notes="auto_adapted_star sees the unlabelled batch.",
    )


def _gained(row: Row) -> Sequence[float]:
    gained: Sequence[float] = row["differences"]["auto_star - msp"]["accuracy"]
    return gained


def ratio_table(results: Measured) -> Table:
    """Ratios to the paper's scores, with intervals over sets."""
    lines = [
        Line(
            name,
            tuple(ranged(results.over_sets(k, _ratio(name)), 1, 2) for k in results.shots),
            signs=signs_of(name),
        )
        for name in study.published()
        if name not in _PAPER.values()
    ]
    return Table(
        "ratios",
        "Against the paper's scores",
        f"E-AURC divided by that of trustvlm; †: AURC divided by that of trustvlm_star. Below 1 is "
        f"better. {len(results.tests)} splits, 95 % interval over image sets.",
        (Head("Score"), *(Head(examples(shots)) for shots in results.shots)),
        tuple(lines),
        notes="Without † a ratio of means over splits, with † a geometric mean of ratios. The "
        "interval is what other sets of this kind would give.",
    )


_PAPER = {False: "trustvlm", True: "trustvlm_star"}


def _ratio(name: str) -> Callable[[Sequence[Row]], float]:
    corrects = get(name).corrects
    metric = "aurc" if corrects else "eaurc"

    def ratio(rows: Sequence[Row]) -> float:
        pairs = np.array(
            [[row["scores"][s][metric][0] for s in (name, _PAPER[corrects])] for row in rows]
        )
        if not corrects:
            return float(pairs[:, 0].mean() / pairs[:, 1].mean())
        # A perfect order of labels that are all right has no logarithm.
        pairs = pairs[(pairs > 0).all(axis=1)]
        return float(np.exp(np.log(pairs[:, 0] / pairs[:, 1]).mean()))

    return ratio


# The figure.


def panel(row: Row) -> Panel:
    """Draw risk against coverage of what teams choose among, beside two perfect orders."""

    def label(name: str, aurc: float) -> str:
        return f"{name}: AURC {1000 * aurc:.0f}"

    aurc = {name: row["scores"][name]["aurc"][0] for name in study.PRACTICAL}
    curves = {label(name, aurc[name]): row["curves"][name] for name in study.PRACTICAL}
    drawn = risk_coverage_panel(
        "",
        {name: (study.COVERAGE, curve["risk"]) for name, curve in curves.items()},
        bands={name: (curve["low"], curve["high"]) for name, curve in curves.items()},
    )
    oracles = {}
    for name, of, dash in (("msp", "VLM's labels", ":"), ("auto_star", "auto_star's", "--")):
        best = aurc[name] - row["scores"][name]["eaurc"][0]
        style = {"color": MUTED, "linestyle": dash, "linewidth": 1.4, "zorder": 2}
        risk = 100 * np.array(row["oracle"][name])
        oracles[label(f"oracle, {of}", best)] = Curve(100 * study.COVERAGE, risk, style=style)
    return replace(drawn, curves={**drawn.curves, **oracles})


def figure(clip: Measured) -> Figure:
    """Draw the first set with the most shots."""
    row = clip.most()[0]
    shown = panel(row)
    drawn = small_multiples(
        [shown],
        name="risk-coverage",
        title=f"Risk-coverage curves with real CLIP on {title(row['test'])}",
        caption="Share wrong among the accepted against the share accepted, from 5 % on; lower is "
        f"better. {title(row['test'])}, CLIP ViT-B/32, {examples(row['shots'])}, mean over "
        f"{row['draws']} draws; pale: 95 % bands over images. Oracle: a perfect order. AURC ×1000.",
        x_label="accepted images, most trusted first (%)",
        y_label="wrong among the accepted (%)",
        highlight=next(label for label in shown.curves if label.startswith("auto_star")),
    )
    return replace(drawn, width=680, height=360)


# The README.


def readme(clip: Measured, standins: Measured, drawn: Figure, picture: str) -> str:
    most = clip.shots[-1]
    opening = (
        f"With **real CLIP** ViT-B/32, its own image encoder verifying, and {examples(most)} (8 on "
        f"SUN397): the paper's TrustVLM has {gains(clip, 'trustvlm')} points of AUROC more than "
        f"the softmax probability alone (MSP), and `auto`, this project's score, which weighs "
        f"text and examples by cross-validation, {gains(clip, 'auto')}; neither changes a "
        "label. `auto_star` (auto\\*) may correct it. *Accepted* is the share of new images that a "
        f"threshold certified with {CERTIFIED_WITH} labelled images lets through, so that at most "
        f"{100 * study.RISKS[-1]:.0f} % of them are wrong."
    )
    closing = (
        "In brackets: 95 % intervals over images; after accepted shares, what four fifths of the "
        "splits into calibration and new images lie between; of the stand-ins, over their image "
        "sets. AUROC: how often a right label is trusted more than a wrong one. Means of five "
        "draws of the examples (one on SUN397). **Nothing was measured with DINOv2 as the second "
        "encoder.** The last line is of the **offline stand-ins, not CLIP**, which the demo and "
        "the commands above use. [All results](docs/results.md): fewer examples, fewer labelled "
        "images, every score, images of none of the classes. `make results` makes them."
    )
    columns = (
        *(("accuracy", score) for score in ("msp", "auto_star")),
        *(("auroc", score) for score in ("msp", "trustvlm", "auto")),
    )
    what = f"{study.RISKS[-1]} {CERTIFIED_WITH}"
    lines = [
        "| test images of (n) | right %: VLM | auto\\* | AUROC: MSP | TrustVLM | auto "
        "| accepted %: MSP | TrustVLM | auto\\* |",
        f"|---|{'--:|' * 8}",
    ]
    accepting = ("msp", "trustvlm", "auto_star")
    for row in clip.most():
        cells = [_short(row["scores"][s][m]) for m, s in columns]
        cells += [shares(row["certified"][score].get(what), 0) for score in accepting]
        lines.append(_line(f"{title(row['test'])} ({row['n']:,})", cells))
    weak = [
        standins.over_sets(
            standins.shots[-1], lambda rows, m=m, s=s: mean(r["scores"][s][m][0] for r in rows)
        )
        for m, s in columns
    ]
    count = sum(row["n"] for row in standins.most())
    name = f"{len(standins.tests)} splits, stand-ins, **not CLIP** ({count:,})"
    lines.append(_line(name, [*map(_short, weak), *[Cell(UNDEFINED)] * len(accepting)]))
    table = "\n".join(lines)
    image = f"![{drawn.title}]({picture})"
    return "\n\n".join([wrapped(opening), table, image, wrapped(drawn.caption), wrapped(closing)])


def _short(value: Sequence[float]) -> Cell:
    """Write a percentage and its interval in little room."""
    shown, _, low, high = (100 * v if v is not None else math.nan for v in value)
    return Cell(f"{shown:.1f}", f"[{low:.0f}, {high:.0f}]")


def _line(name: str, cells: Sequence[Cell]) -> str:
    # Intervals below the numbers: the columns fit the width of the page.
    texts = [f"{cell.text}<br>{cell.aside}" if cell.aside else cell.text for cell in cells]
    return f"| {name} | {' | '.join(texts)} |"


def between_markers(text: str, new: str) -> str:
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"Expected README.md to hold {BEGIN} and {END}.")
    return f"{head}{BEGIN}\n{new.strip()}\n{END}{tail}"


# The page.


def document(clip: Measured, standins: Measured, drawn: Figure, picture: str) -> Iterator[str]:
    yield HEAD
    yield findings(clip)
    yield TEAMS
    yield render_markdown(accepted_table(clip))
    yield honoured(clip)
    yield f"![{drawn.title}]({picture})\n\n{wrapped(drawn.caption)}\n"
    yield render_markdown(sizes_table(clip))
    yield render_markdown(accuracy_table(clip))
    if (outside := outside_table(clip)).lines:
        yield render_markdown(outside)
    yield RESEARCHERS
    units = "; ".join(map(describe_unit, columns_of(study.METRICS[1:])))
    yield (
        wrapped(
            f"{units}. FPR95 rests on the wrong labels alone, which are few where the VLM is good: "
            "do not read it without its interval."
        )
        + "\n"
    )
    yield render_markdown(sees_table())
    yield from metric_tables(clip, clip.shots[-1])
    for own in ("auto", "auto_star"):
        yield render_markdown(difference_table(clip, own))
    if fewer := clip.shots[:-1]:
        yield "<details><summary>The same with fewer examples</summary>\n"
        for shots in fewer:
            yield from metric_tables(clip, shots)
        yield "</details>\n"
    yield STANDINS
    yield render_markdown(ratio_table(standins))
    yield render_markdown(standin_table(standins))
    yield FOOT


def write_rows(results: Mapping[str, Measured], file: Path) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    about = ("test", "shots", "draws", "n")
    parts = [f"{m}_{part}" for m in study.METRICS for part in ("mean", "sd", "low", "high")]
    writer.writerow(["models", *about, "score", *parts])
    for models, one in results.items():
        for row in one.rows:
            for score, values in row["scores"].items():
                numbers = [v for metric in study.METRICS for v in values[metric]]
                shown = ["" if v is None else f"{v:.4f}" for v in numbers]
                writer.writerow([models, *(row[key] for key in about), score, *shown])
    write_text(file, stream.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("standins", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--draws", type=int, default=study.DRAWS)
    parser.add_argument("--shots", default=",".join(map(str, study.SHOTS)))
    parser.add_argument("--root", type=Path, default=Path())
    options = parser.parse_args(arguments)
    shots = [int(number) for number in options.shots.split(",")]
    kept = options.root / "examples" / "published-results"
    results = []
    for folder in (options.clip, options.standins):
        wanted = study.cells(folder, shots, options.draws, practical=folder == options.clip)
        if not wanted:
            parser.error(f"expected {folder} to hold <set>__train.npz and <set>__test.npz")
        results.append(Measured(study.measured(wanted, kept, options.jobs)))
    clip, standins = results
    docs = options.root / "docs"
    picture, drawn = docs / "images" / "risk-coverage.svg", figure(clip)
    drawn.save(picture)
    page = "\n".join(document(clip, standins, drawn, picture.relative_to(docs).as_posix()))
    write_text(docs / "results.md", page.rstrip() + "\n")
    write_rows({"CLIP": clip, "stand-ins": standins}, docs / "results" / "measured.csv")
    front = options.root / "README.md"
    new = readme(clip, standins, drawn, picture.relative_to(options.root).as_posix())
    write_text(front, between_markers(front.read_text(encoding="utf-8"), new))
    print(f"{docs / 'results.md'}, {front}")


if __name__ == "__main__":
    main()
