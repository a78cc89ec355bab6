"""A batch that fails is applied again, where it may; conflicts are what --on-conflict says; waits that the
server cannot see come to an end. Each time nothing is lost and nothing comes twice: a table without a key
shows doubles."""

import random
import re
import signal
import threading
import time

import pytest

from lib.asking import wait_document
from lib.cluster import time_factor
from lib.pair import lsn_number
from lib.program import DONE, FAILED, STOPPED, wait_until
from lib.storm import WORKERS, Storm

EVENTS = "; CREATE TABLE events (what text, n int); ALTER TABLE events REPLICA IDENTITY FULL"


class Holder:
    """Somebody else's transaction on the target."""

    def __init__(self, pair, *statements, **settings):
        self.connection = pair.target_cluster.connect(pair.name)
        with self.connection.cursor() as cursor:
            cursor.execute("SET application_name = 'somebody else'")
            for name, value in settings.items():
                cursor.execute(f"SET {name} = %s", (value,))
        self.connection.autocommit = False
        self.run(*statements)

    def run(self, *statements):
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def end(self):
        self.connection.rollback()
        self.connection.close()


def in_transactions(pair, transactions):
    """Writes each list of statements as one transaction, by a session of its own."""
    connection = pair.source_cluster.connect(pair.name, "owner")
    connection.autocommit = False
    with connection.cursor() as cursor:
        for statements in transactions:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()
    connection.close()


def target_lock_timeout(pair, value):
    """penstock keeps to what the role that it connects as has for itself."""
    pair.target_cluster.sql(f"ALTER ROLE {pair.role} IN DATABASE {pair.name} SET lock_timeout = '{value}'")


def wait_for_lock_wait(pair, run=None):
    """Until one of the workers waits for a lock."""
    def waits():
        assert run is None or run.running, run.stderr
        return pair.target_cluster.sql(WORKERS + " AND wait_event_type = 'Lock'", (pair.name,))
    return wait_until(waits, 20, "a worker that waits for a lock")


def retries(pair):
    """How often something has been applied again so far."""
    return wait_document(pair.penstock.dir, lambda d: d["stream"])["stream"]["retries"]


def warnings(run, words):
    return [e["message"] for e in run.events() if e.get("level") == "warn" and words in e["message"]]


# ---- cancels, locks, deadlocks


@pytest.mark.smoke
@pytest.mark.parametrize("limits", [{}, {"batch_transactions": 1}, {"batch_rows": 100}], ids=str)
def test_workers_are_cancelled_under_load(any_pair, limits):
    """Many tables, so that preparations are cancelled too; the last table has no key."""
    pair = any_pair
    pair.schema("; ".join(
        f"CREATE TABLE t{i} (id int PRIMARY KEY, n int, a text); ALTER TABLE t{i} ALTER a SET STORAGE EXTERNAL"
        for i in range(12)) + "; CREATE TABLE hot (id int PRIMARY KEY, n int)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO hot VALUES (1, 0)")
    run = pair.penstock.start(workers=6, **limits)
    pair.wait_rows("hot", 1, run)
    chance = random.Random(3)

    def transactions(first):
        for i in range(first, first + 700):
            table = f"t{chance.randrange(12)}"
            # one of the writers after the other: they change each other's rows, and could meet in a deadlock
            yield ["SELECT pg_advisory_xact_lock(1)",
                   f"INSERT INTO {table} VALUES ({i}, 0, repeat('x', {chance.choice((1, 3000))}))",
                   f"UPDATE t{chance.randrange(12)} SET n = n + 1 WHERE id > {i - 20}",
                   f"DELETE FROM t{chance.randrange(12)} WHERE id = {i - 7}",
                   "UPDATE hot SET n = n + 1",
                   f"INSERT INTO events VALUES ('{table}', {i})"]

    writers = [threading.Thread(target=in_transactions, args=(pair, list(transactions(first))))
               for first in (0, 10000)]
    # On a fast machine a cancel may meet nobody at work; one who waits for this row it meets.
    holder = Holder(pair, "SELECT n FROM hot FOR UPDATE")
    with Storm(pair) as storm:
        for writer in writers:
            writer.start()
        wait_until(lambda: warnings(run, "applied again"), 30, "a batch that is cancelled")
        holder.end()
        for writer in writers:
            writer.join()
        pair.wait_rows("events", 1400, run, timeout=120)
    run.stop()
    finished = run.finished()
    assert finished["retries"] > 0 and storm.hits > 0
    assert finished["transactions"] == 1401
    assert pair.on_target("SELECT n FROM hot") == [(1400,)]
    assert pair.same() > 2000
    told = warnings(run, "applied again")
    assert 0 < len(told) <= 6 * (finished["seconds"] + 1), "a line a second and worker at most"


def test_unique_values_change_places(any_pair):
    """Within a transaction and across them, in a secondary unique index, with cancels on the way."""
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE, n int)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i, 0 FROM generate_series(1, 40) i")
    chance = random.Random(5)
    history = []
    for i in range(600):
        a, b = chance.sample(range(1, 41), 2)
        swap = [f"UPDATE t SET code = -{a} WHERE id = {a}", f"UPDATE t SET code = {1000 + i} WHERE id = {b}",
                f"UPDATE t SET code = {5000 + i}, n = n + 1 WHERE id = {a}"]
        history += [swap + [f"INSERT INTO events VALUES ('in one', {i})"]] if i % 2 else [
            [s, f"INSERT INTO events VALUES ('across', {i})"] for s in swap]
    run = pair.penstock.start(workers=6, batch_transactions=3)
    pair.wait_streaming(run)
    with Storm(pair, 0.03):
        in_transactions(pair, history)
        pair.wait_rows("events", len(history), run)
    run.stop()
    assert pair.same() == 40 + len(history)


def test_families_with_enforced_foreign_keys(pair):
    pair.schema("CREATE TABLE parent (id int PRIMARY KEY, v int);"
                "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent);"
                "CREATE TABLE ward (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE)" + EVENTS)
    pair.make_slot()
    history = []
    for i in range(500):
        history.append([f"INSERT INTO parent VALUES ({i}, 0)", f"INSERT INTO child VALUES ({i}, {i})"])
        history.append([f"INSERT INTO ward VALUES ({2 * i}, {i}), ({2 * i + 1}, {i})",
                        f"UPDATE parent SET v = 1 WHERE id = {i}", f"INSERT INTO events VALUES ('born', {i})"])
        if i % 3 == 0:
            history.append([f"DELETE FROM child WHERE id = {i}", f"DELETE FROM parent WHERE id = {i}",
                            f"INSERT INTO events VALUES ('gone', {i})"])
    run = pair.penstock.start(workers=6, batch_transactions=5)
    pair.wait_streaming(run)
    with Storm(pair, 0.003):
        in_transactions(pair, history)
        pair.wait_rows("events", 500 + 167, run)
    run.stop()
    assert pair.same() == 333 + 333 + 666 + 667


def test_somebody_locks_a_row_and_the_table(pair):
    """For longer than penstock may wait for a lock: it is named, nothing ends, nothing is doubled."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i")
    target_lock_timeout(pair, "400ms")
    run = pair.penstock.start(workers=4, batch_transactions=2)
    pair.wait_rows("t", 20, run)
    for number, statement in enumerate((
            "SELECT * FROM t WHERE id IN (3, 4) FOR UPDATE", "ALTER TABLE t ADD COLUMN c int",
            "LOCK TABLE penstock.progress IN EXCLUSIVE MODE")):
        holder = Holder(pair, statement)
        in_transactions(pair, [[f"UPDATE t SET n = n + 1 WHERE id = {i % 20 + 1}",
                                f"INSERT INTO events VALUES ('{number}', {i})"] for i in range(60)])
        wait_for_lock_wait(pair, run)
        pid = holder.connection.info.backend_pid
        wait_until(lambda p=pid: warnings(run, f"pid {p},"), 20, "its name")
        tried = retries(pair)
        wait_until(lambda t=tried: retries(pair) >= t + 2, 20, "two lock timeouts more")  # and it is not named again
        assert run.running and pair.on_target("SELECT count(*) FROM events")[0][0] < 60 * (number + 1)
        holder.end()
        pair.wait_rows("events", 60 * (number + 1), run)
        assert len(warnings(run, f"pid {pid},")) == 1, run.stderr
    named, *_ = warnings(run, "somebody else's session")
    assert 'application "somebody else"' in named and "FOR UPDATE" not in run.stderr
    assert warnings(run, "55P03"), "the retries say why"
    run.stop()
    assert run.finished()["retries"] >= 3
    assert pair.same() == 20 + 180


def test_a_deadlock_with_somebody_else(pair):
    """The server takes penstock's transaction as its victim; that comes again."""
    pair.schema("".join(f"CREATE TABLE {name} (id int PRIMARY KEY, n int);" for name in ("one", "gate", "other"))
                + EVENTS[2:])
    pair.make_slot()
    for name in ("one", "gate", "other"):
        pair.on_source(f"INSERT INTO {name} VALUES (1, 0)")
    run = pair.penstock.start()
    pair.wait_rows("other", 1, run)
    gate = Holder(pair, "SELECT * FROM gate FOR UPDATE")
    holder = Holder(pair, "SELECT * FROM other FOR UPDATE", deadlock_timeout="60s")
    pair.transaction("UPDATE one SET n = 1", "UPDATE gate SET n = 1", "UPDATE other SET n = 1",
                     "INSERT INTO events VALUES ('all', 1)")
    wait_for_lock_wait(pair, run)
    # A server looks for a circle once in each wait: all else of it must be there when penstock's begins.
    asking = threading.Thread(target=holder.run, args=("SELECT * FROM one FOR UPDATE",))
    asking.start()
    wait_until(lambda: pair.target_cluster.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s",
                                               (holder.connection.info.backend_pid,)), 20, "its request")
    gate.end()
    asking.join()  # when penstock has let go
    assert pair.on_target("SELECT count(*) FROM events") == [(0,)]
    holder.end()
    pair.wait_rows("events", 1, run)
    assert any("40P01" in w and "Process" in w for w in warnings(run, "applied again")), "with the server's words"
    run.stop()
    assert pair.same() == 4


@pytest.mark.parametrize("request_between", [True, False])
def test_a_later_batch_is_in_the_way(make_pair, request_between):
    """A lock of a later batch that waits for its turn, which no key could tell of: an advisory one that a
    trigger takes, or a table lock of somebody in between. An AFTER trigger declared IMMUTABLE is not
    looked at."""
    pair = make_pair("owner")
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY, n int);"
                "CREATE TABLE many (id int PRIMARY KEY)" + EVENTS)
    pair.on_target("""
        CREATE FUNCTION lock_all() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END $$;
        CREATE TRIGGER lock_all AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION lock_all()""")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 0), (2, 0); INSERT INTO u VALUES (1, 0)")
    run = pair.penstock.start(workers=2, batch_transactions=1)
    pair.wait_rows("u", 1, run)
    holder = Holder(pair, "SELECT * FROM u FOR UPDATE")
    pair.transaction("UPDATE u SET n = 1", "UPDATE t SET n = 1 WHERE id = 1", "INSERT INTO events VALUES ('1st', 1)")
    # A batch of a few rows would be left to the commit before it.
    pair.transaction("UPDATE t SET n = 1 WHERE id = 2", "INSERT INTO events VALUES ('2nd', 2)",
                     "INSERT INTO many SELECT generate_series(1, 100)")
    wait_until(lambda: pair.target_cluster.sql(
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = 7"),
               20, "the later batch at work")
    between = None
    if request_between:
        between = Holder(pair)
        asking = threading.Thread(target=lambda: between.run("SELECT pg_advisory_lock(7)",
                                                             "SELECT pg_advisory_unlock(7)"))
        asking.start()
        wait_until(lambda: pair.target_cluster.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s",
                                                   (between.connection.info.backend_pid,)), 20, "its request")
    before = time.monotonic()
    holder.end()
    pair.wait_rows("events", 2, run, timeout=10)
    if between:
        asking.join()
        between.end()
    assert time.monotonic() - before < 30 * time_factor(), "and does not wait for a timeout"
    assert any("rolled back and applied again at its turn" in e["message"] for e in run.events())
    run.stop()
    assert run.finished()["retries"] == 1
    assert pair.same() == 105


# ---- large transactions


@pytest.mark.parametrize("trouble", ["lock", "cancel"])
def test_a_part_of_a_large_transaction_fails(pair, trouble):
    """It is sent again from its savepoint; what came before it in the transaction stays."""
    pair.schema("CREATE TABLE big (id int PRIMARY KEY, a text)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO big SELECT i, '' FROM generate_series(1, 20000) i")
    pair.penstock.catch_up()
    target_lock_timeout(pair, "300ms")
    holder = Holder(pair, "SELECT * FROM big WHERE id = 15000 FOR UPDATE")
    pair.transaction("UPDATE big SET a = a || repeat('x', 300) WHERE id <= 20000",
                     "INSERT INTO events SELECT 'large', i FROM generate_series(1, 20000) i")
    pair.on_source("INSERT INTO events VALUES ('behind', 0)")
    run = pair.penstock.start("--stop-when-caught-up", memory="16MB", batch_rows=1000)
    if trouble == "lock":
        wait_for_lock_wait(pair, run)
        wait_until(lambda: warnings(run, "55P03"), 20, "a lock timeout")
        time.sleep(1)
        assert run.running
    else:
        pair.wait_streaming(run)
        with Storm(pair, 0.03):
            wait_until(lambda: warnings(run, "57014") or not run.running, 30, "a cancel")
    holder.end()
    run.wait(120)
    if run.process.returncode == FAILED:
        # a cancel that met one of the savepoints themselves
        assert trouble == "cancel" and "rolled back as a whole" in run.the_error(), run.stderr
        assert pair.on_target("SELECT count(*) FROM events") == [(0,)]
        pair.penstock.catch_up(memory="16MB", batch_rows=1000)
    else:
        assert run.process.returncode == DONE and run.finished()["retries"] > 0, run.stderr
    assert pair.same() == 40001


def test_what_was_deferred_is_deferred_again(pair):
    """A part that is rolled back takes its SET CONSTRAINTS with it."""
    pair.schema("CREATE TABLE places (id int PRIMARY KEY, place int UNIQUE DEFERRABLE)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO places SELECT i, i FROM generate_series(1, 20) i")
    pair.penstock.catch_up()
    target_lock_timeout(pair, "200ms")
    holder = Holder(pair, "SELECT * FROM places WHERE id = 2 FOR UPDATE")
    pair.transaction("UPDATE places SET place = place + 1", "INSERT INTO events VALUES ('moved', 1)")
    run = pair.penstock.start("--stop-when-caught-up", memory="16MB", batch_rows=5)
    wait_until(lambda: warnings(run, "55P03") or not run.running, 20, "a lock timeout")
    holder.end()
    run.wait(30, expect=DONE)
    assert pair.same() == 21


@pytest.mark.parametrize("choice", ["skip", "overwrite"])
def test_conflicts_in_a_large_transaction(pair, choice):
    pair.schema("CREATE TABLE big (id int PRIMARY KEY, a text)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO big SELECT i, '' FROM generate_series(1, 8000) i")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM big WHERE id IN (100, 7000)")
    pair.on_target("INSERT INTO big VALUES (9000, 'mine')")
    pair.transaction("UPDATE big SET a = repeat('y', 300)", "INSERT INTO big VALUES (9000, 'theirs')",
                     "INSERT INTO events SELECT 'large', i FROM generate_series(1, 3000) i")
    run = pair.penstock.catch_up("--on-conflict", choice, memory="16MB", batch_rows=500)
    finished = run.finished()
    assert pair.same_table("events") == 3000
    if choice == "skip":
        assert (finished["skipped"], finished["overwritten"]) == (3, 0)
        assert pair.on_target("SELECT count(*), count(*) FILTER (WHERE a LIKE 'y%') FROM big") == [(7999, 7998)]
        assert pair.on_target("SELECT a FROM big WHERE id = 9000") == [("mine",)]
    else:
        assert (finished["skipped"], finished["overwritten"]) == (0, 3)
        assert pair.same_table("big") == 8001


# ---- --on-conflict


CHANGED_BY_HAND = (
    "DELETE FROM t WHERE id IN (1, 2, 3)",  # updated, deleted, and moved to another key on the source
    "INSERT INTO t VALUES (50, 'mine', 50)",  # inserted on the source
    "INSERT INTO t VALUES (60, 'mine', 60)",  # a row is moved to it on the source
)
ON_THE_SOURCE = (
    ["INSERT INTO events VALUES ('before', 1)"],
    ["UPDATE t SET a = 'new' WHERE id = 1", "INSERT INTO events VALUES ('update', 1)"],
    ["DELETE FROM t WHERE id = 2", "INSERT INTO events VALUES ('delete', 2)"],
    ["UPDATE t SET id = 33, a = 'moved' WHERE id = 3", "INSERT INTO events VALUES ('move', 3)"],
    ["INSERT INTO t VALUES (50, 'theirs', 51)", "INSERT INTO events VALUES ('insert', 50)"],
    ["UPDATE t SET id = 60 WHERE id = 6", "INSERT INTO events VALUES ('onto', 60)"],
    ["UPDATE t SET a = 'after' WHERE id = 10", "INSERT INTO events VALUES ('after', 10)"],
)


def changed_by_hand(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text, code int UNIQUE)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, '', i FROM generate_series(1, 10) i")
    pair.penstock.catch_up()
    for statement in CHANGED_BY_HAND:
        pair.on_target(statement)
    in_transactions(pair, ON_THE_SOURCE)


def test_overwrite_makes_the_rows_what_they_are_on_the_source(any_pair):
    changed_by_hand(any_pair)
    run = any_pair.penstock.catch_up("--on-conflict", "overwrite")
    assert any_pair.same() == 10 + len(ON_THE_SOURCE)
    finished = run.finished()
    assert (finished["skipped"], finished["overwritten"]) == (0, 5)
    assert finished["transactions"] == len(ON_THE_SOURCE)
    assert len(warnings(run, "--on-conflict=overwrite: the")) == 5
    total, = warnings(run, "in all")
    assert "public.t" in total and "5 overwrote" in total


def test_skip_leaves_out_those_changes_and_no_others(any_pair):
    changed_by_hand(any_pair)
    run = any_pair.penstock.catch_up("--on-conflict", "skip")
    finished = run.finished()
    assert (finished["skipped"], finished["overwritten"]) == (5, 0)
    assert any_pair.same_table("events") == len(ON_THE_SOURCE)
    assert any_pair.on_target("SELECT id, a, code FROM t ORDER BY id") == [
        (4, "", 4), (5, "", 5), (6, "", 6), (7, "", 7), (8, "", 8), (9, "", 9), (10, "after", 10),
        (50, "mine", 50), (60, "mine", 60)]
    assert len(warnings(run, "was left out")) == 5
    any_pair.penstock.catch_up()
    assert any_pair.same_table("events") == len(ON_THE_SOURCE)


def test_error_stops_at_each_and_keeps_what_came_before(any_pair):
    """Transactions in front of the conflict are on the target, once, with their place; it is not."""
    pair = any_pair
    changed_by_hand(pair)
    mend = {"key id=1:": "INSERT INTO t VALUES (1, '', 1)", "key id=2:": "INSERT INTO t VALUES (2, '', 2)",
            "key id=3:": "INSERT INTO t VALUES (3, '', 3)", "key id=50:": "DELETE FROM t WHERE id = 50",
            "key id=6:": "DELETE FROM t WHERE id = 60"}
    for number, (key, statement) in enumerate(mend.items(), 1):
        error = pair.penstock.fails().the_error()
        assert re.search(r"public\.t, key id=\d+", error).group(0) + ":" == "public.t, " + key, error
        assert "--on-conflict" in error and "start again" in error
        assert pair.on_target("SELECT count(*) FROM events") == [(number,)]
        pair.on_target(statement)
    pair.penstock.catch_up()
    assert pair.same() == 10 + len(ON_THE_SOURCE)


def test_one_transaction_of_a_batch_is_refused(pair):
    """The batch's others come to the target one by one, and the run after goes on behind them."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (0, '')")
    run = pair.penstock.start(workers=2)
    pair.wait_rows("t", 1, run)
    pair.on_target("ALTER TABLE t ADD CHECK (a <> 'refused')")
    holder = Holder(pair, "SELECT * FROM t FOR UPDATE")
    in_transactions(pair, [["UPDATE t SET a = 'held up' WHERE id = 0"]])
    wait_for_lock_wait(pair, run)
    in_transactions(pair, [[f"INSERT INTO t VALUES ({i}, '{'refused' if i == 30 else 'taken'}')",
                            f"INSERT INTO events VALUES ('insert', {i})"] for i in range(1, 60)])
    time.sleep(0.5)
    holder.end()
    run.wait(30, expect=FAILED)
    assert "23514" in run.the_error() and "key id=30" in run.the_error()
    assert pair.on_target("SELECT array_agg(n ORDER BY n) FROM events") == [(list(range(1, 30)),)]
    summary, = [e for e in run.events() if e["message"] == "stream finished"]
    assert summary["transactions"] == 2 + 29 and summary["retries"] > 0
    pair.on_target("ALTER TABLE t DROP CONSTRAINT t_a_check")
    run = pair.penstock.catch_up()
    assert run.finished()["transactions"] == 30
    assert pair.same() == 60 + 59


@pytest.mark.parametrize("choice", ["error", "skip", "overwrite"])
@pytest.mark.parametrize("rows", [1, 300])
def test_a_check_that_divides_by_zero_is_told_as_what_it_is(pair, rows, choice):
    """Not as a row that is missing: no choice is about that."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 1 FROM generate_series(1, %s) i", (rows,))
    pair.penstock.catch_up()
    pair.on_target("ALTER TABLE t ADD CHECK (10 / a > 0)")
    pair.on_source("UPDATE t SET a = 0")
    error = pair.penstock.fails("--on-conflict", choice).the_error()
    assert "UPDATE of public.t, key id=1," in error and "division by zero" in error and "22012" in error
    assert "no such row" not in error and "overwrite" not in error
    assert pair.on_target("SELECT sum(a) FROM t") == [(rows,)]
    pair.on_target("ALTER TABLE t DROP CONSTRAINT t_a_check")
    pair.penstock.catch_up()
    assert pair.same() == rows


@pytest.mark.parametrize("choice", ["skip", "overwrite"])
def test_a_conflict_in_another_unique_index(pair, choice):
    """Which row the operator would lose is not for penstock to say."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 1)")
    pair.penstock.catch_up()
    pair.on_target("INSERT INTO t VALUES (77, 7)")
    pair.transaction("INSERT INTO t VALUES (7, 7)", "INSERT INTO events VALUES ('insert', 7)")
    if choice == "skip":
        assert pair.penstock.catch_up("--on-conflict", choice).finished()["skipped"] == 1
    else:
        error = pair.penstock.fails("--on-conflict", choice).the_error()
        assert "key id=7" in error and "23505" in error and "by the identity alone" in error
        assert pair.on_target("SELECT count(*) FROM events") == [(0,)]
        pair.on_target("DELETE FROM t WHERE id = 77")
        pair.penstock.catch_up()
        assert pair.same_table("t") == 2
    assert pair.same_table("events") == 1


def test_overwrite_does_not_invent_what_did_not_come(pair):
    """An update with unchanged TOAST cannot become an insert."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int, a text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 0, repeat('x', 9000))")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM t")
    pair.on_source("UPDATE t SET n = 1")
    error = pair.penstock.fails("--on-conflict", "overwrite").the_error()
    assert "key id=1" in error and "no such row" in error and "cannot put this right" in error
    assert pair.on_target("SELECT count(*) FROM t") == [(0,)]


def test_overwrite_without_a_key_and_with_identity_columns(pair):
    pair.schema("CREATE TABLE bag (a int, b text); ALTER TABLE bag REPLICA IDENTITY FULL;"
                "CREATE TABLE ident (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a text,"
                " twice int GENERATED ALWAYS AS (id * 2) STORED)")
    pair.make_slot()
    pair.on_source("INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (2, 'y')")
    pair.on_source("INSERT INTO ident (id, a) VALUES (1, ''), (2, '')")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM bag WHERE a = 2")
    pair.on_target("UPDATE ident SET a = 'mine' WHERE id = 1; DELETE FROM ident WHERE id = 2")
    pair.on_target("INSERT INTO ident (id, n, a) OVERRIDING SYSTEM VALUE VALUES (3, 99, 'mine')")
    in_transactions(pair, [["UPDATE bag SET b = 'z' WHERE a = 2"], ["UPDATE ident SET n = DEFAULT WHERE id = 2"],
                           ["INSERT INTO ident (id, a) VALUES (3, 'theirs')"], ["DELETE FROM bag WHERE a = 2"],
                           ["UPDATE ident SET a = 'back' WHERE id = 1"]])
    run = pair.penstock.catch_up("--on-conflict", "overwrite")
    assert run.finished()["overwritten"] == 3
    assert pair.same() == 2 + 3


def test_foreign_keys_of_rows_that_are_missing(pair):
    """skip leaves the child out; overwrite has no parent to put in."""
    pair.schema("CREATE TABLE parent (id int PRIMARY KEY);"
                "CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO parent VALUES (1), (2)")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM parent WHERE id = 2")
    in_transactions(pair, [["INSERT INTO child VALUES (1, 1)", "INSERT INTO child VALUES (2, 2)",
                            "INSERT INTO events VALUES ('children', 2)"]])
    error = pair.penstock.fails("--on-conflict", "overwrite").the_error()
    assert "23503" in error and "key id=2" in error
    assert pair.penstock.catch_up("--on-conflict", "skip").finished()["skipped"] == 1
    assert pair.on_target("SELECT id FROM child") == [(1,)]
    assert pair.same_table("events") == 1


def test_a_constraint_at_the_end_of_a_transaction_is_no_conflict_of_a_row(pair):
    """Which change to leave out cannot be told, so nothing is."""
    pair.schema("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY,"
                " parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO parent VALUES (1)")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM parent")
    in_transactions(pair, [["INSERT INTO events VALUES ('before', 0)"],
                           ["INSERT INTO child VALUES (1, 1)", "INSERT INTO events VALUES ('child', 1)"]])
    error = pair.penstock.fails("--on-conflict", "skip").the_error()
    assert "23503" in error and "transactions committed at" in error
    assert pair.on_target("SELECT what FROM events") == [("before",)]
    pair.on_target("INSERT INTO parent VALUES (1)")
    pair.penstock.catch_up()
    assert pair.same() == 4


def test_many_conflicts_are_logged_a_few_times_and_counted(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(1, 500) i")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM t WHERE id % 2 = 0; INSERT INTO u VALUES (1)")
    in_transactions(pair, [[f"UPDATE t SET n = 1 WHERE id = {i}", f"INSERT INTO events VALUES ('t', {i})"]
                           for i in range(1, 501)] + [["INSERT INTO u VALUES (1)"]])
    run = pair.penstock.start("--stop-when-caught-up", "--on-conflict", "skip", workers=4)
    pair.wait_streaming(run)
    with Storm(pair, 0.05):
        run.wait(60, expect=DONE)
    assert run.finished()["skipped"] == 251, "counted once each, however often they were tried"
    assert len(warnings(run, "was left out")) == 11
    counts = warnings(run, "in all")
    assert len(counts) == 2 and any("public.t, 250 changes" in c for c in counts)
    assert pair.same_table("events") == 500
    assert pair.on_target("SELECT count(*), sum(n) FROM t") == [(250, 250)]


@pytest.mark.parametrize("limits", [{}, {"memory": "16MB", "batch_rows": 5}], ids=["small", "large"])
def test_a_conflict_counts_once_however_often_it_is_tried(pair, limits):
    """What is behind it in the transaction waits for somebody's lock, again and again."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)" + EVENTS)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM t WHERE id IN (1, 17, 19)")
    target_lock_timeout(pair, "200ms")
    holder = Holder(pair, "SELECT * FROM t WHERE id = 18 FOR UPDATE")
    pair.transaction("UPDATE t SET n = 1", "INSERT INTO events VALUES ('all', 1)")
    run = pair.penstock.start("--stop-when-caught-up", "--on-conflict", "skip", **limits)
    wait_until(lambda: len(warnings(run, "55P03")) >= 2, 20, "retries")
    holder.end()
    run.wait(30, expect=DONE)
    assert run.finished()["skipped"] == 3 and run.finished()["retries"] >= 2
    assert len(warnings(run, "was left out")) == 3
    assert pair.same_table("events") == 1
    assert pair.on_target("SELECT count(*), sum(n) FROM t") == [(17, 17)]


def test_a_barrier_that_fails_is_put_off(pair):
    """Nothing is reported, and no end is reached, before it is durable."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.penstock.catch_up()
    target_lock_timeout(pair, "300ms")
    run = pair.penstock.start()
    pair.wait_streaming(run)
    holder = Holder(pair, "LOCK TABLE penstock.durable IN ACCESS EXCLUSIVE MODE")
    recorded = pair.on_source("SELECT pg_current_wal_insert_lsn()")[0][0]  # what came before may be reported late
    pair.on_source("INSERT INTO t VALUES (2)")
    pair.wait_rows("t", 2, run)
    run.kill(signal.SIGTERM)
    wait_until(lambda: warnings(run, "it is tried again"), 20, "a barrier that failed")
    time.sleep(0.5)
    assert run.running and lsn_number(pair.confirmed_lsn()) <= lsn_number(recorded)
    holder.end()
    run.wait(30, expect=STOPPED)
    assert lsn_number(run.finished()["durable_lsn"]) >= lsn_number(run.finished()["committed_lsn"])
    assert pair.same() == 2
