"""Both servers lost at once, and signals while one of them is gone: with the spool the reader lives on its own."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest

from lib.load import Load
from lib.pair import lsn_number
from lib.program import DONE, FAILED, STOPPED, wait_until
from lib.spooled import end_sessions

TABLES = "CREATE TABLE rows (id int PRIMARY KEY, a text); CREATE TABLE seen (n int)"
SPOOLED = ("--ack", "spooled")


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_both_at_once(frail, make_pair, ack):
    pair = make_pair("owner", *frail)
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start("--ack", ack, workers=4)
    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.wait_rows("seen", 1, run)
    for turn in range(1, 4):
        # the one a little before the other, each time a little later
        first, second = frail if turn % 2 else reversed(frail)
        thread = threading.Thread(target=first.stop, args=(signal.SIGQUIT,))
        thread.start()
        time.sleep(turn * 0.003)
        second.stop(signal.SIGQUIT)
        thread.join()
        for cluster in frail:
            cluster.start()
        pair.source = pair.connect(frail[0])
        pair.target = pair.connect(frail[1])
        pair.on_source("INSERT INTO seen VALUES (%s)", (turn,))
        pair.wait_rows("seen", turn + 1, run, timeout=40)
    run.stop()
    assert run.finished()["recoveries"] >= 3
    assert pair.same() == 4


SLOW_END = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
void PQfinish(void *connection)
{
    usleep(100000);
    ((void (*)(void *))dlsym(RTLD_NEXT, "PQfinish"))(connection);
}
"""


@pytest.fixture
def slow_end(tmp_path):
    """Ending a connection takes so long that something else happens meanwhile."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler")
    (tmp_path / "slow.c").write_text(SLOW_END)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "slow.so", tmp_path / "slow.c", "-ldl"], check=True)
    # AddressSanitizer wants to be first, and need not be
    return {"LD_PRELOAD": str(tmp_path / "slow.so"),
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_the_source_while_the_target_is_taken_down(make_pair, slow_end, ack):
    pair = make_pair("owner")
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start("--ack", ack, workers=4, env=slow_end)
    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.wait_rows("seen", 1, run)
    for turn in range(1, 5):
        end_sessions(pair)
        time.sleep(turn * 0.1)
        pair.source_cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                                " WHERE slot_name = %s AND active", (pair.name,))
        pair.on_source("INSERT INTO seen VALUES (%s)", (turn,))
        pair.wait_rows("seen", turn + 1, run, timeout=30)
    run.stop()
    assert run.finished()["recoveries"] >= 4
    assert pair.same() == 5


@pytest.mark.smoke
def test_stopped_at_once(make_pair):
    """The second signal while the target does not come on."""
    pair = make_pair("owner")
    pair.schema(TABLES)
    pair.make_slot()
    for _ in range(3):
        run = pair.penstock.start(*SPOOLED, workers=2)
        pair.wait_streaming(run)
        blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
        pair.on_source("INSERT INTO seen VALUES (1)")
        wait_until(lambda: pair.target_cluster.sql(
            "SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE datname = %s AND NOT granted",
            (pair.name,)), 20, "the worker to wait")
        run.kill(signal.SIGTERM)
        wait_until(lambda: "once more stops at once" in run.stderr, 20, "the first signal to be taken")
        run.kill(signal.SIGTERM)
        run.wait(20, expect=STOPPED)
        assert run.finished()["reason"] == "signal"
        assert "AddressSanitizer" not in run.stderr and "ThreadSanitizer" not in run.stderr
        blocker.rollback()
    pair.penstock.catch_up(*SPOOLED)
    assert pair.same() == 3


def test_an_internal_error_that_does_not_pass(make_pair):
    """It is tried again, for it may be a proxy's word for what passes, but not for ever."""
    pair = make_pair("owner")
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_target("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS"
                   " $$BEGIN RAISE EXCEPTION 'broken inside' USING ERRCODE = 'XX000'; END$$;"
                   "CREATE TRIGGER t BEFORE INSERT ON rows FOR EACH ROW WHEN (NEW.id = 7) EXECUTE FUNCTION f()")
    run = pair.penstock.start(workers=2)
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO rows VALUES (1, '')")
    pair.on_source("INSERT INTO rows VALUES (7, '')")
    run.wait(90, expect=FAILED)
    assert "broken inside" in run.the_error() and "key id=7" in run.the_error()
    summary, = [e for e in run.events() if e["message"] == "stream finished"]
    assert summary["recoveries"] > 2
    pair.on_target("DROP TRIGGER t ON rows")
    pair.penstock.catch_up()
    assert pair.same() == 2


class Mixed(Load):
    """Beside the ordinary load large transactions, with parts that are rolled back, in tables without a key."""

    def statements_of(self, worker, i):
        yield from self.transfer(worker, i)
        if i % 40 == worker * 10:
            yield "INSERT INTO bag SELECT %s, i, repeat('b', 300) FROM generate_series(1, 1500) i", (worker * 100000 + i,)
            yield "SAVEPOINT a", ()
            yield "INSERT INTO bag SELECT -1, i, repeat('c', 300) FROM generate_series(1, 500) i", ()
            yield "ROLLBACK TO a", ()
            yield "DELETE FROM bag WHERE a = %s AND b %% 50 = 0", (worker * 100000 + i,)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_dies(frail, make_pair, seed):
    """penstock, the source, the target, one after the other or together, crashed; options that change between."""
    chance = random.Random(seed)
    pair = make_pair("owner", *frail)
    pair.stream_early()
    pair.schema("CREATE TABLE bag (a int, b int, c text); ALTER TABLE bag REPLICA IDENTITY FULL")
    load = Mixed(pair, threads=3, transactions=600, retry=True)
    load.statements = load.statements_of
    pair.make_slot()
    load.fill()
    load.start()
    run = None
    columns = 0
    while load.running:
        if run is None or not run.running:
            run = pair.penstock.start("--ack", "spooled", "--streaming", chance.choice(("on", "off", "parallel")), workers=4)
        time.sleep(chance.random() * 1.5)
        what = chance.choice(("penstock", "target", "source", "both", "column"))
        if what == "penstock":
            run.kill()
            run.process.wait()
        elif what == "column" and columns < 4:
            columns += 1
            change = f"ALTER TABLE bag ADD COLUMN d{columns} int"
            pair.connect(frail[1]).cursor().execute(change)
            pair.connect(frail[0]).cursor().execute(change)
        lost = {"target": frail[1:], "source": frail[:1], "both": frail}.get(what, ())
        for cluster in lost:
            cluster.stop(signal.SIGQUIT)
        time.sleep(chance.random() * 0.5)
        for cluster in lost:
            cluster.start()
        assert "is not what this run left" not in run.stderr
    load.join()
    pair.source, pair.target = (pair.connect(cluster) for cluster in frail)
    if run.running:
        run.stop()
    pair.penstock.catch_up("--ack", "spooled", "--streaming", "on", timeout=120)
    load.check()
    pair.penstock.catch_up(timeout=60)
    load.check()


@pytest.mark.smoke
def test_the_target_lost_behind_the_end(make_pair):
    """All up to --stop-at is in the spool, and the target is lost before it has it: what is in the spool is read again."""
    pair = make_pair("owner")
    pair.schema(TABLES)
    pair.make_slot()
    blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
    pair.on_source("INSERT INTO seen VALUES (1)")
    end = pair.wal_lsn()
    run = pair.penstock.start(*SPOOLED, workers=2, stop_at=end)
    wait_until(lambda: pair.target_cluster.sql(
        "SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE datname = %s AND NOT granted",
        (pair.name,)), 20, "the worker to wait")
    pair.on_source("INSERT INTO seen VALUES (2)")  # behind the end: the reader knows now that nothing else is to come
    wait_until(lambda: lsn_number(pair.confirmed_lsn()) >= lsn_number(end), 20, "the spool to hold all of it")
    time.sleep(0.3)
    end_sessions(pair)
    blocker.rollback()
    run.wait(40, expect=DONE)
    assert run.finished()["recoveries"] >= 1
    assert pair.on_target("SELECT n FROM seen") == [(1,)]
