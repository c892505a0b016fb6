"""Two runs of one version write the same; what differs between two versions is shown."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parent / "frozen_outputs.py"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    folder = tmp_path_factory.mktemp("frozen")
    absent = ["--data", folder / "absent", "--embeddings", folder / "absent"]
    runs = []
    for name in ("old", "new"):
        words = [sys.executable, TOOL, "write", folder / name, *absent, "--only", "generated"]
        runs.append(subprocess.Popen(words, stderr=subprocess.PIPE))
    for run in runs:
        _, said = run.communicate()
        assert run.returncode == 0, said
    return folder


def compare(*folders):
    return subprocess.run(
        [sys.executable, TOOL, "compare", *folders], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_two_runs_write_the_same(written):
    rows = written / "old" / "generated" / "predict" / "rows.jsonl"
    assert '"decision"' in rows.read_text("utf-8")
    done = compare(written / "old", written / "new")
    assert (done.returncode, done.stdout) == (0, "0 files differ\n")


def test_a_changed_value_and_a_missing_file_are_shown(written):
    rows = written / "new" / "generated" / "predict" / "rows.jsonl"
    help_text = written / "new" / "generated" / "help" / "command.txt"
    kept = rows.read_text("utf-8"), help_text.read_text("utf-8")
    rows.write_text(kept[0].replace('"label": "', '"label": "un', 1), encoding="utf-8")
    help_text.unlink()
    try:
        done = compare(written / "old", written / "new")
    finally:
        rows.write_text(kept[0], encoding="utf-8")
        help_text.write_text(kept[1], encoding="utf-8")
    assert done.returncode == 1
    assert '+ "label": "un' in done.stdout
    assert "only in" in done.stdout
    assert done.stdout.endswith("2 files differ\n")
