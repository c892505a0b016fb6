"""What terminal and page say about the examples, about what to label next, and about drift."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from PIL import Image

from evaluations import make_evaluation
from trustvlm.data_quality.checks import Health, PrototypeReliability
from trustvlm.data_quality.duplicates import DuplicatePair
from trustvlm.data_quality.label_errors import SuspectLabel
from trustvlm.data_quality.label_next import Advice, ClassAdvice, CoverageGain
from trustvlm.data_quality.outliers import Outlier
from trustvlm.data_quality.overlapping_classes import OverlappingClasses
from trustvlm.decisions import DriftMonitor
from trustvlm.pipeline.evaluate import NearCopies, NearCopy
from trustvlm.pipeline.monitor import DriftReport
from trustvlm.pipeline.shot_quality import ShotHealth
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report.page import render_html
from trustvlm.report.sections import shot_groups, shot_summary
from trustvlm.report.terminal import (
    by_examples_alone,
    by_labelled_images,
    drift_caution,
    drift_sentence,
)

SOUND = Health(
    n_shots=6,
    n_classes=3,
    noise=0.01,
    suspects=(),
    outliers=(),
    near_duplicates=(),
    near_duplicate_threshold=0.95,
    overlapping_classes=(),
    prototype_reliability=(
        PrototypeReliability(0, 2, 0.95, 2),
        PrototypeReliability(1, 3, 0.9, 3),
        PrototypeReliability(2, 1, 0.85, 2),
    ),
)
TROUBLE = dataclasses.replace(
    SOUND,
    suspects=(SuspectLabel(0, 0, 1, 0.97, 0.97),),
    expected_wrong=1.4,
    outliers=(Outlier(3, 1, 0.21, 0.65, -5.0),),
    near_duplicates=(DuplicatePair(1, 2, 0.99), DuplicatePair(4, 5, 0.97)),
    overlapping_classes=(
        OverlappingClasses(0, 2, 0.5, 0.4, True),
        OverlappingClasses(0, 1, 0.8, 0.01, False),
    ),
    prototype_reliability=(
        PrototypeReliability(0, 2, 0.7, 9),
        PrototypeReliability(1, 3, 0.9, 3),
        PrototypeReliability(2, 0, 0.0, 12),
    ),
)


def make_health(health=TROUBLE, folder="", names=("cat", "dog", "owl"), hashes=("",) * 6):
    return ShotHealth(
        health=health,
        class_names=names,
        labels=(0, 0, 1, 1, 1, 1),
        paths=tuple(f"{i}.png" for i in range(6)),
        folder=str(folder),
        hashes=hashes,
    )


class TestWords:
    def test_every_finding_is_told_with_names(self):
        texts = {
            group.title: [case.text for case in group.cases] for group in shot_groups(make_health())
        }
        plain = {title: [t.replace("\u00a0", " ") for t in every] for title, every in texts.items()}
        assert plain == {
            "Labels that look wrong": ["labelled 'cat', looks like 'dog'; probably wrong (97 %)"],
            "Outliers": ["in 'dog': cosine 0.21 to the rest, usually 0.65"],
            "Near-duplicates": [
                "cosine 0.990, filed under two classes, 'cat' and 'dog'",
                "cosine 0.970, both in 'dog'",
            ],
            "Classes that are hard to tell apart": [
                "'cat' and 'owl': told apart in 50 % of cases; nothing shows that these are two "
                "classes",
                "'cat' and 'dog': told apart in 80 % of cases",
            ],
            "Classes with too few examples": [
                "'owl': no example, reliability 0.00; about 12 would reach 0.90",
                "'cat': 2 examples, reliability 0.70; about 9 would reach 0.90",
            ],
        }
        assert shot_groups(make_health())[0].cases[0].shots == (0,)
        assert shot_groups(make_health())[2].cases[0].shots == (1, 2)

    def test_the_wrong_labels_among_the_first_are_counted(self):
        suspects = tuple(SuspectLabel(0, 0, 1, 0.9, 0.9 * k) for k in range(1, 23))
        health = dataclasses.replace(TROUBLE, suspects=suspects, expected_wrong=23.16)
        assert (
            "Expected to be wrong: 9.0 of the first 10, 18.0 of the first 20, 19.8 of all 22; 3.4 "
            "more among the examples that are not listed."
        ) in shot_groups(make_health(health))[0].meaning
        assert "wrong: 1.0 of all 1; 0.4 more" in shot_groups(make_health())[0].meaning

    def test_the_summary_counts(self):
        assert shot_summary(make_health()) == (
            "6 example images of 3 classes: 1 label looks wrong, 1 example is an outlier, 2 "
            "pairs are near-duplicates, 2 pairs of classes are hard to tell apart, 2 classes have "
            "too few examples."
        )
        assert shot_summary(make_health(SOUND)).endswith("nothing remarkable was found.")
        assert shot_groups(make_health(SOUND)) == []

    def test_advice_is_told_with_intervals(self):
        gain = CoverageGain(0.61, 0.634, -0.003, 0.05)
        advice = Advice(120, 0.05, (ClassAdvice(1, 7.75, 0.01, gain),) * 2, gain, 2)
        lines = [line.replace("\u00a0", " ") for line in by_labelled_images(advice, "abc")]
        assert lines[0].startswith(
            "Label next, tried out on 120 labelled images; accepted means at"
        )
        assert lines[1] == (
            "  1. 'b': 8 more examples, accepted 61.0 % -> 63.4 % (+2.4; 95 % interval -0.3 to "
            "+5.0)"
        )
        assert lines[3].startswith("  The best 2 at once: accepted 61.0 % -> 63.4 %")
        nothing = Advice(120, 0.05, (), None, 0)
        assert by_labelled_images(nothing, "abc") == [
            "Label next: of no class did further examples help, tried out on 120 labelled images."
        ]

    def test_without_labelled_images_the_least_certain_classes_come_first(self):
        lines = by_examples_alone(TROUBLE, ("cat", "dog", "owl"), most=2)
        assert lines[1:] == [
            "  1. 'owl': reliability 0.00 with 0 examples",
            "  2. 'cat': reliability 0.70 with 2 examples",
        ]


def watched(values, calibration=None, **changes):
    start = {"confidence": np.linspace(0, 1, 40) if calibration is None else calibration}
    monitor = DriftMonitor.start(start).after({"confidence": values})
    latest = {"confidence": float(np.median(values)) if len(values) else math.nan}
    fields = {"new": len(values), "repeated": 0, "failures": Verdicts([]), "latest": latest}
    return DriftReport(monitor, "40 reference images", **{**fields, **changes})


class TestDriftWords:
    def test_no_drift(self):
        rng = np.random.default_rng(0)
        sentence = drift_sentence(watched(rng.random(30), repeated=2))
        assert sentence.startswith(
            "No drift: 30 new images, 30 images in all (2 images seen before left out); they look "
            "like the 40 reference images."
        )
        assert sentence.endswith("the alarm is raised at 10,000.")

    @pytest.mark.parametrize(("value", "verb"), [(-1.0, "fell"), (2.0, "rose")])
    def test_drift_says_what_changed_when_and_how_sure_it_is(self, value, verb):
        result = watched(np.full(60, value))
        after = result.monitor.streams["confidence"].drifted_after
        sentence = drift_sentence(result)
        assert (
            f"the confidence of the verdicts {verb} (median {value:.2f}, usually 0.50), noticed "
            f"after {after} images (60 new images, 60 images in all)"
        ) in sentence
        assert "at most 1 in 10,000" in sentence

    def test_a_quiet_night_after_an_alarm_still_tells_it(self):
        result = dataclasses.replace(
            watched(np.full(60, 2.0)), new=0, latest={"confidence": math.nan}
        )
        assert "rose (median 2.00" in drift_sentence(result)

    def test_few_images_to_compare_with_are_pointed_out(self):
        assert "with 5 images to compare with" in drift_caution(watched([], np.arange(5.0)))
        assert drift_caution(watched([])) == ""


class TestPage:
    def test_the_section_shows_unchanged_files_only(self, tmp_path):
        hashes = []
        for i in range(6):
            Image.new("RGB", (20, 10), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
            hashes.append(hashlib.sha256((tmp_path / f"{i}.png").read_bytes()).hexdigest())
        (tmp_path / "3.png").write_bytes(b"changed")
        (tmp_path / "1.png").unlink()
        health = make_health(folder=tmp_path, hashes=tuple(hashes))
        page = render_html(make_evaluation(health=health))
        section = page[page.index('id="examples"') : page.index('id="facts"')]
        assert section.count("<img ") == 4
        assert section.count(">image not available<") == 2
        for i in range(6):
            assert f"{i}.png" in section
        assert "probably wrong" in section
        assert '<a href="#examples">' in page

    def test_hostile_names_are_escaped(self):
        names = ("<script>alert(1)</script>", '"><img src=x>', "owl")
        page = render_html(make_evaluation(health=make_health(names=names)))
        assert "<script>alert" not in page
        assert "<img src=x" not in page

    def test_long_lists_are_cut_and_say_so(self):
        many = dataclasses.replace(TROUBLE, suspects=TROUBLE.suspects * 20)
        page = render_html(make_evaluation(health=make_health(many)))
        assert page.count("probably wrong") == 6
        assert "14 more not shown" in page

    def test_without_a_look_at_the_examples_there_is_no_section(self):
        page = render_html(make_evaluation())
        assert 'id="examples"' not in page
        assert '"#examples"' not in page

    def test_near_copies_are_a_caution(self):
        copies = NearCopies((NearCopy("a.png", "shots/b.png", 0.981),) * 5, 0.95)
        page = render_html(make_evaluation(near_copies=copies))
        assert "5 images are nearly the same as an example image (cosine 0.95 or more)" in page
        assert "a.png and shots/b.png (0.981)" in page
