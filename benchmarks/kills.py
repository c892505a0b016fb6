"""Kill `fit -o` and `calibrate` at random moments: is the older or the new model always there?

    python benchmarks/kills.py [KILLS ["fit -o"] [calibrate]]

Half of the kills fall anywhere in a run, half while files are written beside the model. After each
the model is loaded, and must be the one of before or the one that was being made, whole. Half of
the runs work as on file systems where two folders cannot change places in one step.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import trustvlm.cli
import trustvlm.cli.app
import trustvlm.pipeline.predict  # imported once, before the forks
from pictures import write_class_folders
from trustvlm.pipeline import artefact
from trustvlm.pipeline.state import ModelState

OFFLINE = ("--vlm", "offline", "--vision", "offline")


def start(words: list[str], *, exchange: bool) -> int:
    """Run a command in a child process of its own; return its number."""
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    if not exchange:
        artefact._exchange = lambda *_: False
    status = 1
    try:
        sys.argv = ["trustvlm", *words]
        trustvlm.cli.main()
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def ends(words: list[str], *, exchange: bool = True) -> float:
    """Run a command to its end and return its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(start(words, exchange=exchange), 0)
    assert status == 0, f"{words} failed with {status}"
    return time.monotonic() - began


def kill(words: list[str], model: Path, seconds: float, *, exchange: bool, writing: bool) -> bool:
    """Kill a command at a random moment; False if it had ended before."""
    child = start(words, exchange=exchange)
    wait, began = random.uniform(0, seconds), time.monotonic()
    while time.monotonic() - began < (10 * seconds if writing else wait):
        if writing and any(model.parent.glob(".m.trust.*/new")):
            time.sleep(random.uniform(0, 0.005))
            break
        time.sleep(0 if writing else 0.001)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] != 0


def main(kills: int, commands: list[str]) -> None:
    """Count what is there after each kill."""
    random.seed(0)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["TRUSTVLM_CACHE"] = str(root / "cache")
    shots = [write_class_folders(root / f"shots{n}", per_class=n) for n in (4, 5)]
    labelled = write_class_folders(root / "labelled", per_class=10, seed=5)
    fitted = root / "m.trust"
    ends(["fit", str(shots[0]), "-o", str(fitted), *OFFLINE])
    for command in commands:
        seen: Counter[str] = Counter()
        for number in range(kills):
            folder = root / f"{command.split()[0]}{number}"
            folder.mkdir()
            model, exchange = folder / "m.trust", number % 2 == 0
            shutil.copytree(fitted, model)
            older = (model / "manifest.json").read_bytes()
            words = {
                "fit -o": ["fit", str(shots[1]), "-o", str(model), *OFFLINE],
                "calibrate": ["calibrate", str(model), str(labelled), "--risk", "0.3"],
            }[command]
            if number == 0:
                shutil.copytree(model, folder / "t.trust")
                trial = [w.replace("m.trust", "t.trust") for w in words]
                ends(trial)
                seconds = ends([*trial, "--overwrite"])
            killed = kill(words, model, seconds, exchange=exchange, writing=number % 4 > 1)
            state = ModelState.load(model)  # raises if it is not whole
            same = (model / "manifest.json").read_bytes() == older
            new = len(state.shots) == 15 if command == "fit -o" else state.calibration is not None
            assert same != new, model
            seen[("killed" if killed else "ended") + (", older" if same else ", new")] += 1
            shutil.rmtree(folder)
        print(f"{command}: {kills} runs, each model whole: {dict(sorted(seen.items()))}")
    shutil.rmtree(root)


if __name__ == "__main__":
    count, *chosen = sys.argv[1:] or ["100"]
    main(int(count), chosen or ["fit -o", "calibrate"])
