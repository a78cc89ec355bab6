"""Changes of many rows in one statement: every kind of column and value goes through it, what it cannot do is done
row by row, and what the target refuses is applied again in the source's order. How many statements a table met is
counted on the target, by a trigger for each statement."""

import random

import pytest

from lib.program import DONE, FAILED

# A function that is declared IMMUTABLE is no barrier to penstock; it may not write, but draw from a sequence.
COUNTED = """
    CREATE FUNCTION count_it() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM nextval(format('public.%I', TG_TABLE_NAME || ' ' || lower(TG_OP))); RETURN NULL; END $$;"""


def count_statements(pair, *tables):
    pair.on_target(COUNTED + "".join(
        f"""CREATE SEQUENCE "{table} insert"; CREATE SEQUENCE "{table} update"; CREATE SEQUENCE "{table} delete";
            CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT
            EXECUTE FUNCTION count_it(); ALTER TABLE {table} ENABLE ALWAYS TRIGGER counted;""" for table in tables))


def counted(pair):
    return {name: count for name, count in pair.on_target(
        "SELECT sequencename, last_value::int FROM pg_sequences WHERE last_value IS NOT NULL")}


# What reads an array has its own ideas of, as text.
WORDS = ["", " ", "NULL", "null", '"', "\\", "{", "}", ",", ";", "a,b", "{a}", '\\"', "'", "\n", "\t x", "é€😀",
         "\\x00", "x" * 3000]

COLUMNS = {  # type: values
    "int": ["0", "-2147483648", "2147483647"],
    "numeric": ["0.00", "-1.50", "NaN", "1e100", "12345678901234567890.123456789"],
    "float8": ["0", "-0", "NaN", "Infinity", "1e-300"],
    "text": WORDS,
    "varchar(3000)": WORDS,
    "char(5)": ["a", "", "a  b"],
    "bytea": ["\\x", "\\x00ff5c22", "\\x" + "ab" * 500],
    "bool": ["t", "f"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "date": ["2026-02-28", "0044-03-15 BC", "infinity"],
    "timestamptz": ["2026-02-28 12:00:00.123456+02", "-infinity"],
    "interval": ["1 year -3 days 00:00:00.5", "-1 mon"],
    "json": ['{"a": [1,  "x"], "b": "\\\\"}', "null"],
    "jsonb": ['{"a": [1, "\\"{,"]}', '"NULL"'],
    "inet": ["192.168.0.1/24", "::1"],
    "bit(3)": ["101"],
    "varbit": ["", "10101"],
    "point": ["(1,2)"],
    "box": ["(2,2),(1,1)"],
    "path": ["[(1,1),(2,2)]"],
    "tsvector": ["'a':1 'b c':2,3A"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "nummultirange": ["{[1,2),[3,4)}", "{}"],
    "pg_lsn": ["16/B374D848"],
    "xml": ["<a b=\"c\">{x}</a>"],
    "name": ["a name"],
    '"char"': ["x"],
    "int[]": ["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[2:3]={7,8}"],
    "text[]": ['{"a,b","\\"",NULL,"NULL",""}', "{}"],
    "varchar(5)[]": ["{ab,cde}"],
    "mood": ["so-so", "a, \"b\" {}"],
    "short": ["abc"],
    "ints": ["{1,2}"],
    "pair": ['(1,"a ""b"", {c}\\\\")', "(,)"],
    "pair[]": ['{"(1,x)","(,)"}'],
    "moods": ["so-so"],
}

# name is no column for a source's COPY of types that only one side has
TYPES = """
    CREATE TYPE mood AS ENUM ('so-so', 'a, "b" {}');
    CREATE TYPE pair AS (n int, t text);
    CREATE DOMAIN short AS varchar(10) CHECK (value <> 'no');
    CREATE DOMAIN ints AS int[];
    CREATE DOMAIN moods AS mood NOT NULL;"""


@pytest.mark.parametrize("form", ["text", "binary"])
def test_every_kind_of_value(any_pair, form):
    """In a transaction of many rows: put in, changed, changed in part, taken out."""
    pair = any_pair
    types = {t: v for t, v in COLUMNS.items()
             if form == "text" or t not in ("mood", "pair", "pair[]", "moods", "xml")}
    columns = [f"c{i} {t}" for i, t in enumerate(types)]
    pair.schema(TYPES + f"CREATE TABLE t (id int PRIMARY KEY, {', '.join(columns)});"
                "ALTER TABLE t ALTER c3 SET STORAGE EXTERNAL;")
    count_statements(pair, "t")
    pair.make_slot()
    chance = random.Random(7)
    rows = 60

    def value(kind):
        if kind != "moods" and chance.random() < 0.15:
            return "NULL"
        one = chance.choice(types[kind]).replace("'", "''")
        return f"'{one}'::{kind}"

    pair.transaction(*(f"INSERT INTO t VALUES ({i}, {', '.join(value(t) for t in types)})" for i in range(rows)))
    pair.penstock.catch_up(format=form)
    assert pair.same() == rows
    pair.transaction(*(
        f"UPDATE t SET {', '.join(f'c{k} = {value(t)}' for k, t in enumerate(types) if t != 'text')} WHERE id = {i}"
        for i in range(0, rows, 2)))
    pair.transaction(*(f"UPDATE t SET c3 = {value('text')} WHERE id = {i}" for i in range(1, rows, 2)))
    pair.penstock.catch_up(format=form)
    assert pair.same() == rows
    pair.transaction("DELETE FROM t WHERE id % 3 = 0")
    pair.penstock.catch_up(format=form)
    assert pair.same() == rows * 2 // 3
    met = counted(pair)
    if form == "text":  # in binary, arrays cannot be elements of arrays: these rows go one by one
        assert met["t insert"] < 10 and met["t update"] < 20 and met["t delete"] < 5, met
    else:
        assert met["t insert"] == rows, met


def test_rows_in_binary_go_in_sets(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id bigint PRIMARY KEY, n numeric, a text, b bytea, at timestamptz, j jsonb)")
    count_statements(pair, "t")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i / 7.0, 'x' || i, '\\x00', now(), '{\"i\": 1}' FROM"
                   " generate_series(1, 3000) i")
    pair.on_source("UPDATE t SET n = NULL, a = a || '\"' WHERE id % 2 = 0")
    pair.on_source("DELETE FROM t WHERE id > 2000")
    pair.penstock.catch_up(format="binary", workers=1)
    assert pair.same() == 2000
    met = counted(pair)
    assert sum(met.values()) < 60, met


def test_rows_one_by_one_where_that_is_asked_for(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)")
    count_statements(pair, "t")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 100) i")
    pair.penstock.catch_up("--apply", "rows")
    assert pair.same() == 100
    assert counted(pair) == {"t insert": 100}


def test_changes_of_one_row_become_one(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int, a text)")
    count_statements(pair, "t")
    pair.make_slot()
    statements = []
    for i in range(20):
        statements += [f"INSERT INTO t VALUES ({i}, 0, 'new')", f"UPDATE t SET n = n + 1 WHERE id = {i}",
                       f"UPDATE t SET a = 'newer' WHERE id = {i}"]
    statements += [f"DELETE FROM t WHERE id = {i}" for i in range(10)]
    statements += ["INSERT INTO t VALUES (3, 33, 'again')"]
    pair.transaction(*statements)
    pair.penstock.catch_up()
    assert pair.same() == 11
    assert counted(pair) == {"t insert": 1}


def test_what_the_target_refuses_in_a_set_goes_in_order(any_pair):
    """Unique values that go round, which no order of one statement can do: row by row it can. The table is then left
    alone for a while, so not every batch is applied twice."""
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code int UNIQUE)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    run = pair.penstock.start(workers=1)
    pair.wait_rows("t", 20, run)
    for _ in range(15):
        pair.transaction("UPDATE t SET code = -1 WHERE id = 20", *(
            f"UPDATE t SET code = {i + 1} WHERE id = {i}" for i in range(19, 0, -1)), "UPDATE t SET code = 1 WHERE id = 20",
            "UPDATE t SET code = code * -1 WHERE id % 2 = 0", "UPDATE t SET code = code * -1 WHERE id % 2 = 0",
            *(f"UPDATE t SET code = {i} + 100 WHERE id = {i}" for i in range(1, 21)),
            *(f"UPDATE t SET code = {i % 20 + 1} WHERE id = {i}" for i in range(1, 21)))
    pair.on_source("INSERT INTO t VALUES (21, 21)")
    pair.wait_rows("t", 21, run)
    run.stop()
    assert pair.same() == 21
    assert run.finished()["retries"] < 10


@pytest.mark.parametrize("big", [False, True], ids=["a batch", "a large one"])
def test_a_row_that_is_missing_is_found_in_a_set(any_pair, big):
    """The count of the whole set tells; the error names the row."""
    pair = any_pair
    rows = 40_000 if big else 500
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int, a text)")
    pair.make_slot()
    pair.on_source(f"INSERT INTO t SELECT i, 0, repeat('x', 100) FROM generate_series(1, {rows}) i")
    pair.penstock.catch_up()
    pair.on_target("DELETE FROM t WHERE id = 77")
    pair.on_source("UPDATE t SET n = 1")
    run = pair.penstock.fails(workers=2, memory="16MB")
    assert "id=77" in run.the_error() and "no such row" in run.the_error()
    assert pair.on_target("SELECT count(*) FROM t WHERE n = 1") == [(0,)]
    run = pair.penstock.start("--on-conflict", "overwrite", "--stop-when-caught-up", memory="16MB")
    run.wait(120, expect=DONE)
    assert pair.same() == rows


def test_families_with_enforced_keys_go_in_sets(make_pair):
    """Parents before children, children before parents; what a key does by itself keeps its place."""
    pair = make_pair("owner")
    pair.schema("""
        CREATE TABLE parent (id int PRIMARY KEY, n int);
        CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent, n int);
        CREATE TABLE owner_ (id int PRIMARY KEY, n int);
        CREATE TABLE owned (id int PRIMARY KEY, owner int REFERENCES owner_ ON DELETE SET NULL, n int);
        CREATE TABLE part (id int PRIMARY KEY, owned int REFERENCES owned ON DELETE CASCADE, n int)""")
    count_statements(pair, "parent", "child", "owner_", "owned", "part")
    pair.make_slot()
    pair.transaction(*(
        statement for i in range(40) for statement in (
            f"INSERT INTO parent VALUES ({i}, 0)", f"INSERT INTO child VALUES ({i}, {i}, 0)",
            f"INSERT INTO owner_ VALUES ({i}, 0)", f"INSERT INTO owned VALUES ({i}, {i}, 0)",
            f"INSERT INTO part VALUES ({i}, {i}, 0)")))
    pair.transaction(
        *(f"DELETE FROM child WHERE id = {i}" for i in range(10)), *(f"DELETE FROM parent WHERE id = {i}" for i in range(10)),
        *(f"UPDATE owned SET owner = {i + 1} WHERE id = {i}" for i in range(20)), "DELETE FROM owner_ WHERE id = 39",
        "UPDATE owned SET owner = 38 WHERE id = 39", "DELETE FROM owned WHERE id IN (5, 6)",
        "DELETE FROM owner_ WHERE id = 7", "INSERT INTO owner_ VALUES (7, 1)", "UPDATE owned SET owner = 7 WHERE owner IS NULL")
    run = pair.penstock.catch_up(workers=1)
    assert pair.same() > 150
    assert run.finished()["retries"] == 0
    met = counted(pair)
    assert met["parent insert"] == met["child insert"] == 1, met
