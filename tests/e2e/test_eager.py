"""A transaction is applied while it is in progress on the source: --streaming parallel."""

import re
import signal
import time

import pytest

from lib.asking import status, wait_document
from lib.points import needs_points
from lib.program import STOPPED, wait_until

TABLES = """
CREATE TABLE big (id int PRIMARY KEY, a text);
CREATE TABLE small (id int PRIMARY KEY, n int);
CREATE TABLE child (id int PRIMARY KEY, small int REFERENCES small);
"""


def begin(pair):
    connection = pair.connect(pair.source_cluster)
    connection.autocommit = False
    return connection


def fill(connection, first, rows):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO big SELECT i, repeat('x', 200) || i FROM generate_series(%s, %s) i",
                       (first, first + rows - 1))


def start(pair, *extra, **changed):
    run = pair.penstock.start("--streaming", "parallel", "--log-level", "debug", *extra, **changed)
    pair.wait_streaming(run)
    return run


def in_front_of_a_lock(pair, lock, *extra):
    """A run, a transaction of which the first rows are on the target, and which needs more there than it can get, and
    who holds the lock."""
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    run = start(pair, *extra)
    pair.wait_rows("small", 1, run)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    blocker = pair.hold(lock)
    with one.cursor() as cursor:
        cursor.execute("UPDATE small SET n = 1")
    fill(one, 10_000, 3000)
    return run, one, blocker


def said(run, what):
    return any(what in event["message"] for event in run.events())


def eager_session(pair):
    """PID of the session that applies ahead, and what it waits for, once its transaction has written something."""
    return pair.target_cluster.sql(
        "SELECT pid, wait_event FROM pg_stat_activity WHERE datname = %s AND application_name = %s AND backend_xid IS NOT NULL",
        (pair.name, f"penstock {pair.name} eager"))


def wait_applied(pair, run):
    """Until all that has come of the transaction is on the target, not committed."""
    def idle():
        assert run.running, run.stderr[-3000:]
        found = eager_session(pair)
        return found and found[0][1] == "ClientRead"
    wait_until(idle, 30, "a transaction that is applied while it is in progress")


def wait_rolled_back(pair, run, why, timeout=30):
    wait_until(lambda: said(run, why) and not eager_session(pair), timeout, f"a rollback, because {why}")


def counts(run):
    found = run.finished()
    return found["eager_transactions"], found["eager_given_up"]


@pytest.mark.parametrize("asked, ahead", [("", True), ("64MB", False)], ids=["by us", "by the user"])
def test_the_source_keeps_little_back(early, asked, ahead):
    """Where its own setting would make it send nothing before the Commit; not where the user wants it so."""
    pair = early
    pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET logical_decoding_work_mem = '64MB'")
    source = pair.source_cluster.uri(pair.name, "owner")
    run = start(pair, source=source + (f"?options=-c%20logical_decoding_work_mem%3D{asked}" if asked else ""))
    one = begin(pair)
    fill(one, 1, 40_000)
    if ahead:
        wait_applied(pair, run)
    one.commit()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    run.stop()
    assert counts(run) == (int(ahead), 0)
    assert pair.same() == 40_001


@pytest.mark.smoke
@pytest.mark.parametrize("ack", ["applied", "spooled"])
@pytest.mark.parametrize("apply", ["sets", "rows"])
def test_it_is_there_before_it_commits(early, ack, apply):
    """And seen when it has, in its place among the others, which do not wait for it."""
    pair = early
    run = start(pair, "--ack", ack, "--apply", apply)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    for step in range(5):
        pair.on_source("INSERT INTO small VALUES (%s, 0)", (step,))
        fill(one, 10_000 * (step + 1), 1000)
        pair.wait_rows("small", step + 1, run)
    assert pair.on_target("SELECT count(*) FROM big") == [(0,)]
    with one.cursor() as cursor:
        cursor.execute("UPDATE big SET a = 'y' || id WHERE id % 3 = 0")
        cursor.execute("DELETE FROM big WHERE id % 7 = 0")
    one.commit()
    pair.on_source("UPDATE big SET a = 'after' WHERE id = 1")
    pair.on_source("INSERT INTO small VALUES (99, 0)")
    pair.wait_rows("small", 6, run)
    assert pair.on_target("SELECT a FROM big WHERE id = 1") == [("after",)]
    run.stop()
    assert counts(run) == (1, 0)
    assert run.finished()["retries"] == 0
    assert run.finished()["applied_changes"] >= 8000 + 2666 + 1140
    assert pair.same() > 6000


def test_it_comes_behind_what_it_needs(early):
    """What it changes was made by transactions whose batch stands still on the target."""
    pair = early
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    run = start(pair)
    pair.wait_rows("small", 1, run)
    blocker = pair.hold("SELECT * FROM small FOR UPDATE")
    pair.on_source("UPDATE small SET n = 1")
    for step in range(20):
        pair.on_source("INSERT INTO big VALUES (%s, 'early')", (-step - 1,))
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    one = begin(pair)
    with one.cursor() as cursor:
        cursor.execute("UPDATE big SET a = 'late' WHERE id < 0")
        cursor.execute("DELETE FROM big WHERE id = -3")
        cursor.execute("INSERT INTO child SELECT i, 2 FROM generate_series(1, 3000) i")
    wait_until(lambda: said(run, "is applied while it is in progress"), 30, "its beginning")
    time.sleep(0.5)
    assert not eager_session(pair)
    blocker.rollback()
    wait_applied(pair, run)
    one.commit()
    pair.wait_rows("child", 3000, run)
    run.stop()
    assert counts(run) == (1, 0)
    assert pair.same() == 3000 + 19 + 2


def test_one_after_the_other_without_a_pause(early):
    """Parts of the next one come before the COMMIT of the one before."""
    pair = early
    run = start(pair, workers=4)
    one, two = begin(pair), begin(pair)
    for step in range(12):
        fill(one, 1 + step * 10_000, 3000)
        fill(two, 5001 + step * 10_000, 3000)
        one.commit()
        two.commit()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    run.stop()
    assert counts(run)[0] >= 12
    assert pair.same() == 72_001


def test_rolled_back(early):
    pair = early
    run = start(pair)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    one.rollback()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    wait_until(lambda: not eager_session(pair), 30, "the rollback")
    fill(one, 1, 3000)
    wait_applied(pair, run)
    one.commit()
    pair.wait_rows("big", 3000, run)
    run.stop()
    assert counts(run) == (1, 0)
    assert pair.same() == 3001


@pytest.mark.parametrize("what, why", [
    ("SAVEPOINT a; INSERT INTO big SELECT -i, repeat('y', 200) FROM generate_series(1, 2000) i; ROLLBACK TO a",
     "a subtransaction of it was rolled back"),
    ("ALTER TABLE big ALTER a TYPE varchar", "it has changed a table's definition"),
    ("TRUNCATE big", "it empties a table")])
def test_what_is_given_up(early, what, why):
    pair = early
    run = start(pair)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    with one.cursor() as cursor:
        cursor.execute(what)
    fill(one, 10_000, 3000)
    wait_rolled_back(pair, run, why)
    fill(one, 20_000, 3000)
    one.commit()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    run.stop()
    assert counts(run) == (0, 1)
    assert pair.same() == (6001 if "empties" in why else 9001)


def test_a_table_that_the_target_lacks(early):
    """It may be rolled back yet; when it commits that is told as ever."""
    pair = early
    run = start(pair)
    pair.on_source("CREATE TABLE new (id int PRIMARY KEY)")
    pair.source_cluster.sql(f"ALTER PUBLICATION {pair.name} ADD TABLE new", dbname=pair.name)
    one = begin(pair)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO new SELECT generate_series(1, 5000)")
    wait_rolled_back(pair, run, "it could not be applied so early")
    one.rollback()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO new SELECT generate_series(1, 5000)")
    one.commit()
    run.wait(30, expect=1)
    assert "new" in run.the_error()
    pair.on_target("CREATE TABLE new (id int PRIMARY KEY)")
    pair.penstock.catch_up("--streaming", "parallel")
    assert pair.same() == 5001


def test_what_the_target_alone_forbids(early):
    """An error there, which the transaction that comes first has taken away when it is applied in order."""
    pair = early
    pair.on_target("CREATE UNIQUE INDEX ON small (n)")
    pair.on_source("INSERT INTO small VALUES (1, 1)")
    run = start(pair)
    pair.wait_rows("small", 1, run)
    one = begin(pair)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO small VALUES (2, 1)")
    fill(one, 1, 3000)
    wait_rolled_back(pair, run, "which was applied while it is in progress, is rolled back")
    pair.on_source("UPDATE small SET n = 5 WHERE id = 1")
    one.commit()
    pair.wait_rows("big", 3000, run)
    run.stop()
    assert counts(run) == (0, 1)
    assert pair.same() == 3002


def test_an_earlier_batch_needs_its_lock(early):
    """By a unique index that only the target has: PostgreSQL sees no circle, because it waits for nobody there."""
    pair = early
    pair.on_target("CREATE UNIQUE INDEX ON small (n)")
    run = start(pair)
    one = begin(pair)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO small VALUES (1, 1)")
    fill(one, 1, 3000)
    wait_applied(pair, run)
    pair.on_source("INSERT INTO small VALUES (2, 1)")
    wait_rolled_back(pair, run, "an earlier batch waits for a lock")
    pair.wait_rows("small", 1, run)
    pair.on_source("UPDATE small SET n = 2 WHERE id = 2")
    one.commit()
    pair.wait_rows("big", 3000, run)
    run.stop()
    assert counts(run) == (0, 1)
    assert pair.same() == 3002


def test_it_lets_go_when_its_commit_has_come(early):
    """Its last part waits for a batch that waits for its lock; another one is in progress behind it."""
    pair = early
    pair.on_target("CREATE UNIQUE INDEX ON small (n)")
    pair.on_source("INSERT INTO small VALUES (0, 0)")
    run = start(pair)
    pair.wait_rows("small", 1, run)
    one, two = begin(pair), begin(pair)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO small VALUES (1, 1)")
    fill(one, 1, 3000)
    wait_applied(pair, run)
    blocker = pair.hold("SELECT * FROM small FOR UPDATE")
    pair.transaction("UPDATE small SET n = 5 WHERE id = 0", "INSERT INTO small VALUES (2, 1)")
    pair.on_source("UPDATE small SET n = 3 WHERE id = 2")
    one.commit()
    fill(two, 10_000, 3000)
    time.sleep(0.3)
    blocker.rollback()
    wait_until(lambda: said(run, "an earlier batch waits for a lock"), 30, "word of it")
    pair.wait_rows("big", 3000, run)
    fill(two, 20_000, 3000)
    two.commit()
    pair.wait_rows("big", 9000, run)
    run.stop()
    assert counts(run) == (1, 1)
    assert pair.same() == 9003


def test_others_are_not_slowed_down_for_ever(early):
    """After 30,000 commits beside it it is rolled back: none of the progress row's versions can be cleared away before."""
    pair = early
    run = start(pair, "--batch-transactions", "1")
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    pair.on_source("DO $$BEGIN FOR i IN 1..30500 LOOP INSERT INTO small VALUES (i, 0); COMMIT; END LOOP; END$$")
    wait_rolled_back(pair, run, "it keeps the target from clearing up behind others", 180)
    one.commit()
    pair.wait_rows("big", 3000, run, timeout=120)
    run.stop()
    assert counts(run) == (0, 1)
    assert run.finished()["applied_batches"] > 30_000
    assert pair.same() == 33_500


def test_somebody_else_holds_its_commit_up(early):
    """The one who is named is the one that its session waits for; and whoever asks is told what holds all up."""
    pair = early
    run, one, blocker = in_front_of_a_lock(pair, "LOCK TABLE small IN EXCLUSIVE MODE")
    one.commit()
    wait_until(lambda: said(run, "the stream waits for a lock of somebody else's session"), 30, "its name")
    state_dir = pair.penstock.dir
    found = wait_document(state_dir, lambda d: d["stream"] and d["stream"]["limit"] == "target", run)["stream"]
    assert found["lag_seconds"] > 0.2 and found["blocker"]
    assert found["reader"]["doing"] == "waits for the eager worker"
    assert found["eager_worker"]["doing"] == "waits for the target"
    assert re.search(r"^eager +waits for the target$", status(state_dir).stdout, re.M)
    blocker.rollback()
    pair.wait_rows("big", 6000, run)
    run.stop()
    assert counts(run) == (1, 0)
    metrics = run.finished()
    assert metrics["reader_eager_seconds"] > 0.2 + metrics["reader_room_seconds"]
    assert metrics["eager_server_seconds"] > 0.2 + metrics["worker_server_seconds"]
    assert metrics["eager_seconds"] > metrics["eager_server_seconds"] + metrics["eager_input_seconds"]
    assert pair.same() == 6001


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_its_session_is_ended_while_its_commit_waits(early, ack):
    """Then it is applied anew, and nothing is said to be late any more."""
    pair = early
    run, one, blocker = in_front_of_a_lock(pair, "LOCK TABLE small IN EXCLUSIVE MODE", "--ack", ack)
    one.commit()
    wait_document(pair.penstock.dir, lambda d: d["stream"] and d["stream"]["lag_seconds"] > 0.2, run)
    assert pair.target_cluster.sql("SELECT pg_terminate_backend(%s)", (eager_session(pair)[0][0],)) == [(True,)]
    wait_document(pair.penstock.dir, lambda d: d["recoveries"] == 1, run)
    blocker.rollback()
    pair.wait_rows("big", 6000, run)
    wait_document(pair.penstock.dir, lambda d: d["stream"]["lag_seconds"] == 0, run)
    run.stop()
    assert counts(run)[0] == 1
    assert pair.same() == 6001


def test_stopped_while_it_is_in_progress(early):
    """Also while its session waits for somebody's lock."""
    pair = early
    run, one, blocker = in_front_of_a_lock(pair, "SELECT * FROM small FOR UPDATE")
    wait_until(lambda: pair.target_cluster.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%% eager'"
        " AND wait_event_type = 'Lock'", (pair.name,)), 30, "its wait")
    run.kill(signal.SIGTERM)
    run.wait(20, expect=STOPPED)
    blocker.rollback()
    run = start(pair)
    fill(one, 20_000, 3000)
    wait_applied(pair, run)
    one.commit()
    pair.wait_rows("big", 9000, run)
    run.stop()
    assert counts(run) == (1, 0)
    assert pair.same() == 9001


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_its_session_is_ended(early, ack):
    """One more lost connection; what was in progress comes again, or from the spool."""
    pair = early
    run = start(pair, "--ack", ack)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    pair.target_cluster.sql("SELECT pg_terminate_backend(%s)", (eager_session(pair)[0][0],))
    fill(one, 10_000, 3000)
    wait_until(lambda: said(run, "trying again"), 30, "word of the loss")
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    fill(one, 20_000, 3000)
    wait_applied(pair, run)
    one.commit()
    pair.wait_rows("big", 9000, run)
    run.stop()
    assert counts(run)[0] == 1
    assert pair.same() == 9001


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_the_source_is_lost(early, ack):
    pair = early
    run = start(pair, "--ack", ack)
    one = begin(pair)
    fill(one, 1, 3000)
    wait_applied(pair, run)
    pair.source_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name = %s", (f"penstock {pair.name} reader",))
    wait_until(lambda: said(run, "trying again") or said(run, "while the source is tried again"), 30, "word of the loss")
    fill(one, 10_000, 3000)
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run)
    wait_applied(pair, run)
    one.commit()
    pair.wait_rows("big", 6000, run)
    run.stop()
    assert pair.same() == 6001


@needs_points
@pytest.mark.parametrize("point", ["eager-part", "eager-committing", "commit-sent", "worker-committed"])
@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_killed(early, point, ack):
    pair = early
    run = start(pair, "--ack", ack, env={"PENSTOCK_KILL_AT": point})
    one = begin(pair)
    fill(one, 1, 3000)
    if point != "eager-part":
        wait_applied(pair, run)
    one.commit()
    assert run.wait(30) == -signal.SIGKILL, run.stderr[-3000:]
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.penstock.catch_up("--streaming", "parallel", "--ack", ack)
    assert pair.same() == 3001


def test_cancelled_at_its_commit(early):
    """What fails so late is begun anew, and then applied in the usual way."""
    pair = early
    run = start(pair)
    one = begin(pair)
    with one.cursor() as cursor:
        cursor.execute("INSERT INTO small VALUES (1, 0)")
        cursor.execute("INSERT INTO child SELECT i, 1 FROM generate_series(1, 3000) i")
    wait_applied(pair, run)
    pair.on_target("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS"
                   " $$BEGIN RAISE 'not so early'; END$$;"
                   "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON big DEFERRABLE INITIALLY DEFERRED"
                   " FOR EACH ROW EXECUTE FUNCTION fail(); ALTER TABLE big ENABLE ALWAYS TRIGGER late")
    fill(one, 1, 3000)
    one.commit()
    wait_until(lambda: said(run, "could not be committed"), 30, "word of it")
    pair.on_target("DROP TRIGGER late ON big")
    pair.wait_rows("big", 3000, run)
    run.stop()
    assert said(run, "from now on all transactions are applied when they commit")
    assert counts(run)[0] == 0
    assert pair.same() == 6001
