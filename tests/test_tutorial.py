"""The notebook runs, cell after cell, and shows what it showed when its outputs were stored."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from base64 import b64decode
from pathlib import Path

import pytest
from PIL import Image

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
    # Most of it are pictures, as PNG: what shows notebooks may leave those in HTML out.
    assert NOTEBOOK.stat().st_size < 500_000
    text = NOTEBOOK.read_text("utf-8")
    for path in ("/tmp", "/home", "/root", "/Users", str(NOTEBOOK.parents[2]), str(Path.home())):
        assert path not in text
    assert {*json.loads(text)["metadata"]} == {"kernelspec", "language_info"}


def test_its_pictures_can_be_seen():
    html = "".join(
        "".join(output["data"].get("text/html", ""))
        for cell in CODE
        for output in cell["outputs"]
        if "data" in output
    )
    thumbnails = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"[^>]*>', html)
    assert len(thumbnails) == 6
    for thumbnail in thumbnails:
        assert max(Image.open(io.BytesIO(b64decode(thumbnail))).size) >= 72
    figures = [
        Image.open(io.BytesIO(b64decode(output["data"]["image/png"])))
        for cell in CODE
        for output in cell["outputs"]
        if "image/png" in output.get("data", {})
    ]
    # Examples, corrections, and the risk-coverage curves.
    assert [figure.width >= 400 and figure.height >= 130 for figure in figures] == [True] * 3


def test_it_shows_a_correction_and_a_certificate():
    printed = "".join(stored(cell, "stream") for cell in CODE)
    source = "".join("".join(cell["source"]) for cell in CODE)
    assert 'score="auto_star"' in source
    assert re.search(r"\d+ of 112 labels corrected: [1-9]\d* wrong ones are now right", printed)
    assert "which outweighs the text's choice of" in printed
    assert re.search(r"certified: at most 20% wrong, with 95%", printed)


@pytest.mark.slow
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
