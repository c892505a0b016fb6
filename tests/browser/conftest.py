"""A real browser, and pages opened in it under watch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Without a sandbox, because tests often run as root in a container; nothing but the tests' own
# pages is opened.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # The names of pages of other sites.
    "--host-resolver-rules=MAP *.example 127.0.0.1",
    "--no-proxy-server",
)
CHECKS = Path(__file__).with_name("checks.js").read_text("utf-8")
GUIDELINES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
AXE = {
    "runOnly": {"type": "tag", "values": GUIDELINES},
    "rules": {"target-size": {"enabled": True}},  # of WCAG 2.2, and off unless asked for
    "resultTypes": ["violations"],
    "preload": False,  # a page under watch asks for nothing more
}


@dataclass
class WatchedPage:
    """An open page, with what it asked for and what it complained about."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._refuse)
        self.page.on(
            "console", lambda message: self.complaints.append(f"{message.type}: {message.text}")
        )

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def faults(self, check: str) -> list[str]:
        """Run one of the checks of checks.js; it returns what is wrong, in words."""
        return self.page.evaluate(f"({CHECKS}).{check}()")

    def violations(self) -> list[str]:
        """Let axe-core look for breaches of WCAG 2.2 A and AA and of good practice, in words."""
        axe = pytest.importorskip(
            "axe_playwright_python.sync_playwright",
            reason="no axe: pip install 'trustvlm[browser]'",
        )
        report = axe.Axe().run(self.page, options=AXE).response
        return [
            f"{broken['impact']}: {broken['help']} ({broken['id']}): {node['html'][:200]}"
            for broken in report["violations"]
            for node in broken["nodes"]
        ]

    def accessible(self) -> list[dict[str, Any]]:
        """Return what the browser tells a screen reader: role, name and properties of each node."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        return [
            {
                "role": node["role"]["value"],
                "name": node.get("name", {}).get("value", "").strip(),
                **{p["name"]: p["value"].get("value") for p in node.get("properties", ())},
            }
            for node in nodes
            if not node["ignored"]
        ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of this machine, driven by Playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: pip install 'trustvlm[browser]'"
    )
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., WatchedPage]]:
    """Open a file or an address in a fresh window of some width and theme.

    `intercepted` is for tests that call `page.route` while the page is open: the renderer is told
    of the first route only, and takes it into account some time after `page.route` has returned. A
    route that is there before the page, and fits no address, is that first one.
    """
    contexts = []

    def opened(
        file: Path | str, *, width: int = 1280, theme: str = "light", intercepted: bool = False
    ) -> WatchedPage:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=theme, reduced_motion="reduce"
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        if intercepted:
            context.route("**/no-such-address", lambda route: route.fallback())
        watched = WatchedPage(context.new_page())
        watched.page.goto(file if isinstance(file, str) else file.as_uri())
        return watched

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(params=["light", "dark"])
def theme(request):
    return request.param


@pytest.fixture(params=[1280, 390])
def width(request):
    return request.param


@pytest.fixture
def screenshots(tmp_path):
    named = os.environ.get("TRUSTVLM_SCREENSHOTS")
    folder = Path(named) if named else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder
