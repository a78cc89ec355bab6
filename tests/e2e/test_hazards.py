"""What could make a wrong row, a stream that can never go on, or an end that does not come."""

import signal
import threading
import time

import pytest

from lib.cluster import time_factor
from lib.pair import lsn_number
from lib.program import DONE, FAILED, STOPPED, wait_until

# rows that one table without a key holds; `=` or another view of NULL makes the second look like the first
ALIKE = {
    "char without a length": ("bpchar", "'a'", "'a  '"),
    "varchar and trailing blanks": ("varchar", "'a'", "'a  '"),
    "collation that ignores case": ('text COLLATE public."any case"', "'a'", "'A'"),
    "array under that collation": ('text[] COLLATE public."any case"', "'{a}'", "'{A}'"),
    "composite of nulls": ("public.two", "NULL", "ROW(NULL, NULL)"),
    "composite with one null": ("public.two", "ROW(1, NULL)", "ROW(NULL, 1)"),
    "the word NULL": ("text", "NULL", "'NULL'"),
    "json": ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
    "null in json": ("jsonb", "NULL", "'null'"),
    "numeric scale": ("numeric", "'1.0'", "'1.00'"),
    "negative zero": ("float4", "'0'", "'-0'"),
    "interval": ("interval", "'1 day'", "'24 hours'"),
    "timetz": ("timetz", "'10:00+00'", "'11:00+01'"),
    "box of equal area": ("box", "'(0,0),(1,1)'", "'(5,5),(6,6)'"),
    "bit string": ("varbit", "B'1'", "B'10'"),
    "domain": ("public.word", "'a'", "'A'"),
    "quotes and backslashes": ("text", "''''", "E'\\\\'"),
    "array with a null": ("text[]", "'{NULL}'", "'{\"NULL\"}'"),
    "record of arrays": ("numeric[]", "'{1.0}'", "'{1.00}'"),
    "range": ("numrange", "'[1,2]'", "'[1.0,2]'"),
    "xml": ("xml", "'<a/>'", "'<a></a>'"),
    "inet": ("inet", "'10.0.0.1'", "'10.0.0.1/32'"),
}


def test_rows_that_look_alike_without_a_key(any_pair):
    """Of rows that differ only in what `=` does not see, the right one is changed and deleted."""
    pair = any_pair
    pair.schema("""CREATE TYPE two AS (a int, b int); CREATE DOMAIN word AS text;
        CREATE COLLATION "any case" (provider = icu, locale = 'und-u-ks-level2', deterministic = false)""")
    tables = []
    for which, (kind, one, other) in ALIKE.items():
        for turn, rows in (("", (one, other)), (" in turn", (other, one))):
            for change in ("UPDATE {} SET n = 1", "DELETE FROM {}"):
                name = f'"{which}{turn} {change[0]}"'
                pair.schema(f"CREATE TABLE {name} (a {kind}, n int); ALTER TABLE {name} REPLICA IDENTITY FULL")
                tables.append((name, rows, change.format(name)))
    pair.make_slot()
    for name, rows, change in tables:
        for row in rows:
            pair.on_source(f"INSERT INTO {name} VALUES ({row}, 0)")
        pair.on_source(f"{change} WHERE ctid = (SELECT max(ctid) FROM {name})")
    pair.penstock.catch_up()
    assert pair.same() == 3 * len(tables) / 2


def test_a_deferrable_constraint_that_is_checked_at_the_end_of_the_statement(any_pair):
    """Within the statement two rows may have the same value; here each row is a statement."""
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, place int UNIQUE DEFERRABLE, n int);
        CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t DEFERRABLE)""")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    pair.on_source("UPDATE t SET place = place + 1")
    pair.on_source("UPDATE t SET place = 22 - place")
    pair.transaction("SET CONSTRAINTS ALL DEFERRED", "INSERT INTO u VALUES (1, 50), (2, 3)",
                     "UPDATE t SET place = 4 WHERE id = 1", "INSERT INTO t VALUES (50, 50)",
                     "UPDATE t SET place = 100 WHERE place = 4 AND id <> 1")
    for i in range(30):
        pair.on_source("UPDATE t SET place = place + 1 WHERE id > %s OR id <= %s", (i % 3, i % 3))
    pair.penstock.catch_up()
    assert pair.same() == 23


@pytest.mark.parametrize("apply", ["sets", "rows"])
def test_a_deferrable_primary_key_of_a_table_with_full_identity(any_pair, apply):
    """Within the statement two rows have the same key: only all of their columns tell which of them is meant."""
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int, half numeric, v text, PRIMARY KEY (id, half) DEFERRABLE);
        ALTER TABLE t REPLICA IDENTITY FULL""")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0.50, 'x' || i FROM generate_series(1, 40) i")
    pair.on_source("UPDATE t SET id = id + 1")
    pair.transaction("SET CONSTRAINTS ALL DEFERRED", "INSERT INTO t VALUES (5, 0.5, 'new')",
                     "UPDATE t SET v = v || '!' WHERE id = 5 AND v = 'new'",
                     "DELETE FROM t WHERE id = 5 AND v <> 'new!'",
                     "UPDATE t SET id = 100 - id, half = half * 1.0")
    pair.penstock.catch_up(apply=apply)
    assert pair.same() == 40


def test_another_publication_is_not_taken_up_in_silence(pair):
    """It would leave out tables that the stream had so far, and nothing would say so."""
    pair.schema("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    pair.on_source("CREATE PUBLICATION only_a FOR TABLE a")
    pair.make_slot()
    pair.on_source("INSERT INTO a VALUES (1)")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO b VALUES (1)")
    run = pair.penstock.fails(publication="only_a")
    assert "only_a" in run.the_error()
    pair.penstock.catch_up()
    assert pair.same() == 2


@pytest.mark.parametrize("held", ["durable", "progress", "t"])
def test_two_signals_end_it_while_the_target_stands_still(pair, held):
    """Somebody holds a lock that a session of ours waits for; the second signal waits for nobody."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 0)")
    run = pair.penstock.start()
    pair.wait_rows("t", 1, run)
    blocker = pair.hold(f"SELECT * FROM {'t' if held == 't' else 'penstock.' + held} FOR UPDATE")
    pair.on_source("UPDATE t SET n = 1")
    wait_until(lambda: pair.on_target(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"),
        20, "a session that waits")
    run.kill(signal.SIGTERM)
    # two that come before the first is taken would be one
    wait_until(lambda: "once more stops at once" in run.stderr, 20, "the first signal to be taken")
    time.sleep(0.3)
    assert run.running
    run.kill(signal.SIGTERM)
    run.wait(10, expect=STOPPED)
    blocker.rollback()
    pair.penstock.catch_up()
    assert pair.same() == 1


def sessions(pair, side, name):
    """The PIDs of penstock's sessions whose names end so."""
    cluster = pair.source_cluster if side == "source" else pair.target_cluster
    return [pid for (pid,) in cluster.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s",
        (pair.name, f"penstock {pair.name} {name}"))]


@pytest.mark.parametrize("side, name", [
    ("target", "worker 1"), ("target", "worker %"), ("target", "control"), ("target", "catalog"),
    ("source", "reader"), ("source", "control")])
@pytest.mark.parametrize("busy", [True, False])
def test_a_session_that_is_ended_is_made_anew(pair, side, name, busy):
    """In bounded time, with one clear line, and it goes on with nothing lost or doubled."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE log (i int)"
                "; ALTER TABLE log REPLICA IDENTITY FULL; CREATE TABLE later (id int PRIMARY KEY)")
    pair.make_slot()
    run = pair.penstock.start()
    pair.wait_streaming(run)
    over = threading.Event()
    connection = pair.source_cluster.connect(pair.name, "owner")

    def write():
        i = 0
        with connection.cursor() as cursor:
            while not over.is_set() and i < 20000:
                i += 1
                cursor.execute("INSERT INTO t VALUES (%s, 0); INSERT INTO log VALUES (%s)", (i, i))
                time.sleep(0 if busy else 0.001)

    writer = threading.Thread(target=write)
    try:
        if busy:
            writer.start()
            pair.wait_rows("t", 50, run)
        else:
            pair.on_source("INSERT INTO t VALUES (0, 0)")
            pair.wait_rows("t", 1, run)
        pids = sessions(pair, side, name)
        assert pids, name
        cluster = pair.source_cluster if side == "source" else pair.target_cluster
        cluster.sql("SELECT pg_terminate_backend(p) FROM unnest(%s) p", (pids,))
        if not busy:
            wait_until(lambda: not set(pids) & set(sessions(pair, side, name)), 20, "the session's end")
            writer.start()
        if (side, name) not in (("target", "catalog"), ("source", "control")):  # which nobody needs now
            wait_until(lambda: "trying again" in run.stderr, 20, "word of the loss")
        pair.wait_rows("t", pair.on_target("SELECT count(*) FROM t")[0][0] + 50, run)
        over.set()
        writer.join()
        # the column is new to penstock, which asks the catalog
        pair.schema("ALTER TABLE later ADD COLUMN n int")
        pair.on_source("INSERT INTO later VALUES (1, 1)")
        pair.wait_rows("later", 1, run)
    finally:
        over.set()
        if writer.ident is not None:
            writer.join()
        connection.close()
    warnings = [e["message"] for e in run.events() if e["level"] == "warn" and "trying again" in e["message"]]
    # the source's control session is needed for the end only
    assert warnings or (side, name) == ("source", "control")
    assert all(side in w and "\n" not in w for w in warnings)
    run.stop()
    pair.same()


def test_memory_is_used_up_by_large_transactions_of_many(any_pair):
    """Each of them alone fits, all together do not; small ones come between."""
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text); CREATE TABLE s (id int PRIMARY KEY, n int)")
    pair.make_slot()
    for i in range(12):
        pair.on_source("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(%s, %s) i",
                       (i * 10000, i * 10000 + 5999))
        for j in range(10):
            pair.on_source("INSERT INTO s VALUES (%s, %s)", (i * 10 + j, i))
        pair.on_source("UPDATE t SET a = 'y' WHERE id %% 3 = 0 AND id >= %s", (i * 10000,))
        pair.on_source("DELETE FROM t WHERE id %% 7 = %s", (i % 7,))
    run = pair.penstock.catch_up(memory="16MB", workers=16, timeout=120)
    assert pair.same() > 0
    assert run.finished()["memory_peak_mb"] <= 24


def test_a_unique_index_made_while_streaming(pair):
    """Its conflicts are not seen until penstock looks at the catalog again: it may fail, never go wrong."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code int, n int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i, 0 FROM generate_series(1, 10) i")
    run = pair.penstock.start(workers=8, batch_transactions=1)
    pair.wait_rows("t", 10, run)
    pair.schema("CREATE UNIQUE INDEX t_code ON t (code)")
    for i in range(60):
        one, other = i % 10 + 1, (i + 3) % 10 + 1
        code = pair.on_source("SELECT code FROM t WHERE id = %s", (one,))[0][0]
        held = pair.on_source("SELECT code FROM t WHERE id = %s", (other,))[0][0]
        pair.on_source("UPDATE t SET code = NULL WHERE id = %s", (one,))
        pair.on_source("UPDATE t SET code = %s WHERE id = %s", (code, other))
        pair.on_source("UPDATE t SET code = %s WHERE id = %s", (held, one))
    target = pair.wal_lsn()
    try:
        wait_until(lambda: not run.running or pair.recorded_lsn() >= lsn_number(target), 20, "the end")
    finally:
        run.kill(signal.SIGTERM)
    run.wait(20)
    pair.penstock.catch_up()
    assert pair.same() == 10


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
@pytest.mark.parametrize("role", ["owner", "postgres"])
def test_an_identity_column_changes_in_a_row_that_others_reference(make_pair, action, role):
    """It cannot be SET, but to delete the row and make it anew must not take the others with it."""
    pair = make_pair(role)
    pair.schema(f"""CREATE TABLE parent (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a text);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE {action})""")
    pair.make_slot()
    pair.on_source("INSERT INTO parent SELECT i FROM generate_series(1, 5) i")
    pair.on_source("INSERT INTO child SELECT i, i FROM generate_series(1, 5) i")
    pair.penstock.catch_up()
    pair.on_source("UPDATE parent SET a = 'n stays' WHERE id = 4")
    pair.on_source("UPDATE parent SET n = DEFAULT WHERE id = 2")
    run = pair.penstock.start("--stop-when-caught-up")
    if run.wait(60) == DONE:
        assert pair.same() == 10
    else:  # it may refuse where the target itself acts on the delete, but never lose a row
        assert role == "owner" and action != "NO ACTION", run.stderr
        assert "parent" in run.the_error() and "SET GENERATED BY DEFAULT" in run.the_error()
        assert pair.same(["child"]) == 5
        pair.on_target("ALTER TABLE parent ALTER COLUMN n SET GENERATED BY DEFAULT")
        pair.penstock.catch_up()
        assert pair.same() == 10


def test_rows_of_one_statement_that_reference_each_other(pair):
    """The source looks at foreign keys at the end of the statement, the target after each row, until it is
    told to wait for the end; the error says how."""
    pair.schema("CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree)")
    pair.make_slot()
    pair.on_source("INSERT INTO tree VALUES (3, 2), (2, 1), (1, NULL)")
    run = pair.penstock.fails()
    assert 'ALTER CONSTRAINT' in run.the_error() and "DEFERRABLE" in run.the_error()
    pair.on_target("ALTER TABLE tree ALTER CONSTRAINT tree_up_fkey DEFERRABLE")
    pair.penstock.catch_up()
    assert pair.same() == 3
    pair.on_source("DELETE FROM tree WHERE id < 3 OR up > 0")
    pair.on_source("INSERT INTO tree VALUES (1, 1)")
    pair.penstock.catch_up()
    assert pair.same() == 1


def test_the_source_is_answered_while_memory_is_used_up(pair):
    """The target stands still for longer than the source waits for an answer."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.source_cluster.sql(f"ALTER ROLE owner IN DATABASE {pair.name} SET wal_sender_timeout = '1s'")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (0, '')")
    run = pair.penstock.start(memory="16MB")
    pair.wait_rows("t", 1, run)
    blocker = pair.hold("SELECT * FROM t FOR UPDATE")
    pair.on_source("UPDATE t SET a = 'held up'")
    for i in range(100):
        pair.on_source("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(%s, %s) i",
                       (i * 1000 + 1, i * 1000 + 400))
    time.sleep(2.5)
    assert run.running, run.stderr
    blocker.rollback()
    pair.wait_rows("t", 40001, run)
    run.stop()
    pair.penstock.catch_up()
    assert pair.same() == 40001


def test_sessions_that_are_ended_at_any_moment_under_load(pair):
    """While connecting, in the middle of a batch, between batches: each time it goes on soon."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE log (i int)"
                "; ALTER TABLE log REPLICA IDENTITY FULL")
    pair.make_slot()
    over = threading.Event()
    connection = pair.source_cluster.connect(pair.name, "owner")

    def write():
        i = 0
        with connection.cursor() as cursor:
            while not over.is_set():
                i += 1
                cursor.execute("INSERT INTO t VALUES (%s, 0); UPDATE t SET n = n + 1 WHERE id = %s;"
                               "INSERT INTO log VALUES (%s)", (i, i // 2, i))
                time.sleep(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run = pair.penstock.start(workers=8)
        pair.wait_rows("t", 1, run)
        for turn, (side, name) in enumerate((
                ("target", "worker 1"), ("target", "worker %"), ("source", "reader"), ("target", "control"),
                ("target", "worker 2"), ("source", "reader"), ("target", "worker %"), ("target", "control")) * 2):
            time.sleep(0.05 * (turn % 8))
            pids = wait_until(lambda s=side, n=name: not run.running or sessions(pair, s, n), 60, "a session")
            assert run.running, f"penstock ended with {run.process.returncode}:\n{run.stderr[-6000:]}"
            cluster = pair.source_cluster if side == "source" else pair.target_cluster
            cluster.sql("SELECT pg_terminate_backend(p) FROM unnest(%s) p", (pids,))
            if turn % 4 == 3:  # one loss after the other, with nothing between, makes its pauses longer
                pair.wait_rows("t", pair.on_target("SELECT count(*) FROM t")[0][0] + 50, run)
        run.kill()
        run.process.wait()
        assert run.stderr.count("trying again") > 3
    finally:
        over.set()
        writer.join()
        connection.close()
    pair.penstock.catch_up()
    assert pair.same() > 0


def test_a_lock_request_between_two_batches(pair):
    """A batch waits for a table behind somebody's ALTER, which waits for a later batch, which waits for its
    turn: a circle that the server cannot see."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int); CREATE TABLE u (id int PRIMARY KEY, n int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 0), (2, 0); INSERT INTO u VALUES (1, 0)")
    run = pair.penstock.start(workers=2, batch_transactions=1)
    pair.wait_rows("u", 1, run)
    blocker = pair.hold("SELECT * FROM u FOR UPDATE")
    pair.transaction("UPDATE u SET n = 1", "UPDATE t SET n = 1 WHERE id = 1")
    # A batch of a few rows would be left to the commit before it.
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(101, 300) i")
    holding = "SELECT 1 FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock' AND granted"
    wait_until(lambda: pair.on_target(holding), 10, "the later batch at work")
    between = pair.connect(pair.target_cluster)
    asking = threading.Thread(target=between.cursor().execute, args=("ALTER TABLE t ADD COLUMN c int",))
    asking.start()
    try:
        wait_until(lambda: pair.on_target("SELECT 1 FROM pg_locks WHERE relation = 't'::regclass AND NOT granted"), 20,
                   "the request between")
    finally:
        blocker.rollback()
    asking.join(60 * time_factor())
    assert not asking.is_alive(), "the circle was not seen"
    run.stop()
    assert run.finished()["retries"] == 1
    assert pair.same() == 203
