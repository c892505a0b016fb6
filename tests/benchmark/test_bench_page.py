"""The page of a study: whole, self-contained, honest about what it lacks, the same every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from bench_results import make_results
from trustvlm.benchmark.analysis import analyse
from trustvlm.benchmark.heat_maps import heat_map
from trustvlm.benchmark.page import named, sections, write_page
from trustvlm.benchmark.results import Results, Setting
from trustvlm.benchmark.studies.study import ReportSection
from trustvlm.exceptions import InputError

VOID = {"meta", "link", "br", "wbr"}
NOTE = "These models are stand-ins & not <CLIP>."
CHAPTERS = ("1-clip", "2-siglip")
QUICK = {"n_resamples": 60, "metrics": ["accuracy", "aurc", "auroc"]}


class Page(HTMLParser):
    """Tags, text and script of a page; complains about bad nesting."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text, self.script, self.headings = [], [], "", "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h2", "summary"):
            self.headings.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.script += data
        elif "style" not in self.open:
            self.text += data
        if {"h2", "summary"} & set(self.open):
            self.headings[-1] += data

    def all(self, name, key):
        return [
            attributes[key] for tag, attributes in self.tags if tag == name and key in attributes
        ]


def written(results, folder, **settings):
    path = write_page(results, folder, **(QUICK | settings))
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def page(folder, results):
    return written(results, folder, title="A <study>", notes=[NOTE])


def test_sections_are_there_and_linked(page):
    for heading in (
        "Which scores lead",
        "Every metric",
        "What accepting less buys",
        "Text only, image only, both",
        "How many shots it takes",
        "Differences to trustvlm",
        "Each data set",
        "Classes that gain and lose",
        "How it was made",
    ):
        assert heading in page.headings
    ids = {attributes.get("id") for _, attributes in page.tags}
    anchors = [link[1:] for link in page.all("a", "href") if link.startswith("#")]
    assert set(anchors) <= ids


def test_notes_come_before_every_number_and_are_escaped(page):
    assert NOTE in page.text
    assert page.text.index(NOTE) < page.text.index("Which scores lead", page.text.index(NOTE))
    assert "A <study>" in page.text
    assert ("clip", {}) not in page.tags


def test_every_linked_file_exists(page, folder):
    files = [link for link in page.all("a", "href") if not link.startswith(("#", "https:"))]
    assert len(files) > 20
    assert all((folder / file).is_file() for file in files)
    suffixes = {file.rpartition(".")[2] for file in files}
    assert suffixes == {"md", "tex", "svg", "pdf", "json"}
    stored = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert stored == {*files, "index.html"}


@pytest.mark.usefixtures("page")
def test_figures_of_the_page_are_those_of_the_files(folder):
    text = (folder / "index.html").read_text("utf-8")
    files = sorted((folder / "figures").glob("*.svg"))
    assert len(files) == len(re.findall(r"<svg\b", text)) > 1
    for file in files:
        assert file.read_text("utf-8").strip() in text


def test_the_page_loads_nothing_and_runs_only_its_own_script(page):
    (policy,) = [
        a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert page.all("img", "src") == page.all("script", "src") == []
    assert page.all("link", "href") == ["data:,"]
    assert [u for u in page.all("a", "href") if "//" in u] == ["https://arxiv.org/abs/2505.23745"]
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]


def test_identifiers_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_sortable_tables_have_buttons_and_values(page):
    tables = page.all("table", "class")
    assert tables
    assert set(tables) == {"sortable"}
    columns = [a for t, a in page.tags if t == "th" and a.get("scope") == "col"]
    assert all({"aria-sort", "data-first"} <= set(a) for a in columns)
    cells = [a for t, a in page.tags if t == "td"]
    assert all("data-value" in a for a in cells)


def test_the_same_results_give_the_same_bytes(folder, page, tmp_path):
    write_page(make_results(), tmp_path, **QUICK, title="A <study>", notes=[NOTE])
    for file in folder.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(folder)).read_bytes() == file.read_bytes(), file


def test_statistics_are_json_with_every_test(folder, page):
    (statistics,) = json.loads((folder / "statistics.json").read_text("utf-8"))
    assert len(statistics["comparisons"]) == 3 * 4 * 3
    assert {c["score"] for c in statistics["comparisons"]} == {
        "msp",
        "image_similarity",
        "trustvlm_star",
        "noise",
    }
    assert len(statistics["spreads"]) == 3 * 5 * 2 * 3
    assert statistics["bootstrap"]["n_resamples"] == 60
    assert {r["metric"] for r in statistics["ranks"]} == {"accuracy", "aurc", "auroc"}


@pytest.mark.slow
def test_several_settings_have_a_chapter_each_and_a_matrix(tmp_path):
    settings = (Setting("clip", "same", "paper"), Setting("clip", "dinov2-base", "paper"))
    results = make_results(["pets", "cars"], settings=settings, shots=(4,))
    sensitivity = [
        {"dataset": "a", "score": "trustvlm", "shots": 4, "draw": 0, "weight": w}
        | {"temperature": t, "aurc": w + t}
        for w in (0.1, 1.0)
        for t in (0.01, 0.1)
    ]
    keys = ("weight", "temperature")
    figure = heat_map(
        sensitivity, "aurc", keys=keys, words=keys, name="sensitivity-aurc", title="T"
    )
    study = ReportSection("tuning", "Tuning", "Why.", (figure,))
    seen = []
    page = written(
        results,
        tmp_path,
        studies={settings[1]: [study]},
        progress=lambda done, of: seen.append((done, of)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "clip + dinov2-base, protocol paper" in page.headings
    assert "Which encoder verifies which model" in page.headings
    assert page.headings.count("Tuning") == 1
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    names = {f.name for f in (tmp_path / "figures").iterdir()}
    wanted = {
        "encoders-aurc-trustvlm.svg",
        "2-clip-dinov2-base-protocol-paper-sensitivity-aurc.pdf",
    }
    assert wanted <= names
    assert len({n for n in names if n.endswith("ranks-aurc.svg")}) == 2
    assert len(json.loads((tmp_path / "statistics.json").read_text())) == 2


def test_samples_of_the_first_setting_mark_the_first_chapter_only(tmp_path):
    settings = (Setting("clip"), Setting("siglip"))
    results = make_results(["pets", "cars"], settings=settings, shots=(4,))
    samples = {k[:2]: v for k, v in results.samples.items() if k[2] == settings[0]}
    page = written(Results(results.rows, samples), tmp_path)
    assert "Without samples no test was made, and nothing is marked: siglip." in page.text
    tables = {f.name for f in (tmp_path / "tables").iterdir()}
    assert {"1-clip-against-reference.md"} == {
        n for n in tables if n.endswith("against-reference.md")
    }
    texts = {name: (tmp_path / "tables" / f"{name}-auroc.md").read_text() for name in CHAPTERS}
    assert "Bold: significantly better than" in texts["1-clip"]
    assert "Bold: significantly better than" not in texts["2-siglip"]
    assert "**" not in texts["2-siglip"]
    assert page.headings.count("What accepting less buys") == 1


def test_failures_and_single_draws_are_said_aloud(tmp_path):
    results = make_results(["pets"], shots=(16,), draws=1, n=40)
    rows = [*results.rows, {"dataset": "gone", "score": None, "shots": 16, "draw": 0}]
    rows[-1]["error"] = "There is no folder <gone>."
    page = written(Results(rows, results.samples), tmp_path)
    assert "There is no folder <gone>." in page.text
    assert "1 cell of the study failed" in page.text
    assert "one draw of the shots" in page.text
    assert "fewer than 100 test images" in page.text
    assert "Cells that failed" in page.headings


@pytest.mark.parametrize(
    "results",
    [
        make_results(["pets"], ["trustvlm"], shots=(1,), draws=1),
        make_results(["pets"], draws=1),
        make_results(["pets", "cars"], shots=(4,), accuracy=1.1),
    ],
    ids=["one score", "one data set", "all right"],
)
def test_degenerate_studies_have_a_page(results, tmp_path):
    page = written(results, tmp_path)
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    assert "Every metric" in page.headings


def test_names_that_differ_in_signs_alone_have_names_of_their_own():
    analysis = analyse(make_results(["a/b", "a_b", "a b"], draws=1), ["aurc"], n_resamples=9)
    table_names = [table.name for part in named(sections(analysis), "p-") for table in part.folded]
    assert {name for name in table_names if "dataset" in name} == {
        "p-dataset-a-b",
        "p-dataset-a-b-2",
        "p-dataset-a-b-3",
    }
    assert len(table_names) == len(set(table_names))


def test_any_name_is_written_and_stays_text(tmp_path):
    hostile = "<img src=x onerror=alert(1)>&\"'"
    results = make_results(
        [hostile, "caf\udce9", "花"], ["msp", "trustvlm", hostile], shots=(2,), draws=1
    )
    page = written(results, tmp_path)
    assert hostile in page.text
    assert not page.all("img", "src")
    assert "caf?" in page.text
    assert "花" in (tmp_path / "figures" / "risk-coverage.svg").read_text("utf-8")
    assert "caf?" in (tmp_path / "tables" / "aurc.tex").read_text("utf-8")


def test_an_empty_study_is_refused(tmp_path):
    with pytest.raises(InputError, match="at least one score"):
        write_page(Results([]), tmp_path)
