"""Each image is read once and encoded once, and what comes back never depends on how."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from broken_images import write_broken_images
from pixel_encoder import PixelEncoder
from processes import finished, next_line, running
from trustvlm.embeddings import (
    Chunk,
    EmbeddingStore,
    NullStore,
    Profile,
    encode_all,
    encode_images,
    prefetch,
)
from trustvlm.embeddings.encode import StoreWriter, image_key
from trustvlm.embeddings.store import NewVectors
from trustvlm.exceptions import ImageError, InputError
from trustvlm.images import ImageRef, InMemoryImage, Limits, content_hash, decode, find_images
from trustvlm.models.base import ImageEncoder, Preprocessing, VisionLanguageModel

N = 23


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return find_images(folder)


def expected_rows(refs, encoder: PixelEncoder) -> np.ndarray:
    """What the encoder gives for each image by itself."""
    fresh = replace(encoder, batches=[], text_batches=[])
    rows = [
        fresh.encode_pixels(fresh.preprocessing.pixels(decode(ref.file))[None])[0] for ref in refs
    ]
    return np.array(rows)


def test_the_test_encoder_keeps_the_contract():
    assert isinstance(PixelEncoder(), ImageEncoder)
    assert isinstance(PixelEncoder(), VisionLanguageModel)


def test_chunks_hold_everything_in_input_order(photos):
    encoder = PixelEncoder()
    chunks = list(encode_images(photos, {"e": encoder}, EmbeddingStore.memory(), batch_size=10))
    assert [len(chunk) for chunk in chunks] == [10, 10, 3]
    assert encoder.batches == [10, 10, 3]
    assert [ref for chunk in chunks for ref in chunk.refs] == photos
    for chunk in chunks:
        assert isinstance(chunk, Chunk)
        assert chunk.errors == (None,) * len(chunk)
        assert chunk.readable.all()
        assert chunk.hashes == tuple(content_hash(ref.file.read_bytes()) for ref in chunk.refs)
    rows = np.concatenate([chunk.embeddings["e"] for chunk in chunks])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, expected_rows(photos, encoder))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 23, 100])
@pytest.mark.parametrize("workers", [1, 5])
def test_neither_batch_size_nor_threads_change_the_result(photos, batch_size, workers):
    encoder = PixelEncoder()
    got = encode_all(
        photos, {"e": encoder}, EmbeddingStore.memory(), batch_size=batch_size, workers=workers
    )
    np.testing.assert_array_equal(got.embeddings["e"], expected_rows(photos, encoder))
    assert encoder.n_encoded == N


@settings(max_examples=25, deadline=None)
@given(
    order=st.lists(st.integers(0, N - 1), max_size=40),
    batch_size=st.integers(1, 12),
    stored=st.sets(st.integers(0, N - 1)),
)
def test_any_order_with_repetitions_and_any_cache(photos, order, batch_size, stored):
    encoder, store = PixelEncoder(), EmbeddingStore.memory()
    encode_all([photos[i] for i in sorted(stored)], {"e": encoder}, store)
    encoder.batches.clear()
    refs = [photos[i] for i in order]
    got = encode_all(refs, {"e": encoder}, store, batch_size=batch_size)
    assert got.refs == tuple(refs)
    assert encoder.n_encoded == len(set(order) - stored), "each content once, stored ones never"
    rows = expected_rows(refs, encoder).reshape(len(refs), encoder.dim)
    np.testing.assert_array_equal(got.embeddings["e"], rows)


def test_the_second_run_needs_no_forward_pass_and_decodes_nothing(photos, tmp_path, monkeypatch):
    encoders = {"a": PixelEncoder(seed=1), "b": PixelEncoder(seed=2, dim=9)}
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        first = encode_all(photos, encoders, store, batch_size=5)
    for encoder in encoders.values():
        encoder.batches.clear()
    monkeypatch.setattr(prefetch, "decode", None)
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        second = encode_all(photos, encoders, store, batch_size=4)
    assert [encoder.batches for encoder in encoders.values()] == [[], []]
    for name in encoders:
        assert first.embeddings[name].tobytes() == second.embeddings[name].tobytes()
    assert first.hashes == second.hashes


def test_a_copy_under_another_name_is_the_same_image(photos, tmp_path):
    encoder, store = PixelEncoder(), EmbeddingStore.memory()
    encode_all(photos[:1], {"e": encoder}, store)
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(photos[0].file.read_bytes())
    encode_all([ImageRef("copy", copy)], {"e": encoder}, store)
    assert encoder.n_encoded == 1


def test_each_image_is_read_and_decoded_once_for_all_encoders(photos, monkeypatch):
    other = Preprocessing(size=(6, 10), resize=None)
    scaled = replace(PixelEncoder().preprocessing, mean=(0.5, 0.5, 0.5), std=(0.1, 0.1, 0.1))
    encoders = {
        "a": PixelEncoder(seed=1),
        "b": PixelEncoder(seed=2),
        "c": PixelEncoder(seed=3, preprocessing=other),
        "d": PixelEncoder(seed=4, preprocessing=scaled),
    }
    reads, decodes, resizes = [], [], []
    read, pixels = ImageRef.read, Preprocessing.pixels
    monkeypatch.setattr(ImageRef, "read", lambda self, *a: reads.append(1) or read(self, *a))
    monkeypatch.setattr(prefetch, "decode", lambda *a, **k: decodes.append(1) or decode(*a, **k))
    monkeypatch.setattr(
        Preprocessing, "pixels", lambda self, image: resizes.append(1) or pixels(self, image)
    )
    got = encode_all(photos, encoders, EmbeddingStore.memory())
    assert (len(reads), len(decodes), len(resizes)) == (N, N, 2 * N)
    monkeypatch.undo()
    for name, encoder in encoders.items():
        np.testing.assert_array_equal(got.embeddings[name], expected_rows(photos, encoder))


def test_equal_images_of_a_chunk_are_decoded_and_encoded_once(photos, monkeypatch):
    decodes = []
    monkeypatch.setattr(prefetch, "decode", lambda *a, **k: decodes.append(1) or decode(*a, **k))
    encoder, refs = PixelEncoder(), [photos[1], photos[0], photos[1], photos[1], photos[0]]
    got = encode_all(refs, {"e": encoder}, EmbeddingStore.memory(), workers=5)
    assert (len(decodes), encoder.batches) == (2, [2])
    np.testing.assert_array_equal(got.embeddings["e"], expected_rows(refs, encoder))


def test_only_the_encoder_that_lacks_something_runs(photos):
    a, b, store = PixelEncoder(seed=1), PixelEncoder(seed=2), EmbeddingStore.memory()
    encode_all(photos, {"a": a}, store)
    encode_all(photos[:5], {"b": b}, store)
    a.batches.clear()
    b.batches.clear()
    encode_all(photos, {"a": a, "b": b}, store, batch_size=10)
    assert a.batches == []
    assert b.batches == [5, 10, 3]


def test_encoders_with_one_fingerprint_run_once(photos):
    first, second = PixelEncoder(seed=1), PixelEncoder(seed=1)
    got = encode_all(photos, {"vlm": first, "same": second}, EmbeddingStore.memory())
    assert first.n_encoded + second.n_encoded == N
    np.testing.assert_array_equal(got.embeddings["vlm"], got.embeddings["same"])


def test_other_weights_or_preprocessing_are_never_confused(photos):
    store = EmbeddingStore.memory()
    wide = Preprocessing(size=(8, 8), resize=16, interpolation="bilinear")
    for encoder in (
        PixelEncoder(seed=1),
        PixelEncoder(seed=2),
        PixelEncoder(seed=1, preprocessing=wide),
    ):
        got = encode_all(photos, {"e": encoder}, store)
        np.testing.assert_array_equal(got.embeddings["e"], expected_rows(photos, encoder))
        assert encoder.n_encoded == N


@pytest.mark.parametrize(
    "difference", [{"interpolation": "bicubic"}, {"resize": None}, {"rounding": "even"}]
)
def test_encoders_share_pixels_only_if_all_that_makes_them_is_alike(photos, difference):
    preprocessing = PixelEncoder().preprocessing
    other = replace(preprocessing, **difference)
    encoders = {"a": PixelEncoder(seed=1), "b": PixelEncoder(seed=2, preprocessing=other)}
    rows = {name: expected_rows(photos, encoder) for name, encoder in encoders.items()}
    as_a_sees_them = expected_rows(photos, PixelEncoder(seed=2, preprocessing=preprocessing))
    assert not np.array_equal(rows["b"], as_a_sees_them), "the difference changes pixels"
    got = encode_all(photos, encoders, EmbeddingStore.memory())
    for name in encoders:
        np.testing.assert_array_equal(got.embeddings[name], rows[name])


# -- things that go wrong -----------------------------------------------------------------------


def test_unreadable_images_are_errors_in_their_places(photos, tmp_path):
    expected = write_broken_images(tmp_path)
    refs = []
    for i, broken in enumerate(find_images(tmp_path)):
        refs += [broken, photos[i % N]]
    encoder, store = PixelEncoder(), EmbeddingStore.memory()
    for _ in range(2):
        got = encode_all(refs, {"e": encoder}, store, batch_size=7)
        for i, (ref, error) in enumerate(zip(got.refs, got.errors, strict=True)):
            if i % 2:
                assert error is None
            else:
                assert isinstance(error, ImageError)
                assert error.kind == expected[ref.path]
                assert str(error).startswith(f"{ref.path}: ")
        assert not got.readable[::2].any()
        assert np.isnan(got.embeddings["e"][::2]).all()
        good = [photos[i % N] for i in range(len(expected))]
        np.testing.assert_array_equal(got.embeddings["e"][1::2], expected_rows(good, encoder))
        assert encoder.n_encoded == N
        assert [h == "" for h in got.hashes] == [
            getattr(e, "kind", "") in ("missing", "empty") for e in got.errors
        ]


def test_equal_broken_images_are_each_named(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"no image")
    got = encode_all(find_images(tmp_path), {"e": PixelEncoder()}, EmbeddingStore.memory())
    assert [str(error).split(":")[0] for error in got.errors] == ["a.jpg", "b.jpg", "c.jpg"]
    assert {error.kind for error in got.errors} == {"not_image"}


def test_limits_are_passed_on(photos):
    got = encode_all(
        photos[:2], {"e": PixelEncoder()}, EmbeddingStore.memory(), limits=Limits(max_pixels=10)
    )
    assert [error.kind for error in got.errors] == ["too_large", "too_large"]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("surprise"), "unexpected"),
        (ZeroDivisionError(), "unexpected"),
    ],
)
def test_whatever_decoding_raises_is_an_error_of_that_image(photos, monkeypatch, raised, kind):
    def failing(content, limits, *, name, **rest):
        if name == photos[3].path:
            raise raised
        return decode(content, limits, name=name, **rest)

    monkeypatch.setattr(prefetch, "decode", failing)
    got = encode_all(photos[:6], {"e": PixelEncoder()}, EmbeddingStore.memory())
    assert list(got.readable) == [True, True, True, False, True, True]
    assert got.errors[3].kind == kind
    assert str(got.errors[3]).startswith(photos[3].path)


class HalfBlind(PixelEncoder):
    """Gives NaN, or other components, for images whose first pixel is bright."""

    def __init__(self, seed, blind=np.nan, where=0):
        super().__init__(seed=seed)
        self.blind, self.where = blind, where

    def encode_pixels(self, pixels):
        vectors = super().encode_pixels(pixels)
        vectors[pixels[:, 0, 0, 0] > 127, self.where] = self.blind
        return vectors


@pytest.mark.parametrize(
    ("given", "named"),
    [((np.nan,), "gives NaN or infinity for it"), ((0, slice(None)), "gives nothing but zeros")],
)
def test_vectors_without_a_direction_are_errors_and_are_not_stored(photos, tmp_path, given, named):
    blind, sighted = HalfBlind(1, *given), PixelEncoder(seed=2)
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        got = encode_all(photos, {"blind": blind, "sighted": sighted}, store, batch_size=6)
        seen = got.readable
        assert 0 < seen.sum() < N
        failed = [error for error in got.errors if error is not None]
        assert {error.kind for error in failed} == {"embedding"}
        assert all(f"'pixels-1' {named}" in str(error) for error in failed)
        for name in ("blind", "sighted"):
            assert np.isnan(got.embeddings[name][~seen]).all()
            assert np.isfinite(got.embeddings[name][seen]).all()
        entries = {e.spec: e.entries for e in store.stats().encoders}
        assert entries["pixels-1"] == seen.sum()


def test_what_an_encoder_raises_is_passed_on_and_nothing_hangs(photos):
    class Failing(PixelEncoder):
        def encode_pixels(self, pixels):
            if len(self.batches) == 2:
                raise RuntimeError("out of memory on the device")
            return super().encode_pixels(pixels)

    store = EmbeddingStore.memory()
    with pytest.raises(RuntimeError, match="on the device"):
        encode_all(photos, {"e": Failing()}, store, batch_size=5)
    assert store.stats().entries == 10, "what was done is kept"
    assert_no_threads()


def test_an_encoder_that_breaks_its_promise_is_named(photos):
    class Wide(PixelEncoder):
        def encode_pixels(self, pixels):
            return np.zeros((len(pixels), 99), np.float32)

    with pytest.raises(InputError, match=r"'pixels-0' to return shape \(5, 6\), but got \(5, 99\)"):
        encode_all(photos, {"e": Wide()}, EmbeddingStore.memory(), batch_size=5)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}, {"batch_size": 2.0}])
def test_wrong_arguments_are_told_before_anything_is_read(photos, wrong, monkeypatch):
    monkeypatch.setattr(ImageRef, "read", None)
    with pytest.raises(InputError, match=next(iter(wrong))):
        next(encode_images(photos, {"e": PixelEncoder()}, EmbeddingStore.memory(), **wrong))
    with pytest.raises(InputError, match="at least one encoder"):
        next(encode_images(photos, {}, EmbeddingStore.memory()))


def test_no_images_give_empty_arrays():
    encoders = {"a": PixelEncoder(), "b": PixelEncoder(seed=1, dim=3)}
    got = encode_all([], encoders, EmbeddingStore.memory())
    assert (got.refs, got.hashes, got.errors, len(got)) == ((), (), (), 0)
    assert {name: rows.shape for name, rows in got.embeddings.items()} == {"a": (0, 6), "b": (0, 3)}
    assert list(encode_images([], encoders, EmbeddingStore.memory())) == []


def test_uploads_are_images_too(photos):
    encoder = PixelEncoder()
    uploads = [InMemoryImage(f"u{i}", ref.file.read_bytes()) for i, ref in enumerate(photos[:4])]
    uploads.append(InMemoryImage("void", b""))
    got = encode_all(uploads, {"e": encoder}, EmbeddingStore.memory())
    np.testing.assert_array_equal(got.embeddings["e"][:4], expected_rows(photos[:4], encoder))
    assert str(got.errors[4]) == "void: the file is empty. Copy it again from its source."


def test_progress_counts_images_done_and_spared(photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    refs = [*photos[:9], ImageRef("bad.jpg", tmp_path / "bad.jpg")]
    encoders, store, seen = {"e": PixelEncoder()}, EmbeddingStore.memory(), []
    encode_all(photos[:3], encoders, store)
    encode_all(refs, encoders, store, batch_size=4, progress=lambda *a: seen.append(a))
    assert seen == [(4, 10, 3), (8, 10, 3), (10, 10, 3)]
    seen.clear()
    encode_all(refs, encoders, store, batch_size=4, progress=lambda *a: seen.append(a))
    assert seen == [(4, 10, 4), (8, 10, 8), (10, 10, 9)]


# -- running ahead, and stopping ----------------------------------------------------------------


_BEFORE: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_before() -> None:
    """Remember threads of other tests, such as those of a service that decodes."""
    _BEFORE.clear()
    _BEFORE.update(threading.enumerate())


def assert_no_threads() -> None:
    gc.collect()
    deadline = time.monotonic() + 10
    while any(t.name.startswith("trustvlm-") for t in set(threading.enumerate()) - _BEFORE):
        assert time.monotonic() < deadline, "threads are left behind"
        time.sleep(0.01)


def test_decoding_runs_ahead_within_bounds(photos, monkeypatch):
    refs = photos * 10
    started = []
    read = ImageRef.read
    monkeypatch.setattr(ImageRef, "read", lambda self, *a: started.append(1) or read(self, *a))
    chunks = encode_images(
        refs, {"e": PixelEncoder()}, EmbeddingStore.memory(), batch_size=4, workers=2
    )
    next(chunks)
    time.sleep(0.3)
    assert 4 < len(started) <= 4 * 4, "some chunks ahead, and not the whole folder"
    chunks.close()
    assert_no_threads()


def test_encoders_run_in_the_thread_of_the_caller(photos):
    class Watching(PixelEncoder):
        def encode_pixels(self, pixels):
            assert threading.current_thread() is threading.main_thread()
            return super().encode_pixels(pixels)

    encode_all(photos, {"e": Watching()}, EmbeddingStore.memory(), batch_size=4)


def test_leaving_early_shuts_the_pool_down(photos):
    for _ in encode_images(
        photos * 5, {"e": PixelEncoder()}, EmbeddingStore.memory(), batch_size=2
    ):
        break
    assert_no_threads()


def test_a_forgotten_run_may_be_collected_in_one_of_its_own_threads(photos):
    forgotten, closed = [], []
    ready = threading.Event()

    class Collecting(InMemoryImage):
        def read(self, limits):
            # What the garbage collector does, if it happens to run here.
            assert ready.wait(10)
            forgotten.pop().close()
            closed.append(threading.current_thread().name)
            return super().read(limits)

    content = photos[0].file.read_bytes()
    parts = [[InMemoryImage("first", content)], [Collecting("second", content)]]
    wanted = prefetch.PrefetchSettings({}, EmbeddingStore.memory(), Limits())
    forgotten.append(prefetch.prefetch_chunks(parts, wanted, workers=1, chunk_size=1))
    next(forgotten[0])
    ready.set()
    assert_no_threads()
    assert closed == ["trustvlm-decode_0"]


def test_control_c_ends_the_run_and_keeps_what_was_done(photos):
    class Interrupted(PixelEncoder):
        def encode_pixels(self, pixels):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    store = EmbeddingStore.memory()
    with pytest.raises(KeyboardInterrupt):
        encode_all(photos, {"e": Interrupted()}, store, batch_size=5)
    assert_no_threads()
    assert store.stats().entries == 5


STOPPED = """
import signal, sys, time
from pixel_encoder import PixelEncoder
from trustvlm.embeddings import EmbeddingStore, encode_images
from trustvlm.images import find_images

class Endless(PixelEncoder):
    def encode_pixels(self, pixels):
        print("busy", flush=True)
        time.sleep(60)

# Whatever started the tests in the background may have had Control-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
refs = find_images(sys.argv[1]) * 1000
for chunk in encode_images(refs, {"e": Endless()}, EmbeddingStore.memory(), batch_size=4):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_a_real_control_c_does_not_hang(photos):
    with running(STOPPED, photos[0].file.parent) as process:
        assert next_line(process) == "busy"
        process.send_signal(signal.SIGINT)
        code, stderr = finished(process)
    assert code in (1, -signal.SIGINT, 130)
    assert stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_chunk_repeats_an_image_that_an_earlier_one_has_just_stored(photos):
    # The second chunk is looked up before the first is stored; its copy must still not be encoded.
    encoder = PixelEncoder()
    refs = [photos[0], photos[1], photos[0], photos[2], photos[1], photos[0]]
    got = encode_all(refs, {"e": encoder}, EmbeddingStore.memory(), batch_size=2, workers=4)
    assert encoder.batches == [2, 1]
    np.testing.assert_array_equal(got.embeddings["e"], expected_rows(refs, encoder))


@pytest.mark.parametrize("seed", range(6))
def test_no_copy_is_encoded_wherever_it_stands(photos, tmp_path, seed):
    rng = np.random.default_rng(seed)
    refs = [photos[i] for i in rng.integers(0, N, 200)]
    batch_size, workers = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    encoder = PixelEncoder()
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        encode_all(refs, {"e": encoder}, store, batch_size=batch_size, workers=workers)
        assert encoder.n_encoded == len(set(refs)) == store.stats().entries


@pytest.mark.parametrize("small", [0, 2**20])
def test_the_store_is_asked_and_written_by_chunks_where_images_are_small(
    photos, tmp_path, monkeypatch, small
):
    monkeypatch.setattr(prefetch, "_SMALL", small)
    work, tasks = EmbeddingStore._run, []
    monkeypatch.setattr(EmbeddingStore, "_run", lambda *a: tasks.append(1) or work(*a))
    encoders = {"a": PixelEncoder(seed=1), "b": PixelEncoder(seed=2, dim=9)}
    for _ in range(2):
        tasks.clear()
        with EmbeddingStore(tmp_path / "e.sqlite") as store:
            chunk = encode_all(photos, encoders, store, batch_size=10)
        lookups = 2 * (3 if small else N)
        # Opening is one, and the first run stores, by chunks at most.
        assert lookups + 1 <= len(tasks) <= lookups + 1 + 3
    for name, encoder in encoders.items():
        np.testing.assert_array_equal(chunk.embeddings[name], expected_rows(photos, encoder))


class SlowStore(EmbeddingStore):
    """Stores nothing before it is let go."""

    def __init__(self, path):
        super().__init__(path)
        self.go, self.commits = threading.Event(), []

    def put_all(self, new):
        assert self.go.wait(20)
        new = list(new)
        self.commits.append(len(new))
        super().put_all(new)


def test_encoders_do_not_wait_for_the_disk_and_no_copy_is_encoded_meanwhile(photos, tmp_path):
    encoder = PixelEncoder()
    with SlowStore(tmp_path / "e.sqlite") as store:
        chunks = encode_images([*photos, *photos], {"e": encoder}, store, batch_size=4)
        first = [next(chunks) for _ in range(8)]
        assert encoder.n_encoded == N
        assert store.commits == []
        store.go.set()
        rows = np.concatenate([chunk.embeddings["e"] for chunk in (*first, *chunks)])
        assert sum(store.commits) == 6
        assert len(store.commits) <= 2, "what waits is committed at once"
        assert store.stats().entries == N
    np.testing.assert_array_equal(rows, np.tile(expected_rows(photos, encoder), (2, 1)))


def test_commits_are_bounded_and_so_is_what_waits(tmp_path, monkeypatch):
    monkeypatch.setattr("trustvlm.embeddings.encode._COMMIT_BYTES", 4000)
    monkeypatch.setattr("trustvlm.embeddings.encode._WAITING_BYTES", 8000)
    rows = np.ones((50, 10), np.float32)
    with SlowStore(tmp_path / "e.sqlite") as store:
        writer = StoreWriter(store, Profile(), 3)
        putting = threading.Thread(
            target=lambda: [
                writer.put([NewVectors("f", "e", {f"{i} {j}": row for j, row in enumerate(rows)})])
                for i in range(20)
            ]
        )
        putting.start()
        # One commit takes two of 2,000 bytes, and beside it four may wait.
        putting.join(1)
        assert putting.is_alive()
        assert writer._waiting_bytes <= 8000
        store.go.set()
        putting.join(60)
        writer.close()
        assert sum(store.commits) == 20
        assert max(store.commits) == 2
        assert store.stats().entries == 1000


def test_a_copy_is_known_although_it_was_looked_up_before_the_first_one_was_stored(tmp_path):
    rows = np.eye(2, dtype=np.float32)
    with EmbeddingStore(tmp_path / "e.sqlite") as store:
        writer = StoreWriter(store, Profile(), 2)
        writer.put([NewVectors("f", "e", {"a": rows[0]})])
        for _ in range(1000):
            if writer._stored:
                break
            time.sleep(0.01)
        # It is in the store by now; the chunk whose turn it is asked before.
        for _ in range(2):
            assert writer.get_many("f", ["a", "b"]).keys() == {"a"}
            assert writer.get_many("g", ["a"]) == {}
            writer.put([])
        writer.put([])
        # Chunks that come now have found it there.
        assert writer.get_many("f", ["a"]) == {}
        assert writer._recent == {}
        writer.close()


def test_what_goes_wrong_while_storing_is_raised(photos, tmp_path):
    class Failing(EmbeddingStore):
        def put_all(self, new):
            raise RuntimeError("no such luck")

    with Failing(tmp_path / "e.sqlite") as store, pytest.raises(RuntimeError, match="luck"):
        encode_all(photos, {"e": PixelEncoder()}, store, batch_size=4)
    assert_no_threads()


def test_a_damaged_row_is_computed_again(photos, tmp_path):
    import sqlite3
    from contextlib import closing

    path, encoder = tmp_path / "e.sqlite", PixelEncoder()
    with EmbeddingStore(path) as store:
        first = encode_all(photos, {"e": encoder}, store)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE embeddings SET vector = zeroblob(24) WHERE rowid % 4 = 0")
    encoder.batches.clear()
    with EmbeddingStore(path) as store:
        second = encode_all(photos, {"e": encoder}, store)
    assert encoder.n_encoded == N // 4
    assert first.embeddings["e"].tobytes() == second.embeddings["e"].tobytes()


def test_a_vector_of_another_length_is_not_used(photos):
    encoder, store = PixelEncoder(), EmbeddingStore.memory()
    fingerprint = image_key(encoder)
    digest = content_hash(photos[0].file.read_bytes())
    store.put_many(fingerprint, {digest: np.zeros(99, np.float32)})
    got = encode_all(photos[:1], {"e": encoder}, store)
    np.testing.assert_array_equal(got.embeddings["e"], expected_rows(photos[:1], encoder))


def test_on_real_photographs(data_root):
    refs = find_images(data_root / "imagenette" / "test")[::8]
    encoder = PixelEncoder(preprocessing=Preprocessing(size=(16, 16), resize=16), dim=4)
    store = EmbeddingStore.memory()
    got = encode_all(refs, {"e": encoder}, store, batch_size=16)
    assert got.errors == (None,) * len(refs)
    np.testing.assert_array_equal(got.embeddings["e"], expected_rows(refs, encoder))
    assert Path(got.refs[0].file).is_file()


def test_a_stream_gives_what_a_list_gives_and_is_read_only_a_little_ahead(photos):
    drawn, reports = [], []

    def stream():
        for ref in photos:
            drawn.append(ref)
            yield ref

    chunks = encode_images(
        stream(),
        {"e": PixelEncoder()},
        NullStore(),
        batch_size=3,
        workers=1,
        progress=lambda *report: reports.append(report),
    )
    first = next(chunks)
    assert len(drawn) < len(photos), "the stream was read to its end at once"
    got = [first, *chunks]
    same = encode_all(photos, {"e": PixelEncoder()}, EmbeddingStore.memory(), batch_size=3)
    assert [ref.path for chunk in got for ref in chunk.refs] == [ref.path for ref in photos]
    rows = np.concatenate([chunk.embeddings["e"] for chunk in got])
    assert rows.tobytes() == same.embeddings["e"].tobytes()
    assert reports[-1][:2] == (len(photos), 0)
