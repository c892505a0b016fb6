"""The store gives back what was put in, to the bit, and survives what happens to files."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trustvlm import sqlite
from trustvlm.embeddings import EmbeddingStore
from trustvlm.embeddings import store as store_module
from trustvlm.embeddings.store import NewVectors
from trustvlm.exceptions import InputError, TrustVLMWarning
from trustvlm.images import content_hash


def vector(value: float, dim: int = 4) -> np.ndarray:
    return np.full(dim, value, dtype=np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sub" / "e.sqlite"


def test_what_is_put_in_comes_back(path):
    with EmbeddingStore(path) as store:
        store.put_many("f1", {"a": vector(1), "b": vector(2, dim=7)}, spec="one")
        store.put_many("f2", {"a": vector(3)})
        got = store.get_many("f1", ["b", "c", "a", "a"])
        assert sorted(got) == ["a", "b"]
        np.testing.assert_array_equal(got["b"], vector(2, dim=7))
        assert not got["a"].flags.writeable
    with EmbeddingStore(path) as again:
        np.testing.assert_array_equal(again.get_many("f2", ["a"])["a"], vector(3))
        assert again.get_many("f3", ["a"]) == {}
        assert again.path == path


def test_by_default_it_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path / "here"))
    with EmbeddingStore() as store:
        assert store.path == tmp_path / "here" / "embeddings.sqlite"
        assert store.path.exists()


def test_in_memory_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TRUSTVLM_CACHE", str(tmp_path / "here"))
    store = EmbeddingStore.memory()
    store.put_many("f", {"a": vector(1)})
    store.close()
    assert list(store.get_many("f", ["a"])) == ["a"]
    assert store.path is None
    assert store.stats().file_bytes == 0
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(0, 9)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_every_bit_is_kept(rows):
    store = EmbeddingStore.memory()
    store.put_many("f", {str(i): row for i, row in enumerate(rows)})
    got = store.get_many("f", [str(i) for i in range(len(rows))])
    assert [got[str(i)].tobytes() for i in range(len(rows))] == [row.tobytes() for row in rows]


def test_more_keys_than_one_statement_takes():
    store = EmbeddingStore.memory()
    store.put_many("f", {str(i): vector(i) for i in range(1600)})
    got = store.get_many("f", map(str, range(-5, 1605)))
    assert len(got) == 1600
    assert all((row == float(key)).all() for key, row in got.items())


def test_digests_are_kept_short_and_long_ones_of_older_versions_are_used(path, monkeypatch):
    old, new = content_hash(b"old"), content_hash(b"new")
    with EmbeddingStore(path) as store, monkeypatch.context() as former:
        former.setattr(store_module, "stored_key", lambda key: key)
        store.put_many("f", {old: vector(1)})
    with EmbeddingStore(path) as store:
        assert list(store.get_many("f", [new, old])) == [old]
        store.put_many("f", {new: vector(2), "no digest": vector(3)})
        got = store.get_many("f", [new, old, "no digest"])
        assert {key: row[0] for key, row in got.items()} == {old: 1, new: 2, "no digest": 3}
        assert store.stats().entries == 3
    with closing(sqlite3.connect(path)) as connection:
        contents = {content for (content,) in connection.execute("SELECT content FROM embeddings")}
    assert contents == {old, bytes.fromhex(new[:32]), "no digest"}


def test_a_digest_that_begins_like_a_stored_one_is_another_image():
    store, digest = EmbeddingStore.memory(), content_hash(b"image")
    store.put_many("f", {digest: vector(1)})
    assert store.get_many("f", [digest[:32] + "0" * 32]) == {}


def test_vectors_of_several_encoders_are_stored_together_or_not_at_all(path):
    with EmbeddingStore(path) as store:
        good = NewVectors("f1", "one", {"a": vector(1)})
        with pytest.raises(InputError, match="finite float32"):
            store.put_all([good, NewVectors("f2", "two", {"a": vector(np.nan)})])
        assert store.stats().entries == 0
        store.put_all([good, NewVectors("f2", "two", {"a": vector(2)})])
        assert {encoder.spec for encoder in store.stats().encoders} == {"one", "two"}


@pytest.mark.parametrize(
    "bad",
    [
        np.array([1, np.nan], np.float32),
        np.array([np.inf], np.float32),
        np.ones(3),
        np.ones((1, 3), np.float32),
    ],
)
def test_only_finite_float32_vectors_are_taken(bad):
    store = EmbeddingStore.memory()
    with pytest.raises(InputError, match="finite float32"):
        store.put_many("f", {"good": vector(1), "bad": bad})
    assert store.get_many("f", ["good"]) == {}, "all or nothing"


def test_a_put_that_fails_half_way_leaves_nothing(path, monkeypatch):
    store = EmbeddingStore(path)
    checksum, keys = store_module.checksum, []

    def failing(fingerprint, key, blob):
        keys.append(key)
        if len(keys) == 2:
            raise KeyboardInterrupt
        return checksum(fingerprint, key, blob)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "checksum", failing)
        with pytest.raises(KeyboardInterrupt):
            store.put_many("f", {"a": vector(1), "b": vector(2), "c": vector(3)})
    assert keys == ["a", "b"], "the first row was written before the second one failed"
    assert store.get_many("f", ["a", "b", "c"]) == {}
    assert store.stats().entries == 0
    store.put_many("f", {"a": vector(1)})
    assert list(store.get_many("f", ["a"])) == ["a"]
    store.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE embeddings SET vector = zeroblob(16) WHERE content = 'a'",
        "UPDATE embeddings SET vector = substr(vector, 1, 8) WHERE content = 'a'",
        "UPDATE embeddings SET vector = 'text' WHERE content = 'a'",
        "UPDATE embeddings SET dim = 2 WHERE content = 'a'",
        "UPDATE embeddings SET checksum = checksum + 1 WHERE content = 'a'",
        # A right vector filed under the wrong content is damage too.
        "UPDATE embeddings SET content = CASE content WHEN 'b' THEN 'a' ELSE 'x' END",
    ],
)
def test_a_damaged_row_is_not_believed_and_can_be_replaced(path, change):
    with EmbeddingStore(path) as store:
        store.put_many("f", {"a": vector(1)})
        store.put_many("f", {"b": vector(2)})
    with closing(sqlite3.connect(path)) as connection, connection:
        if "CASE" in change:
            connection.execute("DELETE FROM embeddings WHERE content = 'a'")
        connection.execute(change)
    with EmbeddingStore(path) as store:
        assert "a" not in store.get_many("f", ["a", "b"])
        store.put_many("f", {"a": vector(5)})
        np.testing.assert_array_equal(store.get_many("f", ["a"])["a"], vector(5))


@pytest.mark.parametrize("damage", ["noise", "cut", "pages", "no tables"])
def test_a_damaged_file_is_moved_aside_with_a_warning(path, damage):
    with EmbeddingStore(path) as store:
        store.put_many("f", {str(i): vector(i, 500) for i in range(100)})
    content = bytearray(path.read_bytes())
    if damage == "noise":
        content = bytearray(os.urandom(5000))
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "pages":
        content[100:] = os.urandom(len(content) - 100)
    path.write_bytes(content)
    if damage == "no tables":
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE something (else_ TEXT)")
            connection.execute(f"PRAGMA user_version = {store_module.SCHEMA_VERSION}")
    with pytest.warns(TrustVLMWarning, match="was damaged .* begun anew"):
        store = opened_and_read(path)
    assert store.path == path
    store.put_many("f", {"a": vector(1)})
    store.close()
    with EmbeddingStore(path) as again:
        assert list(again.get_many("f", ["a"])) == ["a"]
    (aside,) = [p for p in path.parent.iterdir() if "damaged" in p.name and "-wal" not in p.name]
    if damage != "no tables":
        assert aside.read_bytes() == bytes(content)


def opened_and_read(path) -> EmbeddingStore:
    store = EmbeddingStore(path)
    store.get_many("f", map(str, range(100)))
    return store


def test_damage_that_comes_to_light_later_costs_only_what_was_stored(path):
    store = EmbeddingStore(path)
    store.put_many("f", {str(i): vector(i, 2000) for i in range(200)})
    store.close()
    content = bytearray(path.read_bytes())
    content[3 * 16384 :] = bytes([255]) * (len(content) - 3 * 16384)
    path.write_bytes(content)
    keys = [str(i) for i in range(200)]
    with pytest.warns(TrustVLMWarning, match="was damaged"):
        got = {key: store.get_many("f", [key]).get(key, vector(int(key))) for key in keys}
    assert all((row == float(key)).all() for key, row in got.items())
    store.put_many("f", {"new": vector(1)})
    assert list(store.get_many("f", ["new"])) == ["new"]
    assert store.path == path
    store.close()


def test_where_nothing_can_be_written_memory_serves(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(TrustVLMWarning, match=r"cannot be used .* TRUSTVLM_CACHE"):
        store = EmbeddingStore(tmp_path / "file" / "e.sqlite")
    store.put_many("f", {"a": vector(1)})
    assert list(store.get_many("f", ["a"])) == ["a"]
    assert store.path is None
    (tmp_path / "folder").mkdir()
    with pytest.warns(TrustVLMWarning, match="cannot be used"):
        assert EmbeddingStore(tmp_path / "folder").path is None


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_folder(tmp_path, exists):
    folder = tmp_path / "read_only"
    folder.mkdir()
    if exists:
        EmbeddingStore(folder / "e.sqlite").close()
    for part in folder.iterdir():
        part.chmod(0o444)
    superuser = os.geteuid() == 0
    for upper in (tmp_path, *tmp_path.parents[:3]) if superuser else ():
        upper.chmod(0o755)
    folder.chmod(0o555)
    if superuser:
        os.seteuid(65534)
    try:
        with pytest.warns(TrustVLMWarning, match="cannot be used"):
            store = EmbeddingStore(folder / "e.sqlite")
        store.put_many("f", {"a": vector(1)})
        assert list(store.get_many("f", ["a"])) == ["a"]
        assert store.path is None
    finally:
        if superuser:
            os.seteuid(0)
        folder.chmod(0o755)


def test_another_layout_is_left_alone(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.warns(TrustVLMWarning, match="layout is 99, and 1 is needed"):
        assert EmbeddingStore(path).path is None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_store_whose_file_was_deleted_goes_on(path):
    store = EmbeddingStore(path)
    store.put_many("f", {"a": vector(1)})
    for part in path.parent.iterdir():
        part.unlink()
    path.parent.rmdir()
    store.put_many("f", {"b": vector(2)})
    assert "b" in store.get_many("f", ["a", "b"])
    store.close()


@contextmanager
def locked(path, statement):
    """Hold a lock of SQLite's from another connection."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
        yield
        other.execute("COMMIT")


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_it_waits_for_another_writer(path, statement):
    path.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with locked(path, statement):
            opened = pool.submit(EmbeddingStore, path)
            time.sleep(0.15)
            assert not opened.done()
        store = opened.result(timeout=20)
        assert store.path == path
        with locked(path, statement):
            put = pool.submit(store.put_many, "f", {"a": vector(1)})
            time.sleep(0.15)
            assert not put.done()
        put.result(timeout=20)
    assert list(store.get_many("f", ["a"])) == ["a"]
    store.close()


def test_it_does_not_wait_for_ever(path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    store = EmbeddingStore(path)
    with locked(path, "BEGIN IMMEDIATE"):
        with pytest.warns(TrustVLMWarning, match="locked.*kept in memory"):
            store.put_many("f", {"a": vector(1)})
        assert list(store.get_many("f", ["a"])) == ["a"]


def test_a_full_disk_does_not_stop_the_run(path, monkeypatch):
    open_database = store_module.open_database

    def small(where, **settings):
        connection = open_database(where, **settings)
        if where is not None:
            connection.execute("PRAGMA max_page_count = 12")
        return connection

    monkeypatch.setattr(store_module, "open_database", small)
    store = EmbeddingStore(path)
    vectors = {str(i): vector(i, 2000) for i in range(100)}
    with pytest.warns(TrustVLMWarning, match="full.*kept in memory"):
        store.put_many("f", vectors)
    assert len(store.get_many("f", vectors)) == 100


def test_many_threads_share_one_store(path):
    store = EmbeddingStore(path)
    start = threading.Barrier(8)

    def work(thread: int) -> bool:
        start.wait()
        for i in range(20):
            store.put_many("f", {f"{thread}-{i}": vector(thread * 100 + i)})
            got = store.get_many("f", [f"{thread}-{i}", f"{(thread + 1) % 8}-{i}"])
            if not (got[f"{thread}-{i}"] == thread * 100 + i).all():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert store.stats().entries == 160
    store.close()


# -- counting and removing ----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1_000_000_000.0

        def time(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr("trustvlm.embeddings.store.time.time", clock.time)
    return clock


def test_stats(path, clock):
    store = EmbeddingStore(path)
    assert store.stats().entries == 0
    store.put_many("f1", {"a": vector(1, 10), "b": vector(1, 10)}, spec="first")
    clock.now += 100
    store.put_many("f2", {"a": vector(1, 5)}, spec="second")
    stats = store.stats()
    assert (stats.entries, stats.bytes, stats.path) == (3, 100, path)
    assert stats.file_bytes >= 16384
    second, first = stats.encoders
    assert (first.fingerprint, first.spec, first.entries, first.bytes) == ("f1", "first", 2, 80)
    assert (second.spec, second.entries, second.last_used) == ("second", 1, clock.now)
    assert first.last_used == clock.now - 100
    store.put_many("f1", {"a": vector(2, 10)}, spec="new name")
    store.put_many("f1", {"a": vector(2, 10)})
    assert {encoder.spec for encoder in store.stats().encoders} == {"new name", "second"}
    assert store.stats().entries == 3
    store.close()


def test_prune_by_age_counts_from_the_last_use(path, clock):
    day = 86_400
    store = EmbeddingStore(path)
    store.put_many("f", {"unused": vector(1), "used": vector(2)}, spec="s")
    clock.now += 10 * day
    store.get_many("f", ["used"])
    assert store.stats().encoders[0].last_used == clock.now
    assert store.prune(older_than=11 * day) == 0
    assert store.prune(older_than=timedelta(days=9)) == 1
    assert list(store.get_many("f", ["used", "unused"])) == ["used"]
    store.close()


def test_prune_by_encoder(path, clock):
    store = EmbeddingStore(path)
    store.put_many("abc1", {"a": vector(1)}, spec="first")
    store.put_many("abd2", {"a": vector(1), "b": vector(1)}, spec="second")
    clock.now += 100
    with pytest.raises(InputError, match="There are: 'first', 'second'"):
        store.prune(encoder="third")
    assert store.prune(encoder="first", older_than=200) == 0
    assert store.prune(encoder="first", older_than=50) == 1
    assert store.prune(encoder="abd") == 2
    assert store.stats().entries == 0
    store.close()


def test_prune_by_size_removes_the_least_recently_used(path, clock):
    store = EmbeddingStore(path)
    for i in range(60):
        clock.now += 1
        store.put_many("f", {f"{i}-{j}": vector(i, 700) for j in range(10)})
    before = store.stats()
    assert before.file_bytes > 1_500_000
    removed = store.prune(max_bytes=700_000)
    after = store.stats()
    assert after.entries == before.entries - removed
    assert after.file_bytes <= 700_000
    assert after.bytes > 350_000, "no more than needed was removed"
    kept = {int(k.split("-")[0]) for i in range(60) for k in store.get_many("f", [f"{i}-0"])}
    assert kept == set(range(min(kept), 60))
    assert store.prune(max_bytes=700_000) == 0
    assert store.prune(max_bytes=0) == after.entries
    assert store.stats().entries == 0
    store.close()


def test_prune_wants_a_sensible_condition():
    store = EmbeddingStore.memory()
    with pytest.raises(InputError, match="got none"):
        store.prune()
    for wrong in ({"older_than": -1}, {"max_bytes": -1}, {"older_than": float("nan")}):
        with pytest.raises(InputError, match="not to be negative"):
            store.prune(**wrong)


def test_clear(path):
    store = EmbeddingStore(path)
    store.put_many("f", {str(i): vector(i, 2000) for i in range(100)}, spec="s")
    large = store.stats().file_bytes
    assert store.clear() == 100
    assert store.clear() == 0
    assert store.stats().encoders == ()
    assert store.stats().file_bytes < large / 5
    store.put_many("f", {"a": vector(1)})
    assert list(store.get_many("f", ["a"])) == ["a"]
    store.close()
