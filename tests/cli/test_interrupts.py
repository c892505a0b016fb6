import os
import random
import signal
import subprocess
import sys
import time

import pytest

from pictures import write_class_folders


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(fitted, tmp_path):
    photos = write_class_folders(tmp_path / "photos", per_class=24, seed=3)
    command = [
        sys.executable,
        "-m",
        "trustvlm",
        "predict",
        fitted,
        photos,
        "--batch-size",
        "4",
        "-o",
    ]

    def start(cache, target):
        environment = {**os.environ, "TRUSTVLM_CACHE": str(tmp_path / cache)}
        return subprocess.Popen([*command, target], env=environment, stderr=subprocess.DEVNULL)

    began = time.monotonic()
    assert start("undisturbed", tmp_path / "undisturbed.csv").wait() == 0
    needed = time.monotonic() - began
    draws = random.Random(0)
    killed = 0
    for _ in range(4):
        run = start("disturbed", tmp_path / "disturbed.csv")
        time.sleep(needed * draws.uniform(0.3, 1.0))
        run.send_signal(signal.SIGKILL)
        killed += run.wait() == -signal.SIGKILL
        leftovers = [path.name for path in tmp_path.iterdir() if path.name.startswith("disturbed.")]
        assert leftovers in ([], ["disturbed.csv"])
    assert killed
    assert start("disturbed", tmp_path / "disturbed.csv").wait() == 0
    undisturbed = (tmp_path / "undisturbed.csv").read_bytes()
    assert (tmp_path / "disturbed.csv").read_bytes() == undisturbed
    assert undisturbed.count(b"\n") == 73
