"""--ack spooled together with --streaming on: transactions that lie in several segments, what a spool tells when
its beginning is gone, and what of it may be kept for which run."""

import pathlib
import shutil

import pytest

from lib.cluster import Cluster
from lib.program import wait_until
from lib.spooled import kill, spool_files
from lib.versions import programs_of

TABLES = "CREATE TABLE rows (id int PRIMARY KEY, a text); CREATE TABLE seen (n int)"
BOTH = ("--ack", "spooled", "--streaming", "on")
# A row that is long in the stream and short in the source's WAL; so many of them are more than a segment.
FILL = "INSERT INTO rows SELECT i, repeat('x', 4000) FROM generate_series({0}, {0} + {1} - 1) i"
SEGMENT = 18_000


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_its_first_segment_is_gone(early, end):
    """A transaction that is over, whose later blocks stand in a segment that is still there."""
    pair = early
    run = pair.penstock.start(*BOTH, workers=2)
    pair.wait_streaming(run)
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute(FILL.format(1, SEGMENT * 3 // 2))
    # what the source finds rolled back it does not send to the end
    wait_until(lambda: len(spool_files(pair)) > 1, 60, "a second segment")
    getattr(other, end)()
    pair.on_source("INSERT INTO seen VALUES (1)")
    pair.wait_rows("seen", 1, run, timeout=120)
    wait_until(lambda: spool_files(pair) and not spool_files(pair)[0].name.endswith("1.spool"), 30,
               "the first segment to be deleted")
    run.stop()
    pair.on_source("INSERT INTO rows VALUES (-1, '')")
    pair.penstock.catch_up(*BOTH)
    assert pair.same() == (2 if end == "rollback" else 2 + SEGMENT * 3 // 2)


def test_relations_of_what_the_target_has(early):
    """What described a table came inside a transaction that is not taken in again."""
    pair = early
    run = pair.penstock.start(*BOTH, workers=2)
    pair.wait_streaming(run)
    pair.on_source(FILL.format(1, 2000))
    pair.wait_rows("rows", 2000, run)
    blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
    pair.on_source("INSERT INTO seen VALUES (1)")
    pair.on_source("INSERT INTO rows VALUES (-1, 'described before')")
    pair.wait_told()
    kill(pair, run)
    blocker.rollback()
    pair.penstock.catch_up(*BOTH)
    assert pair.same() == 2002


def test_a_table_that_changes_over_segments(early):
    """The new description came in the transaction that changes it, the old one is told again meanwhile."""
    pair = early
    pair.on_target("ALTER TABLE rows ADD COLUMN b int")
    run = pair.penstock.start(*BOTH, workers=2)
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO rows VALUES (-1, 'before')")
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("ALTER TABLE rows ADD COLUMN b int DEFAULT 5")
        cursor.execute(FILL.format(1, SEGMENT * 3 // 2))
    other.commit()
    pair.on_source("INSERT INTO rows VALUES (-2, 'after', 7)")
    pair.on_source("INSERT INTO seen VALUES (1)")
    pair.wait_rows("seen", 1, run, timeout=120)
    run.stop()
    pair.on_target("UPDATE rows SET b = 5 WHERE id = -1")
    assert pair.same(columns=None) == 3 + SEGMENT * 3 // 2


@pytest.mark.parametrize("major", [15, 18])
def test_streaming_no_more(make_pair, major):
    """What an earlier run received in its version of the protocol is read in that one."""
    programs = programs_of(major)
    if programs is None:
        pytest.skip(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it")
    source = Cluster(f"source-{major}", programs=programs)
    try:
        pair = make_pair("owner", source)
        pair.stream_early()
        pair.schema(TABLES)
        pair.make_slot()
        run = pair.penstock.start(*BOTH, workers=2)
        pair.wait_streaming(run)
        blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
        pair.on_source("INSERT INTO seen VALUES (1)")
        other = pair.connect(pair.source_cluster)
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute(FILL.format(1, 2000))
            cursor.execute("SAVEPOINT a")
            cursor.execute(FILL.format(3001, 2000))
            cursor.execute("ROLLBACK TO a")
            other.commit()
            cursor.execute(FILL.format(6001, 2000))
            other.rollback()
        pair.on_source("INSERT INTO seen VALUES (2)")
        pair.wait_told()
        kill(pair, run)
        blocker.rollback()
        for streaming in ("off", "on", "off"):
            pair.penstock.catch_up("--ack", "spooled", "--streaming", streaming)
            pair.on_source("INSERT INTO seen VALUES (3)")
        pair.penstock.catch_up("--ack", "spooled")
        assert pair.same() == 2005
    finally:
        for run in pair.penstock.runs:
            run.kill()


@pytest.mark.parametrize("arguments", [("--ack", "spooled"), ()], ids=str)
@pytest.mark.parametrize("slot", ["kept", "made anew"])
def test_a_target_that_knows_nothing_of_it(early, arguments, slot):
    """What lies in the spool of an earlier stream is not for a target that was set up anew."""
    pair = early
    pair.on_source("INSERT INTO seen VALUES (1)")
    run = pair.penstock.start(*BOTH, workers=2)
    pair.wait_rows("seen", 1, run)
    run.stop()
    assert spool_files(pair)
    pair.on_target("DROP SCHEMA penstock CASCADE")
    if slot == "kept":
        (pathlib.Path(pair.penstock.dir) / "checkpoint").unlink(missing_ok=True)
    else:
        pair.wait_slot_free()
        pair.on_source("SELECT pg_drop_replication_slot(%s)", (pair.name,))
    refused = pair.penstock.fails(*arguments, "--streaming", "on")
    assert "spool" in refused.the_error(), refused.the_error()
    assert pair.on_target("SELECT count(*) FROM seen") == [(1,)]
    shutil.rmtree(pathlib.Path(pair.penstock.dir) / "spool")


def test_rolled_back_again_and_again(early):
    """Without --ack spooled, too, the disk holds no more than what is in progress."""
    pair = early
    run = pair.penstock.start("--streaming", "on", workers=2)
    pair.wait_streaming(run)
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    for turn in range(4):
        with other.cursor() as cursor:
            cursor.execute(FILL.format(1, SEGMENT))
        other.rollback()
    pair.on_source("INSERT INTO seen VALUES (1)")
    pair.wait_rows("seen", 1, run, timeout=120)
    folder = pathlib.Path(pair.penstock.dir) / "spool"
    wait_until(lambda: len(list(folder.glob("streamed-*.spool"))) <= 2, 30, "segments to be deleted")
    run.stop()
    assert pair.same() == 1
