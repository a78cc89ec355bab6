"""What a start meets that passes by itself is waited for, in words; what the operator has to mend ends it soon."""

import signal
import time

import psycopg2
import pytest

from lib.cluster import free_port, time_factor
from lib.program import DONE, FAILED, STOPPED, wait_until
from lib.proxy import Doorman, Proxy

TABLE = "CREATE TABLE t (id int PRIMARY KEY)"
SIDES = pytest.mark.parametrize("side", ["source", "target"])


def begin(pair):
    pair.schema(TABLE)
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")


@pytest.fixture
def behind_door(pair):
    """penstock goes by a doorman on one side."""
    made = []

    def make(side, sqlstate, words):
        begin(pair)
        cluster = getattr(pair, side + "_cluster")
        doorman = Doorman(cluster.port, sqlstate, words)
        made.append(doorman)
        setattr(pair.penstock, side, cluster.uri(pair.name, "owner", port=doorman.port))
        return doorman

    yield make
    for doorman in made:
        doorman.close()


@pytest.mark.parametrize("side, sqlstate, words", [
    ("source", "57P03", "the database system is starting up"),
    ("target", "53300", "sorry, too many clients already"),
    ("source", "57P01", "terminating connection due to administrator command"),
    ("target", "XX000", "Couldn't connect to compute node"),
    ("source", "XX000", "Control plane request failed"),
])
def test_what_passes_is_waited_for(pair, behind_door, side, sqlstate, words):
    doorman = behind_door(side, sqlstate, words)
    run = pair.penstock.start("--stop-when-caught-up")
    wait_until(lambda: run.stderr.count("trying again") >= 2 or not run.running, 20, "two tries")
    assert run.running, run.stderr
    assert words in run.stderr and f"{side}: cannot connect" in run.stderr
    assert "check --" not in run.stderr, "nothing is to be mended"
    doorman.refusing = False
    run.wait(30, expect=DONE)
    assert not run.errors() and run.finished()["recoveries"] == 0
    assert pair.same() == 1


@pytest.mark.parametrize("side, sqlstate, words", [
    ("source", "28P01", "password authentication failed"),
    ("target", "3D000", "there is no such database"),
    ("target", "XX000", "This IP address 192.0.2.1 is not allowed to connect to this endpoint"),
    ("source", "XX000", "The requested endpoint could not be found, or you don't have access to it"),
    ("target", "XX000", "password authentication failed for user"),
])
def test_what_does_not_pass_ends_it(pair, behind_door, side, sqlstate, words):
    """Also one that has been running."""
    doorman = behind_door(side, sqlstate, words)
    run = pair.penstock.fails(timeout=10)
    assert words in run.the_error() and f"check --{side}" in run.the_error()
    assert "trying again" not in run.stderr
    doorman.refusing = False
    run = pair.penstock.start()
    pair.wait_rows("t", 1, run)
    doorman.refusing = True
    getattr(pair, side + "_cluster").sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                                         " AND application_name LIKE 'penstock%%'", (pair.name,))
    run.wait(30, expect=FAILED)
    assert words in run.the_error()


def test_what_nobody_knows_ends_a_start(pair, behind_door):
    """An internal error that is not known to be a proxy's: the operator looks on now."""
    behind_door("source", "XX000", "cache lookup failed")
    assert "cache lookup failed" in pair.penstock.fails(timeout=10).the_error()


@SIDES
def test_stopped_between_two_tries(pair, behind_door, side):
    doorman = behind_door(side, "57P03", "the database system is starting up")
    run = pair.penstock.start()
    wait_until(lambda: run.stderr.count("trying again") >= 4, 20, "some tries")
    run.kill(signal.SIGTERM)
    before = time.monotonic()
    run.wait(10, expect=STOPPED)
    assert time.monotonic() - before < 5 * time_factor() and not run.errors()
    doorman.refusing = False
    pair.penstock.catch_up()
    assert pair.same() == 1


@SIDES
def test_lost_while_it_begins(pair, side):
    """The server had let us in, so nothing is mistyped."""
    begin(pair)
    cluster = getattr(pair, side + "_cluster")
    blocker = cluster.connect(pair.name)
    blocker.autocommit = False
    # what the start reads there early, but not what a new session reads
    table = "pg_catalog.pg_publication" if side == "source" else "pg_catalog.pg_partitioned_table"
    with blocker.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    run = pair.penstock.start("--stop-when-caught-up")
    waits = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
             " AND application_name LIKE 'penstock%%' AND wait_event_type = 'Lock'")
    wait_until(lambda: cluster.sql(waits, (pair.name,)) or not run.running, 20, "it to wait")
    wait_until(lambda: "trying again" in run.stderr or not run.running, 20, "word of the loss")
    blocker.rollback()
    blocker.close()
    run.wait(30, expect=DONE)
    assert pair.same() == 1


@pytest.fixture
def away(pair):
    """penstock goes by a proxy on both sides, which turns everybody away without a word."""
    begin(pair)
    made = {}
    for side in ("source", "target"):
        cluster = getattr(pair, side + "_cluster")
        made[side] = Proxy(cluster.port)
        setattr(pair.penstock, side, cluster.uri(pair.name, "owner", port=made[side].port))
    yield made
    for proxy in made.values():
        proxy.close()


@SIDES
@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_a_server_that_was_reached_before_is_waited_for(pair, away, side, ack):
    """It does not answer at all now, and nothing says whether it ever will: but it is where the stream has been."""
    away[side].refusing = True
    run = pair.penstock.fails("--ack", ack, timeout=10)
    assert "trying again" not in run.stderr and f"check --{side}" in run.the_error(), "never reached, so maybe mistyped"
    away[side].refusing = False
    pair.penstock.catch_up("--ack", ack)
    pair.on_source("INSERT INTO t VALUES (2)")
    away[side].refusing = True
    run = pair.penstock.start("--stop-when-caught-up", "--ack", ack)
    wait_until(lambda: run.stderr.count("trying again") >= 2 or not run.running, 20, "two tries")
    assert run.running, run.stderr
    assert f"{side}: cannot connect" in run.stderr and "has reached both servers before" in run.stderr
    away[side].refusing = False
    run.wait(30, expect=DONE)
    assert not run.errors() and run.finished()["recoveries"] == 0
    assert pair.same() == 2


@SIDES
def test_what_was_mistyped_after_that_is_not(pair, away, side):
    pair.penstock.catch_up()
    away[side].refusing = True
    cluster = getattr(pair, side + "_cluster")
    for place in ({"port": free_port()}, {"host": "nowhere.invalid"}):
        setattr(pair.penstock, side, cluster.uri(pair.name, "owner", **place))
        run = pair.penstock.fails(timeout=20)
        assert "trying again" not in run.stderr and f"check --{side}" in run.the_error()


def test_stopped_while_it_waits_for_one_that_was_reached(pair, away):
    pair.penstock.catch_up()
    away["target"].refusing = True
    run = pair.penstock.start()
    wait_until(lambda: "trying again" in run.stderr, 20, "a try")
    run.kill(signal.SIGTERM)
    run.wait(10, expect=STOPPED)


@SIDES
def test_a_server_in_recovery(own, make_pair, side):
    """It says that it does not let anybody in yet, and later it does."""
    cluster = own(side, hot_standby="off")
    pair = make_pair("owner", **{side: cluster})
    begin(pair)
    for connection in pair.connections:
        connection.close()
    pair.connections.clear()
    cluster.stop()
    (cluster.data / "standby.signal").touch()
    cluster.start(wait=False)

    def says_recovering():
        with pytest.raises(psycopg2.OperationalError) as error:
            cluster.connect("postgres")
        return "not accepting connections" in str(error.value) or "not yet accepting" in str(error.value)

    wait_until(says_recovering, 30, "the server to recover")
    run = pair.penstock.start("--stop-when-caught-up")
    wait_until(lambda: run.stderr.count("trying again") >= 2 or not run.running, 20, "two tries")
    assert run.running, run.stderr
    assert "accepting connections" in run.stderr
    (cluster.data / "promote").touch()
    cluster.process.send_signal(signal.SIGUSR1)
    run.wait(40, expect=DONE)
    pair.source, pair.target = pair.connect(pair.source_cluster), pair.connect(pair.target_cluster)
    assert pair.same() == 1


def test_all_connections_taken(own, make_pair):
    target = own("target", max_connections=20)
    pair = make_pair("owner", None, target)
    begin(pair)
    taken = [target.connect(pair.name, "owner") for _ in range(13)]
    try:
        run = pair.penstock.start("--stop-when-caught-up", workers=4)
        wait_until(lambda: run.stderr.count("trying again") >= 3 or not run.running, 20, "some tries")
        assert run.running, run.stderr
        assert "too many clients" in run.stderr or "reserved for" in run.stderr
        assert "6 sessions are wanted there" in run.stderr and "--workers" in run.stderr
    finally:
        for connection in taken:
            connection.close()
    run.wait(40, expect=DONE)
    assert pair.same() == 1


@pytest.mark.parametrize("made", ["CREATE SCHEMA penstock", """CREATE SCHEMA penstock; CREATE TABLE penstock.stream (
    name text PRIMARY KEY, system_identifier text NOT NULL, timeline bigint NOT NULL, database text NOT NULL,
    slot text NOT NULL, publication text NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"""])
def test_somebody_else_makes_the_same_schema(pair, made):
    """Two that start at once, or one behind one that was killed: who comes second finds what the first has made."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    other = pair.connect(pair.target_cluster)
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute(made)
    run = pair.penstock.start("--stop-when-caught-up")
    wait_until(lambda: pair.target_cluster.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", (pair.name,)),
        20, "penstock to wait for the other")
    other.commit()
    run.wait(30, expect=DONE)
    assert pair.same() == 1


def test_a_start_asks_a_distant_target_little(pair):
    """Each question is a round trip, in a start and after each lost connection: one to set a session up, two for
    all that is to be known of a table, and the sessions of those who apply at the same time."""
    begin(pair)
    pair.penstock.catch_up()
    links = []

    class Watched(Proxy):
        @property
        def links(self):
            return self._links

        @links.setter
        def links(self, now):
            self._links = now
            links.extend(link for link in now if link not in links)

    proxy = Watched(pair.target_cluster.port)
    try:
        pair.penstock.target = pair.target_cluster.uri(pair.name, pair.role, port=proxy.port)
        pair.on_source("INSERT INTO t VALUES (2)")
        pair.penstock.catch_up(workers=4)
    finally:
        proxy.close()
    # of which 4 are the login and 1 is the goodbye, and of the worker that had a row, 2 the batch
    _, *others = [link.asked for link in links]  # the first is that of control, which asks on while it runs
    assert len(others) == 5
    assert min(others) >= 7 and max(others) <= 9, others
    assert pair.same() == 2
