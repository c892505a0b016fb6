"""Whoever follows a page of docs/extend from an empty folder, in new processes, gets to its end."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).resolve().parents[1] / "docs" / "extend").glob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.(?:py|toml))\n")


class Reader:
    """Does what a page says: saves files, runs programs and commands, each in a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, ""
        self._environment = {
            **os.environ,
            "TRUSTVLM_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def follow(self, page: Path) -> None:
        for language, block in BLOCK.findall(page.read_text()):
            if file := FILE.match(block):
                (self.folder / file[1]).write_text(block)
            elif language == "python":
                self._run(sys.executable, "-c", block)
            elif language == "bash":
                for line in block.splitlines():
                    self._command(shlex.split(line))
            else:
                assert language == "text"
                assert block in self.said

    def _command(self, words: list[str]) -> None:
        if words[:2] == ["pip", "install"]:
            site = self.folder / "site"
            options = ("--no-deps", "--no-build-isolation", "--target", str(site), "-q")
            self._run(sys.executable, "-m", "pip", *words[1:], *options)
            before = self._environment.get("PYTHONPATH", "")
            self._environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), before)))
        else:
            assert words[0] == "trustvlm"
            self._run(sys.executable, "-m", *words)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (command[-8:], done.stdout, done.stderr)
        self.said = done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    pytest.importorskip("onnxruntime", reason="the pages use the offline models")
    return Reader(tmp_path)


def page_of(name: str) -> Path:
    (page,) = [page for page in PAGES if page.stem == name]
    return page


def test_every_page_is_followed_here() -> None:
    tested = {"a-score", "a-metric", "an-encoder", "a-data-set"}
    assert {page.stem for page in PAGES} == tested


@pytest.mark.slow
def test_an_encoder_ends_in_a_saved_model_that_loads(reader: Reader) -> None:
    pytest.importorskip("setuptools", reason="the page installs a package")
    reader.follow(page_of("an-encoder"))
    with (reader.folder / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"].split("/")[0] for row in rows] == [row["label"] for row in rows]
    lines = (reader.folder / "study-results" / "rows.jsonl").read_text().splitlines()
    assert {json.loads(line)["vision"] for line in lines} == {"colours:4", "offline"}
    # The model of the installed encoder loads in yet another process, and says what it needs.
    (reader.folder / "colours.py").unlink()
    load = "from trustvlm import TrustVLM; print(TrustVLM.load('installed.trust').vision)"
    reader._run(sys.executable, "-c", load)
    assert reader.said == "colours:4\n"
    saved = json.loads((reader.folder / "installed.trust" / "manifest.json").read_text())
    assert saved["models"]["vision"]["plugin"]["package"] == "colours-encoder 1.0"
    done = subprocess.run(
        [sys.executable, "-c", load], cwd=reader.folder, capture_output=True, text=True, check=False
    )
    assert "install the package colours-encoder 1.0" in done.stderr


def test_a_score_ends_in_rows_and_a_saved_model(reader: Reader) -> None:
    reader.follow(page_of("a-score"))
    rows = json.loads((reader.folder / "rows.json").read_text())["rows"]
    assert {row["score"] for row in rows} == {"msp", "gap", "nearness", "auto"}
    auroc = {row["score"]: row["auroc"] for row in rows}
    assert auroc["nearness"] > auroc["gap"] > 0.5
    saved = json.loads((reader.folder / "nearness.trust" / "manifest.json").read_text())
    assert saved["score"]["name"] == "nearness"
    assert saved["score"]["plugin"]["name"] == "gap.py"


def test_a_metric_ends_in_rows_that_have_it(reader: Reader) -> None:
    reader.follow(page_of("a-metric"))
    rows = json.loads((reader.folder / "rows.json").read_text())["rows"]
    assert {row["score"] for row in rows} == {"msp", "trustvlm", "auto"}
    assert all(row["accuracy"] < row["top_half"] <= 1 for row in rows)


@pytest.mark.slow
def test_a_data_set_ends_in_rows_of_a_study(reader: Reader) -> None:
    reader.follow(page_of("a-data-set"))
    for study, names in (("study", {"colours/test", "hues/test"}), ("folders", {"colours/test"})):
        lines = (reader.folder / f"{study}-results" / "rows.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert {row["dataset"] for row in rows} == names
        assert all(row["n"] == 18 for row in rows)
