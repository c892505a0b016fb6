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
