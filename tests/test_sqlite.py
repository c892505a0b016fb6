"""Databases open alike wherever they are used: layout, version, log, and who may read them."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from trustvlm.sqlite import OtherVersionError, is_damage, open_database, transaction

SCHEMA = ("CREATE TABLE t (a INTEGER)", "CREATE INDEX t_by_a ON t (a)")


def test_tables_are_made_once_and_kept(tmp_path):
    file = tmp_path / "sub" / "x.sqlite"
    for _ in range(2):
        with closing(open_database(file, schema=SCHEMA, version=3)) as connection:
            with transaction(connection):
                connection.execute("INSERT INTO t VALUES (1)")
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA user_version").fetchone() == (3,)
    with closing(open_database(file, schema=SCHEMA, version=3)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)


@pytest.mark.parametrize("version", [0, 2])
def test_another_layout_is_refused_and_left_as_it_is(tmp_path, version):
    file = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE other (b TEXT)")
        connection.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(OtherVersionError, match=f"its layout is {version}, and 3 is needed") as got:
        open_database(file, schema=SCHEMA, version=3)
    assert not is_damage(got.value)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("other",)]


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    def write_and_fail(connection):
        with transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
            raise KeyboardInterrupt

    with closing(open_database(None, schema=SCHEMA, version=1)) as connection:
        with pytest.raises(KeyboardInterrupt):
            write_and_fail(connection)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_a_new_file_and_its_log_are_for_its_owner_alone(tmp_path):
    file = tmp_path / "x.sqlite"
    with closing(open_database(file, schema=SCHEMA, version=1)) as connection:
        with transaction(connection):
            connection.execute("INSERT INTO t VALUES (1)")
        modes = {part.name: stat.S_IMODE(part.stat().st_mode) for part in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["x.sqlite", "x.sqlite-wal", "x.sqlite-shm"], 0o600)


def test_what_is_no_database_is_damage(tmp_path):
    (tmp_path / "x.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(sqlite3.DatabaseError) as got:
        open_database(tmp_path / "x.sqlite", schema=SCHEMA, version=1)
    assert is_damage(got.value)
    assert not is_damage(OSError("no such table"))


OTHER_PROCESS = """
import sys
from contextlib import closing
from pathlib import Path
from trustvlm.sqlite import open_database
with closing(open_database(Path(sys.argv[1]), schema=["CREATE TABLE t (a)"], version=1)) as other:
    other.execute("INSERT INTO t VALUES (2)")
"""


def test_a_second_connection_keeps_the_locks_of_the_first(tmp_path):
    # A file that is opened and closed beside SQLite loses all locks of its process: another
    # process that ends would then take the log of this one away.
    file = tmp_path / "x.sqlite"
    first = open_database(file, schema=SCHEMA, version=1)
    with closing(first):
        first.execute("INSERT INTO t VALUES (1)")
        with closing(open_database(file, schema=SCHEMA, version=1)) as second:
            subprocess.run([sys.executable, "-c", OTHER_PROCESS, file], check=True)
            assert (tmp_path / "x.sqlite-wal").exists()
            second.execute("INSERT INTO t VALUES (3)")
        first.execute("INSERT INTO t VALUES (4)")
    with closing(open_database(file, schema=SCHEMA, version=1)) as again:
        rows = again.execute("SELECT a FROM t ORDER BY a").fetchall()
    assert rows == [(1,), (2,), (3,), (4,)]
