"""Kill `fit -o`, `calibrate` and reloads at random moments: is the older or new model always there?

    python benchmarks/kills.py [KILLS ["fit -o"] [calibrate] [reload]]

Half of the kills fall anywhere in a run, half while files are written beside the model. After each
the model is loaded, and must be the one of before or the one that was being made, whole. Half of
the runs work as on file systems where two folders cannot change places in one step.

For `reload` a service is asked to load the model again while another process replaces it all the
time with one of other classes, to and fro. Every answer must be of one of the two, whole, and the
service is killed at a random moment of the last reload; started again, it must answer.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def replace_to_and_fro(model: Path, others: list[Path]) -> int:
    """Replace a model again and again by one or the other, in a process; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        states = [ModelState.load(other) for other in others]
        while True:
            for state in states:
                state.save(model)
                time.sleep(random.uniform(0, 0.2))
    finally:
        os._exit(1)


def ask(port: int, path: str, method: str = "GET") -> dict[str, Any]:
    """Ask the service; raises for anything but 200 and 409."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code != 409:
            raise
        return {"refused": json.load(error)}


def serve(model: Path, port: int, exchange: bool) -> int:
    """Start a service and wait until it answers; return its process."""
    words = ["serve", str(model), "--port", str(port), "--feedback", str(model.parent / "f.db")]
    child = start(words, exchange=exchange)
    for _ in range(600):
        with suppress(OSError):
            ask(port, "/readyz")
            return child
        time.sleep(0.1)
    raise SystemExit(f"{model}: the service does not answer")


def kill_reloads(kills: int, root: Path, models: list[Path]) -> None:
    """Reload while the model is replaced, and kill the service meanwhile."""
    sizes = {len(ModelState.load(model).classes) for model in models}
    seen: Counter[str] = Counter()
    (root / "reload").mkdir()
    model, port = root / "reload" / "m.trust", 8791
    shutil.copytree(models[0], model)
    for number in range(kills):
        service = serve(model, port, exchange=True)
        writer = replace_to_and_fro(model, models)
        for _ in range(5):
            answer = ask(port, "/v1/reload", "POST")
            seen["refused" if "refused" in answer else "reloaded"] += 1
            assert len(ask(port, "/v1/model")["classes"]) in sizes
        last = threading.Thread(target=lambda: suppress_all(ask, port, "/v1/reload", "POST"))
        last.start()
        time.sleep(random.uniform(0, 0.3))
        for child in (service, writer) if number % 2 else (writer, service):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        last.join()
        assert len(ModelState.load(model).classes) in sizes
        seen["killed"] += 1
    print(f"reload: {kills} services, each model whole: {dict(sorted(seen.items()))}")


def suppress_all(function: Callable[..., Any], *arguments: Any) -> None:
    """Call it, whatever comes of it."""
    with suppress(Exception):
        function(*arguments)


def main(kills: int, commands: list[str]) -> None:
    """Count what is there after each kill."""
    random.seed(0)
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ["TRUSTVLM_CACHE"] = str(root / "cache")
    shots = [write_class_folders(root / f"shots{n}", per_class=n) for n in (4, 5)]
    few = shutil.copytree(shots[0], root / "few")
    shutil.rmtree(few / "red")
    labelled = write_class_folders(root / "labelled", per_class=10, seed=5)
    fitted = root / "m.trust"
    ends(["fit", str(shots[0]), "-o", str(fitted), *OFFLINE])
    if "reload" in commands:
        ends(["fit", str(few), "-o", str(root / "few.trust"), *OFFLINE])
        kill_reloads(kills, root, [fitted, root / "few.trust"])
    for command in [c for c in commands if c != "reload"]:
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
    main(int(count), chosen or ["fit -o", "calibrate", "reload"])
