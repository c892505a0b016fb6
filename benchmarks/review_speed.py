"""How many labels a person can review a minute; the table in benchmarks/RESULTS.md, "Reviewing".

    python benchmarks/review_speed.py [--rounds 3] [--latency 80] [--grid] [--source PATH]

A scripted reviewer, who knows the right label of each picture, works the queue of the review page
in Chromium: looks at a picture for a set time once it is on the screen, presses keys at a set
pace, and never errs. Pages differ in how many keys an answer takes and in how long they let one
wait. The pictures are those of `trustvlm demo`, enlarged to 1024 pixels, as photographs are, and
their verdicts come from the offline models. `--source` names the `src` folder of another version (a
worktree of it), whose page is worked the way it can be; run it by turns with this one. `--latency`
adds milliseconds to each request, as of a service on another machine.

The times: 0.6 s to judge a picture, 0.25 s in a grid, where it is beside others like it; 0.2 s a
key or click, and 1.1 s to point with the mouse (a skilled typist of the keystroke-level model of
Card, Moran and Newell, 1980). The times for judging are guesses. With `--machine` all are 0, and
what remains is the time of the page and of this script.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from trustvlm import TrustVLM
from trustvlm.demo import write_pictures
from trustvlm.images import find_labelled

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIDE = 1024
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--no-proxy-server")
# The picture on the screen, and whether it is painted.
SHOWN = """(name) => {
    const img = document.querySelector("#item .main img, #item img.main");
    const own = document.querySelector("#item .name")?.textContent === name;
    return Boolean(own && img && img.complete && img.naturalWidth);
}"""
TILES = """() => {
    const images = [...document.querySelectorAll(".tile img")];
    const tiles = document.querySelectorAll(".tile").length;
    return tiles > 0 && images.length === tiles && images.every((img) => img.complete);
}"""


@dataclass(frozen=True)
class Person:
    """How long the scripted reviewer takes, in seconds."""

    look: float
    glance: float
    key: float

    def press(self, page: Page, key: str) -> None:
        """Press a key, at the pace of a hand."""
        time.sleep(self.key)
        page.keyboard.press(key)


@contextlib.contextmanager
def service(model: Path, folder: Path, source: Path) -> Iterator[str]:
    """The address of a service of some version."""
    port = 8900 + os.getpid() % 90
    database = folder / "f.sqlite"
    command = [sys.executable, "-m", "trustvlm", "serve", model, "--port", port]
    command += ["--feedback", database]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stderr=log, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/healthz", timeout=5).close()
                break
            time.sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()
        for file in folder.glob("f.sqlite*"):
            file.unlink()


def one_by_one(page: Page, truth: dict[str, str], person: Person, n: int) -> dict[str, int]:
    """Answer n images one at a time; return how often each kind of answer was given."""
    counts = {"accept": 0, "candidate": 0, "list": 0}
    page.locator("#item").wait_for()
    for _ in range(n):
        name = page.locator("#item .name").inner_text()
        page.wait_for_function(SHOWN, arg=name, polling=5)
        time.sleep(person.look)
        label, right = page.locator("#item h3").inner_text(), truth[name]
        buttons = page.locator("#candidates button")
        texts = buttons.evaluate_all("all => all.map((one) => one.dataset.label)")
        captions = page.locator("#item figcaption").all_inner_texts()
        runner_up = any(c.startswith(f"runner-up: {right},") for c in captions)
        if label == right:
            person.press(page, "a")
            counts["accept"] += 1
        elif right in texts:
            person.press(page, str(texts.index(right) + 1))
            counts["candidate"] += 1
        elif not texts and runner_up:
            person.press(page, "r")
            counts["candidate"] += 1
        else:
            # The list: C, two letters or as many as it takes, Enter.
            person.press(page, "c")
            for _ in range(2):
                time.sleep(person.key)
            page.locator("#right").select_option(label=right)
            person.press(page, "Enter")
            counts["list"] += 1
        page.wait_for_function(
            "(name) => document.querySelector('#item .name')?.textContent !== name "
            "|| document.querySelector('#single')?.hidden",
            arg=name,
            polling=5,
        )
    return counts


def many_at_once(page: Page, truth: dict[str, str], person: Person, n: int) -> dict[str, int]:
    """Answer n images in the grid, and what is wrong there one by one."""
    counts = {"accept": 0, "candidate": 0, "list": 0, "deselected": 0}
    person.press(page, "g")
    done = 0
    while done < n:
        page.wait_for_function(TILES, polling=5)
        label = page.locator("#group").input_value()
        tiles = page.locator(".tile")
        names = [t.split(" is ")[0] for t in tiles.evaluate_all("t => t.map(e => e.ariaLabel)")]
        time.sleep(person.glance * len(names))
        wrong = [i for i, name in enumerate(names) if truth[name] != label]
        for i in wrong:
            # A click, with the pointing that it takes.
            time.sleep(1.1 * bool(person.key) + person.key)
            tiles.nth(i).click()
        person.press(page, "Enter")
        if wrong:
            for kind, times in one_by_one(page, truth, person, len(wrong)).items():
                counts[kind] += times
        counts["accept"] += len(names) - len(wrong)
        counts["deselected"] += len(wrong)
        done += len(names)
        if done < n:
            page.wait_for_function(
                "(old) => { const t = document.querySelector('.tile'); "
                "return t && t.ariaLabel.split(' is ')[0] !== old; }",
                arg=names[0],
                polling=5,
            )
    return {**counts, "n": done}


def measure(
    address: str,
    files: list[str],
    truth: dict[str, str],
    person: Person,
    *,
    grid: bool,
    latency: float,
) -> tuple[float, dict[str, int]]:
    """Fill the queue, answer all of it, and return answers a minute."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS))
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.get_by_text("classes, score").wait_for()
        page.locator("#files").set_input_files(files)
        page.get_by_text(f"{len(files)} images checked.").wait_for(timeout=300_000)
        conditions = {"offline": False, "latency": latency}
        rates = {"downloadThroughput": -1, "uploadThroughput": -1}
        session = page.context.new_cdp_session(page)
        session.send("Network.emulateNetworkConditions", {**conditions, **rates})
        page.get_by_role("navigation").get_by_role("link", name="Review").click()
        page.locator("#item").wait_for()
        page.wait_for_load_state("networkidle")
        # The last one is left, so that there is always a next image to wait for.
        n = len(files) - 1
        work = many_at_once if grid else one_by_one
        begin = time.perf_counter()
        counts = work(page, truth, person, len(files) if grid else n)
        seconds = time.perf_counter() - begin
        browser.close()
    return 60 * counts.get("n", n) / seconds, counts


def main() -> None:
    """Print answers a minute, by round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--grid", action="store_true", help="many alike at once")
    parser.add_argument("--latency", type=float, default=0.0, help="of a request, in milliseconds")
    parser.add_argument("--machine", action="store_true", help="a person who takes no time")
    options = parser.parse_args()
    person = Person(0, 0, 0) if options.machine else Person(0.6, 0.25, 0.2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = write_pictures(folder / "pictures")
        fitted: Any = TrustVLM(vlm="offline", vision="offline", classes=pictures.classes)
        model = folder / "demo.trust"
        fitted.fit(pictures.shots).save(model)
        refs = find_labelled(pictures.labels).refs
        refs = refs[:: max(1, len(refs) // options.images)][: options.images]
        truth, files = {}, []
        names = dict(zip(fitted.classes_.folders, fitted.classes_.labels, strict=True))
        for ref in refs:
            file = folder / Path(str(ref.file)).name
            with Image.open(str(ref.file)) as image:
                image.convert("RGB").resize((SIDE, SIDE)).save(file, quality=90)
            truth[file.name] = names.get(str(ref.label), str(ref.label))
            files.append(str(file))
        rates: list[float] = []
        counts: dict[str, int] = {}
        for _ in range(options.rounds):
            with service(model, folder, options.source) as address:
                rate, counts = measure(
                    address, files, truth, person, grid=options.grid, latency=options.latency
                )
            rates.append(rate)
            print(f"{rate:.1f} a minute", counts, flush=True)
    spread = f"{min(rates):.1f} to {max(rates):.1f}"
    print(f"median {statistics.median(rates):.1f} a minute ({spread}), {counts}")


if __name__ == "__main__":
    main()
