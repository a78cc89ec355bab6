"""Large objects in a migration: copied at the snapshot where both sides permit, and named where not."""

import signal

import pytest

from lib.everything import about, fences
from lib.migration import cutover, migrate, wait_phase
from lib.points import needs_points
from lib.program import DONE

# Empty ones, small ones, one of exactly a piece, one of several pieces and a part.
MAKE = """
CREATE TABLE owns (id int PRIMARY KEY, object oid);
INSERT INTO owns SELECT i, lo_from_bytea(0, convert_to(repeat(i::text, i), 'UTF8')) FROM generate_series(0, 300) i;
INSERT INTO owns VALUES (1000, lo_from_bytea(0, convert_to(repeat('0123456789abcdef', 65536), 'UTF8'))),
    (1001, lo_from_bytea(0, convert_to(repeat('0123456789abcdef', 250000), 'UTF8')));
INSERT INTO owns SELECT 2000 + i, lo_from_bytea((1000000000 + i * 100000000::bigint)::oid, '\\x00ff') FROM generate_series(0, 20) i
"""
CONTENTS = "SELECT oid, length(lo_get(oid)), md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1"


def words(run):
    return [e["message"] for e in run.events() if "large objects" in e["message"]]


def test_they_come_as_they_are_at_the_snapshot(any_pair):
    pair = any_pair
    pair.on_source(MAKE)
    run = migrate(pair, chunk_size="64kB")
    wait_phase(pair, "ready", run)
    before = pair.on_source(CONTENTS)
    assert about(pair, CONTENTS) == before and len(before) == 324
    assert about(pair, "SELECT count(*) FROM penstock.copied_chunk WHERE source_oid = 2613")[0][0] > 5
    said = words(run)
    assert len(said) == 1 and "324 large objects" in said[0] and "No stream has their changes" in said[0]
    pair.on_source("SELECT lo_put(object, 0, 'later') FROM owns WHERE id = 5")
    cutover(pair)
    assert about(pair, CONTENTS) == before
    assert pair.same() == 324


@needs_points
@pytest.mark.parametrize("point", ["chunk-before:4", "chunk-after:3"])
def test_they_are_copied_anew_with_another_snapshot(pair, point):
    pair.on_source(MAKE)
    run = migrate(pair, chunk_size="64kB", copy_jobs=1, env={"PENSTOCK_KILL_AT": point})
    assert run.wait(60) == -signal.SIGKILL
    pair.on_source("SELECT lo_unlink(object) FROM owns WHERE id < 10; SELECT lo_put(object, 3, 'in between') FROM owns"
                   " WHERE id BETWEEN 20 AND 30; SELECT lo_from_bytea(0, 'new')")
    migrate(pair, "--stop-when-caught-up", chunk_size="64kB").wait(60, DONE)
    assert fences(pair) > 0
    assert pair.on_target(CONTENTS) == pair.on_source(CONTENTS)
    assert pair.same() == 324


def test_which_do_not_come_is_said_before(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); SELECT lo_from_bytea(0, 'mine')")
    pair.source_cluster.sql("SELECT lo_from_bytea(4000000001, 'not for the owner'), lo_from_bytea(4000000002, 'for all')",
                            dbname=pair.name)
    pair.source_cluster.sql("GRANT SELECT ON LARGE OBJECT 4000000002 TO PUBLIC", dbname=pair.name)
    migrate_one = migrate(pair, "--stop-when-caught-up")
    migrate_one.wait(60, DONE)
    said = words(migrate_one)
    assert "1 of 3 large objects are not copied" in said[0] and "2 large objects are copied" in said[1]
    assert {bytes(data) for (data,) in pair.on_target("SELECT lo_get(oid) FROM pg_largeobject_metadata")} == \
        {b"mine", b"for all"}


def test_those_of_the_target_are_left_alone(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); SELECT lo_from_bytea(4000000001, 'of the source')")
    pair.on_target("SELECT lo_from_bytea(4000000001, 'of the target')")
    run = migrate(pair, "--stop-when-caught-up")
    run.wait(60, DONE)
    assert "the target has 1 of its own" in words(run)[0]
    assert [bytes(data) for (data,) in pair.on_target("SELECT lo_get(oid) FROM pg_largeobject_metadata")] == [b"of the target"]


def test_they_are_not_meant_where_tables_are_named(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); SELECT lo_from_bytea(0, 'x')")
    run = migrate(pair, "--table", "t", "--stop-when-caught-up")
    run.wait(60, DONE)
    assert "because tables or schemas were named" in words(run)[0]
    assert pair.on_target("SELECT count(*) FROM pg_largeobject_metadata") == [(0,)]
