"""The documentation site, from the disk: as wide as the window, and searched without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SITE = Path(os.environ.get("TRUSTVLM_SITE") or "no site").resolve()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not SITE.is_dir(), reason="`make docs` builds the site"),
]
MADE = {"index.html", "genindex.html", "py-modindex.html", "search.html"}
# Of the page, or of a heading in it, which would be cut.
EXCESS = """() => Math.max(
    ...[document.documentElement, ...document.querySelectorAll("h1, h2, h3")].map(
        (element) => element.scrollWidth - element.clientWidth
    )
)"""


def test_no_page_is_wider_than_a_screen_or_a_telephone(open_page):
    """Wide tables and lines of code scroll by themselves."""
    opened = open_page(SITE / "README.html")
    wide, pages = [], 0
    for path in sorted(SITE.rglob("*.html")):
        if path.name in MADE or "_static" in path.parts:
            continue
        pages += 1
        opened.page.goto(path.as_uri(), wait_until="load")
        for width in (1280, 390):
            opened.page.set_viewport_size({"width": width, "height": 900})
            excess = opened.page.evaluate(EXCESS)
            if excess > 0:
                wide.append((path.relative_to(SITE).as_posix(), width, excess))
    assert pages > 30
    assert wide == []
    # The theme tells the console which colours it took.
    assert [text for text in opened.complaints if not text.startswith("log:")] == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize(
    ("words", "page"),
    [("certified threshold", "choose-a-threshold"), ("risk_coverage", "trustvlm.metrics")],
)
def test_search_finds_pages_and_names_without_a_network(open_page, words, page):
    opened = open_page(f"{(SITE / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
    opened.page.wait_for_selector("#search-results li a", timeout=15_000)
    links = [
        a.get_attribute("href") for a in opened.page.query_selector_all("#search-results li a")
    ]
    assert any(page in link for link in links)
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
