"""The documentation site that `make docs` built: every public name, every page, no dead link."""

from __future__ import annotations

import importlib
import os
import pkgutil
import zlib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import trustvlm

SITE = Path(os.environ.get("TRUSTVLM_SITE") or "no site")
pytestmark = pytest.mark.skipif(
    not SITE.is_dir(), reason="`make docs` builds the site and tests it"
)
# What an element fetches or leads to.
TARGETS = {"a": "href", "img": "src", "link": "href", "script": "src", "iframe": "src"}


class Page(HTMLParser):
    """Links and anchors of a page, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.loaded, self.anchors, self.images = [], [], set(), []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        target = given.get(TARGETS.get(tag, ""))
        if tag == "img":
            self.images.append(given)
        if target:
            (self.targets if tag == "a" else self.loaded).append(target)


@pytest.fixture(scope="module")
def pages():
    # The theme's static folder holds a template that is no page.
    paths = [path for path in SITE.rglob("*.html") if "_static" not in path.parts]
    return {path.resolve(): Page(path) for path in paths}


def inventory():
    """Names of Python objects in the site's inventory, which other sites' links go by."""
    data = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = [line.split() for line in zlib.decompress(data).decode("utf-8").splitlines()]
    return {words[0] for words in lines if words[1].startswith("py:")}


def public_names():
    rooms = [f"trustvlm.{module.name}" for module in pkgutil.iter_modules(trustvlm.__path__)]
    for room in ["trustvlm", *rooms]:
        for name in getattr(importlib.import_module(room), "__all__", []):
            yield f"{room}.{name}"


def test_every_public_name_is_in_the_reference():
    names = list(public_names())
    assert len(names) > 150
    listed = inventory()
    assert [name for name in names if name not in listed] == []
    assert {"trustvlm.TrustVLM.fit", "trustvlm.exceptions.TrustVLMError"} <= listed


def test_every_link_leads_to_a_page_and_an_anchor_of_it(pages):
    dead = []
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            missing = (
                parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors
            )
            if not to.exists() or missing:
                dead.append((path.relative_to(SITE.resolve()).as_posix(), target))
    assert dead == []


def test_nothing_is_loaded_from_elsewhere(pages):
    outside = {
        (path.name, target)
        for path, page in pages.items()
        for target in page.loaded
        if urlsplit(target).scheme not in ("", "data")
        or not (urlsplit(target).scheme or (path.parent / urlsplit(target).path).exists())
    }
    assert outside == set()


def test_every_picture_says_what_it_shows(pages):
    """Those of the pages; the outputs of the notebook are stored as they were shown."""
    images = [image for page in pages.values() for image in page.images]
    files = [image for image in images if not image["src"].startswith("data:")]
    assert len(files) > 5
    assert [image["src"] for image in files if not image.get("alt")] == []


def test_every_page_is_in_the_navigation(pages):
    front = pages[(SITE / "README.html").resolve()]
    # What is made for search and index.
    made = {"README", "index", "search", "genindex", "py-modindex"}
    for path in pages:
        name = path.relative_to(SITE.resolve()).as_posix()
        if path.stem not in made:
            assert name in front.targets, name
