import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pictures import write_class_folders
from trustvlm.embeddings import EmbeddingStore
from trustvlm.environment import cache_dir


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(fitted, tmp_path):
    photos = write_class_folders(tmp_path / "photos", per_class=48, seed=3)
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

    # The graphs and the bank of the offline models, which take longer to make than the images.
    for cache in ("undisturbed", "disturbed"):
        no_embeddings = shutil.ignore_patterns("embeddings.sqlite*")
        shutil.copytree(cache_dir(), tmp_path / cache, ignore=no_embeddings)

    def start(cache, target):
        environment = {**os.environ, "TRUSTVLM_CACHE": str(tmp_path / cache)}
        return subprocess.Popen([*command, target], env=environment, stderr=subprocess.DEVNULL)

    def stored():
        file = tmp_path / "disturbed" / "embeddings.sqlite"
        if not file.exists():
            return 0
        with EmbeddingStore(file) as store:
            return store.stats().entries

    assert start("undisturbed", tmp_path / "undisturbed.csv").wait() == 0
    # 144 images through two encoders give 288 vectors: a killed run has half of them still to do.
    for enough in sorted(random.Random(0).sample(range(1, 140), 4)):
        run = start("disturbed", tmp_path / "disturbed.csv")
        while run.poll() is None and stored() < enough:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert not (tmp_path / "disturbed.csv").exists()
    assert start("disturbed", tmp_path / "disturbed.csv").wait() == 0
    undisturbed = (tmp_path / "undisturbed.csv").read_bytes()
    assert (tmp_path / "disturbed.csv").read_bytes() == undisturbed
    assert undisturbed.count(b"\n") == 145
