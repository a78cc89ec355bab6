"""Each type's values arrive as they are, odd ones included."""

import pytest

from lib.pair import drop_slot

# type, then literals as SQL; the first is what the row starts with, and NULL is added to each
TYPES = {
    "smallint": ["'-32768'", "32767"],
    "int": ["'-2147483648'", "2147483647"],
    "bigint": ["'-9223372036854775808'", "9223372036854775807"],
    "numeric": ["'NaN'", "'1.10'", "'-0.000000000000000000001'", "'1e100'", "0.00", "'Infinity'", "'-Infinity'"],
    "numeric(12,3)": ["123456789.125", "-0.001"],
    "real": ["'NaN'", "'Infinity'", "'-0'", "3.4028235e38", "0.1"],
    "float8": ["'NaN'", "'-Infinity'", "'-0'", "0.1", "'5e-324'", "1.7976931348623157e308", "1/3.0::float8"],
    "text": ["''", "'quote '' \" back \\ slash'", "E'tab\\t newline\\n return\\r bell\\x07'", "'ünï €𝄞 漢字'",
             "'{not,an,array}'", "'\\N'", "repeat('long ', 3000)", "'NULL'", "'(a,b)'"],
    "varchar(10)": ["''", "'0123456789'", "' x '"],
    "char(8)": ["'abc'", "''", "'  lead'"],
    '"char"': ["'a'", "'\\'"],
    "name": ["'some_name'"],
    "bytea": ["''", "'\\x00ff5c27'", "decode(repeat('00ff', 5000), 'hex')"],
    "boolean": ["true", "false"],
    "date": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'2024-02-29'", "'5874897-12-31'"],
    "time": ["'00:00'", "'24:00'", "'23:59:59.999999'"],
    "timetz": ["'12:00+14'", "'12:00:00.5-11:30'"],
    "timestamp": ["'infinity'", "'-infinity'", "'0044-03-15 12:00 BC'", "'2024-12-31 23:59:59.999999'"],
    "timestamptz": ["'infinity'", "'-infinity'", "'0044-03-15 12:00+01 BC'", "'2024-03-31 02:30+01'",
                    "'1890-01-01 00:00 Europe/Amsterdam'"],
    "interval": ["'1 year -2 mons +3 days -04:05:06.789'", "'-178000000 years'", "'0'", "'30 days'", "'1 mon'"],
    "uuid": ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
    "json": ["'{\"b\": 1, \"a\":  [1, 2 ], \"a\": null}'", "'null'", "'\"\\u00e9\"'"],
    "jsonb": ["'{\"b\": 1.10, \"a\": [1, {\"x\": \"q\\\"\"}]}'", "'null'", "'[]'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
    "int[]": ["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[0:2]={7,8,9}'"],
    "text[]": ["'{}'", "'{\"\",NULL,\"NULL\",\"a,b\",\"q\\\"\",\"{}\"}'", "array['it''s', E'\\\\', ' ']"],
    "numeric[]": ["'{NaN,1.10,-0.0}'"],
    "timestamptz[]": ["'{infinity,\"2024-01-01 00:00+00\"}'"],
    "jsonb[]": ["array['{\"a\": \"b,c\"}'::jsonb, 'null', NULL]"],
    "bytea[]": ["array['\\x00ff'::bytea, '']"],
    "inet": ["'192.168.0.1'", "'10.0.0.0/8'", "'::1'", "'fe80::1/64'"],
    "cidr": ["'10.0.0.0/8'", "'2001:db8::/32'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "int4range": ["'empty'", "'[1,10)'", "'(,5]'", "'(,)'"],
    "numrange": ["'[1.0,2.50]'"],
    "tstzrange": ["'[2024-01-01 00:00+00,infinity)'"],
    "daterange": ["'[2024-01-01,2024-02-01)'"],
    "int4multirange": ["'{[1,3),[5,9)}'", "'{}'"],
    "mood": ["'happy'", "'so \"so\", really'"],
    "mood[]": ["'{happy,\"so \\\"so\\\", really\"}'"],
    "positive": ["1", "1000000"],
    "positive[]": ["'{1,2}'"],
    "pairing": ["ROW(1, 'a,b \"(c)\"', ARRAY['x', NULL])", "ROW(NULL, NULL, NULL)", "ROW(NULL, '', '{}')"],
    "pairing[]": ["ARRAY[ROW(1, 'a,b', '{y}')::pairing, NULL]"],
    "bit(5)": ["B'10101'"],
    "varbit": ["B''", "B'101'"],
    "money": ["'-1234567.89'", "'0.01'"],
    "point": ["'(1.5,-2)'", "'(NaN,Infinity)'"],
    "line": ["'{1,-1,0}'"],
    "lseg": ["'[(0,0),(1,1)]'"],
    "box": ["'(1,1),(0,0)'"],
    "path": ["'[(0,0),(1,1),(2,0)]'", "'((0,0),(1,1))'"],
    "polygon": ["'((0,0),(1,1),(2,0))'"],
    "circle": ["'<(1,2),3.25>'"],
    "tsvector": ["'fat:2A cat:3 ''it''''s'':1'", "''"],
    "tsquery": ["'fat & (cat | !rat:AB)'"],
    "pg_lsn": ["'16/B374D848'"],
    "txid_snapshot": ["'10:20:10,14,15'"],
    "xid8": ["'18446744073709551615'"],
    "oid": ["4294967295"],
    "hstore": ["'a=>1, \"b c\"=>NULL, \"\"=>\"\"'", "''"],
    "citext": ["'MiXeD'", "''"],
    "xml": ["'<a b=\"c\">d &amp; e</a>'"],
}

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'happy', 'so "so", really');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pairing AS (n int, t text, list text[]);
"""


def usable(pair, name):
    """Contrib's types and xml are not everywhere, multiranges not before PostgreSQL 14."""
    try:
        if name in ("hstore", "citext"):
            pair.schema(f"CREATE EXTENSION IF NOT EXISTS {name}")
        if name == "xml":
            pair.on_source("SELECT '<a/>'::xml")
        pair.on_source(f"SELECT NULL::{name}")
    except Exception:  # whatever the server says: it does not have it
        return False
    return True


@pytest.fixture
def typed_pair(any_pair):
    any_pair.schema(SCHEMA)
    return any_pair


def make_tables(pair, names):
    columns = ", ".join(f"c{i} {name}" for i, name in enumerate(names))
    pair.schema(f"CREATE TABLE wide (id serial PRIMARY KEY, {columns})")
    for i, name in enumerate(names):
        pair.schema(f"CREATE TABLE narrow_{i} (id int PRIMARY KEY, v {name}, n int)")
        # Without a key each type must also be compared: with `=`, or as text where it has none.
        pair.schema(f"CREATE TABLE keyless_{i} (v {name}, n int); ALTER TABLE keyless_{i} REPLICA IDENTITY FULL")


@pytest.mark.smoke
def test_every_type(typed_pair):
    pair = typed_pair
    names = [name for name in TYPES if usable(pair, name)]
    make_tables(pair, names)
    pair.make_slot()
    for i, name in enumerate(names):
        values = [*(f"({literal})::{name}" for literal in TYPES[name]), f"NULL::{name}"]
        rows = ", ".join(f"({n}, {value}, 0)" for n, value in enumerate(values))
        pair.on_source(f"INSERT INTO narrow_{i} VALUES {rows}")
        pair.on_source("INSERT INTO keyless_{0} SELECT v, id FROM narrow_{0}".format(i))
        # each value as the new one, over a row that had another; then a row deleted
        rotated = values[1:] + values[:1]
        for n, value in enumerate(rotated):
            pair.on_source(f"UPDATE narrow_{i} SET v = {value}, n = n + 1 WHERE id = {n}")
        pair.on_source(f"UPDATE narrow_{i} SET n = n + 1")
        pair.on_source(f"DELETE FROM narrow_{i} WHERE id = {len(values) - 2}")
        pair.on_source(f"UPDATE keyless_{i} SET n = n + 100")
        pair.on_source(f"DELETE FROM keyless_{i} WHERE n = 100")
    firsts = ", ".join(f"({TYPES[name][0]})::{name}" for name in names)
    lasts = ", ".join(f"({TYPES[name][-1]})::{name}" for name in names)
    pair.transaction(f"INSERT INTO wide VALUES (DEFAULT, {firsts}), (DEFAULT, {lasts})")
    pair.transaction("INSERT INTO wide (id) VALUES (DEFAULT)")
    pair.transaction(*(f"UPDATE wide SET c{i} = NULL WHERE id = 1" for i in range(0, len(names), 2)))
    pair.penstock.catch_up()
    pair.same()


def test_many_rows_of_every_type(typed_pair):
    """Enough rows in one transaction that they go set-based, not row by row."""
    pair = typed_pair
    names = [name for name in TYPES if usable(pair, name)]
    make_tables(pair, names)
    pair.make_slot()
    for i, name in enumerate(names):
        literals = ", ".join(f"({n}, ({literal})::{name})" for n, literal in enumerate(TYPES[name]))
        pair.transaction(
            f"INSERT INTO narrow_{i} SELECT g, v.v, 0 FROM generate_series(1, 60) g"
            f" LEFT JOIN (VALUES {literals}) AS v (n, v) ON v.n = g % {len(TYPES[name]) + 1}")
        pair.transaction(f"UPDATE narrow_{i} SET v = CASE WHEN id % 2 = 0 THEN v END, n = id WHERE id > 10")
        pair.transaction(f"UPDATE narrow_{i} SET id = id + 100 WHERE id > 50")
        pair.transaction(f"DELETE FROM narrow_{i} WHERE id % 7 = 0")
    pair.penstock.catch_up()
    pair.same()


# Types that can be a key, each with values some of which are equal though their bytes differ.
KEYS = {
    "int": ["1", "2", "3"],
    "numeric": ["1.0", "2.00", "'NaN'"],
    "float8": ["'0'", "'NaN'", "1.5"],
    "text": ["'a'", "'A'", "''"],
    "char(6)": ["'a'", "'ab '", "''"],
    "bytea": ["''", "'\\x00'", "'\\x0000'"],
    "uuid": ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"],
    "timestamptz": ["'infinity'", "'2024-01-01 00:00+00'", "'2024-01-01 00:00+01'"],
    "interval": ["'1 mon'", "'1 day'", "'0'"],
    "jsonb": ["'{\"a\": 1.0}'", "'[]'", "'null'"],
    "int[]": ["'{}'", "'{1}'", "'{1,NULL}'"],
    "inet": ["'10.0.0.1'", "'10.0.0.1/8'", "'::1'"],
    "mood": ["'sad'", "'happy'"],
    "positive": ["1", "2"],
    "int4range": ["'empty'", "'[1,2)'", "'[1,3)'"],
    "bit(3)": ["B'000'", "B'001'"],
    "citext": ["'a'", "'b'"],
}
# The same key written differently by a later transaction.
RESPELLED = {
    "numeric": ("'1.0'", "'1.000'"),
    "float8": ("'0'", "'-0'"),
    "interval": ("'1 mon'", "'30 days'"),
    "jsonb": ("'{\"a\": 1.0}'", "'{\"a\": 1.00}'"),
    "citext": ("'a'", "'A'"),
}


def test_every_type_as_a_key(typed_pair):
    pair = typed_pair
    names = [name for name in KEYS if usable(pair, name)]
    for i, name in enumerate(names):
        pair.schema(f"CREATE TABLE key_{i} (k {name} PRIMARY KEY, n int)")
    pair.make_slot()
    for round_ in range(4):
        for i, name in enumerate(names):
            for n, literal in enumerate(KEYS[name]):
                pair.on_source(f"INSERT INTO key_{i} VALUES (({literal})::{name}, {n})"
                               f" ON CONFLICT (k) DO UPDATE SET n = key_{i}.n + 1")
            if name in RESPELLED:
                old, new = RESPELLED[name]
                pair.on_source(f"UPDATE key_{i} SET k = {new}, n = n + 10 WHERE k = ({old})::{name}")
                pair.on_source(f"DELETE FROM key_{i} WHERE k = ({old})::{name}")
                pair.on_source(f"INSERT INTO key_{i} VALUES ({old}, -1)")
                pair.on_source(f"DELETE FROM key_{i} WHERE k = ({new})::{name}")
                pair.on_source(f"INSERT INTO key_{i} VALUES ({new}, {round_})")
            else:
                pair.on_source(f"DELETE FROM key_{i} WHERE k = ({KEYS[name][0]})::{name}")
                pair.on_source(f"INSERT INTO key_{i} VALUES (({KEYS[name][0]})::{name}, {round_})")
    pair.penstock.catch_up()
    pair.same()


@pytest.mark.parametrize("form", ["text", "binary"])
def test_settings_of_the_servers_do_not_change_values(make_pair, form):
    """Databases on both sides that show dates and floats their own way, and read arrays so."""
    pair = make_pair("owner")
    for cluster, zone, style, interval in (
        (pair.source_cluster, "Asia/Tokyo", "German", "iso_8601"),
        (pair.target_cluster, "America/New_York", "SQL, DMY", "sql_standard"),
    ):
        for setting in (f"TimeZone = '{zone}'", f"DateStyle = '{style}'", f"IntervalStyle = '{interval}'",
                        "extra_float_digits = -10", "bytea_output = 'escape'", "array_nulls = off"):
            cluster.sql(f"ALTER DATABASE {pair.name} SET {setting}")
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, a timestamptz, b date, c interval, d float8, e bytea,
        f timestamptz[], g tstzrange, h text, i text[]); CREATE TABLE k (a timestamptz, d float8, c interval);
        ALTER TABLE k REPLICA IDENTITY FULL""")
    pair.make_slot()
    pair.on_source("""INSERT INTO t SELECT i, '2024-03-04 05:06:07.123456+00'::timestamptz + i * interval '1 hour',
        '2024-03-04', '1 year -2 days +03:04:05.6', 1 / 3.0::float8, '\\x00275cff', '{2024-03-04 00:00+00}',
        '[2024-03-04 00:00+00,2024-04-03 00:00+00)', NULLIF('x', 'x'), ARRAY['a', NULL]
        FROM generate_series(1, 20) i""")
    pair.on_source("INSERT INTO k SELECT a, d, c FROM t")
    pair.on_source("UPDATE k SET d = 2 / 3.0::float8")
    pair.on_source("DELETE FROM k WHERE a > '2024-03-04 12:00+00'")
    pair.penstock.catch_up(format=form)
    for connection in (pair.source, pair.target):
        with connection.cursor() as cursor:
            cursor.execute("SET TimeZone = UTC; SET DateStyle = ISO; SET IntervalStyle = postgres;"
                           "SET extra_float_digits = 1; SET bytea_output = hex")
    pair.same()


@pytest.mark.parametrize("encodings", [("LATIN1", "UTF8"), ("UTF8", "LATIN1")])
def test_encodings(pair, encodings, clusters, tmp_path):
    """Two databases that store text, and names, in different encodings."""
    name = pair.name + "_enc"
    folder = tmp_path / "enc"
    folder.mkdir()
    for cluster, encoding in zip(clusters, encodings):
        cluster.sql(f"CREATE DATABASE {name} OWNER owner TEMPLATE template0 ENCODING '{encoding}'"
                    " LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        for cluster in clusters:
            cluster.sql('CREATE TABLE "café" (id int PRIMARY KEY, "ü" text)', dbname=name, role="owner")
        source = pair.source_cluster
        source.sql(f'CREATE PUBLICATION "{name}" FOR TABLE "café"', dbname=name, role="owner")
        source.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,), dbname=name)
        source.sql("INSERT INTO \"café\" VALUES (1, U&'caf\\00e9 \\00fc\\00df')", dbname=name)
        pair.penstock.catch_up(
            "--table", "café", source=clusters[0].uri(name, "owner"),
            target=clusters[1].uri(name, "owner"), name=name, dir=folder / "state")
        assert clusters[1].sql('SELECT "ü" FROM "café"', dbname=name) == [("café üß",)]
    finally:
        pair.penstock.kill_all()
        clusters[0].sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                        " WHERE slot_name = %s", (name,))
        if clusters[0].sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s", (name,)):
            drop_slot(clusters[0], name)
        for cluster in clusters:
            cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
