from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluations import make_evaluation
from trustvlm import Verdicts
from trustvlm.images.decoding import thumbnail
from trustvlm.report import render_html
from trustvlm.report.sections import class_rows, confusions, galleries, shots_by_class
from trustvlm.report.summary import Acceptance, cautions, findings, working_points
from trustvlm.scores import ScoreResult
from trustvlm.tables.metrics import all_columns, by_aurc


def acceptances(evaluation):
    return {
        name: Acceptance.of(evaluation.results[name].confidence, evaluation.correct(name))
        for name in (evaluation.score, "msp")
    }


class TestCorrections:
    def test_they_are_counted_with_what_they_were_worth(self):
        evaluation = make_evaluation(n=200, score="trustvlm_star")
        vlm = evaluation.results["msp"].prediction
        own = evaluation.results["trustvlm_star"].prediction
        changed, labels = vlm != own, evaluation.labels
        right, before = (changed & (own == labels)).sum(), (changed & (vlm == labels)).sum()
        (sentence,) = [s for s in findings(evaluation, acceptances(evaluation)) if "The VLM" in s]
        assert sentence == (
            f"The VLM's label of {changed.sum()} images was corrected: {right} of these are right "
            f"now, {before} were right before."
        )
        assert right > before > 0

    def test_nothing_is_said_where_no_label_changes(self):
        evaluation = make_evaluation(score="trustvlm")
        assert not [s for s in findings(evaluation, acceptances(evaluation)) if "The VLM" in s]


class TestClasses:
    def test_rows_agree_with_a_plain_recount(self):
        evaluation = make_evaluation(n=200)
        own, correct = evaluation.results["trustvlm"], evaluation.correct()
        rows = class_rows(evaluation)
        assert [row.name for row in rows] == list(evaluation.class_names)
        for label, row in enumerate(rows):
            mine = evaluation.labels == label
            assert (row.images, row.right, row.wrong) == (
                mine.sum(),
                (mine & correct).sum(),
                (mine & ~correct).sum(),
            )
            assert row.accuracy == pytest.approx(correct[mine].mean())
            assert row.confidence == pytest.approx(own.confidence[mine].mean())
            pairs = [
                (a > b) + (a == b) / 2
                for a in own.confidence[mine & correct]
                for b in own.confidence[mine & ~correct]
            ]
            assert row.auroc == pytest.approx(np.mean(pairs))
            wrong = own.prediction[mine & ~correct]
            assert row.confused == np.bincount(wrong, minlength=5).max()
            assert row.confusion == evaluation.class_names[np.bincount(wrong, minlength=5).argmax()]

    def test_a_class_without_images_or_shots_is_stated(self):
        evaluation = make_evaluation(n=4, class_names=list("abcdefgh"), without_shots=[3])
        rows = class_rows(evaluation)
        assert rows[3].shots == 0
        absent = next(row for row in rows if row.images == 0)
        assert math.isnan(absent.accuracy)
        assert math.isnan(absent.auroc)
        assert absent.confusion == ""

    def test_shots_are_unknown_where_the_manifest_does_not_fit(self):
        assert shots_by_class({"shots": {"counts": [1, 2, 3]}}, 2) is None
        assert shots_by_class({"shots": None}, 2) is None


class TestGalleries:
    def test_errors_come_most_confident_first(self):
        evaluation = make_evaluation(n=100)
        confidence, correct = evaluation.results["trustvlm"].confidence, evaluation.correct()
        errors, doubted, _ = galleries(evaluation)
        expected = np.sort(confidence[~correct])[::-1][:6]
        assert [case.confidence for case in errors.cases] == expected.tolist()
        assert all(case.truth != case.label and not case.right for case in errors.cases)
        assert [c.confidence for c in doubted.cases] == np.sort(confidence[correct])[:3].tolist()
        assert all(case.truth == case.label and case.right for case in doubted.cases)

    def test_a_case_says_what_the_vlm_said_where_it_was_corrected(self):
        evaluation = make_evaluation(n=200, score="trustvlm_star")
        by_path = {v.path: v for v in evaluation.verdicts}
        cases = [case for group in galleries(evaluation)[:2] for case in group.cases]
        expected = [by_path[case.path] for case in cases]
        assert [case.vlm_label for case in cases] == [
            v.vlm_label if v.label != v.vlm_label else "" for v in expected
        ]
        assert any(case.vlm_label for case in cases)
        unchanged = galleries(make_evaluation(n=200, score="trustvlm"))
        assert not any(case.vlm_label for group in unchanged for case in group.cases)

    def test_rescued_errors_are_those_that_the_text_trusted(self):
        # Text trusts images 0 and 1, of which 0 is wrong; the own score doubts 0 and 2.
        evaluation = make_evaluation(n=4, class_names=("a", "b"))
        prediction = np.array([1, 0, 1, 0])
        results = {
            "msp": ScoreResult(prediction, np.array([0.9, 0.8, 0.3, 0.2])),
            "trustvlm": ScoreResult(prediction, np.array([0.4, 1.5, 0.3, 1.2])),
        }
        object.__setattr__(evaluation, "results", results)
        object.__setattr__(evaluation, "labels", np.array([0, 0, 1, 0]))
        rescued = galleries(evaluation)[2]
        assert [case.path for case in rescued.cases] == ["photos/0000.png"]
        assert "for 1 wrong label; 0 right labels" in rescued.meaning

    def test_corrected_labels_come_first(self):
        evaluation = make_evaluation(n=300, score="trustvlm_star")
        rescued = galleries(evaluation)[2]
        flags = [case.right for case in rescued.cases]
        assert flags[0]
        assert flags == sorted(flags, reverse=True)
        assert rescued.cases[0].standing.startswith("corrected: by text alone")

    def test_there_is_nothing_to_rescue_from_itself(self):
        assert len(galleries(make_evaluation(score="msp"))) == 2

    @pytest.mark.parametrize("right", [True, False])
    def test_a_group_without_cases_says_so(self, right):
        groups = galleries(make_evaluation(right=right))
        empty = groups[0] if right else groups[1]
        assert not empty.cases
        assert "to show" in empty.meaning


def test_the_first_clause_of_a_reason_is_shown_whole():
    first = "the image resembles none of the classes: " + "it is less like them, " * 8 + "all"
    whole = f"{first}; text and examples agree on x"
    evaluation = make_evaluation()
    verdicts = [replace(verdict, reason=whole) for verdict in evaluation.verdicts]
    page = render_html(replace(evaluation, verdicts=Verdicts(verdicts)))
    assert f'<p class="reason" title="{whole}">{first} \N{HORIZONTAL ELLIPSIS}</p>' in page


class TestThumbnails:
    def test_it_is_small_and_upright(self, tmp_path):
        picture = Image.new("RGB", (400, 200), "blue")
        exif = picture.getexif()
        exif[0x0112] = 6  # turn a quarter to the right
        picture.save(tmp_path / "turned.jpg", exif=exif)
        assert opened(thumbnail(tmp_path / "turned.jpg")).size == (64, 128)

    def test_a_small_picture_is_not_blown_up(self, tmp_path):
        Image.new("L", (20, 10)).save(tmp_path / "small.png")
        assert opened(thumbnail(tmp_path / "small.png")).size == (20, 10)

    @pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff broken"])
    def test_an_unusable_file_gives_nothing(self, tmp_path, content):
        file = tmp_path / "a.jpg"
        if content is not None:
            file.write_bytes(content)
        assert thumbnail(file) == ""


def opened(uri: str) -> Image.Image:
    import base64
    import io

    head, data = uri.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


class TestSummary:
    def test_the_sentences_hold(self):
        evaluation = make_evaluation(n=200)
        confidence, correct = evaluation.results["trustvlm"].confidence, evaluation.correct()
        text = " ".join(findings(evaluation, acceptances(evaluation))).replace("\u00a0", " ")
        most = correct[np.argsort(-confidence)]
        assert f"200 images of 5 classes: {100 * correct.mean():.1f} %" in text
        assert (
            f"The 80 % that the score trustvlm trusts most are {most[:160].mean():.1%}"[:-1] in text
        )
        assert f"{100 * most[:100].mean():.1f} %; with the text's own probability" in text
        assert f"more in {100 * evaluation.metrics['trustvlm'].auroc:.1f} % of cases" in text

    def test_a_better_score_is_named(self):
        evaluation = make_evaluation(n=300, score="energy")
        best = by_aurc(evaluation.metrics)[0]
        assert best != "energy"
        last = findings(evaluation, acceptances(evaluation))[-1]
        assert last.startswith(f"On these images the score {best} has a lower AURC")
        leading = make_evaluation(n=300, score=best)
        assert "none has a lower AURC" in findings(leading, acceptances(leading))[-1]

    @pytest.mark.parametrize(("right", "word"), [(True, "right"), (False, "wrong")])
    def test_nothing_is_claimed_where_nothing_can_be_told_apart(self, right, word):
        evaluation = make_evaluation(right=right)
        sentences = findings(evaluation, acceptances(evaluation))
        assert sentences[-1].startswith(f"Every label is {word}")
        assert len(sentences) == 2

    def test_every_case_says_what_was_decided(self):
        evaluation = make_evaluation(n=200)
        made = {row.path: row.decision for row in evaluation.verdicts}
        groups = galleries(evaluation)
        cases = [c for g in groups for c in g.cases]
        cases += [c for pair in confusions(evaluation) for c in pair.images]
        assert [case.decision for case in cases] == [made[case.path] for case in cases]
        assert {case.decision for case in cases} == {"accept", "review"}
        wrong = [
            row.decision
            for row, ok in zip(evaluation.verdicts, evaluation.correct(), strict=True)
            if not ok
        ]
        expected = (len(wrong), wrong.count("accept"), wrong.count("review"))
        assert (
            "Of {} wrong labels the model's rule accepts {} and sends {} to review.".format(
                *expected
            )
            in groups[0].meaning
        )
        page = render_html(evaluation)
        shown = Counter(case.decision for case in cases)
        assert page.count(">accepted</span>") == shown["accept"]
        assert page.count(">to review</span>") == shown["review"]

    def test_a_small_set_is_called_coarse(self):
        assert any("coarse" in note for note in cautions(make_evaluation(n=20)))
        assert not any("coarse" in note for note in cautions(make_evaluation(n=200)))

    def test_working_points_are_distinct(self):
        points = working_points(acceptances(make_evaluation(n=3)))
        assert [point.accepted for point in points] == [3, 2]

    def test_equal_values_are_not_called_best(self):
        evaluation = make_evaluation(scores=("msp", "energy", "trustvlm"))
        accuracy, aurc = all_columns()[:2]
        assert math.isnan(accuracy.best(evaluation.metrics))
        assert aurc.best(evaluation.metrics) == 1000 * min(
            values.aurc for values in evaluation.metrics.values()
        )
