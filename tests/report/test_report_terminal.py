from __future__ import annotations

import io

import pytest
from rich.console import Console

from evaluations import empty_evaluation, failure, make_evaluation
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report import table


def printed(evaluation, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(evaluation))
    return console.file.getvalue()


def rows(text: str, evaluation) -> list[list[str]]:
    split = [line.replace("*", " ").split() for line in text.splitlines()]
    return [cells for cells in split if cells and cells[0] in evaluation.metrics]


def test_the_table_shows_the_papers_units_sorted_by_aurc():
    evaluation = make_evaluation()
    shown = rows(printed(evaluation), evaluation)
    ordered = sorted(evaluation.metrics.items(), key=lambda item: item[1].aurc)
    assert [cells[0] for cells in shown] == [name for name, _ in ordered]
    for cells, (_, values) in zip(shown, ordered, strict=True):
        expected = [
            100 * values.accuracy,
            1000 * values.aurc,
            1000 * values.eaurc,
            1000 * values.augrc,
            100 * values.auroc,
            100 * values.fpr95,
        ]
        assert [float(cell) for cell in cells[1:]] == pytest.approx(expected, abs=0.00501)


def test_the_models_own_score_is_marked():
    text = printed(make_evaluation(score="energy"))
    marked = [line.split() for line in text.splitlines() if line.lstrip().startswith("* ")]
    assert [cells[1] for cells in marked] == ["energy", "the"]  # the row and the caption


def test_it_fits_80_columns_one_line_per_score():
    names = {f"a_score_of_{'x' * length}": None for length in (1, 9, 40)}
    evaluation = make_evaluation(dataset="a/very/long/name/" * 9)
    values = next(iter(evaluation.metrics.values()))
    object.__setattr__(
        evaluation, "metrics", {**evaluation.metrics, **dict.fromkeys(names, values)}
    )
    text = printed(evaluation)
    assert max(map(len, text.splitlines())) <= 80
    assert sum("a_score_of_" in line for line in text.splitlines()) == 3


def test_it_is_ascii_beside_the_rule():
    text = printed(make_evaluation(failures=Verdicts([failure("a.png")]), excluded=("b.png",)))
    assert text.replace("\u2500", "").isascii()


def test_title_and_caption_say_what_was_evaluated():
    evaluation = make_evaluation(
        dataset="[red]pets[/red]", failures=Verdicts([failure("a"), failure("b")]), excluded=("c",)
    )
    text = printed(evaluation)
    assert "[red]pets[/red]: 60 images, 4 shots per class, convention exact" in text
    assert "2 images could not be read." in text
    assert "1 image left out" in text


def test_undefined_metrics_are_dashes_and_last():
    evaluation = make_evaluation(right=True)
    text = printed(evaluation)
    assert "nan" not in text.lower()
    assert "- undefined on these images." in text
    assert "-" in rows(text, evaluation)[0]
    assert "- undefined" in printed(empty_evaluation())
