"""--ack spooled while the source is away: what lies in the spool is applied, and the stream goes on when it is back."""

import re
import signal
import time

import pytest

from lib.asking import document, streaming, wait_document
from lib.cluster import Cluster, time_factor
from lib.pair import lsn_number
from lib.program import DONE, FAILED, wait_until
from lib.proxy import Proxy

TABLES = "CREATE TABLE rows (id int PRIMARY KEY, a text); CREATE TABLE seen (n int)"
SPOOLED = ("--ack", "spooled")


@pytest.fixture
def servers():
    """Servers that may go down."""
    made = []
    try:
        for name in ("frail-source", "frail-target"):
            made.append(Cluster(name, durable=True))
        yield made
    finally:
        for cluster in made:
            cluster.remove()


@pytest.fixture
def frail(servers, make_pair):
    pair = make_pair("owner", *servers)
    pair.schema(TABLES)
    pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET logical_decoding_work_mem = '64kB'")
    pair.make_slot()
    return pair


@pytest.fixture
def by_proxy(frail):
    """The same, with the source behind a proxy, which can be cut in the middle of a transaction."""
    proxy = Proxy(frail.source_cluster.port)
    frail.penstock.source = frail.source_cluster.uri(frail.name, "owner", port=proxy.port)
    yield frail, proxy
    proxy.close()


def write(pair, first, count, size=100):
    pair.on_source("INSERT INTO rows SELECT i, repeat('x', %s) FROM generate_series(%s, %s) i",
                   (size, first, first + count - 1))


def hold(pair):
    """Nothing is applied until the connection that this gives rolls back."""
    blocker = pair.connect(pair.target_cluster)
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE seen IN SHARE MODE")
    return blocker


def fill_spool(pair, run, transactions=200):
    """So many transactions are in the spool and not on the target; gives what holds them up."""
    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.wait_rows("seen", 1, run)
    blocker = hold(pair)
    for i in range(transactions):
        pair.transaction(f"INSERT INTO seen VALUES ({i + 1})", f"INSERT INTO rows VALUES ({i + 1}, 'x')")
    pair.wait_told()
    return blocker


def source_back(pair):
    pair.source_cluster.start()
    pair.source = pair.connect(pair.source_cluster)


def go_on(pair, run, seen):
    """One more transaction comes through, and both sides are the same."""
    pair.on_source("INSERT INTO seen VALUES (-1)")
    pair.wait_rows("seen", seen + 1, run, timeout=60)
    run.stop()
    return pair.same()


@pytest.mark.smoke
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_what_is_in_the_spool_is_applied(frail, how):
    run = frail.penstock.start(*SPOOLED, workers=4)
    blocker = fill_spool(frail, run)
    frail.source_cluster.stop(how)
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    wait_document(frail.penstock.dir, lambda d: d["state"] == "recovering", run)
    blocker.rollback()
    frail.wait_rows("seen", 201, run, timeout=30)
    frail.wait_rows("rows", 200, run)
    wait_until(lambda: "trying again" in run.stderr, 20, "a try")
    assert run.running
    source_back(frail)
    frail.on_source("INSERT INTO seen VALUES (-2)")
    frail.wait_rows("seen", 202, run, timeout=60)
    wait_document(frail.penstock.dir, streaming, run)
    assert go_on(frail, run, 202) == 203 + 200
    assert run.finished()["recoveries"] == 1
    frail.penstock.catch_up(*SPOOLED)


def test_the_target_is_lost_meanwhile(frail):
    """Its end of the stream is made anew without the source, behind the progress row."""
    run = frail.penstock.start(*SPOOLED, workers=4)
    blocker = fill_spool(frail, run)
    frail.source_cluster.stop(signal.SIGQUIT)
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    blocker.close()
    frail.target_cluster.restart(signal.SIGQUIT)
    frail.target = frail.connect(frail.target_cluster)
    frail.wait_rows("seen", 201, run, timeout=30)
    frail.target_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                             " AND application_name LIKE 'penstock%%'", (frail.name,))
    source_back(frail)
    assert go_on(frail, run, 201) == 202 + 200


def test_killed_while_the_source_is_away(frail):
    """What the spool holds by then is there for the next run."""
    run = frail.penstock.start(*SPOOLED, workers=4)
    blocker = fill_spool(frail, run)
    frail.source_cluster.stop(signal.SIGQUIT)
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    run.kill()
    run.process.wait()
    blocker.close()
    source_back(frail)
    run = frail.penstock.start(*SPOOLED, workers=4)
    assert go_on(frail, run, 201) == 202 + 200


def test_stopped_while_the_source_is_away(frail):
    """In order, though the source cannot be told; and it is told later."""
    run = frail.penstock.start(*SPOOLED, workers=4)
    fill_spool(frail, run).rollback()
    frail.wait_rows("seen", 201, run)
    frail.source_cluster.stop(signal.SIGQUIT)
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    before = time.monotonic()
    run.stop()
    assert time.monotonic() - before < 10 and not run.errors()
    source_back(frail)
    frail.penstock.catch_up(*SPOOLED)
    assert frail.same() == 201 + 200


class Mute(Proxy):
    """Takes connections and says nothing, as a machine does that hangs."""

    def turn_away(self, client):
        self.kept = getattr(self, "kept", []) + [client]


def test_stopped_while_it_connects(frail):
    """Where nobody answers, libpq waits for half a minute; an end does not."""
    proxy = Mute(frail.source_cluster.port)
    frail.penstock.source = frail.source_cluster.uri(frail.name, "owner", port=proxy.port)
    run = frail.penstock.start(*SPOOLED, workers=4)
    fill_spool(frail, run, 20).rollback()
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    frail.wait_rows("seen", 21, run)
    time.sleep(0.5)
    before = time.monotonic()
    run.stop()
    assert time.monotonic() - before < 10 and not run.errors()
    proxy.refusing = False
    frail.penstock.catch_up(*SPOOLED)
    proxy.close()
    assert frail.same() == 21 + 20


def test_the_end_is_in_the_spool(frail):
    """All up to --stop-at is there, and the proof that it is all: the source is not needed for the end."""
    blocker = hold(frail)
    for i in range(50):
        frail.on_source("INSERT INTO seen VALUES (%s)", (i,))
    end = frail.wal_lsn()
    run = frail.penstock.start(*SPOOLED, workers=4, stop_at=end)
    wait_document(frail.penstock.dir, streaming, run)
    frail.on_source("INSERT INTO seen VALUES (-1)")
    wait_until(lambda: lsn_number(frail.confirmed_lsn()) >= lsn_number(end), 60, "the source to be told of the end")
    # The proof is this transaction, or a word of the source before it, and then no more is received. Where it was the
    # transaction's beginning, it does not show.
    until = time.monotonic() + 20 * time_factor()
    while (lsn_number(document(frail.penstock.dir)["stream"]["received_lsn"]) <= lsn_number(end)
           and time.monotonic() < until):
        time.sleep(0.05)
    frail.source_cluster.stop(signal.SIGQUIT)
    blocker.rollback()
    run.wait(30, expect=DONE)
    assert frail.on_target("SELECT count(*) FROM seen") == [(50,)]
    source_back(frail)


@pytest.mark.parametrize("option", ["--stop-when-caught-up", "--stop-at"])
def test_the_end_is_not_in_the_spool(by_proxy, option):
    """What committed before the end is waited for, and the source need do nothing for it."""
    pair, proxy = by_proxy
    blocker = hold(pair)
    write(pair, 1, 20_000, 400)
    for i in range(50):
        pair.on_source("INSERT INTO seen VALUES (%s)", (i,))
    proxy.bytes_per_second = 800_000  # it is cut before all has come
    more = (option,) if option == "--stop-when-caught-up" else (option, pair.wal_lsn())
    run = pair.penstock.start(*SPOOLED, *more, workers=4)
    wait_document(pair.penstock.dir, streaming, run)
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    blocker.rollback()
    time.sleep(1)
    assert run.running and pair.on_target("SELECT count(*) FROM seen") == [(0,)]
    proxy.bytes_per_second = 0
    proxy.refusing = False
    run.wait(60, expect=DONE)
    assert pair.same() == 20_050


@pytest.mark.parametrize("streaming", ["off", "on"])
@pytest.mark.parametrize("after", [1, 3])
def test_cut_in_a_large_transaction(by_proxy, streaming, after):
    """A part of it is on its way to the target: that is taken back, and what was in the way of others with it."""
    pair, proxy = by_proxy
    run = pair.penstock.start(*SPOOLED, "--streaming", streaming, workers=4, memory="16MB", batch_rows=300)
    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.wait_rows("seen", 1, run)
    write(pair, -100, 50)
    for turn in range(after):
        proxy.bytes_per_second = 1_000_000 if streaming == "off" else 3_000_000  # so slow that it is not over by then
        pair.transaction(f"UPDATE rows SET a = 'turn {turn}' WHERE id < 0",
                         f"INSERT INTO rows SELECT i, repeat('y', 400) FROM generate_series({turn * 20000 + 1},"
                         f" {turn * 20000 + 20000}) i", f"INSERT INTO seen VALUES ({turn + 1})")
        if streaming == "off":  # the worker has begun with it
            wait_until(lambda: pair.target_cluster.sql(
                "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%%worker%%'"
                " AND backend_xid IS NOT NULL AND xact_start < now() - interval '0.3 s'", (pair.name,)), 20,
                "a part to be applied")
        else:
            time.sleep(0.5)
        proxy.refusing = True
        proxy.cut()
        wait_until(lambda: run.stderr.count("what is in the spool is applied while") > turn, 20, "word of the loss")
        with pair.target.cursor() as cursor:  # nobody holds locks for as long as the source is away
            cursor.execute("SET lock_timeout = '10s'; UPDATE rows SET a = a WHERE id < 0; RESET lock_timeout")
        proxy.bytes_per_second = 0
        proxy.refusing = False
        pair.wait_rows("seen", turn + 2, run, timeout=60)
    assert go_on(pair, run, after + 1) == after + 2 + 50 + after * 20_000
    assert run.finished()["recoveries"] == after
    assert not re.search("is not what this run left", run.stderr)


def test_cut_again_and_again(by_proxy):
    """With a target that lags, so that the spool holds several losses; all of it is read again when that is lost too."""
    pair, proxy = by_proxy
    run = pair.penstock.start(*SPOOLED, "--streaming", "on", workers=4, memory="16MB", batch_rows=300)

    def back():
        return run.stderr.count("the source is there again")

    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.wait_rows("seen", 1, run)
    blocker = hold(pair)
    for turn in range(6):
        proxy.bytes_per_second = 2_000_000
        pair.transaction(f"INSERT INTO rows SELECT i, repeat('y', 300) FROM generate_series({turn * 5000 + 1},"
                         f" {turn * 5000 + 5000}) i", f"INSERT INTO seen VALUES ({turn + 1})")
        time.sleep(0.1 + turn * 0.1)
        before = back()
        proxy.cut()
        if turn % 2:
            wait_until(lambda b=before: back() > b, 20, "the source to be there again")
        else:
            time.sleep(0.2)  # it may be cut again before that
    proxy.bytes_per_second = 0
    pair.wait_told()
    blocker.close()
    for how in (signal.SIGQUIT, signal.SIGINT):
        pair.target_cluster.restart(how)
        time.sleep(0.3)
    pair.target = pair.connect(pair.target_cluster)
    pair.wait_rows("seen", 7, run, timeout=60)
    assert go_on(pair, run, 7) == 8 + 30_000


def test_the_slot_is_gone_meanwhile(by_proxy):
    """What cannot be gone on with ends the process, in words."""
    pair, proxy = by_proxy
    run = pair.penstock.start(*SPOOLED, workers=4)
    blocker = fill_spool(pair, run, 5)
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    blocker.rollback()
    pair.wait_rows("seen", 6, run, timeout=30)
    pair.wait_slot_free()
    pair.on_source("SELECT pg_drop_replication_slot(%s)", (pair.name,))
    proxy.refusing = False
    run.wait(30, expect=FAILED)
    assert "is gone" in run.the_error()


def test_the_slot_was_read_by_somebody_else_meanwhile(by_proxy):
    """What that one has taken is in no spool."""
    pair, proxy = by_proxy
    run = pair.penstock.start(*SPOOLED, workers=4)
    fill_spool(pair, run, 5).rollback()
    proxy.refusing = True
    proxy.cut()
    wait_until(lambda: "what is in the spool is applied" in run.stderr, 20, "word of the loss")
    pair.wait_slot_free()
    pair.on_source("INSERT INTO seen VALUES (9)")
    pair.on_source("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (pair.name,))
    proxy.refusing = False
    run.wait(30, expect=FAILED)
    assert "somebody else has read the slot" in run.the_error()
