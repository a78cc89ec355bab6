"""The versions of PostgreSQL that are promised, each as the source, as the target and as both.

The other side is the installed version, with which all other tests run. tools/fetch-postgres gets the
servers; tests that lack theirs are skipped.
"""

import contextlib
import re
import signal

import pytest

from lib.cluster import Cluster
from lib.history import TICK, History
from lib.program import wait_until
from lib.versions import others, programs_of

ROLES = ("owner", "postgres")


class Servers:
    """Two servers of one version, and the two installed ones."""

    def __init__(self, major, installed):
        self.made = []
        self.installed = installed
        programs = programs_of(major)
        try:
            for name in ("source", "target"):
                self.made.append(Cluster(f"{name}-{major}", programs=programs))
        except BaseException:
            self.remove()
            raise

    def route(self, way):
        """Source and target."""
        old, new = self.installed, self.made
        return {"from": (new[0], old[1]), "to": (old[0], new[1]), "within": new}[way]

    def remove(self):
        for cluster in self.made:
            cluster.remove()


@pytest.fixture(scope="module")
def all_servers():
    made = {}
    yield made
    for servers in made.values():
        servers.remove()


@pytest.fixture(params=others())
def servers(request, all_servers):
    major = request.param
    if major not in all_servers:
        if programs_of(major) is None:
            pytest.skip(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it, or says why not")
        all_servers[major] = Servers(major, request.getfixturevalue("clusters"))
    return all_servers[major]


@pytest.fixture(params=("from", "to", "within"))
def way(request):
    return request.param


@pytest.fixture
def versioned(servers, way, make_pair):
    """Makes a pair: `from` that version, `to` it, or `within` it."""
    return lambda role: make_pair(role, *servers.route(way))


SCHEMA = """
CREATE TABLE plain (id int PRIMARY KEY, a text, b int);
CREATE TABLE nulls (id int PRIMARY KEY, a text, b bytea, c timestamptz, d numeric);
CREATE TABLE big (id int PRIMARY KEY, n int, big text);
ALTER TABLE big ALTER big SET STORAGE EXTERNAL;
CREATE TABLE keys (a int, b text, c int, PRIMARY KEY (a, b));
CREATE TABLE emptied (id serial PRIMARY KEY, a int);
CREATE TABLE bag (a int, b text, j json);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE numbered (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a text);
CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text);
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE parts (id int, k text, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_b PARTITION OF parts FOR VALUES IN ('b');
CREATE TABLE uniq (id int PRIMARY KEY, code int UNIQUE);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
CREATE TABLE unpublished (id int PRIMARY KEY);
"""


def change_everything(pair, first):
    """A hundred keys from `first` on, each kind of change to each kind of table, in small transactions."""
    last = first + 19
    keys = {"first": first, "last": last, "middle": first + 10, "moved": first + 50}
    for statement in (
        "INSERT INTO plain SELECT i, 'row ' || i, i FROM generate_series({first}, {last}) i",
        "UPDATE plain SET a = a || '!', b = b + 1 WHERE id > {middle}",
        "DELETE FROM plain WHERE id = {last}",
        "INSERT INTO nulls VALUES ({first}, NULL, NULL, NULL, NULL), ({last}, '', '', 'infinity', 'NaN')",
        "UPDATE nulls SET a = 'x', b = '\\xff00', c = '2024-02-29 12:00+02', d = 1.50 WHERE id = {first}",
        "UPDATE nulls SET a = NULL, b = NULL WHERE id = {last}",
        "INSERT INTO big SELECT i, 0, repeat(i || 'x', 3000) FROM generate_series({first}, {middle}) i",
        "UPDATE big SET n = n + 1 WHERE id >= {first}",
        "UPDATE big SET id = {moved} WHERE id = {first}",
        "INSERT INTO keys SELECT i, 'k', i FROM generate_series({first}, {last}) i",
        "UPDATE keys SET a = a + 50 WHERE a BETWEEN {first} AND {middle}",
        "UPDATE keys SET b = 'other', c = -1 WHERE a = {last}",
        "INSERT INTO emptied (a) SELECT generate_series(1, 5)",
        "TRUNCATE emptied, nulls RESTART IDENTITY",
        "INSERT INTO emptied (a) VALUES ({first})",
        "INSERT INTO bag SELECT {first}, NULL, '[1]' FROM generate_series(1, 4)",
        "UPDATE bag SET b = 'changed' WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = {first})",
        "DELETE FROM bag WHERE ctid = (SELECT max(ctid) FROM bag WHERE a = {first})",
        "INSERT INTO numbered (k) SELECT generate_series({first}, {middle})",
        "UPDATE numbered SET a = 'set' WHERE k = {first}",
        "UPDATE numbered SET n = DEFAULT WHERE k = {middle}",
        "INSERT INTO always (a) SELECT 'a' FROM generate_series(1, 5)",
        "UPDATE always SET id = DEFAULT WHERE id = (SELECT min(id) FROM always)",
        "INSERT INTO computed (id, a) SELECT i, i FROM generate_series({first}, {last}) i",
        "UPDATE computed SET a = -a WHERE id > {middle}",
        "INSERT INTO parts SELECT i, CASE i % 2 WHEN 0 THEN 'a' ELSE 'b' END, i FROM generate_series({first}, {last}) i",
        "UPDATE parts SET k = 'b', v = -1 WHERE k = 'a' AND id > {middle}",
        "INSERT INTO uniq SELECT i, i FROM generate_series({first}, {last}) i",
        "UPDATE uniq SET code = NULL WHERE id = {first}",
        "UPDATE uniq SET code = {first} WHERE id = {last}",
        "INSERT INTO parent SELECT generate_series({first}, {last})",
        "INSERT INTO child SELECT i, i FROM generate_series({first}, {last}) i",
        "DELETE FROM parent WHERE id > {middle}",
        "INSERT INTO unpublished SELECT generate_series({first}, {last})",
        "SELECT pg_logical_emit_message(true, 'penstock test', 'within')",
        "SELECT pg_logical_emit_message(false, 'penstock test', 'between')",
    ):
        pair.on_source(statement.format(**keys))
    pair.transaction(
        "INSERT INTO plain VALUES (-1, 'moves', 0)", "SELECT pg_logical_emit_message(true, 'penstock test', 'x')",
        "SELECT pg_logical_emit_message(false, 'penstock test', 'x')", "UPDATE plain SET id = -2 WHERE id = -1",
        "SAVEPOINT s", "DELETE FROM plain", "ROLLBACK TO s", "DELETE FROM plain WHERE id = -2")


def published(pair):
    return [table for table in pair.tables() if table[1] != "unpublished"]


def test_everything(versioned):
    """As the plain role, and from the middle on as a superuser."""
    pair = versioned("owner")
    pair.schema(SCHEMA)
    pair.penstock.catch_up(exclude_table="unpublished")  # makes publication and slot
    change_everything(pair, 0)

    # killed on the way
    run = pair.penstock.start()
    pair.wait_rows("plain", 1, run)
    run.kill(signal.SIGKILL)
    run.wait()
    pair.penstock.catch_up()
    assert pair.same(published(pair)) > 0

    # stopped at a position, exactly
    pair.penstock.target = pair.target_cluster.uri(pair.name, "postgres")
    change_everything(pair, 100)
    stop = pair.wal_lsn()
    state = pair.on_source("SELECT * FROM plain ORDER BY 1"), pair.on_source("SELECT * FROM parts ORDER BY 1, 2")
    change_everything(pair, 200)
    pair.penstock.start(stop_at=stop).wait(expect=0)
    assert state == (pair.on_target("SELECT * FROM plain ORDER BY 1"),
                     pair.on_target("SELECT * FROM parts ORDER BY 1, 2"))

    # a column that only the source has: the error says what to run
    pair.on_source("ALTER TABLE plain ADD COLUMN added numeric(10,2) NOT NULL DEFAULT 7.5")
    pair.on_source("INSERT INTO plain VALUES (-5, 'x', 0, 2.25)")
    error = pair.penstock.fails().the_error()
    pair.on_target(re.search(r"ALTER TABLE public.plain ADD COLUMN [^;]*", error).group(0))
    pair.penstock.catch_up()
    assert pair.same(published(pair)) > 0
    assert pair.on_target("SELECT count(*) FROM unpublished") == [(0,)]


def test_history(versioned, way):
    """What test_random.py does, shorter."""
    seed = ("from", "to", "within").index(way)
    pair = versioned(ROLES[seed % 2])
    history = History(pair, seed, transactions=100, trigger=seed == 1, layout=seed == 0)
    history.make_slot(by_root=seed == 1)
    history.begin()
    run = pair.penstock.start()
    history.run()
    run.kill(signal.SIGKILL)
    run.wait()
    pair.penstock.catch_up()
    assert pair.on_target(TICK) == [(history.tick,)]
    assert pair.on_target(history.digest)[0] == history.state[history.tick]
    assert pair.same() > 0


# What not every version has.

def only(*majors):
    return pytest.mark.parametrize("servers", majors, indirect=True)


@pytest.fixture
def within(servers, make_pair):
    """Makes a pair of that version on both sides."""
    return lambda role="owner": make_pair(role, *servers.made)


def admin(cluster, statement, dbname="postgres"):
    return cluster.sql(statement, dbname=dbname)


@contextlib.contextmanager
def setting(cluster, name, value):
    """Of the server, for a while. Sessions that it starts have it as soon as all of its processes have been told."""
    def change(statement, shown):
        admin(cluster, f"ALTER SYSTEM {statement}")
        admin(cluster, "SELECT pg_reload_conf()")
        wait_until(lambda: admin(cluster, f"SHOW {name}") == shown, what=f"the server to have {name} {shown}")
    before = admin(cluster, f"SHOW {name}")
    change(f"SET {name} = '{value}'", [(value,)])
    try:
        yield
    finally:
        change(f"RESET {name}", before)


def lose_wal(pair):
    """The source removes what the slot needs."""
    source = pair.source_cluster
    with setting(source, "max_slot_wal_keep_size", "1MB"):
        for _ in range(4):
            pair.on_source("INSERT INTO t SELECT coalesce(max(id), 0) + 1 FROM t")
            admin(source, "SELECT pg_switch_wal()")
        wait_lost(pair)


def wait_lost(pair):
    def lost():
        admin(pair.source_cluster, "CHECKPOINT")
        return slot_status(pair) == "lost"
    wait_until(lost, what="the loss of the slot")


def slot_status(pair):
    return pair.on_source("SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s", (pair.name,))[0][0]


def test_slot_whose_wal_is_gone(within):
    pair = within()
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    lose_wal(pair)
    error = pair.penstock.fails().the_error()
    assert "slot" in error and "has removed WAL that it needs" in error, error
    assert pair.on_target("SELECT count(*) FROM t") == [(0,)]


@only(18)
def test_slot_that_was_idle_for_too_long(within):
    pair = within()
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    with setting(pair.source_cluster, "idle_replication_slot_timeout", "1s"):
        wait_lost(pair)
    error = pair.penstock.fails().the_error()
    assert "invalidated" in error and "idle_timeout" in error, error


@only(14)
def test_transactions_without_changes_do_not_reach_the_target(within):
    """14 still sends Begin and Commit of each."""
    pair = within()
    pair.schema("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
    pair.make_slot(["t"])
    for i in range(50):
        pair.on_source("INSERT INTO other VALUES (%s)", (i,))
    pair.on_source("INSERT INTO t VALUES (1)")
    run = pair.penstock.catch_up()
    assert int(run.finished()["transactions"]) == 1
    assert pair.same(["t"]) == 1


@only(17)
def test_transaction_timeout_of_the_source(within):
    """Decoding a transaction runs in one of the source's own."""
    pair = within()
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.make_slot()
    pair.transaction("INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 40000) i")
    admin(pair.source_cluster, f"ALTER ROLE owner IN DATABASE {pair.name} SET transaction_timeout = '100ms'")
    admin(pair.target_cluster, f"ALTER ROLE owner IN DATABASE {pair.name} SET transaction_timeout = '100ms'")
    pair.penstock.catch_up(memory="16MB")
    assert pair.on_target("SELECT count(*) FROM t") == [(40000,)]


@only(16)
@pytest.mark.parametrize("role", ROLES)
def test_nulls_not_distinct(within, role):
    pair = within(role)
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code int, UNIQUE NULLS NOT DISTINCT (code))")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, NULLIF(i, 1) FROM generate_series(1, 20) i")
    for i in range(1, 20):
        pair.transaction(("UPDATE t SET code = %s WHERE id = %s", (i + 100, i)),
                         ("UPDATE t SET code = NULL WHERE id = %s", (i + 1,)))
    pair.penstock.catch_up()
    assert pair.same() == 20


@only(14, 16)
def test_generated_column_as_the_key(within):
    """Up to 17 such a column is never in the stream, so its rows could not be found."""
    pair = within()
    pair.schema("""CREATE TABLE t (a int, n int GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY)""")
    error = pair.penstock.fails().the_error()
    assert "public.t" in error and "generated column" in error, error
    assert pair.on_source("SELECT pubname FROM pg_publication") == []
    pair.schema("ALTER TABLE t REPLICA IDENTITY FULL")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO t SELECT generate_series(1, 10)")
    pair.on_source("UPDATE t SET a = a + 100 WHERE a > 5")
    pair.on_source("DELETE FROM t WHERE a < 3")
    pair.penstock.catch_up()
    assert pair.same() == 8


@only(16)
def test_columns_and_rows_that_the_publication_chooses(within):
    """From 15 on; the target lacks what is left out."""
    pair = within()
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, secret text, a int); CREATE TABLE rest (id int PRIMARY KEY)")
    pair.on_target("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE TABLE rest (id int PRIMARY KEY)")
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE t (id, a) WHERE (id > 0), rest")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO t SELECT i, 'hidden', i FROM generate_series(-5, 5) i")
    pair.on_source("UPDATE t SET id = id + 20 WHERE id < 0")
    pair.on_source("UPDATE t SET id = -id WHERE id BETWEEN 1 AND 2")
    pair.on_source("UPDATE t SET a = 100 WHERE id = 3")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT id, a FROM t ORDER BY 1") == pair.on_source(
        "SELECT id, a FROM t WHERE id > 0 ORDER BY 1")


@only(17)
@pytest.mark.parametrize("role", ROLES)
def test_identity_column_of_a_partitioned_table(within, role):
    pair = within(role)
    pair.schema("""CREATE TABLE p (id int GENERATED ALWAYS AS IDENTITY, k int, a text, PRIMARY KEY (id, k))
            PARTITION BY LIST (k);
        CREATE TABLE p_0 PARTITION OF p FOR VALUES IN (0); CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1)""")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO p (k, a) SELECT i % 2, 'a' FROM generate_series(1, 20) i")
    pair.on_source("UPDATE p SET a = 'b' WHERE id < 5")
    pair.on_source("UPDATE p SET id = DEFAULT WHERE id < 3")
    pair.on_source("UPDATE p SET k = 1 - k WHERE id > 15")
    pair.penstock.catch_up()
    assert pair.same() == 20


@only(18)
@pytest.mark.parametrize("role", ROLES)
def test_virtual_generated_columns(within, role):
    pair = within(role)
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, b text);
        CREATE TABLE numbered (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v int GENERATED ALWAYS AS (k + 1),
            a text);
        CREATE TABLE bag (a int, b text); ALTER TABLE bag REPLICA IDENTITY FULL;
        CREATE TABLE stored_here (id int PRIMARY KEY, a int)""")
    # one that only the target has, also where the row is found by all of its values
    pair.on_target("ALTER TABLE bag ADD COLUMN loud text GENERATED ALWAYS AS (upper(b)) VIRTUAL")
    # of one kind here, of another there
    pair.on_source("ALTER TABLE stored_here ADD COLUMN n int GENERATED ALWAYS AS (a + 1) STORED")
    pair.on_target("ALTER TABLE stored_here ADD COLUMN n int GENERATED ALWAYS AS (a + 1) VIRTUAL")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO t (id, a, b) SELECT i, i, 'x' FROM generate_series(1, 30) i")
    pair.on_source("UPDATE t SET a = -a WHERE id > 10")
    pair.on_source("UPDATE t SET id = id + 100 WHERE id > 25")
    pair.on_source("DELETE FROM t WHERE id < 5")
    pair.on_source("INSERT INTO numbered (k) SELECT generate_series(1, 10)")
    pair.on_source("UPDATE numbered SET n = DEFAULT WHERE k > 8")
    pair.on_source("INSERT INTO bag VALUES (1, 'a'), (1, 'a'), (2, NULL)")
    pair.on_source("UPDATE bag SET b = 'c' WHERE ctid = (SELECT min(ctid) FROM bag)")
    pair.on_source("DELETE FROM bag WHERE a = 2")
    pair.on_source("INSERT INTO stored_here (id, a) VALUES (1, 1), (2, 2)")
    pair.on_source("UPDATE stored_here SET a = 5 WHERE id = 1")
    pair.penstock.catch_up()
    assert pair.same() == 26 + 10 + 2 + 2


@only(18)
def test_virtual_column_in_a_full_identity_is_refused(within):
    """PostgreSQL would refuse the source's own updates as soon as the table is published."""
    pair = within()
    pair.schema("""CREATE TABLE t (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
        ALTER TABLE t REPLICA IDENTITY FULL""")
    error = pair.penstock.fails().the_error()
    assert "public.t" in error and "virtual" in error and "--exclude-table" in error, error
    assert pair.on_source("SELECT pubname FROM pg_publication") == []
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.on_source("UPDATE t SET a = 2")
    pair.on_source("DELETE FROM t")
    pair.schema("ALTER TABLE t ADD PRIMARY KEY (a), REPLICA IDENTITY DEFAULT")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.on_source("UPDATE t SET a = 2")
    pair.penstock.catch_up()
    assert pair.same() == 1


@only(18)
@pytest.mark.parametrize("role", ROLES)
def test_generated_columns_that_are_published(within, role):
    pair = within(role)
    table = "CREATE TABLE {} (id int PRIMARY KEY, a int, n int{})"
    generated = " GENERATED ALWAYS AS (a + 1) STORED"
    for name in ("computed", "plain", "late", "keyed", "bag"):
        pair.on_source(table.format(name, generated))
        pair.on_target(table.format(name, "" if name == "plain" else generated))
    pair.on_target("ALTER TABLE late DROP COLUMN n; INSERT INTO late VALUES (-1, 5)")
    pair.schema("ALTER TABLE keyed DROP CONSTRAINT keyed_pkey, ADD PRIMARY KEY (n);"
                "ALTER TABLE bag DROP CONSTRAINT bag_pkey, REPLICA IDENTITY FULL")
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE computed, plain, late, keyed, bag"
                   " WITH (publish_generated_columns = stored)")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    error = pair.penstock.fails().the_error()
    pair.on_target(re.search(r"ALTER TABLE public.late ADD COLUMN [^;]*", error).group(0))
    assert pair.on_target("SELECT n FROM late") == [(6,)]
    pair.on_target("DELETE FROM late")
    for name in ("computed", "plain", "late", "keyed", "bag"):
        pair.on_source(f"INSERT INTO {name} (id, a) SELECT i, i FROM generate_series(1, 20) i")
        pair.on_source(f"UPDATE {name} SET a = a + 100 WHERE id > 10")
        pair.on_source(f"UPDATE {name} SET id = -id WHERE id > 15")
        pair.on_source(f"DELETE FROM {name} WHERE id < 5")
    pair.penstock.catch_up()
    assert pair.same() == 5 * 11


@only(18)
@pytest.mark.parametrize("role", ROLES)
def test_foreign_keys_that_are_not_enforced(within, role):
    pair = within(role)
    pair.schema("""CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE NOT ENFORCED);
        CREATE TABLE other (id int PRIMARY KEY, parent int CONSTRAINT fk REFERENCES parent ON DELETE CASCADE,
            CHECK (id > 0) NOT ENFORCED);
        ALTER TABLE other ALTER CONSTRAINT fk NOT ENFORCED""")
    pair.make_slot()
    pair.on_source("INSERT INTO child SELECT i, i FROM generate_series(1, 20) i")
    pair.on_source("INSERT INTO other SELECT -i, i FROM generate_series(1, 20) i")
    pair.on_source("INSERT INTO parent VALUES (1), (2)")
    pair.on_source("DELETE FROM parent WHERE id = 1")
    pair.on_source("UPDATE child SET parent = 99 WHERE id = 2")
    pair.penstock.catch_up()
    assert pair.same() == 41


@only(18)
@pytest.mark.parametrize("role", ROLES)
def test_keys_without_overlaps(within, role):
    """Such an index is of GiST, where a row is not found by the operator that btree has at that place."""
    pair = within(role)
    pair.schema("""CREATE TABLE t (id int4range, during int4range, a text, PRIMARY KEY (id, during WITHOUT OVERLAPS));
        CREATE TABLE c (id int PRIMARY KEY, t int4range, during int4range,
            FOREIGN KEY (t, PERIOD during) REFERENCES t (id, PERIOD during))""")
    pair.make_slot()
    pair.on_source("""INSERT INTO t SELECT int4range(i, i + 3), int4range(j * 10, j * 10 + 10), 'a'
        FROM generate_series(1, 9) i, generate_series(1, 3) j""")
    pair.on_source("INSERT INTO c VALUES (1, '[1,4)', '[10,40)')")
    # the ids overlap each other
    pair.on_source("UPDATE t SET a = 'b' WHERE id = '[3,6)' AND during = '[20,30)'")
    pair.on_source("UPDATE t SET during = '[12,18)' WHERE id = '[4,7)' AND during = '[10,20)'")
    pair.on_source("DELETE FROM t WHERE id = '[5,8)' AND during = '[10,20)'")
    pair.penstock.catch_up()
    assert pair.same() == 27
