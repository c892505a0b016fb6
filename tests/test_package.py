"""What `make package` built for an index, and files that name the Makefile's targets."""

from __future__ import annotations

import os
import re
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import pytest

from trustvlm import __version__

ROOT = Path(__file__).resolve().parents[1]
DIST = Path(os.environ.get("TRUSTVLM_DIST") or "no dist")
built = pytest.mark.skipif(
    not DIST.is_dir(), reason="`make package` builds the files and tests them"
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def only(pattern):
    (path,) = DIST.glob(pattern)
    return path


def source_files(folder):
    """What git would have, without asking it: an sdist has none."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", "generated"} & set(path.parts)
    }


@built
def test_the_wheel_holds_the_package_and_nothing_else():
    with zipfile.ZipFile(only("*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        licences = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
    assert names == {name.removeprefix("src/") for name in source_files("src/trustvlm")}
    assert "trustvlm/py.typed" in names
    assert len(licences) == 1
    assert only("*.whl").stat().st_size < 2_000_000


@built
def test_the_sdist_holds_what_its_tests_need():
    with tarfile.open(only("*.tar.gz")) as sdist:
        members = [member for member in sdist.getmembers() if member.isfile()]
    names = {member.name.partition("/")[2] for member in members}
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders == {"src", "tests", "docs", "examples", "benchmarks"}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "Makefile"} <= names
    assert {"constraints.txt", "requirements-demo.txt", "pyproject.toml", "PKG-INFO"} <= names
    assert source_files("src") <= names
    assert {f"tests/{path.name}" for path in (ROOT / "tests").glob("*.py")} <= names
    assert not [name for name in names if re.search(r"__pycache__|\.trust-|(^|/)\.venv", name)]
    assert only("*.tar.gz").stat().st_size < 6_000_000


@built
def test_the_page_on_an_index_has_no_link_into_the_repository():
    with zipfile.ZipFile(only("*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = BytesParser(policy=default).parsebytes(wheel.read(name))
    page = metadata.get_payload()
    assert "## The method" in page
    assert "* Choose a threshold: " in page
    assert re.findall(r"\]\((?!https://)[^)]*\)", page) == []
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_workflows_call_targets_that_there_are():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    if not workflows:
        pytest.skip("no workflows: an sdist has none")
    texts = [path.read_text("utf-8") for path in workflows]
    called = {name for text in texts for name in targets_in(text)}
    called |= {name for text in texts for name in re.findall(r"target: ([a-z]+)", text)}
    assert called <= TARGETS
    here = targets_in((ROOT / ".ci" / "run").read_text("utf-8"))
    assert here <= called, "GitHub runs what CI here runs"
    pythons = {version for text in texts for version in re.findall(r'"(3\.\d+)"', text)}
    assert pythons == set(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))


def targets_in(text):
    lines = re.findall(r"^(?: *- run: )?make ([a-z ]+)$", text, re.MULTILINE)
    return {name for line in lines for name in line.split()}


def test_torch_is_pinned_wherever_something_is_installed():
    """An unpinned torch brings gigabytes; so every line that installs names it, or brings none."""
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in makefile.splitlines() if " install " in line or "$(PIP)" in line]
    torch = re.search(r"^torch==\S+$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)[0]
    with_torch = {
        name
        for name, needs in PROJECT["optional-dependencies"].items()
        if any(re.match(r"torch\b", need) for need in needs)
    }
    checked = 0
    for line in lines:
        extras = set(re.split(r"[\[\],]", line)) & with_torch
        if extras:
            assert f"'{torch}'" in line, line
            checked += 1
    assert checked >= 4


def test_the_citation_is_of_the_last_release_and_has_what_its_format_asks_for():
    yaml = pytest.importorskip("yaml", reason="needs the extra yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = citation["preferred-citation"]
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert paper.keys() >= {"type", "title", "authors"}
    assert {type(citation[key]) for key in ("cff-version", "version", "title")} == {str}
    assert citation["license"] == PROJECT["license"]
    assert paper["url"] == PROJECT["urls"]["Paper"]
    released = re.findall(
        r"^## \[(\d.*)\] - (.*)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )
    assert (citation["version"], str(citation["date-released"])) == released[0]
    assert citation["version"] == __version__
