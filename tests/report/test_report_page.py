from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from evaluations import NOTE, empty_evaluation, failure, make_evaluation
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.plots.figure import DASHES, INK, MARKERS, MUTED, RIGHT, SERIES, WRONG
from trustvlm.report import render_html, write_html

VOID = {"meta", "link", "img", "br", "wbr"}


class Page(HTMLParser):
    """A page as tags, text by element, tables and attributes; complains about bad nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.script = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.script += data
        elif "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def column(self, table: int, title: str) -> list[str]:
        head, *rows = self.tables[table]
        position = next(i for i, cell in enumerate(head) if cell.startswith(title))
        return [row[position] for row in rows]


# In the order of the page: the scores come last.
POINTS, CLASSES, METRICS = 0, 1, -1
HOSTILE = "<script>alert('1')</script>\"'&<b>"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    return make_evaluation(
        tmp_path_factory.mktemp("photos"),
        n=120,
        without_shots=[4],
        failures=Verdicts([failure("photos/empty.png")]),
        excluded=("photos/shot.png",),
    )


@pytest.fixture(scope="module")
def html(evaluation):
    return render_html(evaluation)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_metric_of_every_score_is_shown(page, evaluation):
    names = page.column(METRICS, "Score")
    assert len(names) == len(evaluation.metrics)
    for row in page.tables[METRICS][1:]:
        name = row[0].split()[0].rstrip("†‡")
        values = evaluation.metrics[name]
        assert ("this model" in row[0]) == (name == evaluation.score)
        shown = [float(cell.removesuffix(" (best)")) for cell in row[1:]]
        assert shown == pytest.approx(
            [
                100 * values.accuracy,
                1000 * values.aurc,
                1000 * values.eaurc,
                1000 * values.augrc,
                100 * values.auroc,
                100 * values.fpr95,
                100 * values.aupr_success,
                100 * values.aupr_error,
            ],
            abs=0.00501,
        )


def test_the_best_of_a_column_is_marked(page, evaluation):
    aurc = page.column(METRICS, "AURC")
    assert [cell.endswith("(best)") for cell in aurc] == [True] + [False] * (len(aurc) - 1)
    lowest = min(values.aurc for values in evaluation.metrics.values())
    assert float(aurc[0].split()[0]) == pytest.approx(1000 * lowest, abs=0.00501)


def test_classes_come_with_their_worst_first(page, evaluation):
    accuracy = [float(cell) for cell in page.column(CLASSES, "Accuracy")]
    assert accuracy == sorted(accuracy)
    assert set(page.column(CLASSES, "Class")) == set(evaluation.class_names)
    shots = dict(zip(page.column(CLASSES, "Class"), page.column(CLASSES, "Shots"), strict=True))
    assert shots["fox"] == "none"
    assert shots["cat"] == "4"
    assert sum(map(int, page.column(CLASSES, "Images"))) == 120


def test_working_points_end_in_the_accuracy(page, evaluation):
    own = page.tables[POINTS][2]
    assert own[0] == "Right by trustvlm"
    assert own[1] == f"{100 * evaluation.correct().mean():.1f}\u00a0%"


def test_pictures_are_inline_small_and_described(page):
    pictures = page.all("img")
    assert 24 <= len(pictures) <= 30
    assert all(p["src"].startswith("data:image/jpeg;base64,") and p["alt"] for p in pictures)
    assert all(", labelled " in p["alt"] for p in pictures)


def test_confusions_stand_with_their_pictures(page, evaluation):
    wrong = ~evaluation.correct()
    own = evaluation.results["trustvlm"].prediction
    pairs = Counter(zip(evaluation.labels[wrong].tolist(), own[wrong].tolist(), strict=True))
    (truth, label), count = pairs.most_common(1)[0]
    names = evaluation.class_names
    expected = f"{count} images of {(evaluation.labels == truth).sum()} "
    assert expected in page.text.split("Confusions")[2]
    captions = [p["alt"] for p in page.all("img")]
    assert captions.count(f"{names[truth]}, labelled {names[label]}") >= 3


def test_what_makes_it_repeatable_is_told(tmp_path):
    hashes = tuple(f"{i:064x}" for i in range(60))
    evaluation = make_evaluation(hashes=hashes)
    turned = make_evaluation(hashes=hashes[::-1])
    assert evaluation.fingerprint != turned.fingerprint
    shots = [{"path": "a.png", "sha256": "ab" * 32, "class": 1}]
    evaluation.model["shots"]["images"] = shots
    page = Page(render_html(evaluation))
    assert evaluation.fingerprint in page.text
    assert hashlib.sha256(f"{'ab' * 32} 1\n".encode()).hexdigest() in page.text
    assert (
        f"60 images of photos, convention exact, data fingerprint {evaluation.fingerprint[:12]}."
        in (page.text)
    )
    assert "fingerprint" not in Page(render_html(make_evaluation(model={}))).text


def test_what_was_left_out_is_listed(page):
    assert "photos/empty.png" in page.text
    assert "the file is empty. Copy it again." in page.text
    assert "photos/shot.png" in page.text


def test_the_models_are_named_with_their_weakness(page):
    assert page.text.count(NOTE) == 1
    for fact in ("ab" * 32, "cd" * 32, "ef" * 32, "a photo of a {}.", "weight 0.75", "2505.23745"):
        assert fact in page.text
    assert "uncalibrated" in page.text


def test_nothing_is_loaded_from_anywhere(html, page):
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "action", "poster", "data", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:")
        if tag != "a":
            assert attributes.get("href", "#").startswith(("#", "data:"))
    links = {a["href"] for a in page.all("a") if not a["href"].startswith("#")}
    assert links == {"https://arxiv.org/abs/2505.23745"}
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_script_and_no_other(page):
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_links_within_the_page_lead_somewhere(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    for _, attributes in page.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)


def test_the_structure_serves_a_screen_reader(page):
    assert page.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.all(landmark)) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    sorts = [th["aria-sort"] for th in page.all("th") if "aria-sort" in th]
    assert len(page.all("button")) == len(sorts) == 18
    assert sorts.count("ascending") == 2
    scrolled = [a for _, a in page.tags if "scroll" in a.get("class", "").split()]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)
    assert len(scrolled) == len(page.tables)


def test_same_input_same_bytes(evaluation, html, tmp_path):
    assert render_html(evaluation) == html
    write_html(evaluation, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_bytes() == html.encode()


def test_everything_from_data_is_escaped(tmp_path):
    hostile = make_evaluation(
        tmp_path,
        class_names=(HOSTILE, "{{ 7 * 7 }}", "</style>"),
        dataset=HOSTILE,
        failures=Verdicts([failure(HOSTILE, HOSTILE)]),
        excluded=(HOSTILE,),
    )
    model = {
        **hostile.model,
        HOSTILE: HOSTILE,
        "models": {HOSTILE: {"note": HOSTILE, "spec": HOSTILE}},
        "prompts": [HOSTILE],
    }
    object.__setattr__(hostile, "model", model)
    html = render_html(hostile)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert "alert" not in page.script
    assert not page.all("b")
    assert len(page.all("style")) == 1
    assert page.text.count(HOSTILE) >= 10
    assert "{{ 7 * 7 }}" in page.text


def test_a_file_that_is_gone_leaves_a_placeholder():
    page = Page(render_html(make_evaluation(n=30)))
    assert not page.all("img")
    assert "image not available" in page.text


def test_a_name_that_is_not_utf8_is_written(tmp_path):
    evaluation = make_evaluation(failures=Verdicts([failure("caf\udce9.png")]))
    write_html(evaluation, tmp_path / "report.html")
    assert "caf?.png" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "case",
    [
        {"right": True},
        {"right": False},
        {"n": 1, "right": True},
        {"n": 1, "right": False},
        {"n": 2},
        {"n": 5, "class_names": ("only",)},
        {"n": 12, "without_shots": [0, 1, 2, 3]},
        {"score": "msp", "scores": ("msp",)},
        {"model": {}},
        {"convention": "trustvlm"},
    ],
    ids=str,
)
def test_degenerate_evaluations_make_a_page(case):
    text = Page(render_html(make_evaluation(**case))).text
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    if "right" in case:
        assert "undefined" in text


def test_nothing_readable_is_a_page_too():
    page = Page(render_html(empty_evaluation()))
    assert "No image could be evaluated" in page.text
    assert "2 files could not be read" in page.text
    assert len(page.tables) == 1
    assert not re.search(r"\bnan\b", page.text)


def test_the_size_is_bounded():
    evaluation = make_evaluation(
        n=4000,
        class_names=[f"class number {i} with a rather long name" for i in range(1500)],
        scores=("msp", "trustvlm"),
        failures=Verdicts([failure(f"photos/{i}.png", "broken " * 200) for i in range(2000)]),
        excluded=tuple(f"photos/{i}.png" for i in range(2000)),
    )
    html = render_html(evaluation)
    page = Page(html)
    assert len(html.encode()) < 3_000_000
    assert len(page.tables[CLASSES]) == 1001
    assert "500 classes with a higher accuracy" in page.text
    assert "the first 200 are listed" in page.text


def test_importing_the_room_is_cheap():
    code = (
        "import sys, trustvlm.report\n"
        "print(sorted({'matplotlib', 'jinja2', 'rich', 'PIL', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_thresholds_that_tie_are_no_obstacle():
    evaluation = make_evaluation(n=40)
    tied = {
        name: type(result)(result.prediction, np.round(result.confidence))
        for name, result in evaluation.results.items()
    }
    object.__setattr__(evaluation, "results", tied)
    assert "undefined" not in Page(render_html(evaluation)).text.split("Classes")[0]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_meets_wcag_aa(html, theme):
    light, dark = re.findall(r":root \{(.*?)\}", html, flags=re.DOTALL)[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if theme == "light" else dark))
    for text in ("text", "muted", "accent", "right", "wrong"):
        for ground in ("page", "surface", "raised"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["text"], colours["caution"]) >= 4.5


def test_figures_lie_on_white_where_their_lines_and_text_stand_out(html):
    assert re.search(r"figure svg \{[^}]*background: #ffffff;", html)
    assert contrast(INK, "#ffffff") >= 4.5
    for colour in (MUTED, RIGHT, WRONG, *SERIES):
        assert contrast(colour, "#ffffff") >= 3, colour
    assert len(set(SERIES)) == len(DASHES) == len(MARKERS) == 8
