"""A migration that loses a server or its snapshot, or the tables that it copies: in the end both sides are equal."""

import signal

import psycopg2
import pytest

from lib.everything import FILL, SCHEMA, Writers, chunks, fences, phase, same_definitions
from lib.migration import finish, hold_copy, migrate, wait_phase
from lib.points import needs_points
from lib.program import DONE, FAILED, STOPPED, USAGE, wait_until


@needs_points
def test_no_end_before_the_last_fence(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")
    run = migrate(pair, env={"PENSTOCK_KILL_AT": "chunk-before"})
    assert run.wait(60) == -signal.SIGKILL
    early = pair.wal_lsn()
    pair.on_source("INSERT INTO t SELECT generate_series(101, 200)")
    pair.penstock.start(command="copy").wait(60, DONE)
    run = pair.penstock.start("--stop-at", early, command="migrate")
    run.wait(60, USAGE)
    assert "in no state that the source has had" in run.the_error()
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 200


@needs_points
@pytest.mark.parametrize("point", [None, "chunk-after:2", "chunk-before:4"])
def test_a_publication_of_ones_own(pair, point):
    """With a row filter, a list of columns, and partitions that come as their root, into a table that has none."""
    both = "CREATE TABLE seen (id int PRIMARY KEY, a text{})"
    pair.on_source(both.format(", hidden text") + "; CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
                   "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (1000);"
                   "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (1000) TO (2000);"
                   "CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (2000) TO (3000)")
    pair.on_target(both.format("") + "; CREATE TABLE part (id int PRIMARY KEY, v text)")
    pair.on_source("INSERT INTO seen SELECT i, 'a', 'secret' FROM generate_series(1, 100) i;"
                   "INSERT INTO part SELECT i, 'v' FROM generate_series(0, 2999) i")
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE part, seen (id, a) WHERE (id > 10)"
                   " WITH (publish_via_partition_root = true)")
    if point:
        run = migrate(pair, "--schema-from", "none", copy_jobs=1, env={"PENSTOCK_KILL_AT": point})
        assert run.wait(60) == -signal.SIGKILL
        pair.on_source("UPDATE part SET v = 'w' WHERE id % 5 = 0; DELETE FROM part WHERE id % 7 = 0;"
                       "INSERT INTO seen VALUES (-5, 'x', 'y'), (500, 'x', 'y')")
    migrate(pair, "--schema-from", "none", "--stop-when-caught-up").wait(60, DONE)
    pair.on_source("UPDATE part SET v = 'late' WHERE id % 11 = 0; UPDATE seen SET a = 'late' WHERE id > 50")
    migrate(pair, "--schema-from", "none", "--stop-when-caught-up").wait(60, DONE)
    assert pair.on_target("TABLE part ORDER BY id") == pair.on_source("TABLE part ORDER BY id")
    assert pair.on_target("SELECT id, a FROM seen ORDER BY id") == \
        pair.on_source("SELECT id, a FROM seen WHERE id > 10 ORDER BY id")


def test_stopped_in_the_copy(pair):
    pair.on_source("CREATE TABLE slow (id int PRIMARY KEY, v text)")
    pair.on_source("INSERT INTO slow SELECT i, repeat('x', 1000) FROM generate_series(1, 3000) i")
    run, holder = hold_copy(pair, 3, lambda: migrate(pair, chunk_size="64kB", copy_jobs=1))
    assert phase(pair) == "copy"
    run.kill(signal.SIGTERM)
    holder.rollback()
    run.wait(60, STOPPED)
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 3000


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_server_restarts_during_the_copy(frail, make_pair, which):
    pair = make_pair("owner", *frail)
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    pair.on_source("INSERT INTO big_text SELECT i, repeat(md5(i::text), 200) FROM generate_series(1000, 4000) i")
    with Writers(pair, seed=2, count=2, pause=0.005):
        run = migrate(pair, chunk_size="128kB", copy_jobs=2)
        wait_phase(pair, ("copy", "unique indexes", "stream", "ready"), run)
        wait_until(lambda: chunks(pair) > 5)
        cluster = pair.source_cluster if which == "source" else pair.target_cluster
        cluster.restart(signal.SIGQUIT)
        for connection in pair.connections:
            connection.close()
        pair.source, pair.target = pair.connect(pair.source_cluster), pair.connect(pair.target_cluster)
        wait_phase(pair, ("stream", "ready"), run, 120)
        run.stop()
    finish(pair)


def test_the_snapshot_is_lost_alone(pair):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    pair.on_source("INSERT INTO big_text SELECT i, repeat(md5(i::text), 200) FROM generate_series(1000, 4000) i")
    with Writers(pair, seed=3, count=2, pause=0.005):
        run, holder = hold_copy(pair, 4, lambda: migrate(pair, chunk_size="64kB", copy_jobs=1))
        session = "FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%%snapshot'"
        assert pair.source_cluster.sql(f"SELECT pg_terminate_backend(pid) {session}", (pair.name,)) == [(True,)]
        wait_until(lambda: not pair.source_cluster.sql(f"SELECT pid {session}", (pair.name,)), what="the snapshot's end")
        holder.rollback()
        wait_phase(pair, ("stream", "ready"), run, 120)
        assert fences(pair) > 0
        assert "the snapshot is gone" in run.stderr
        run.stop()
    finish(pair)


@pytest.mark.parametrize("how", ["VACUUM FULL moved", "ALTER TABLE moved ALTER n TYPE bigint", "CLUSTER moved USING moved_pkey",
                                 "TRUNCATE moved"])
def test_a_table_is_rewritten_during_the_copy(pair, how):
    pair.on_source("CREATE TABLE moved (id int PRIMARY KEY, n int, v text)")
    pair.on_source("INSERT INTO moved SELECT i, i, repeat('x', 500) FROM generate_series(1, 12000) i;"
                   "DELETE FROM moved WHERE id % 3 = 0")
    run, holder = hold_copy(pair, 3, lambda: migrate(pair, chunk_size="256kB", copy_jobs=1))
    pair.on_source(how)
    holder.rollback()
    pair.on_source("INSERT INTO moved SELECT i, i, 'new' FROM generate_series(30001, 30100) i")
    pair.on_source("UPDATE moved SET v = 'late' WHERE id % 7 = 1")
    wait_phase(pair, ("stream", "ready"), run, 90)
    assert "was rewritten or emptied" in run.stderr
    run.stop()
    pair.penstock.start("--stop-when-caught-up", command="migrate").wait(60, DONE)
    pair.same()


def test_a_table_is_dropped_during_the_copy(pair):
    pair.on_source("CREATE TABLE stays (id int PRIMARY KEY, v text); CREATE TABLE goes (id int PRIMARY KEY, v text)")
    pair.on_source("INSERT INTO stays SELECT i, repeat('x', 1000) FROM generate_series(1, 8000) i;"
                   "INSERT INTO goes SELECT i, 'x' FROM generate_series(1, 10) i")
    run, holder = hold_copy(pair, 3, lambda: migrate(pair, chunk_size="256kB", copy_jobs=1))
    pair.on_source("UPDATE goes SET v = 'y'")
    pair.on_source("DROP TABLE goes")
    holder.rollback()
    wait_phase(pair, ("stream", "ready"), run, 90)
    run.stop()
    pair.penstock.start("--stop-when-caught-up", command="migrate").wait(60, DONE)
    assert pair.same(["stays"]) == 8000


@needs_points
@pytest.mark.parametrize("how", ["DROP TABLE goes", "ALTER TABLE goes RENAME TO gone"])
def test_a_table_goes_between_the_slot_and_the_copy(pair, how):
    """Its changes come behind the slot, and are of rows that no copy has brought."""
    pair.on_source("CREATE TABLE stays (id int PRIMARY KEY, v text); CREATE TABLE goes (id int PRIMARY KEY, v text);"
                   "INSERT INTO stays SELECT i, 'x' FROM generate_series(1, 100) i; INSERT INTO goes TABLE stays")
    run = migrate(pair, env={"PENSTOCK_KILL_AT": "phase-entered:3"})
    assert run.wait(60) == -signal.SIGKILL and phase(pair) == "copy"
    pair.on_source("UPDATE goes SET v = 'y' WHERE id < 50; DELETE FROM goes WHERE id > 90; UPDATE stays SET v = 'y'")
    pair.on_source(how)
    if "RENAME" in how:
        run = migrate(pair)
        run.wait(60, FAILED)
        assert "public.gone is missing" in run.the_error()
        pair.on_target("CREATE TABLE gone (id int PRIMARY KEY, v text)")
        pair.on_source("DELETE FROM gone WHERE id < 5")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == (186 if "RENAME" in how else 100)


def test_an_index_that_cannot_be_built_is_named_and_built_later(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE INDEX t_v ON t ((v::int))")
    pair.on_source("INSERT INTO t VALUES (1, '1')")
    pair.on_source("CREATE INDEX t_id ON t (id, v)")
    run = migrate(pair)
    wait_until(lambda: phase(pair) == "ready" or not run.running, 60)
    run.stop()
    pair.on_target("DROP INDEX t_v; INSERT INTO t VALUES (2, 'no number');"
                   "UPDATE penstock.schema_item SET done = false WHERE object LIKE '%%t_v'")
    run = migrate(pair, "--stop-when-caught-up")
    run.wait(60, 1)
    assert "t_v" in run.the_error() and "invalid input syntax" in run.the_error()
    pair.on_target("DELETE FROM t WHERE id = 2")
    assert not pair.on_target("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_v'::regclass")[0][0]
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert pair.on_target("SELECT indisvalid FROM pg_index WHERE indexrelid = 't_v'::regclass")[0][0]
    same_definitions(pair)
    with pytest.raises(psycopg2.Error):
        pair.on_target("INSERT INTO t VALUES (3, 'no number')")
