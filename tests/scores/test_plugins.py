import json

import pytest

from trustvlm import plugins, scores
from trustvlm.exceptions import InputError

GAP = '''
import numpy as np
from trustvlm.scores import Evidence, ScoreResult, register

@register("gap", formula="z_(1) - z_(2)", source="a test")
def gap(evidence: Evidence) -> ScoreResult:
    """Difference of the two largest logits."""
    top = np.sort(evidence.logits, axis=1)[:, -2:]
    return ScoreResult(evidence.logits.argmax(axis=1), top[:, 1] - top[:, 0])
'''


@pytest.fixture
def gap(tmp_path):
    (tmp_path / "gap.py").write_text(GAP)
    yield tmp_path / "gap.py"
    if "gap" in scores.names():
        scores.unregister("gap")


def test_a_score_in_a_file_outside_the_package_is_found(gap):
    assert plugins.load_plugin(gap) == ("gap",)
    assert scores.compute("gap", logits=[[3.0, 1.0]]).confidence.tolist() == [2.0]


def test_an_installed_score_is_found_by_its_entry_point(gap, tmp_path, monkeypatch):
    (tmp_path / "gap_package.py").write_text(GAP)
    info = tmp_path / "gap_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gap-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trustvlm.scores]\ngap = gap_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.load_installed() == ("gap",)


@pytest.mark.parametrize(
    ("content", "message"),
    [("x = 1", "registers no score"), ("1 / 0", "ZeroDivisionError"), (None, "a Python file")],
)
def test_a_plugin_that_does_not_work_is_named(tmp_path, content, message):
    path = tmp_path / "bad.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        plugins.load_plugin(path)
    assert "bad.py" in str(caught.value)


def test_it_appears_in_the_tables(gap, tmp_path, capsys, monkeypatch):
    from benchmark_files import write_arrays
    from command import Command

    run = Command(capsys, monkeypatch)
    train = write_arrays(tmp_path / "a__train.npz", 0)
    test = write_arrays(tmp_path / "a__test.npz", 1)
    rows = tmp_path / "rows.json"
    done = run("bench", "arrays", "--support", train, test, "--plugin", gap, "--json", rows)
    assert done.code == 0, done.err
    assert "gap" in done.out
    assert "gap" in {row["score"] for row in json.loads(rows.read_text())["rows"]}
    assert "gap" in run("scores").out
