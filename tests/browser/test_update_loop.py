"""The loop as a person goes round it: thirty answers by keys, a button, and a better model.

The pictures are generated, so that this runs everywhere: six patterns in any colours, which one
example a class is too few for.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service import assert_same_model, service_of
from trustvlm import TrustVLM

pytestmark = pytest.mark.browser
SIZE = 96
ANSWERS = 30
# One is of a picture that is nearly the same as one that is calibrated on.
LEARNED = 29


def wave(phase):
    return np.sin(2 * np.pi * phase)


PATTERNS = {
    "horizontal stripes": lambda x, y: wave(y),
    "vertical stripes": lambda x, y: wave(x),
    "diagonal stripes": lambda x, y: wave((x + y) / np.sqrt(2)),
    "dots": lambda x, y: wave(x) * wave(y) - 0.3,
    "squares": lambda x, y: wave(x) * wave(y),
    "rings": lambda x, y: wave(np.hypot(x - x.mean(), y - y.mean())),
}


def patterned(pattern, seed):
    """A noisy pattern of two colours, its period and its place drawn by the seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] + rng.uniform(0, 30, (2, 1, 1))
    field = PATTERNS[pattern](*(np.array([x, y]) / rng.uniform(9, 20)))
    one, other = rng.uniform(0, 255, (2, 3))
    pixels = np.where(field[:, :, None] > 0, one, other) + rng.normal(
        scale=40, size=(SIZE, SIZE, 3)
    )
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write(folder, per_class, seed):
    """Class folders; each file says what it shows."""
    for c, pattern in enumerate(PATTERNS):
        (folder / pattern).mkdir(parents=True)
        for i in range(per_class):
            image = patterned(pattern, 10_000 * seed + 1000 * c + i)
            image.save(folder / pattern / f"{pattern} {i}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="the offline models need the extra offline")
    folder = tmp_path_factory.mktemp("loop")
    shots = write(folder / "shots", 1, 1)
    model = TrustVLM(vlm="offline", vision="offline").fit(shots)
    model.calibrate(write(folder / "checked", 12, 2), risk=0.4).save(folder / "patterns.trust")
    write(folder / "incoming", 10, 3)
    write(folder / "held out", 50, 4)
    return folder


def truth(path):
    return Path(path).stem.rpartition(" ")[0]


def share_right(model, folder):
    """On three hundred pictures that nobody has answered, and the model has never seen."""
    verdicts = TrustVLM.load(model).predict(folder / "held out")
    assert len(verdicts) == 300
    return np.mean([verdict.label == truth(verdict.path) for verdict in verdicts])


def answer(page):
    """Say what is right by one key, or by the list."""
    name = page.locator("#item .name").inner_text()
    right, label = truth(name), page.locator("#item h3").inner_text()
    names = page.locator("#candidates button").evaluate_all("all => all.map(b => b.dataset.label)")
    assert names[0] == label
    if right in names:
        page.keyboard.press(str(names.index(right) + 1))
    else:
        page.keyboard.press("c")
        page.locator("#right").select_option(label=right)
        page.keyboard.press("Enter")
    page.wait_for_function(
        "(name) => document.querySelector('#item .name')?.textContent !== name", arg=name
    )


def test_thirty_answers_and_a_button_make_a_better_model(open_page, folder, tmp_path, screenshots):
    model, old = folder / "patterns.trust", tmp_path / "patterns.trust"
    shutil.copytree(model, old)
    database = folder / "patterns.feedback.sqlite"
    before = share_right(model, folder)
    with service_of(model, "--feedback", database, log=folder / "log") as (_, address):
        opened = open_page(address)
        page = opened.page
        files = sorted(map(str, (folder / "incoming").rglob("*.png")))
        page.get_by_label("choose files").set_input_files(files)
        page.get_by_text(f"{len(files)} images checked.").wait_for(timeout=120_000)
        page.get_by_role("navigation").get_by_role("link", name="Review").click()
        page.locator("#item").wait_for()
        for _ in range(ANSWERS):
            answer(page)
        page.get_by_text(f"{ANSWERS} answered").wait_for()
        page.get_by_role("button", name="Update the model with the answers").click()
        page.get_by_role("button", name="Use the new model").wait_for(timeout=120_000)
        table = page.get_by_role("table", name="Labels that are right").inner_text()
        assert f"corrections ({LEARNED})" in table
        assert "calibration images (72)" in table
        assert "better" in table
        page.locator(".update").scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "update.png", full_page=True)
        assert opened.violations() == []
        # Until the switch nothing has changed.
        assert len(TrustVLM.load(model).shots_) == 6
        command = page.locator("#command").text_content()
        page.get_by_role("button", name="Use the new model").click()
        page.get_by_text("The new model is in use. The old one is kept as").wait_for(timeout=60_000)
        # Examples that were answers are shown, too.
        with urllib.request.urlopen(f"{address}/v1/examples/{6 + LEARNED - 1}") as example:
            assert example.headers["content-type"] == "image/jpeg"
        assert opened.complaints == []
    updated = TrustVLM.load(model)
    assert len(updated.shots_) == 6 + LEARNED
    assert updated.calibration_ is not None
    assert updated.calibration_.certificate.certified
    assert share_right(model, folder) > before + 0.1
    # The command that the page shows does the same, to the bit.
    for file in folder.glob(f"{database.name}*"):  # with its write-ahead log
        shutil.copy(file, tmp_path)
    words = shlex.split(command)
    assert words[:2] == ["trustvlm", "update"]
    run = [sys.executable, "-m", *words]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_model(model, tmp_path / words[-1])


def test_the_old_model_can_be_kept(open_page, folder, tmp_path):
    shutil.copytree(folder / "patterns.trust", tmp_path / "own.trust")
    model = tmp_path / "own.trust"
    stamp = (model / "manifest.json").read_bytes()
    with service_of(model, log=tmp_path / "log") as (_, address):
        opened = open_page(f"{address}/#review")
        page = opened.page
        page.get_by_text("Nothing waits.").wait_for()
        page.get_by_role("button", name="Update the model with the answers").click()
        page.get_by_text("There is no answered image").wait_for()
        page.get_by_role("navigation").get_by_role("link", name="Check").click()
        files = sorted(map(str, (folder / "held out" / "rings").glob("*.png")))[:4]
        page.get_by_label("choose files").set_input_files(files)
        page.get_by_text("4 images checked.").wait_for(timeout=60_000)
        page.get_by_role("navigation").get_by_role("link", name="Review").click()
        page.locator("#item").wait_for()
        answer(page)
        answer(page)
        page.get_by_role("button", name="Update the model with the answers").click()
        page.get_by_role("button", name="Keep the old").click(timeout=120_000)
        page.get_by_role("button", name="Update the model with the answers").wait_for()
        assert page.get_by_role("table").count() == 0
    assert (model / "manifest.json").read_bytes() == stamp
