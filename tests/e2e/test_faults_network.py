"""What networks do: connections that are cut, that fall silent, that are refused; and a second penstock."""

import os
import re
import signal
import time

import pytest

from lib.cluster import time_factor
from lib.load import Load
from lib.pair import lsn_number
from lib.program import FAILED, STOPPED, wait_until
from lib.proxy import Proxy

TABLES = ("CREATE TABLE t (id int PRIMARY KEY, a text);"
          "CREATE TABLE events (n int); ALTER TABLE events REPLICA IDENTITY FULL")
# How soon a dead peer is noticed is the operator's to say, in the connection string.
IMPATIENT = "?keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=2000&connect_timeout=5"


@pytest.fixture
def proxied(pair):
    """penstock goes by proxies; the test itself does not."""
    proxies = {side: Proxy(cluster.port) for side, cluster in
               (("source", pair.source_cluster), ("target", pair.target_cluster))}
    for side, proxy in proxies.items():
        cluster = getattr(pair, side + "_cluster")
        role = "owner" if side == "source" else pair.role
        setattr(pair.penstock, side, cluster.uri(pair.name, role, port=proxy.port) + IMPATIENT)
    pair.proxies = proxies
    yield pair
    for proxy in proxies.values():
        proxy.close()


def begin(pair, *extra, **changed):
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start(*extra, **changed)
    write(pair, 0)
    pair.wait_rows("events", 100, run)
    return run


def write(pair, turn):
    for i in range(100):
        pair.transaction(f"INSERT INTO t VALUES ({turn * 100 + i}, 'x')", f"INSERT INTO events VALUES ({turn})")


@pytest.mark.parametrize("side", ["source", "target"])
def test_cut_again_and_again(proxied, side):
    run = begin(proxied)
    for turn in range(1, 5):
        proxy = proxied.proxies[side]
        losses = run.stderr.count("trying again")
        if turn % 2:
            proxy.cut_in_a_message(within=20)  # a whole turn is answered by the target in some hundred bytes
        else:
            proxy.cut()
        write(proxied, turn)
        wait_until(lambda n=losses: run.stderr.count("trying again") > n, 20, f"word of loss {turn}")
        # what was written before it may be there without a new connection, and the next cut would meet none
        proxied.on_source("INSERT INTO t VALUES (%s)", (10000 + turn,))
        proxied.wait_rows("t", 100 * (turn + 1) + turn, run)
    run.stop()
    assert run.finished()["recoveries"] >= 4
    assert proxied.same() == 1004


@pytest.mark.parametrize("words", [b"lock_timeout", b"SELECT pg_catalog.pg_backend_pid()", b"BEGIN", b"COMMIT"])
def test_a_session_is_lost_while_it_is_made(proxied, words):
    """At each step of what the workers' and the other sessions say at first: all are made anew."""
    proxy = proxied.proxies["target"]
    run = begin(proxied)
    proxy.cut_a_new_one(words)
    proxied.target_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                               " AND application_name LIKE 'penstock%%'", (proxied.name,))
    write(proxied, 1)
    proxied.wait_rows("events", 200, run)
    with proxy.lock:
        losses = 1 if proxy.cut_at else 2
        proxy.cut_at = None
    wait_until(lambda: run.stderr.count("trying again") >= losses, 20, "word of it")
    run.stop()
    assert proxied.same() == 400
    assert run.finished()["recoveries"] >= losses


@pytest.mark.parametrize("lost", ["the COMMIT", "its answer"])
def test_a_commit_of_which_nothing_is_known(proxied, lost):
    """The worker cannot know which of both it was, and must not guess: the control session lives on, and would
    record what the worker says."""
    run = begin(proxied)
    proxied.wait_told(run)  # else the answer to what is there already could be lost
    ports = {port for (port,) in proxied.target_cluster.sql(
        "SELECT client_port FROM pg_stat_activity WHERE datname = %s"
        " AND application_name LIKE 'penstock %% worker %%'", (proxied.name,))}
    links = [link for link in proxied.proxies["target"].live() if link.sockets[1].getsockname()[1] in ports]
    assert len(links) == 4
    for link in links:
        link.swallow = lost == "its answer"
    proxied.on_source("INSERT INTO events VALUES (1)")
    wait_until(lambda: any(link.swallowed for link in links), 20, "the worker to send")
    there = 100
    if lost == "its answer":
        proxied.wait_rows("events", 101, run)
        there = 101
    assert proxied.on_target("SELECT count(*) FROM events") == [(there,)]
    for link in links:
        link.cut()
    proxied.wait_rows("events", 101, run, timeout=20)
    write(proxied, 1)
    proxied.wait_rows("events", 201, run)
    run.stop()
    assert run.finished()["recoveries"] >= 1
    assert proxied.same() == 401


@pytest.mark.parametrize("ack", ["applied", "spooled"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_packets_vanish(proxied, side, ack):
    """Nobody says that the other end is gone. A busy worker, and an idle stream too, must notice."""
    run = begin(proxied, "--ack", ack)
    before = time.monotonic()
    proxied.proxies[side].black_hole()
    write(proxied, 1)
    proxied.wait_rows("events", 200, run, timeout=30)
    assert time.monotonic() - before < 25 * time_factor()
    assert f"{side}:" in run.stderr and ("trying again" in run.stderr or "tried again" in run.stderr)
    run.stop()
    assert proxied.same() == 400


def test_a_source_that_does_not_answer(proxied):
    """Its kernel does, or a proxy's on the way, so that TCP finds nothing wrong."""
    proxied.source_cluster.sql(f"ALTER DATABASE {proxied.name} SET wal_sender_timeout = '5s'")
    run = begin(proxied)
    time.sleep(6)
    assert "counts as lost" not in run.stderr, "an idle source answers"
    before = time.monotonic()
    proxied.proxies["source"].fall_silent()
    wait_until(lambda: "counts as lost" in run.stderr, 20, "the loss to be noticed")
    assert time.monotonic() - before > 1
    write(proxied, 1)
    proxied.wait_rows("events", 200, run)
    run.stop()
    assert proxied.same() == 400


def test_refused_for_a_while(proxied):
    run = begin(proxied)
    for side, proxy in proxied.proxies.items():
        proxy.refusing = True
        proxy.cut()
        write(proxied, 1 if side == "source" else 2)
        wait_until(lambda s=side: f"{s}: cannot connect" in run.stderr, 20, "a refusal")
        assert run.running
        proxy.refusing = False
    proxied.wait_rows("events", 300, run)
    run.stop()
    assert proxied.same() == 600


def test_slow_and_far(proxied):
    for proxy in proxied.proxies.values():
        proxy.delay = 0.01
        proxy.bytes_per_second = 3_000_000
    run = begin(proxied)
    write(proxied, 1)
    proxied.wait_rows("events", 200, run)
    run.stop()
    assert run.finished()["recoveries"] == 0
    assert proxied.same() == 400


# ---- one penstock per stream


def test_a_second_one_elsewhere_is_refused(any_pair, tmp_path):
    pair = any_pair
    run = begin(pair)
    second = pair.penstock.fails(dir=tmp_path / "elsewhere", timeout=20)
    error = second.the_error()
    assert "another penstock has the stream" in error and f'"{pair.name}"' in error
    assert f"penstock {pair.name} control" in error and re.search(r"pid \d+", error) and "--name" in error
    write(pair, 1)
    pair.wait_rows("events", 200, run)
    run.stop()
    assert run.finished()["recoveries"] == 0, "the first one has not noticed anything"
    pair.penstock.catch_up(dir=tmp_path / "elsewhere")  # it has ended, so its session has
    assert pair.same() == 400


def test_another_stream_on_the_same_target_is_let_in(pair, tmp_path):
    run = begin(pair)
    pair.schema("CREATE TABLE u (id int PRIMARY KEY)")
    other = pair.penstock.start("--table", "u", name="another", dir=tmp_path / "another")
    try:
        wait_until(lambda: pair.on_source("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'another' AND active"
                                          " AND confirmed_flush_lsn IS NOT NULL"))
        pair.on_source("INSERT INTO u VALUES (1)")
        pair.wait_rows("u", 1, other)
        other.stop()
    finally:
        other.kill()
        other.process.wait()
    run.stop()


def test_sessions_that_an_earlier_run_left(proxied):
    """Its machine died, the server has not noticed: they are ended, for they may hold locks."""
    run = begin(proxied)
    blocker = proxied.connect(proxied.target_cluster)
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("SELECT * FROM t WHERE id = 2 FOR UPDATE")
    proxied.transaction("UPDATE t SET a = 'y' WHERE id < 3", "INSERT INTO events VALUES (1)")
    workers = ("SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'penstock%%'")
    wait_until(lambda: proxied.target_cluster.sql(workers + " AND wait_event_type = 'Lock'", (proxied.name,)))
    proxied.proxies["target"].fall_silent()  # what the kernel says at the end does not pass either
    for link in proxied.proxies["target"].live():
        link.over = True  # both threads end; the sockets stay
    run.kill()
    run.process.wait()
    old = {pid for (pid,) in proxied.target_cluster.sql(workers, (proxied.name,))}
    assert len(old) >= 4, "the server still has them"
    second = proxied.penstock.start()
    wait_until(lambda: not second.running or not old & {
        pid for (pid,) in proxied.target_cluster.sql(workers, (proxied.name,))}, 20, "their end")
    blocker.rollback()
    proxied.wait_rows("events", 101, second)
    second.stop()
    assert proxied.same() == 201


def test_a_zombie_that_wakes_up_writes_nothing(proxied):
    """Its lock is gone with its session, another has taken the stream over, and its workers still have theirs."""
    run = begin(proxied)
    os.kill(run.pid, signal.SIGSTOP)
    try:
        proxied.transaction("INSERT INTO t VALUES (1000, 'x')", "INSERT INTO events VALUES (1)")
        # who comes waits some seconds only for whoever had the stream
        wait_until(lambda: not proxied.target_cluster.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND application_name LIKE 'penstock %% control'", (proxied.name,)), 20, "the end of its session")
        proxied.source_cluster.sql(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active",
            (proxied.name,))
        taken = proxied.penstock.start(dir=proxied.penstock.dir.with_name("another"))
        proxied.wait_rows("events", 101, taken)
    finally:
        os.kill(run.pid, signal.SIGCONT)
    run.wait(30, expect=FAILED)
    assert "another penstock" in run.the_error()
    assert taken.running
    write(proxied, 1)
    proxied.wait_rows("events", 201, taken)
    taken.stop()
    assert proxied.same() == 402


@pytest.mark.parametrize("rows", [1, 500])
@pytest.mark.parametrize("change", ["run_id = 'another'", "commit_lsn = '0/1'"])
def test_the_progress_row_is_not_what_this_run_left(pair, change, rows):
    """As when another run has got hold of the stream, by whatever way: nothing more is written."""
    run = begin(pair)
    pair.on_target(f"UPDATE penstock.progress SET {change}")
    pair.transaction(f"INSERT INTO t SELECT i FROM generate_series(1001, {1000 + rows}) i",
                     "INSERT INTO events VALUES (1)")
    run.wait(30, expect=FAILED)
    assert "another penstock" in run.the_error() or "progress" in run.the_error()
    assert pair.on_target("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM events)") == [(100, 100)]


def test_load_through_a_bad_network(proxied):
    pair = proxied
    load = Load(pair, threads=3, transactions=500)
    pair.make_slot()
    load.fill()
    run = pair.penstock.start()
    pair.wait_rows("accounts", 50, run)
    load.start()
    turn = 0
    while load.running:
        time.sleep(0.4)
        proxy = pair.proxies[("source", "target")[turn % 2]]
        (proxy.cut, proxy.cut_in_a_message)[turn // 2 % 2](0.4)
        turn += 1
        confirmed = pair.confirmed_lsn()
        assert lsn_number(confirmed) <= pair.recorded_lsn()
    load.join()
    assert run.running
    run.kill(signal.SIGTERM)
    run.wait(30, expect=STOPPED)  # also where a cut came on the way out
    pair.penstock.catch_up()
    load.check()
