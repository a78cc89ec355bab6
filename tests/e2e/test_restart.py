"""Stopped, killed, cut off: nothing is lost, nothing comes twice."""

import os
import pathlib
import random
import signal
import stat
import subprocess
import threading
import time

import pytest

from lib.cluster import time_factor
from lib.load import Load
from lib.pair import lsn_number
from lib.program import FAILED, STOPPED, binary, wait_until

TABLES = """
CREATE TABLE rows (id bigint PRIMARY KEY, n int NOT NULL, a text);
CREATE TABLE events (id bigint, what text);
ALTER TABLE events REPLICA IDENTITY FULL;
"""


def write(pair, first, count):
    """Small transactions that each touch both tables; a doubled one shows in the keyless table."""
    connection = pair.connect(pair.source_cluster)
    connection.autocommit = False
    with connection.cursor() as cursor:
        for i in range(first, first + count):
            cursor.execute("INSERT INTO rows VALUES (%s, 0, 'new')", (i,))
            cursor.execute("INSERT INTO events VALUES (%s, 'insert')", (i,))
            if i % 3 == 0:
                cursor.execute("UPDATE rows SET n = n + 1 WHERE id = %s", (random.randint(first, i),))
            connection.commit()
    connection.close()


def test_two_runs_with_a_restart_between(any_pair):
    pair = any_pair
    pair.schema(TABLES)
    pair.make_slot()
    write(pair, 0, 100)
    first = pair.penstock.catch_up()
    assert pair.same() == 200
    write(pair, 100, 50)
    second = pair.penstock.catch_up()
    assert pair.same() == 300
    assert int(first.finished()["transactions"]) == 100
    assert int(second.finished()["transactions"]) == 50
    # nothing new: nothing comes again
    pair.penstock.catch_up()
    assert pair.same() == 300


def test_restart_without_the_state_directory(pair):
    """With a PostgreSQL target the truth is there; the file is a hint."""
    pair.schema(TABLES)
    pair.make_slot()
    write(pair, 0, 50)
    pair.penstock.catch_up()
    write(pair, 50, 50)
    pair.penstock.dir = pair.penstock.dir.with_name("another")
    pair.penstock.catch_up()
    assert pair.same() == 200


@pytest.mark.smoke
def test_sigterm_in_the_middle_of_load(any_pair):
    pair = any_pair
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start()
    writer = threading.Thread(target=write, args=(pair, 0, 2000))
    writer.start()
    try:
        pair.wait_rows("rows", 200, run)
        run.kill(signal.SIGTERM)
        run.wait(30, expect=STOPPED)
        assert run.finished()["reason"] == "signal"
        run = pair.penstock.start()
        pair.wait_streaming(run)
        pair.wait_rows("rows", 600, run)
        run.kill(signal.SIGINT)
        run.wait(30, expect=STOPPED)
    finally:
        writer.join()
    pair.penstock.catch_up()
    assert pair.same() == 4000


def test_stopped_while_the_slot_is_being_created(pair):
    """The server creates it only when transactions that are open have ended, and may go on after us."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    other = pair.connect(pair.source_cluster)
    other.autocommit = False
    other.cursor().execute("INSERT INTO t VALUES (1)")
    run = pair.penstock.start()
    wait_until(lambda: pair.on_source(
        "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", (pair.name,)))
    run.stop()
    run = pair.penstock.start()
    wait_until(lambda: "waiting for the replication slot" in run.stderr or not run.running)
    other.commit()
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO t VALUES (2)")
    pair.wait_rows("t", 1, run)
    run.stop()


def test_a_log_that_nobody_reads_any_more(pair):
    """penstock … 2>&1 | head: the broken pipe ends neither the stream nor its exit code."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    penstock = pair.penstock
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [binary(), "stream", "--source", penstock.source, "--target", penstock.target, "--name", pair.name,
         "--dir", str(penstock.dir), "--stop-when-caught-up"], stderr=writing, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 0
    assert pair.same() == 1


def test_two_signals_stop_at_once(pair):
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start()
    pair.wait_streaming(run)
    pair.transaction("INSERT INTO rows SELECT i, 0, repeat('x', 200) FROM generate_series(1, 60000) i")
    run.kill(signal.SIGTERM)
    # two that come before the first is taken would be one
    wait_until(lambda: "once more stops at once" in run.stderr or not run.running, 20, "the first to be taken")
    run.kill(signal.SIGTERM)
    run.wait(10, expect=STOPPED)
    pair.penstock.catch_up()
    assert pair.same() == 60000


def test_a_transaction_cut_short_by_the_signal(pair):
    """The stop comes in the middle of a large one: it is either there whole or not at all."""
    pair.schema(TABLES)
    pair.make_slot()
    pair.transaction("INSERT INTO rows SELECT i, 0, repeat('x', 100) FROM generate_series(1, 50000) i")
    for delay in (0.05, 0.2, 0.4):
        run = pair.penstock.start()
        pair.wait_streaming(run)
        time.sleep(delay)
        run.kill(signal.SIGTERM)
        run.wait(30, expect=STOPPED)
        assert pair.on_target("SELECT count(*) FROM rows")[0][0] in (0, 50000)
    pair.penstock.catch_up()
    assert pair.same() == 50000


@pytest.mark.parametrize("role", ["owner", "postgres"])
def test_killed_again_and_again(make_pair, role):
    pair = make_pair(role)
    pair.schema(TABLES)
    pair.make_slot()
    writer = threading.Thread(target=write, args=(pair, 0, 4000))
    writer.start()
    kills = 0
    try:
        while writer.is_alive() or kills < 5:
            run = pair.penstock.start()
            pair.wait_streaming(run)
            time.sleep(random.uniform(0.02, 0.5))
            assert run.running, run.stderr[-3000:]
            run.kill(signal.SIGKILL)
            run.wait()
            kills += 1
    finally:
        writer.join()
    pair.penstock.catch_up()
    assert pair.same() == 8000


def test_progress_is_never_behind_what_the_source_may_forget(pair):
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start()
    stop = threading.Event()
    numbers = iter(range(0, 10_000_000, 50))

    def keep_writing():
        while not stop.is_set():
            write(pair, next(numbers), 50)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        began = pair.confirmed_lsn()
        moved = looks = 0
        deadline = time.monotonic() + 60 * time_factor()
        while (moved <= 10 or looks < 60) and time.monotonic() < deadline:
            looks += 1
            # first the source, then the target: what is recorded there only grows
            confirmed = pair.confirmed_lsn()
            recorded = pair.recorded_lsn()
            if confirmed != began:
                assert recorded is not None and lsn_number(confirmed) <= recorded
                moved += 1
            time.sleep(0.05)
        assert moved > 10, "the slot's confirmed position did not move while rows were applied"
    finally:
        stop.set()
        writer.join()
    run.stop()
    assert lsn_number(pair.confirmed_lsn()) <= pair.recorded_lsn()
    pair.penstock.catch_up()
    pair.same()


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_an_idle_stream_lets_the_source_forget(pair, ack):
    """Others write, we have nothing to do: the confirmed position must move on all the same."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
    pair.make_slot(["t"])
    run = pair.penstock.start("--ack", ack)
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO other SELECT generate_series(1, 1000)")
    wanted = lsn_number(pair.wal_lsn())
    pair.source_cluster.sql("SELECT pg_switch_wal()")
    wait_until(lambda: lsn_number(pair.confirmed_lsn()) >= wanted, 40, "the idle advance")
    run.stop()


def test_state_directory(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    old = os.umask(0)  # the modes must not depend on it
    try:
        pair.penstock.catch_up()
    finally:
        os.umask(old)
    folder = pathlib.Path(pair.penstock.dir)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    checkpoint = folder / "checkpoint"
    assert checkpoint.exists(), sorted(folder.iterdir())
    for path in folder.iterdir():
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_damaged_checkpoint_file_is_only_a_lost_hint(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.penstock.catch_up()
    checkpoint = pathlib.Path(pair.penstock.dir) / "checkpoint"
    checkpoint.write_bytes(os.urandom(8192))
    pair.on_source("INSERT INTO t VALUES (2)")
    pair.penstock.catch_up()
    checkpoint.write_bytes(b"")
    pair.on_source("INSERT INTO t VALUES (3)")
    pair.penstock.catch_up()
    assert pair.same() == 3


def test_a_second_one_on_the_same_directory_is_refused(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    run = pair.penstock.start()
    pair.wait_streaming(run)
    second = pair.penstock.start()
    second.wait(20, expect=1)
    assert str(pair.penstock.dir) in second.the_error()
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.wait_rows("t", 1, run)
    run.stop()


def test_lost_connections_lose_nothing(pair):
    """Each of penstock's sessions is ended, on either side, under load: it makes them anew."""
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start()
    pair.wait_streaming(run)
    writer = threading.Thread(target=write, args=(pair, 0, 3000))
    writer.start()
    mine = [c.info.backend_pid for c in pair.connections]

    def end_source():
        pair.source_cluster.sql(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active", (pair.name,))

    def end_target():
        pair.target_cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND NOT pid = ANY (%s)", (pair.name, mine))

    def losses(side):
        return sum(f"{side}:" in line and "trying again" in line for line in run.stderr.splitlines())

    def lose(side, end):
        lost, regained = losses(side), run.stderr.count("going on with")

        def told():
            assert run.running, run.stderr[-3000:]
            end()  # once more where there was nothing to be ended, or only what an earlier loss has left
            time.sleep(0.3)
            return losses(side) > lost
        wait_until(told, 30, f"word of the loss of the {side}")
        wait_until(lambda: run.stderr.count("going on with") > regained, 30, "the stream")

    try:
        for side, end in (("source", end_source), ("target", end_target)) * 3:
            time.sleep(0.3)
            lose(side, end)
    finally:
        writer.join()
    pair.wait_rows("rows", 3000, run, timeout=90)
    pair.wait_streaming(run)
    time.sleep(0.5)
    run.stop()
    assert run.finished()["recoveries"] >= 6
    pair.penstock.catch_up()
    assert pair.same() == 6000


def test_servers_crash(frail, make_pair):
    """The target forgets acknowledged commits when it crashes; what it forgot must come again."""
    source, target = frail
    pair = make_pair("owner", source, target)
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start()
    pair.wait_streaming(run)
    load = Load(pair, threads=2, transactions=1500, retry=True, schema=False)
    load.statements = lambda worker, i: [
        (f"INSERT INTO rows VALUES ({worker * 1_000_000 + i}, 0, 'new')", None),
        (f"INSERT INTO events VALUES ({worker * 1_000_000 + i}, 'insert')", None),
    ]
    load.start()
    try:
        for victim in (target, source, target):
            time.sleep(1)
            for connection in pair.connections:
                connection.close()
            victim.restart(signal.SIGQUIT)
    finally:
        load.join()
    pair.connections.clear()
    pair.source, pair.target = pair.connect(source), pair.connect(target)
    if run.running:
        run.kill(signal.SIGTERM)
        run.wait(60)
    pair.penstock.catch_up()
    pair.same()
    assert pair.on_target("SELECT count(*) FROM (SELECT id FROM events GROUP BY id HAVING count(*) > 1) d") == [(0,)]
