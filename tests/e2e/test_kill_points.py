"""Killed at a named place, for which the binary must be built with PEN_KILL_POINTS: the next run goes on, and in the
end the target equals the source."""

import random
import signal

import pytest

from lib.asking import wait_document
from lib.points import HAS_POINTS, needs_points
from lib.program import DONE, wait_until
from lib.storm import WORKERS

TABLES = ("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE big (id int PRIMARY KEY, a text);"
          "CREATE TABLE events (n int); ALTER TABLE events REPLICA IDENTITY FULL")


def small(pair, first, count=60):
    for i in range(first, first + count):
        pair.transaction(f"INSERT INTO t VALUES ({i}, 'x')", f"INSERT INTO events VALUES ({i})",
                         f"UPDATE t SET a = 'y' WHERE id = {i - 1}")


def large(pair, first, count=6000, size=100):
    pair.transaction(f"INSERT INTO big SELECT i, repeat('x', {size})"
                     f" FROM generate_series({first}, {first + count - 1}) i", "INSERT INTO events VALUES (-1)")


def dies(pair, run, timeout=40):
    assert run.wait(timeout) == -signal.SIGKILL, run.stderr[-3000:]


@needs_points
@pytest.mark.parametrize("point", ["taken-over", "progress-sent", "commit-sent", "worker-committed",
                                   "worker-handed-over", "barrier-before", "barrier-after", "checkpoint-submitted",
                                   "status-before", "status-after", "large-release"])
def test_killed_at(pair, point):
    pair.schema(TABLES)
    pair.make_slot()
    rows = 0
    for turn, ack in enumerate(random.choice((("applied", "spooled"), ("spooled", "spooled"), ("applied", "applied")))):
        passes = 1 if point == "taken-over" else random.randint(1, 4)
        run = pair.penstock.start("--ack", ack, memory="16MB", batch_rows=400, batch_transactions=5,
                                  env={"PENSTOCK_KILL_AT": f"{point}:{passes}"})
        first = 10_000 * turn
        large(pair, first)
        rows += 6001
        while run.running and first < 10_000 * turn + 6000:
            small(pair, first, 20)
            first += 20
            rows += 40
        dies(pair, run)
    pair.penstock.catch_up("--ack", ack)
    assert pair.same() == rows


@needs_points
@pytest.mark.parametrize("point", ["spool-sync-before", "spool-sync-after", "segment-empty", "segment-made",
                                   "trim-before", "trim-after", "spool-session"])
def test_killed_at_in_the_spool(pair, point):
    pair.schema(TABLES)
    pair.make_slot()
    rows = 0
    if point == "spool-session":
        run = pair.penstock.start("--ack", "spooled")
        pair.wait_streaming(run)
        large(pair, 100_000, 30_000)
        rows = 30_001
        run.kill()
        run.process.wait()
    run = pair.penstock.start("--ack", "spooled", env={"PENSTOCK_KILL_AT": point})
    small(pair, 0)
    if point.startswith("trim"):
        large(pair, 0, 36_000, 1900)  # more than a segment
        small(pair, 1000)
        rows += 36_001 + 120
    dies(pair, run)
    pair.penstock.catch_up("--ack", "spooled")
    assert pair.same() == 120 + rows


@needs_points
@pytest.mark.parametrize("point", ["publication-made", "slot-made"])
def test_killed_while_it_begins(pair, point):
    pair.schema(TABLES)
    dies(pair, pair.penstock.start(env={"PENSTOCK_KILL_AT": point}))
    run = pair.penstock.start()
    pair.wait_streaming(run)
    small(pair, 0)
    pair.wait_rows("events", 60, run)
    run.stop()
    assert pair.same() == 120


@needs_points
def test_killed_between_two_transactions_of_a_replay(pair):
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_target("INSERT INTO t VALUES (50, 'in the way')")
    run = pair.penstock.start(workers=1, env={"PENSTOCK_KILL_AT": "replay-between:3"})
    pair.wait_streaming(run)
    # All come into one batch: the only worker has none for them.
    blocker = pair.hold("LOCK TABLE big IN SHARE MODE")
    pair.on_source("INSERT INTO big VALUES (0, '')")
    wait_until(lambda: pair.target_cluster.sql(WORKERS + " AND wait_event_type = 'Lock'", (pair.name,)), 20,
               "the worker to wait")
    small(pair, 0)
    wait_document(pair.penstock.dir, lambda d: d["stream"] and d["stream"]["metrics"]["received_transactions"] >= 61, run)
    blocker.rollback()
    dies(pair, run)
    pair.on_target("DELETE FROM t WHERE a = 'in the way'")
    pair.penstock.catch_up()
    assert pair.same() == 121


def test_without_the_option_the_variable_does_nothing(pair):
    if HAS_POINTS:
        pytest.skip("this binary was built with PEN_KILL_POINTS")
    pair.schema(TABLES)
    pair.make_slot()
    small(pair, 0)
    run = pair.penstock.start("--stop-when-caught-up", env={"PENSTOCK_KILL_AT": "commit-sent"})
    run.wait(30, expect=DONE)
    assert pair.same() == 120
