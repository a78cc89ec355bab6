"""--ack spooled, started while the target is away: what the source has to say goes into the spool of the run before."""

import signal

import pytest

from lib.program import DONE, FAILED, STOPPED, wait_until
from lib.proxy import Proxy

TABLES = "CREATE TABLE rows (id int PRIMARY KEY, a text); CREATE TABLE seen (n int)"
SPOOLED = ("--ack", "spooled")
RECEIVES = "while the target is away the stream is received into the spool"


@pytest.fixture
def away(pair):
    """A stream that has run before, with proxies on both sides, of which that to the target lets nobody in."""
    pair.schema(TABLES)
    pair.make_slot()
    proxies = {}
    for side in ("source", "target"):
        cluster = getattr(pair, side + "_cluster")
        proxies[side] = Proxy(cluster.port)
        setattr(pair.penstock, side, cluster.uri(pair.name, "owner", port=proxies[side].port))
    pair.on_source("INSERT INTO seen VALUES (0)")
    pair.penstock.catch_up(*SPOOLED)
    proxies["target"].refusing = True
    yield pair, proxies
    for proxy in proxies.values():
        proxy.close()


def write(pair, first, count):
    for i in range(first, first + count):
        pair.transaction(f"INSERT INTO seen VALUES ({i})", f"INSERT INTO rows VALUES ({i}, 'x')")


def test_received_while_the_target_is_away(away):
    pair, proxies = away
    write(pair, 1, 20)
    run = pair.penstock.start(*SPOOLED)
    pair.wait_told(run)
    write(pair, 21, 20)
    pair.wait_told(run)
    assert RECEIVES in run.stderr and "target: cannot connect" in run.stderr
    assert pair.on_target("SELECT count(*) FROM seen") == [(1,)]
    proxies["target"].refusing = False
    pair.wait_rows("seen", 41, run)
    write(pair, 41, 1)
    pair.wait_rows("seen", 42, run)
    run.stop()
    assert run.finished()["recoveries"] == 0
    assert pair.same() == 42 + 41


@pytest.mark.parametrize("option", ["--stop-when-caught-up", "--stop-at"])
def test_it_ends_where_it_was_asked_to(away, option):
    pair, proxies = away
    write(pair, 1, 20)
    more = (option,) if option == "--stop-when-caught-up" else (option, pair.wal_lsn())
    run = pair.penstock.start(*SPOOLED, *more)
    pair.wait_told(run)
    if option == "--stop-at":
        write(pair, 21, 1)
    proxies["target"].refusing = False
    run.wait(30, expect=DONE)
    assert pair.on_target("SELECT count(*) FROM seen") == [(21,)]
    pair.penstock.catch_up(*SPOOLED)
    pair.same()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_before_the_target_came(away, how):
    pair, proxies = away
    run = pair.penstock.start(*SPOOLED)
    write(pair, 1, 20)
    pair.wait_told(run)
    run.kill(how)
    run.wait(20, expect=STOPPED if how == signal.SIGTERM else -signal.SIGKILL)
    proxies["target"].refusing = False
    pair.penstock.catch_up(*SPOOLED)
    assert pair.same() == 21 + 20


def test_the_source_is_lost_too(away):
    pair, proxies = away
    run = pair.penstock.start(*SPOOLED)
    write(pair, 1, 20)
    pair.wait_told(run)
    proxies["source"].refusing = True
    proxies["source"].cut()
    wait_until(lambda: run.stderr.count("source: cannot connect") >= 2, 20, "tries")
    proxies["target"].refusing = False
    write(pair, 21, 20)
    wait_until(lambda: "now the source is away" in run.stderr or "the source is there again" in run.stderr, 20,
               "the target to be noticed")
    proxies["source"].refusing = False
    pair.wait_rows("seen", 41, run)
    run.stop()
    assert pair.same() == 41 + 40


def test_another_target_comes(away):
    """Nothing is applied to it, and nothing of the spool is lost."""
    pair, proxies = away
    run = pair.penstock.start(*SPOOLED)
    write(pair, 1, 20)
    pair.wait_told(run)
    pair.on_target("ALTER SCHEMA penstock RENAME TO elsewhere")
    proxies["target"].refusing = False
    run.wait(30, expect=FAILED)
    assert "knows nothing of" in run.the_error()
    assert pair.on_target("SELECT count(*) FROM seen") == [(1,)]
    pair.on_target("DROP SCHEMA IF EXISTS penstock CASCADE; ALTER SCHEMA elsewhere RENAME TO penstock")
    pair.penstock.catch_up(*SPOOLED)
    assert pair.same() == 21 + 20


def test_a_target_put_back(away):
    """It has less than the spool begins with: the same words as ever, also after this start."""
    pair, proxies = away
    proxies["target"].refusing = False
    pair.on_target("CREATE TABLE public.kept AS SELECT * FROM penstock.progress;"
                   "CREATE TABLE public.kept_durable AS SELECT * FROM penstock.durable")
    for turn in range(2):
        write(pair, 1 + 20 * turn, 20)
        pair.on_source("INSERT INTO rows SELECT i, repeat('z', 3000) FROM generate_series(%s, %s) i",
                       (1000 + 30_000 * turn, 30_999 + 30_000 * turn))
        pair.penstock.catch_up(*SPOOLED)
    proxies["target"].refusing = True
    run = pair.penstock.start(*SPOOLED)
    wait_until(lambda: RECEIVES in run.stderr or not run.running, 20, "it to receive")
    pair.on_target("UPDATE penstock.progress p SET commit_lsn = k.commit_lsn, end_lsn = k.end_lsn FROM kept k;"
                   "UPDATE penstock.durable p SET reported_lsn = k.reported_lsn FROM kept_durable k")
    proxies["target"].refusing = False
    run.wait(30, expect=FAILED)
    assert "was put back to an older state" in run.the_error()


def test_somebody_else_has_read_the_slot(away):
    """The spool is not the newest one: the start ends, though the target is away."""
    pair, _ = away
    write(pair, 1, 5)
    pair.wait_slot_free()
    pair.on_source("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (pair.name,))
    run = pair.penstock.fails(*SPOOLED)
    assert "somebody else has read the slot" in run.the_error()
