"""Decoding in processes: the same pixels, and limits that hold whatever an image does."""

from __future__ import annotations

import os
import queue
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from broken_images import encoded, png, png_chunk
from hanging import Sleep
from hostile import flat_png, many_scans, run_length_bitmap
from trustvlm.embeddings.decoding_pool import DecodingPool, FairQueue, PixelsTask, PreviewTask
from trustvlm.exceptions import ImageError
from trustvlm.images import Limits, decode
from trustvlm.models.base import Preprocessing

WANTED = (Preprocessing(size=(32, 24), resize=None), Preprocessing(size=(16, 16), resize=20))
LONG = 300


@dataclass(frozen=True)
class Die(Sleep):
    """A decoder that ends its process."""

    def run(self):
        os._exit(3)


@dataclass(frozen=True)
class Fill(Sleep):
    """A decoder that takes memory."""

    n_bytes: int = 0

    def run(self):
        return [b"%d" % bytearray(self.n_bytes).count(b"\1")]


@pytest.fixture
def pool():
    made = DecodingPool(1, heavy=1)
    yield made
    made.close()
    assert (made._n_threads, made._idle, made._running) == (0, [], set())


def pixels(content, name="a", **limits):
    return PixelsTask(content, name, Limits(**limits), WANTED)


def test_pixels_are_those_of_this_process(pool):
    content = encoded("PNG")
    made = pool.submit(pixels(content)).result(LONG)
    assert made.keys() == set(WANTED)
    for preprocessing in WANTED:
        np.testing.assert_array_equal(made[preprocessing], preprocessing.pixels(decode(content)))
    jpeg = pool.submit(PreviewTask(content, "a", Limits(), 20)).result(LONG)
    assert decode(jpeg).size == (20, 16)


def test_an_error_is_that_of_this_process(pool):
    with pytest.raises(ImageError) as expected:
        decode(b"GIF89a", name="\udcffodd.gif")
    with pytest.raises(ImageError) as caught:
        pool.submit(pixels(b"GIF89a", "\udcffodd.gif")).result(LONG)
    assert (caught.value.kind, str(caught.value)) == (expected.value.kind, str(expected.value))


def test_what_hangs_is_ended_and_the_next_image_is_decoded(pool):
    with pytest.raises(ImageError, match=r"hangs: decoding took longer than 0.2 s") as caught:
        pool.submit(Sleep(limits=Limits(seconds=0.2))).result(LONG)
    assert caught.value.kind == "too_slow"
    assert pool.submit(pixels(encoded("PNG"))).result(LONG)


def test_what_ends_its_process_fails_alone(pool):
    for _ in range(2):
        with pytest.raises(ImageError, match="exit code 3") as caught:
            pool.submit(Die()).result(LONG)
        assert caught.value.kind == "fatal"
        assert pool.submit(pixels(encoded("PNG"))).result(LONG)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited on Linux")
def test_what_takes_too_much_memory_fails_alone(pool):
    limits = Limits(max_pixels=1_000_000)
    assert pool.submit(Fill(limits=limits, n_bytes=200_000_000)).result(LONG) == [b"0"]
    with pytest.raises(ImageError, match="not enough memory") as caught:
        pool.submit(Fill(limits=limits, n_bytes=2**30)).result(LONG)
    assert caught.value.kind == "memory"
    assert pool.submit(pixels(encoded("PNG"))).result(LONG)


def test_a_process_that_died_while_nobody_asked_is_replaced(pool):
    pool.submit(pixels(encoded("PNG"))).result(LONG)
    os.kill(pool._idle[0]._process.pid, signal.SIGKILL)
    pool._idle[0]._process.wait()
    assert pool.submit(pixels(encoded("PNG"))).result(LONG)


def test_nobody_waits_for_images_that_hang(pool, monkeypatch):
    monkeypatch.setattr(pool, "LIGHT_SECONDS", 0.1)
    monkeypatch.setattr(pool, "FAIR_SECONDS", 0.2)
    hanging = [pool.submit(Sleep(), "bad") for _ in range(3)]
    for _ in range(2):
        assert pool.submit(pixels(encoded("PNG")), "good").result(LONG)
    # It began while they hang; their own limit is a minute.
    assert not all(future.done() for future in hanging)


def test_large_images_wait_for_one_another_and_for_nobody_else(pool, monkeypatch):
    monkeypatch.setattr(pool, "FAIR_SECONDS", 0.1)
    slow = [pool.submit(pixels(many_scans(490, 2000), f"{i}.jpg"), "bad") for i in range(2)]
    assert pool.submit(pixels(encoded("PNG")), "good").result(LONG)
    for future in slow:
        error = future.exception(LONG)
        assert error is None or "while others waited" in str(error)
    assert pool.submit(pixels(flat_png(4001, colour=0))).result(LONG)


def test_what_is_refused_anyway_waits_for_no_turn(pool):
    slow = [pool.submit(Sleep(limits=Limits(seconds=2)), "bad") for _ in range(2)]
    formats = frozenset({"JPEG", "PNG"})
    for content, words in (
        (many_scans(10_000, 64), "10,001 scans"),
        (run_length_bitmap(6000), "not opened here"),
        (png(60_000, 60_000, png_chunk(b"IDAT", b"")), "60000 x 60000"),
    ):
        with pytest.raises(ImageError, match=words):
            pool.submit(pixels(content, formats=formats), "good").result(LONG)
    assert slow[1].exception(LONG) is not None


def test_who_comes_too_late_is_not_decoded(pool):
    pool.submit(pixels(encoded("PNG"))).result(LONG)
    with pytest.raises(TimeoutError):
        pool.submit(pixels(encoded("PNG")), timeout=-1).result(LONG)


def test_closing_ends_what_hangs_at_once():
    pool = DecodingPool(1, heavy=1)
    hanging = [pool.submit(Sleep()) for _ in range(3)]
    begin = time.monotonic()
    pool.close()
    assert time.monotonic() - begin < 60
    assert all(future.done() for future in hanging)
    with pytest.raises(queue.Full):
        pool.submit(Sleep())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read on Linux")
def test_a_process_gives_back_what_large_images_took(pool):
    def memory():
        until = time.monotonic() + LONG
        while not pool._idle and time.monotonic() < until:  # it is there after its answer
            time.sleep(0.01)
        statm = Path(f"/proc/{pool._idle[0]._process.pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    pool.submit(pixels(encoded("PNG"))).result(LONG)
    before = memory()
    for side in (1500, 3000, 1500):
        large = b"P6 %d %d 255 " % (side, side) + bytes(3 * side * side)
        pool.submit(pixels(large)).result(LONG)
    # glibc by itself keeps 30 MB.
    assert memory() - before < 2**24


def test_who_has_cost_less_comes_first():
    line = FairQueue(100)
    for i in range(3):
        for client in ("slow", "slow too", "quick"):
            line.put(client, f"{client} {i}")
    taken = []
    for cost in (5, 5, 1, 1, 1, 5):
        taken.append(line.get())
        line.charge(taken[-1][:-2], cost)
    assert taken == ["slow 0", "slow too 0", "quick 0", "quick 1", "quick 2", "slow 1"]
    # Who comes now has no advantage over those that waited while it was not there.
    line.put("new", "new 0")
    assert [line.get() for _ in range(3)] == ["slow too 1", "new 0", "slow too 2"]
    assert line.get() == "slow 2"
    assert not len(line)


def test_several_clients_with_slow_images_do_not_make_others_wait(monkeypatch):
    monkeypatch.setattr(DecodingPool, "FAIR_SECONDS", 0.4)
    pool = DecodingPool(1, heavy=1)
    try:
        pool.submit(pixels(encoded("PNG")), "good").result(LONG)
        slow = [pool.submit(Sleep(seconds=0.2), f"bad {i}") for _ in range(20) for i in range(8)]
        for future in slow[:8]:
            future.result(LONG)
        done = sum(future.done() for future in slow)
        for _ in range(4):
            assert pool.submit(pixels(encoded("PNG")), "good").result(LONG)
        # By turns of images, each would wait for one of each of the others, which makes 32.
        assert sum(future.done() for future in slow) - done <= 16
    finally:
        pool.close()


def test_the_client_with_most_in_the_queue_makes_room():
    line = FairQueue(4)
    assert [line.put("a", i) for i in range(4)] == [[]] * 4
    assert line.put("b", 10) == [3]
    assert line.put("b", 11) == [2]
    with pytest.raises(queue.Full):
        line.put("b", 12)
    with pytest.raises(queue.Full):
        line.put("a", 13)
    assert [line.get() for _ in range(len(line))] == [0, 10, 1, 11]
    assert not len(line)
    with pytest.raises(queue.Full):
        line.put("a", 0, size=5)
