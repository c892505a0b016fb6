import threading

import pytest

from pictures import write_class_folders
from pixel_encoder import PixelEncoder
from trustvlm.embeddings import EmbeddingStore, Profile, encode_all
from trustvlm.images import find_images


def seconds_of(folder, encoders, store):
    profile = Profile()
    encode_all(find_images(folder), encoders, store, batch_size=4, profile=profile)
    return profile


def test_a_run_fills_every_stage_once_for_encoders_that_are_one(tmp_path):
    folder, store = write_class_folders(tmp_path / "photos"), EmbeddingStore.memory()
    one, other = PixelEncoder(0), PixelEncoder(1)
    profile = seconds_of(folder, {"vlm": one, "vision": other, "same": one}, store)
    assert set(profile.seconds) == {
        "reading",
        "looking up",
        "decoding",
        "resizing",
        "waiting for images",
        "encoder vlm",
        "encoder vision",
        "storing",
    }
    assert all(spent > 0 for spent in profile.seconds.values())
    assert profile.n_images == 12
    again = seconds_of(folder, {"vlm": one}, store)
    assert not {"encoder vlm", "decoding"} & set(again.seconds)


def test_stages_add_up_across_threads_and_exceptions():
    profile = Profile()

    def work():
        for _ in range(200):
            profile.add("decoding", 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(KeyError), profile.stage("scores"):
        raise KeyError
    assert profile.seconds["decoding"] == 400
    assert profile.seconds["scores"] > 0


def test_the_lines_state_shares_of_the_whole(monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("trustvlm.embeddings.prefetch.time.perf_counter", lambda: next(clock))
    profile = Profile()
    profile.n_images = 20
    profile.add("encoder vlm", 6)
    profile.add("encoder vision", 2.5)
    profile.add("decoding", 7)
    first, *rows, last = profile.lines()
    assert first == "profile: 20 images in 10.00 s, 2.0 images/s"
    assert [row.split() for row in rows] == [
        ["encoder", "vlm", "6.00", "s", "60.0%"],
        ["encoder", "vision", "2.50", "s", "25.0%"],
        ["all", "else", "1.50", "s", "15.0%"],
        ["in", "threads,", "meanwhile,", "seconds", "summed", "over", "them:"],
        ["decoding", "7.00", "s"],
    ]
    assert last == "the encoders' forward passes took 85.0% of the time"
