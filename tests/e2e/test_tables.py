"""Tables of every shape: odd names, other columns on the target, constraints that are enforced there."""

import re

import pytest

from lib.pair import identifier

ODD_NAMES = ["Upper Case", 'quo"te', "dot.ted", "ünïcode 漢", "select", "a'b", "per%cent%s", "$1", "back\\slash",
             "n" * 63]


def test_names_that_need_quoting(any_pair):
    pair = any_pair
    for i, name in enumerate(ODD_NAMES):
        table = identifier((f"s{i} {name}"[:60], name)).as_string(pair.source)
        schema = identifier(f"s{i} {name}"[:60]).as_string(pair.source)
        column = identifier(name).as_string(pair.source)
        pair.schema(f"CREATE SCHEMA {schema}; CREATE TABLE {table} ({column} int PRIMARY KEY, \"V.{i}\" text)")
    pair.make_slot()
    tables = pair.tables()
    assert len(tables) == len(ODD_NAMES)
    for i, (schema, name) in enumerate(tables):
        table = identifier((schema, name)).as_string(pair.source)
        column = identifier(name).as_string(pair.source)
        value = '"V.' + schema[1:].split(" ")[0] + '"'
        pair.on_source(f"INSERT INTO {table} SELECT g, 'v' FROM generate_series(1, 30) g")
        pair.on_source(f"UPDATE {table} SET {value} = 'w' WHERE {column} > 20")
        pair.on_source(f"UPDATE {table} SET {column} = 100 WHERE {column} = 1")
        pair.on_source(f"DELETE FROM {table} WHERE {column} BETWEEN 2 AND 5")
    pair.penstock.catch_up()
    assert pair.same() == len(ODD_NAMES) * 26


def test_same_name_in_several_schemas(pair):
    pair.schema("""CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE t (id int PRIMARY KEY);
        CREATE TABLE a.t (id int PRIMARY KEY); CREATE TABLE b.t (id int PRIMARY KEY)""")
    pair.make_slot()
    pair.transaction("INSERT INTO t VALUES (1)", "INSERT INTO a.t VALUES (1), (2)", "INSERT INTO b.t VALUES (1)")
    pair.transaction("DELETE FROM b.t", "UPDATE a.t SET id = 5 WHERE id = 1")
    pair.penstock.catch_up()
    assert pair.same() == 3


def test_types_in_a_schema_of_their_own(any_pair):
    """Nothing may rest on the search path."""
    pair = any_pair
    pair.schema("""CREATE SCHEMA "My Types"; CREATE TYPE "My Types"."Mood" AS ENUM ('a', 'b');
        CREATE DOMAIN "My Types".d AS int; CREATE TYPE "My Types".c AS (x int, y "My Types"."Mood");
        CREATE TABLE t (id int PRIMARY KEY, m "My Types"."Mood", d "My Types".d, c "My Types".c,
            l "My Types"."Mood"[])""")
    pair.make_slot()
    pair.on_source("""INSERT INTO t SELECT i, 'a', i, ROW(i, 'b')::"My Types".c, '{a,b}'
        FROM generate_series(1, 40) i""")
    pair.on_source("UPDATE t SET m = 'b', l = NULL WHERE id > 10")
    pair.penstock.catch_up()
    assert pair.same() == 40


def test_other_column_order_and_an_extra_column(any_pair):
    pair = any_pair
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, a text, gone int, b int, c timestamptz)")
    pair.on_source("ALTER TABLE t DROP COLUMN gone")
    pair.on_target("""CREATE TABLE t (c timestamptz, extra text NOT NULL DEFAULT 'here', b int, was text,
        id int PRIMARY KEY, at timestamptz DEFAULT now(), a text)""")
    pair.on_target("ALTER TABLE t DROP COLUMN was")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'a' || i, i * 2, now() FROM generate_series(1, 50) i")
    pair.on_source("UPDATE t SET a = 'new' WHERE id < 20")
    pair.on_source("DELETE FROM t WHERE id > 40")
    pair.penstock.catch_up()
    assert pair.same() == 40
    assert pair.on_target("SELECT DISTINCT extra, at IS NOT NULL FROM t") == [("here", True)]
    # what was changed on the target alone stays
    pair.on_target("UPDATE t SET extra = 'mine' WHERE id = 1")
    pair.on_source("UPDATE t SET b = -1")
    pair.penstock.catch_up()
    assert pair.same() == 40
    assert pair.on_target("SELECT extra FROM t WHERE id = 1") == [("mine",)]


def test_another_type_on_the_target(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, a int, b varchar(10), c timestamp)")
    pair.on_target("CREATE TABLE t (id bigint PRIMARY KEY, a numeric, b text, c text)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i, 'b', '2024-01-02 03:04:05' FROM generate_series(1, 30) i")
    pair.on_source("UPDATE t SET a = 7 WHERE id = 3")
    pair.penstock.catch_up()
    assert pair.same() == 30


@pytest.mark.parametrize("there, here, rounds", [
    ("numeric(12,4)", "numeric(12,2)", True),
    ("numeric", "numeric(12,2)", True),
    ("numeric(12,2)", "numeric(14,2)", False),
    ("numeric(12,2)", "numeric", False),
    ("float8", "float4", True),
    ("float8", "numeric(12,2)", True),
    ("float4", "float8", False),
    ("bigint", "float8", True),
    ("int", "numeric(12,2)", False),
    ("timestamp", "date", True),
    ("timestamp", "timestamp(3)", True),
    ("timestamptz(3)", "timestamptz(6)", False),
    ("time(3)", "time(0)", True),
    ("interval", "interval second(0)", True),
])
def test_a_type_that_rounds_is_told_of(pair, there, here, rounds):
    """PostgreSQL rounds on the way into the column without a word, and so would we."""
    pair.on_source(f"CREATE TABLE t (id int PRIMARY KEY, v {there})")
    pair.on_target(f"CREATE TABLE t (id int PRIMARY KEY, v {here})")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    run = pair.penstock.catch_up()
    told = [e["message"] for e in run.events() if e["level"] == "warn" and "rounds" in e["message"]]
    assert len(told) == rounds
    assert all('"v" of public.t' in line for line in told)


def test_a_table_that_is_made_anew_is_told_of(pair):
    """Of what happened to the one before it the stream says nothing: its rows are still there."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    admin = pair.connect(pair.source_cluster, "postgres")
    with admin.cursor() as cursor:
        cursor.execute(f'CREATE PUBLICATION "{pair.name}" FOR ALL TABLES')
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.on_source("ALTER TABLE t ADD COLUMN v int")
    pair.on_target("ALTER TABLE t ADD COLUMN v int")
    pair.on_source("INSERT INTO t VALUES (2)")
    run = pair.penstock.catch_up()
    assert not [e for e in run.events() if "another table" in e["message"]]
    pair.on_source("INSERT INTO t VALUES (3)")
    pair.on_source("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v int)")
    pair.on_source("INSERT INTO t VALUES (4)")
    run = pair.penstock.catch_up()
    assert len([e for e in run.events() if e["level"] == "warn" and "another table" in e["message"]]) == 1


@pytest.mark.parametrize("rows", [1, 15000])
@pytest.mark.parametrize("what", ["table", "column"])
def test_what_is_renamed(any_pair, what, rows):
    """It must be renamed on the target too, and between what came before and what comes after. An empty table by the
    new name would lack what the old one had, and nothing would say so."""
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    rename = "ALTER TABLE t RENAME TO u" if what == "table" else "ALTER TABLE t RENAME a TO b"
    name = "u" if what == "table" else "t"
    pair.on_source("INSERT INTO t VALUES (0)")
    pair.penstock.catch_up()
    for i in range(1, 300):
        pair.on_source("INSERT INTO t VALUES (%s, %s)", (i, i))
    pair.on_source(rename)
    pair.on_source(f"INSERT INTO {name} SELECT i FROM generate_series(300, {299 + rows}) i")
    assert "rename it there" in pair.penstock.fails().the_error()
    assert pair.on_target("SELECT count(*) FROM t") == [(300,)]
    pair.on_target(rename)
    pair.penstock.catch_up()
    assert pair.same() == 300 + rows


def test_a_row_that_comes_into_the_row_filter(pair):
    """By an UPDATE. PostgreSQL sends it whole only under REPLICA IDENTITY FULL."""
    if pair.source.server_version < 150000:
        pytest.skip("the source has no row filters")
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
        ALTER TABLE t REPLICA IDENTITY FULL""")
    pair.on_source(f'CREATE PUBLICATION "{pair.name}" FOR TABLE t WHERE (id > 10)')
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO t SELECT i, repeat('x', 10000) FROM generate_series(1, 3) i")
    pair.on_source("UPDATE t SET id = 11 WHERE id = 1")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT id, length(v) FROM t") == [(11, 10000)]
    pair.on_source("ALTER TABLE t REPLICA IDENTITY DEFAULT")
    pair.on_source("UPDATE t SET id = 12 WHERE id = 2")
    assert "into the publication's row filter" in pair.penstock.fails().the_error()
    assert pair.on_target("SELECT id, length(v) FROM t") == [(11, 10000)]


def test_partitions_by_their_root_without_a_key(any_pair):
    """Their own keys are not told by the root's name."""
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int, k int) PARTITION BY LIST (k);
        CREATE TABLE t_1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES IN (1)""")
    pair.on_source(f'CREATE PUBLICATION "{pair.name}" FOR TABLE t WITH (publish_via_partition_root)')
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO t VALUES (1, 1), (2, 1)")
    run = pair.penstock.catch_up()
    assert [e for e in run.events() if e["level"] == "warn" and "no TRUNCATE of a single partition" in e["message"]]
    pair.on_source("DELETE FROM t WHERE id = 1")
    assert "which columns of public.t are its replica identity" in pair.penstock.fails().the_error()


def test_generated_columns(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
        CREATE TABLE k (a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text);
        ALTER TABLE k REPLICA IDENTITY FULL""")
    pair.penstock.catch_up()  # from 18 on its publication must carry such a column of an identity
    for table in "tk":
        columns = "id, a, b" if table == "t" else "a, b"
        values = "i, i, 'x'" if table == "t" else "i, 'x'"
        pair.on_source(f"INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(1, 30) i")
        pair.on_source(f"UPDATE {table} SET a = a + 100 WHERE a > 20")
        pair.on_source(f"DELETE FROM {table} WHERE a < 5")
    pair.penstock.catch_up()
    assert pair.same() == 52


@pytest.mark.parametrize("computed", ["neither", "source", "target", "both"])
def test_a_column_that_one_side_computes_is_told_of(pair, computed):
    """What comes of it on the two sides is not the same, and nothing fails."""
    for run, side in ((pair.on_source, "source"), (pair.on_target, "target")):
        more = "GENERATED ALWAYS AS (id * 2) STORED" if computed in (side, "both") else ""
        run(f'CREATE TABLE t (id int PRIMARY KEY, "Other" int {more}, b int GENERATED ALWAYS AS (id + 1) STORED)')
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    run = pair.penstock.catch_up()
    told = [e["message"] for e in run.events() if e["level"] == "warn" and "generated on the" in e["message"]]
    assert len(told) == (computed in ("source", "target"))
    assert all(f"generated on the {computed}" in line and '1 columns, public.t."Other" first' in line for line in told)


def test_identity_columns(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text);
        CREATE TABLE other (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, big text, a text);
        CREATE TABLE by_default (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a text);
        ALTER TABLE other ALTER big SET STORAGE EXTERNAL""")
    pair.make_slot()
    pair.on_source("INSERT INTO always (a) SELECT 'a' FROM generate_series(1, 30)")
    pair.on_source("INSERT INTO always (id, a) OVERRIDING SYSTEM VALUE VALUES (1000, 'given')")
    pair.on_source("INSERT INTO other (k, big) SELECT i, repeat('b', 5000) FROM generate_series(1, 20) i")
    pair.on_source("INSERT INTO by_default (a) VALUES ('a'), ('b')")
    pair.on_source("UPDATE always SET a = 'changed' WHERE id % 2 = 0")
    pair.on_source("UPDATE other SET a = 'changed' WHERE k < 5")
    # the one way in which the source changes such a column
    pair.on_source("UPDATE other SET n = DEFAULT WHERE k > 15")
    pair.on_source("DELETE FROM always WHERE id = 4")
    pair.penstock.catch_up()
    assert pair.same() == 30 + 20 + 2


def test_identity_column_that_is_the_key_changes(any_pair):
    """UPDATE cannot set such a column to a given value: the row is made anew, with what it had."""
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, big text, a text);
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL""")
    pair.make_slot()
    pair.on_source("INSERT INTO t (big, a) SELECT repeat('b', 5000), 'a' FROM generate_series(1, 10)")
    pair.on_source("UPDATE t SET id = DEFAULT WHERE id = 3")
    pair.on_source("UPDATE t SET id = DEFAULT, a = 'changed' WHERE id > 8")
    pair.on_source("UPDATE t SET a = 'later' WHERE id > 10")
    pair.penstock.catch_up()
    assert pair.same() == 10


@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE", "SET NULL"])
def test_foreign_keys_that_are_enforced(pair, action):
    pair.schema(f"""CREATE TABLE parent (id int PRIMARY KEY, code text UNIQUE);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE {action} ON UPDATE {action},
            code text REFERENCES parent (code) ON DELETE {action} ON UPDATE {action});
        CREATE TABLE node (id int PRIMARY KEY, up int REFERENCES node)""")
    pair.make_slot()
    for i in range(1, 101):
        pair.transaction(("INSERT INTO parent VALUES (%s, %s)", (i, f"c{i}")),
                         ("INSERT INTO child VALUES (%s, %s, %s)", (i, i, f"c{i}")))
        pair.on_source("INSERT INTO child VALUES (%s, %s, %s)", (i + 1000, i, f"c{max(1, i // 2)}"))
        pair.on_source("INSERT INTO node VALUES (%s, %s)", (i, i // 2 or None))
    pair.on_source("UPDATE child SET parent = parent - 1, code = NULL WHERE parent % 2 = 0")
    for i in range(2, 100, 2):
        if action == "NO ACTION":
            pair.on_source("DELETE FROM child WHERE parent = %s OR code = %s", (i, f"c{i}"))
        pair.on_source("DELETE FROM parent WHERE id = %s", (i,))
        pair.on_source("INSERT INTO parent VALUES (%s, %s)", (i, f"again {i}"))
        pair.on_source("INSERT INTO child VALUES (%s, %s, %s)", (i + 2000, i, f"again {i}"))
    for i in range(100, 50, -1):
        pair.on_source("DELETE FROM node WHERE id = %s", (i,))
    pair.penstock.catch_up()
    pair.same()


def test_foreign_keys_from_a_superuser(make_pair):
    """As a replica foreign keys are not enforced; what they did on the source comes in the stream."""
    pair = make_pair("postgres")
    pair.schema("""CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE)""")
    pair.make_slot()
    pair.on_source("INSERT INTO parent SELECT generate_series(1, 50)")
    pair.on_source("INSERT INTO child SELECT i, i FROM generate_series(1, 50) i")
    pair.on_source("DELETE FROM parent WHERE id > 20")
    pair.penstock.catch_up()
    assert pair.same() == 40


def test_constraints_beyond_btree(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, code text, during int4range, n int,
            EXCLUDE USING gist (during WITH &&), UNIQUE (n) DEFERRABLE INITIALLY DEFERRED);
        CREATE UNIQUE INDEX ON t (lower(code)); CREATE UNIQUE INDEX ON t (code) WHERE n > 50""")
    pair.make_slot()
    pair.on_source("""INSERT INTO t SELECT i, 'Code ' || i, int4range(i * 10, i * 10 + 10), i
        FROM generate_series(1, 40) i""")
    for i in range(1, 40, 3):
        pair.on_source("DELETE FROM t WHERE id = %s", (i,))
        pair.on_source("INSERT INTO t VALUES (%s, %s, int4range(%s, %s), %s)", (i + 500, f"cODE {i}", i * 10, i * 10 + 5, i))
        pair.on_source("UPDATE t SET during = int4range(%s, %s) WHERE id = %s", (i * 10 + 5, i * 10 + 6, i + 500))
        pair.transaction(("UPDATE t SET n = %s WHERE n = %s", (i + 1, i)), ("UPDATE t SET n = %s WHERE id = %s", (i, i + 1)))
    pair.penstock.catch_up()
    assert pair.same() == 40


def test_partitioned_tables(any_pair):
    """Published leaf by leaf, unless the publication says otherwise."""
    pair = any_pair
    pair.schema("""CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
        CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b')""")
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO p SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END FROM generate_series(1, 40) i")
    pair.on_source("UPDATE p SET k = 'b' WHERE id = 2")
    pair.on_source("DELETE FROM p WHERE id > 30")
    pair.on_source("TRUNCATE p_b")
    pair.on_source("INSERT INTO p VALUES (1, 'b')")
    pair.penstock.catch_up()
    assert pair.same() == 15


def test_root_of_partitions_into_an_ordinary_table(pair):
    pair.on_source("""CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id);
        CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (100);
        CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (100) TO (200)""")
    pair.on_target("CREATE TABLE p (id int PRIMARY KEY, a text)")
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE p WITH (publish_via_partition_root = true)")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO p SELECT i, 'a' FROM generate_series(0, 199) i")
    pair.on_source("UPDATE p SET id = id + 50 WHERE id BETWEEN 60 AND 69 AND false")
    pair.on_source("DELETE FROM p WHERE id BETWEEN 110 AND 120")
    pair.on_source("UPDATE p SET id = 115 WHERE id = 5")
    pair.penstock.catch_up()
    assert pair.same(["p"]) == 189


def test_column_added_on_both_sides(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    pair.schema("ALTER TABLE t ADD COLUMN b text DEFAULT 'b'")
    pair.on_source("INSERT INTO t SELECT i, i, 'x' FROM generate_series(21, 40) i")
    pair.schema("ALTER TABLE t DROP COLUMN a")
    pair.on_source("INSERT INTO t SELECT i, 'y' FROM generate_series(41, 60) i")
    pair.on_source("UPDATE t SET b = 'z' WHERE id % 3 = 0")
    # the oldest rows carry a column that the target has no more
    run = pair.penstock.start("--stop-when-caught-up")
    if run.wait(60) != 0:
        pair.on_target("ALTER TABLE t ADD COLUMN a int")
        pair.penstock.catch_up()
    assert pair.same() == 60


def test_column_added_while_streaming(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    run = pair.penstock.start()
    pair.wait_streaming(run)
    for i in range(5):
        pair.on_source("INSERT INTO t (id) SELECT g FROM generate_series(%s, %s) g", (i * 100, i * 100 + 49))
        pair.on_target(f"ALTER TABLE t ADD COLUMN c{i} int DEFAULT {i}")
        pair.on_source(f"ALTER TABLE t ADD COLUMN c{i} int DEFAULT {i}")
        pair.on_source(f"INSERT INTO t (id, c{i}) SELECT g, g FROM generate_series(%s, %s) g",
                       (i * 100 + 50, i * 100 + 99))
        pair.on_source(f"UPDATE t SET c{i} = -1 WHERE id % 10 = 0")
    pair.wait_rows("t", 500, run)
    run.stop()
    pair.penstock.catch_up()
    assert pair.same() == 500


def test_rows_behind_row_security_are_an_error_not_silence(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 1)")
    pair.penstock.catch_up()
    pair.on_target("ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    pair.on_source("UPDATE t SET a = 2")
    run = pair.penstock.fails()
    assert "t" in run.the_error()
    pair.on_target("ALTER TABLE t DISABLE ROW LEVEL SECURITY")
    pair.penstock.catch_up()
    assert pair.same() == 1


@pytest.mark.parametrize("leaf", [False, True])
def test_unlogged_tables_are_refused(pair, leaf):
    """A crash of the target empties them, whatever was made durable."""
    key = "id int PRIMARY KEY"
    pair.on_source(f"CREATE TABLE t ({key})")
    if leaf:
        pair.on_target(f"CREATE TABLE t ({key}) PARTITION BY RANGE (id);"
                       "CREATE UNLOGGED TABLE low PARTITION OF t DEFAULT")
    else:
        pair.on_target(f"CREATE UNLOGGED TABLE t ({key})")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    error = pair.penstock.fails().the_error()
    pair.on_target(re.search(r"ALTER TABLE .*? SET LOGGED", error).group(0))
    pair.penstock.catch_up()
    assert pair.same() == 1


@pytest.mark.parametrize("workers, rows", [(1, 1), (1, 500)], ids=["in one flight", "above it"])
@pytest.mark.parametrize("obstacle", ["""
    CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER leave_out BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION leave_out()""",
    "ALTER TABLE t ADD CHECK (10 / a > 0)"], ids=["trigger", "division"])
def test_a_row_that_the_target_does_not_take(pair, obstacle, workers, rows):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.on_target(obstacle)
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(1, %s) i", (rows,))
    error = pair.penstock.fails(workers=workers).the_error()
    assert "INSERT into public.t, key id=1," in error
    assert "trigger" in error or "division by zero" in error
    assert "no such row" not in error
    assert pair.on_target("SELECT count(*) FROM t") == [(0,)]


@pytest.mark.parametrize("damage, change", [
    ("DELETE FROM t WHERE id = 5", "UPDATE t SET a = 9 WHERE id = 5"),
    ("DELETE FROM t WHERE id = 5", "DELETE FROM t WHERE id = 5"),
    ("INSERT INTO t VALUES (100, 1)", "INSERT INTO t VALUES (100, 2)"),
])
def test_a_target_that_differs_stops_the_stream(pair, damage, change):
    """A row that is missing, or there already: named, and nothing is applied in part."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 10) i")
    pair.penstock.catch_up()
    pair.on_target(damage)
    before = pair.on_target("SELECT * FROM t ORDER BY 1")
    pair.transaction("UPDATE t SET a = 1000 WHERE id = 1", change)
    run = pair.penstock.fails()
    error = run.the_error()
    assert "t" in error and ("5" in error or "100" in error), error
    event, = [e for e in run.events() if e["level"] == "error"]
    assert event["lsn"] in error, "a program reads where, beside the words"
    assert pair.on_target("SELECT * FROM t ORDER BY 1") == before
    # put right by hand, it goes on
    pair.on_target("DELETE FROM t WHERE id = 100" if "100" in damage else "INSERT INTO t VALUES (5, 5)")
    pair.penstock.catch_up()
    pair.same()
