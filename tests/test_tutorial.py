"""The notebook runs, cell after cell, and shows what it showed when its outputs were stored."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"
CELLS = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def run(source, names):
    """Run a cell as a notebook would; return what it printed, and its last value."""
    tree = ast.parse(source)
    last = None
    if isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, str(NOTEBOOK), "exec"), names)
        value = None if last is None else eval(compile(last, str(NOTEBOOK), "eval"), names)
    return printed.getvalue(), value


def stored(cell, kind):
    return "".join("".join(o.get("text", "")) for o in cell["outputs"] if o["output_type"] == kind)


def without_numbers(text):
    # Another processor may round the last digit differently.
    return re.sub(r"[\d.]+", "#", text)


def test_it_was_stored_whole():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    outputs = [output for cell in CODE for output in cell["outputs"]]
    assert {o.get("name", "stdout") for o in outputs} == {"stdout"}
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < 120_000
    assert "/tmp" not in NOTEBOOK.read_text("utf-8")


def test_it_runs_and_prints_what_is_stored(tmp_path, monkeypatch):
    for needed in ("onnxruntime", "skimage", "pandas"):
        pytest.importorskip(needed, reason="the tutorial needs the extras demo and pandas")
    import matplotlib as mpl

    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names = {"__name__": "__main__"}
    shown = []
    for cell in CODE:
        printed, value = run("".join(cell["source"]), names)
        assert without_numbers(printed) == without_numbers(stored(cell, "stream"))
        if hasattr(value, "_repr_html_"):
            shown.append(type(value).__name__)
            assert "<table" in value._repr_html_()
    assert shown == ["Verdicts", "DataFrame"]
    names["plt"].close("all")
