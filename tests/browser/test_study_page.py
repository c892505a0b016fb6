"""The page of a study, in a browser."""

from __future__ import annotations

import pytest

from bench_results import make_results
from trustvlm.benchmark.page import write_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    metrics = ["accuracy", "aurc", "auroc"]
    return write_page(make_results(), folder, n_resamples=60, metrics=metrics)


def test_axe_finds_nothing_to_object_to(open_page, study, width, theme):
    opened = open_page(study, width=width, theme=theme)
    opened.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert opened.violations() == []
    assert opened.complaints == []


@pytest.mark.parametrize(("wide", "tall"), [(1280, 800), (390, 844)])
def test_the_first_screen_says_what_was_found(open_page, study, wide, tall):
    page = open_page(study, width=wide).page
    page.set_viewport_size({"width": wide, "height": tall})
    bottoms = page.evaluate(
        "['.headline', '.finding li:nth-child(2)', '.finding'].map("
        "one => document.querySelector(one).getBoundingClientRect().bottom)"
    )
    headline, second, everything = bottoms
    assert headline < second < tall
    assert everything < tall or wide < 800
    assert "trustvlm_star is best by AURC" in page.inner_text(".headline")
    # The table beside the sentences is seen whole.
    whole = "const box = document.querySelector('.finding .scroll'); "
    assert wide < 800 or page.evaluate(
        f"() => {{ {whole} return box.scrollWidth <= box.clientWidth }}"
    )
