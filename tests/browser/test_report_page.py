"""The report as a person meets it: in a browser, wide and narrow, by day and by night."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from evaluations import failure, make_evaluation
from trustvlm.decisions import Calibrator, certify
from trustvlm.pipeline.calibration_state import Calibration
from trustvlm.pipeline.evaluate import evaluation_json
from trustvlm.pipeline.verdict import Verdicts
from trustvlm.report import compare_runs, read_run, write_comparison, write_html

pytestmark = pytest.mark.browser

CLASSES = tuple(
    f"{size} {animal}"
    for size in ("little", "grey", "common")
    for animal in ("badger", "bee", "cat", "dog", "fox", "heron", "horse", "newt", "owl", "stoat")
)
HOSTILE = (
    "<script>window.harm = 1</script>",
    "<img src=x onerror='window.harm = 2'>",
    '"><svg onload=window.harm=3>',
    "' autofocus tabindex=1 onfocus='window.harm=4",
    "javascript:window.harm=5",
    "</style><style>*{display:none}</style>",
    "</script><script>window.harm = 6</script>",
    "{{ 7 * 7 }}",
    "\u202egnp.exe",
    "unbroken" * 9,
)
NAMED = {"button", "link", "image", "navigation", "region", "columnheader", "rowheader", "heading"}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    evaluation = make_evaluation(
        folder / "photos",
        n=240,
        class_names=CLASSES,
        without_shots=[4],
        failures=Verdicts([failure("photos/empty.png")]),
        excluded=("photos/shot.png",),
    )
    write_html(evaluation, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """The page of a calibrated model on pictures with long reasons."""
    folder = tmp_path_factory.mktemp("certified")
    evaluation = make_evaluation(folder / "photos", n=300, class_names=CLASSES, noise=0.8)
    result, correct = evaluation.results[evaluation.score], evaluation.correct()
    rule = certify(result.confidence, correct, 0.3)
    assert rule.certified
    calibration = Calibration(
        certificate=rule,
        calibrator=Calibrator().fit(result.confidence, correct),
        result=result,
        labels=evaluation.labels,
        images=tuple({"path": f"{i}.png", "sha256": f"{i:064d}"} for i in range(300)),
        dataset="held back",
        score=evaluation.score,
        parameters={},
        created_at="2026-01-02T03:04:05+00:00",
    )
    reason = (
        "at confidence 0.71 or more labels are accepted: text and examples agree on 'common stoat' "
        "(examples 0.72, 'little heron' 0.48)"
    )
    rows = [
        replace(
            v,
            p_correct=float(p),
            decision="accept" if c >= rule.threshold else "review",
            reason=reason,
        )
        for v, p, c in zip(
            evaluation.verdicts, calibration.p_correct(result), result.confidence, strict=True
        )
    ]
    manifest = {**evaluation.model, "calibration": calibration.to_manifest(len(CLASSES))}
    write_html(replace(evaluation, verdicts=Verdicts(rows), model=manifest), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    evaluation = make_evaluation(
        folder / "photos",
        n=80,
        class_names=HOSTILE,
        dataset=HOSTILE[0],
        failures=Verdicts([failure(name, name) for name in HOSTILE]),
        excluded=HOSTILE,
    )
    model = {
        **evaluation.model,
        "models": {name: {"note": name, "spec": name} for name in HOSTILE},
        "prompts": list(HOSTILE),
    }
    object.__setattr__(evaluation, "model", model)
    write_html(evaluation, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    runs = []
    for name, noise in (("before", 2.0), ("after", 1.2)):
        file = folder / f"{name}.json"
        made = make_evaluation(n=240, class_names=CLASSES, noise=noise)
        file.write_text(evaluation_json(made), "utf-8")
        runs.append(read_run(file))
    write_comparison(compare_runs(*runs, n_resamples=100), folder / "comparison.html")
    return folder / "comparison.html"


def unfold(page):
    for summary in page.locator("summary").all():
        summary.click()


def test_it_can_be_looked_at(open_page, report, screenshots, width, theme):
    file = screenshots / f"report-{width}-{theme}.png"
    open_page(report, width=width, theme=theme).page.screenshot(path=file, full_page=True)
    with Image.open(file) as picture:
        assert picture.width == width
        typical = np.median(np.asarray(picture.convert("L")))
    assert typical > 200 if theme == "light" else typical < 60


def test_it_loads_nothing_and_complains_about_nothing(open_page, report, width, theme):
    opened = open_page(report, width=width, theme=theme)
    unfold(opened.page)
    for link in opened.page.get_by_role("navigation").get_by_role("link").all():
        link.click()
    assert opened.page.get_by_role("img").count() > 20
    opened.page.wait_for_load_state("networkidle")
    # Inline pictures (data:) are part of the file.
    assert {url for url in opened.requests if not url.startswith("data:")} == {report.as_uri()}
    assert opened.complaints == []


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("kind", ["report", "hostile_report", "comparison"])
def test_the_page_never_scrolls_sideways(open_page, request, kind, width):
    opened = open_page(request.getfixturevalue(kind), width=width)
    unfold(opened.page)
    assert opened.faults("tooWide") == []


@pytest.mark.parametrize("kind", ["report", "certified"])
def test_what_is_asked_first_comes_first_and_fits_six_screens(
    open_page, request, kind, screenshots
):
    page = open_page(request.getfixturevalue(kind), width=1280).page
    page.screenshot(path=screenshots / f"{kind}-1280.png", full_page=True)
    order = page.evaluate("[...document.querySelectorAll('main h2')].map((h) => h.id)")
    wanted = ["accepted", "images", "confusions", "classes", "appendix"]
    assert [name for name in order if name in wanted] == wanted == order[: len(wanted)]
    assert order[-1] == "scores"
    top = page.locator("#appendix").evaluate("(h) => h.getBoundingClientRect().top + scrollY")
    assert top / 800 <= 6, f"{top / 800:.1f} screens"


def test_no_card_has_a_void(open_page, certified, width):
    """Below a picture runs text: whatever a card holds ends near its lower edge."""
    page = open_page(certified, width=width).page
    voids = page.evaluate(
        """[...document.querySelectorAll('#images ~ .gallery > li')].map((card) => {
          const bottoms = [...card.querySelectorAll('img, p')].map(
            (part) => part.getBoundingClientRect().bottom);
          const left = [...card.querySelectorAll('p.reason')].map((part) => {
            const range = document.createRange();
            range.selectNodeContents(part);
            return Math.min(...[...range.getClientRects()].map((line) => line.left));
          });
          const box = card.getBoundingClientRect();
          return [box.bottom - Math.max(...bottoms), Math.min(...left) - box.left];
        })"""
    )
    assert len(voids) > 8
    # Cards of one row are as high as the highest of them.
    assert max(void for void, _ in voids) < 64
    assert max(left for _, left in voids) < 24


def test_text_stands_out(open_page, report, width, theme):
    opened = open_page(report, width=width, theme=theme)
    unfold(opened.page)
    assert opened.faults("paleText") == []


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_axe_finds_nothing_to_object_to(open_page, request, kind, width, theme):
    opened = open_page(request.getfixturevalue(kind), width=width, theme=theme)
    unfold(opened.page)
    assert opened.violations() == []


def test_figures_keep_their_text_apart(open_page, report, width):
    assert open_page(report, width=width).faults("crowdedFigures") == []


def test_fingers_find_their_targets(open_page, report, width):
    assert open_page(report, width=width).faults("smallTargets") == []


def test_an_edge_fades_while_there_is_more_to_scroll_to(open_page, report, width):
    page = open_page(report, width=width).page
    classes = page.get_by_role("region", name="Results by class")

    def fades():
        # Timelines of scrolling move with the next frame.
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        names = ("--more-right", "--more-below")
        style = "(element, name) => getComputedStyle(element).getPropertyValue(name)"
        return [classes.evaluate(style, name) != "0px" for name in names]

    assert fades() == [width == 390, True]
    classes.evaluate("(element) => element.scrollTo(element.scrollWidth, 0)")
    assert fades() == [False, True]
    classes.evaluate("(element) => element.scrollTo(0, element.scrollHeight)")
    assert fades() == [width == 390, False]
    page.emulate_media(media="print")
    assert classes.evaluate("(element) => getComputedStyle(element).maskImage") == "none"


def test_a_screen_reader_is_told_enough(open_page, report, width):
    opened = open_page(report, width=width)
    unfold(opened.page)
    nodes = opened.accessible()
    assert [n for n in nodes if (n["role"] in NAMED or n.get("focusable")) and not n["name"]] == []
    roles = [n["role"] for n in nodes]
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    regions = [n["name"] for n in nodes if n["role"] == "region"]
    assert len(regions) == len(set(regions))
    assert opened.page.locator("html").get_attribute("lang") == "en"
    assert opened.page.title() == "photos: can the labels be trusted?"


def test_headings_are_in_order(open_page, report):
    nodes = open_page(report).accessible()
    levels = [n["level"] for n in nodes if n["role"] == "heading"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(levels) == 3
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_pictures_are_described(open_page, report):
    opened = open_page(report)
    texts = [img.get_attribute("alt") for img in opened.page.locator("img").all()]
    assert len(texts) >= 18
    for text in texts:
        truth, label = text.split(", labelled ")
        assert {truth, label} <= set(CLASSES)
    sizes = opened.page.evaluate("[...document.images].map((img) => img.naturalWidth)")
    assert all(sizes)
    figures = [n["name"] for n in opened.accessible() if n["role"] == "image"][:2]
    assert [name.split()[0] for name in figures] == ["Risk-coverage", "Confidence"]


@pytest.mark.parametrize(
    ("gesture", "width"), [("click", 1280), ("click", 390), ("Enter", 1280), ("Space", 390)]
)
def test_every_column_sorts(open_page, report, width, gesture):
    opened = open_page(report, width=width)
    tables = opened.page.locator("table.sortable").all()
    assert [table.locator("thead button").count() for table in tables] == [9, 9]
    for table in tables:
        before = sorted(read(table)[1])
        for column in range(table.locator("thead th").count()):
            orders = [sort(table, column, gesture), sort(table, column, gesture)]
            assert set(orders) == {"ascending", "descending"}
        assert sorted(read(table)[1]) == before
    assert opened.requests == [report.as_uri()]
    assert opened.complaints == []


def sort(table, column, gesture):
    """Sort by a column and compare what stands there with its order, which is returned."""
    button = table.locator("thead button").nth(column)
    if gesture == "click":
        button.click()
    else:
        button.focus()
        button.press(gesture)
        assert button.evaluate("(element) => element === document.activeElement")
    sorts, rows = read(table)
    order = sorts.pop(column)
    assert set(sorts) == {"none"}
    values = [sortable(row[column]) for row in rows]
    defined = [value for value in values if value is not None]
    assert values[: len(defined)] == defined
    assert defined == sorted(defined, reverse=order == "descending")
    assert len(set(defined)) > 1
    return order


def read(table):
    """Return the order of every column, as a screen reader is told it, and the text of the rows."""
    return table.evaluate(
        """(table) => [
          [...table.tHead.rows[0].cells].map((cell) => cell.ariaSort),
          [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)),
        ]"""
    )


def sortable(text):
    """Return what a cell says: a number, a name, or None."""
    text = re.sub(r"[†‡]| ×\d+| this model| \(best\)", "", text).strip()
    if text in ("", "–undefined", "undefined"):
        return None
    if text == "none":
        return 0.0
    return float(text) if re.fullmatch(r"-?[\d.]+", text) else text


def test_the_first_click_on_a_metric_brings_the_best_to_the_top(open_page, report):
    table = open_page(report).page.locator("table.sortable").last
    for column in (1, 3, 4, 5, 6, 7, 8):
        table.locator("thead button").nth(column).click()
        best = table.locator("tbody tr").first.locator("th, td").nth(column)
        assert best.get_attribute("class") == "number best"


def test_the_keyboard_reaches_everything(open_page, report, width):
    page = (opened := open_page(report, width=width)).page
    controls = "[...document.querySelectorAll(\"a, button, summary, [tabindex='0']\")]"
    wanted = page.evaluate(f"{controls}.length")
    assert wanted > 25
    forwards = [("Tab", i) for i in range(wanted)]
    backwards = [("Shift+Tab", i) for i in reversed(range(wanted - 1))]
    for key, expected in forwards + backwards:
        page.keyboard.press(key)
        assert page.evaluate(f"{controls}.indexOf(document.activeElement)") == expected
        assert opened.faults("hiddenFocus") == []


def test_paper_shows_everything(open_page, report, theme):
    # A4 less margins of 15 mm is 680 CSS pixels wide.
    page = (opened := open_page(report, width=680, theme=theme)).page
    folded = "[...document.querySelectorAll('details')].map((details) => details.open)"
    page.evaluate(f"addEventListener('beforeprint', () => {{ window.printed = {folded}; }})")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    assert page.evaluate("window.printed") == [True, True]
    page.wait_for_function("!document.querySelector('details[open]')")
    page.emulate_media(media="print", color_scheme=theme)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    sections = page.locator("section, section h2, section table, section svg, section details")
    assert sections.count() > 20
    assert all(part.is_visible() for part in sections.all())
    assert page.get_by_role("navigation").count() == 0
    assert opened.faults("tooWide") == []
    assert opened.faults("cutOff") == []
    assert opened.faults("paleText") == []


def test_names_from_data_stay_text(open_page, hostile_report):
    page = (opened := open_page(hostile_report)).page
    unfold(page)
    for button in page.get_by_role("button").all():
        button.click()
    assert page.evaluate("window.harm") is None
    assert page.locator("script").count() == page.locator("style").count() == 1
    assert page.locator("[onerror], [onload], [onfocus], [autofocus]").count() == 0
    shown = page.locator("table.sortable").first.locator("tbody th").all_inner_texts()
    assert sorted(shown) == sorted(HOSTILE)
    assert opened.requests == [hostile_report.as_uri()]
    assert opened.complaints == []


def test_a_comparison_is_as_good_a_page(open_page, comparison, screenshots, width, theme):
    opened = open_page(comparison, width=width, theme=theme)
    file = screenshots / f"comparison-{width}-{theme}.png"
    opened.page.screenshot(path=file, full_page=True)
    unfold(opened.page)
    checks = ("paleText", "crowdedFigures", "smallTargets")
    assert [fault for check in checks for fault in opened.faults(check)] == []
    nodes = opened.accessible()
    assert [n for n in nodes if (n["role"] in NAMED or n.get("focusable")) and not n["name"]] == []
    regions = [n["name"] for n in nodes if n["role"] == "region"]
    assert len(regions) == len(set(regions))
    levels = [n["level"] for n in nodes if n["role"] == "heading"]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert {url for url in opened.requests if not url.startswith("data:")} == {comparison.as_uri()}
    assert opened.complaints == []


def test_a_comparison_can_be_printed(open_page, comparison, theme):
    page = (opened := open_page(comparison, width=680, theme=theme)).page
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme=theme)
    for check in ("tooWide", "cutOff", "paleText"):
        assert opened.faults(check) == [], check


FAULTY = """<!DOCTYPE html><title>Faulty</title>
<h1>One</h1>
<p style="color: #888; background: #fff">pale</p>
<p style="width: 3000px">wide</p>
<p style="width: 9px; height: 9px; overflow: hidden">cut off</p>
<button style="width: 12px; height: 12px; padding: 0; outline: none"></button>
<svg width="50" height="50"><text x="45" y="20">out</text><text x="46" y="21">on</text></svg>
<img src="missing.png">
<script>alert("hello"); console.error("bad"); throw new Error("worse")</script>
"""


def test_the_checks_find_what_they_look_for(open_page, tmp_path):
    (tmp_path / "faulty.html").write_text(FAULTY, "utf-8")
    opened = open_page(tmp_path / "faulty.html")
    expected = {
        "paleText": ["3.54"],
        "tooWide": ["The page is", "wide"],
        "cutOff": ["cut off"],
        "smallTargets": ["<button"],
        "crowdedFigures": ["Leaves the figure", "touches"],
    }
    for check, words in expected.items():
        faults = " ".join(opened.faults(check))
        assert all(word in faults for word in words), (check, faults)
    opened.page.keyboard.press("Tab")
    assert "No outline" in opened.faults("hiddenFocus")[0]
    assert any(n["role"] == "button" and not n["name"] for n in opened.accessible())
    assert any(url.endswith("missing.png") for url in opened.requests)
    for complaint in ("dialog: hello", "error: bad", "error: worse", "ERR_FILE_NOT_FOUND"):
        assert complaint in "\n".join(opened.complaints)
