"""Transactions that the source sends while they are in progress: --streaming on."""

import random
import time

import pytest

from lib.program import wait_until

TABLES = """
CREATE TABLE big (id int PRIMARY KEY, a text);
CREATE TABLE small (id int PRIMARY KEY, n int);
CREATE TABLE bag (a int, b text);
ALTER TABLE bag REPLICA IDENTITY FULL;
"""


@pytest.fixture(params=["on", "parallel"])
def mode(request):
    return request.param


def fill(connection, first, rows, table="big"):
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} SELECT i, repeat('x', 200) || i FROM generate_series(%s, %s) i",
                       (first, first + rows - 1))


@pytest.mark.smoke
def test_transactions_in_progress(early, mode):
    """Several at once, with subtransactions that are rolled back, and small ones between."""
    pair = early
    run = pair.penstock.start("--streaming", mode, "--log-level", "debug", workers=4)
    pair.wait_streaming(run)
    one, two, gone = (pair.connect(pair.source_cluster) for _ in range(3))
    for connection in (one, two, gone):
        connection.autocommit = False
    for step in range(5):
        fill(one, 1 + step * 1000, 1000)
        fill(gone, 1_000_000 + step * 1000, 1000)
        with two.cursor() as cursor:
            cursor.execute("SAVEPOINT a")
            fill(two, 100_000 + step * 1000, 500)
            cursor.execute("SAVEPOINT b")
            fill(two, 200_000 + step * 1000, 500)
            cursor.execute("ROLLBACK TO b" if step % 2 else "RELEASE b")
            cursor.execute("ROLLBACK TO a" if step == 4 else "RELEASE a")
        pair.on_source("INSERT INTO small VALUES (%s, 0)", (step,))
    pair.wait_rows("small", 5, run)
    two.commit()
    gone.rollback()
    fill(one, 50_000, 1000, "bag")
    one.commit()
    pair.on_source("UPDATE big SET a = 'y' || id WHERE id % 7 = 0")
    pair.on_source("INSERT INTO small VALUES (99, 0)")
    pair.wait_rows("small", 6, run)
    run.stop()
    assert pair.same() > 6000
    came = run.messages()
    assert came["Stream Start"] >= 4 and came["Stream Start"] == came["Stream Stop"]
    assert came["Stream Commit"] == 3
    assert came["Stream Abort"] >= 3
    assert came["Begin"] >= 6


def test_a_schema_that_changes_in_progress(early, mode):
    """Relation messages of a streamed transaction hold for its own rows, then for all, or for nobody."""
    pair = early
    pair.on_target("ALTER TABLE big ADD COLUMN b int, ADD COLUMN c int")
    run = pair.penstock.start("--streaming", mode, workers=4)
    pair.wait_streaming(run)
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    with other.cursor() as cursor:
        fill(other, 1, 1000)
        fill(other, 4001, 1000)
        cursor.execute("ALTER TABLE big ADD COLUMN b int")
        cursor.execute("INSERT INTO big SELECT i, 'b' || i, i FROM generate_series(10001, 14000) i")
        pair.on_source("INSERT INTO small VALUES (1, 0)")
        pair.wait_rows("small", 1, run)
        other.commit()
        cursor.execute("ALTER TABLE big ADD COLUMN c int")
        cursor.execute("INSERT INTO big SELECT i, 'c' || i, i FROM generate_series(20001, 24000) i")
        other.rollback()
    pair.on_source("INSERT INTO big VALUES (-1, 'after', 7)")
    pair.wait_rows("big", 6001, run)
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    pair.wait_rows("small", 2, run)
    run.stop()
    assert pair.same(columns=None) > 6000


def test_what_the_source_cannot_decode_in_progress(early, mode):
    """A definition that was changed under a savepoint and changed back: the source fails to decode that, until
    the transaction has ended. penstock tries again until then, and loses nothing."""
    pair = early
    run = pair.penstock.start("--streaming", mode, workers=4)
    pair.wait_streaming(run)
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    with other.cursor() as cursor:
        fill(other, 1, 1000)
        cursor.execute("SAVEPOINT a; ALTER TABLE big ADD COLUMN c int")
        cursor.execute("INSERT INTO big SELECT i, 'gone', 3 FROM generate_series(2001, 4000) i")
        cursor.execute("ROLLBACK TO a")
        fill(other, 4001, 1000)
        pair.on_source("INSERT INTO small VALUES (1, 0)")
        wait_until(lambda: "trying again" in run.stderr or pair.on_target("SELECT 1 FROM small"), 30,
                   "the source's failure, or none")
        other.commit()
    pair.wait_rows("small", 1, run, timeout=60)
    pair.wait_rows("big", 2000, run, timeout=60)
    run.stop()
    assert pair.same() == 2001


def test_killed_in_progress(early, mode):
    """What was in progress comes again, whole; what had been spooled of it is dropped."""
    pair = early
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    for turn in range(6):
        run = pair.penstock.start("--streaming", mode, workers=4)
        pair.wait_streaming(run)
        fill(other, 1 + turn * 10_000, 5000)
        fill(pair.source, turn, 300, "bag")
        time.sleep(random.random() * 0.5)
        if turn % 2:
            other.commit()
            time.sleep(random.random() * 0.1)
        run.kill()
        run.process.wait()
    other.commit()
    pair.penstock.catch_up("--streaming", mode)
    assert pair.same() == 6 * 5300


def test_little_memory(early, mode):
    """A streamed transaction far above --memory goes by the disk."""
    pair = early
    run = pair.penstock.start("--streaming", mode, memory="16MB", workers=4)
    pair.wait_streaming(run)
    fill(pair.source, 1, 200_000)
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run, timeout=120)
    run.stop()
    assert run.finished()["memory_peak_mb"] <= 18
    assert pair.same() == 200_001
