"""Rows in binary and as text: what auto chooses, and that both bring the same."""

import re

import pytest

from lib.cluster import Cluster
from lib.program import DONE, FAILED, USAGE, wait_until
from lib.versions import programs_of
from test_types import KEYS, RESPELLED, SCHEMA, TYPES

# Those of test_types.TYPES, and some more, whose binary form does not mean the same everywhere.
TEXT_ONLY = {
    "mood": "public.mood", "mood[]": "public.mood[]", "positive[]": "public.positive[]",
    "pairing": "public.pairing", "pairing[]": "public.pairing[]", "money": "money", "money[]": "money[]",
    "regclass": "regclass", "regtype[]": "regtype[]", "regconfig": "regconfig", "oidvector": "oidvector",
    "int2vector": "int2vector", "own_range": "public.own_range", "own_multirange": "public.own_multirange",
    "mood_domain": "public.mood_domain", "hstore": "public.hstore", "citext": "public.citext", "xml": "xml",
}
VALUES = {
    "money[]": "'{1.00}'", "regclass": "'pg_class'", "regtype[]": "'{int4,public.mood}'", "regconfig": "'english'",
    "oidvector": "''", "int2vector": "'1 2'", "own_range": "'[1,2.5)'", "own_multirange": "'{[1,2.5)}'",
    "mood_domain": "'happy'",
}
# Domains come as what they are of. %L of boolean, inet and char(n) is not what their casts to text give.
DOMAINS = {
    "positive": ["1", "2147483647"],
    "even": ["2", "1000000"],
    "yes": ["true", "false"],
    "host": ["'10.0.0.1'", "'10.0.0.0/8'"],
    "code": ["'ab'", "'abcd'"],
    "title": ["''", "'x '"],
    "list": ["'{}'", "'{1,NULL}'", "'[0:1]={3,4}'"],
    "amount": ["1.10", "1.1", "'NaN'"],
    "span": ["'[1,5)'", "'empty'"],
}
MORE = {
    "numeric": ["'1e-1000'::numeric + 1e1000", "9.99e130000", "'0.0000'", "-1e-16000"],
    "int[]": ["'{{{1},{NULL}}}'", "'[-5:-4][2:2]={{1},{2}}'"],
    "text[]": ["'{{a,NULL},{\"\",\"x y\"}}'"],
    "date": ["'0001-12-31 BC'"],
    "interval[]": ["'{1 mon,NULL,-1 day}'"],
    "uuid[]": ["'{00000000-0000-0000-0000-000000000000}'"],
    "float4[]": ["'{NaN,-0,Infinity,1e-45}'"],
    "bytea": ["'\\x00'", "convert_to(repeat('x', 100000), 'UTF8')"],
    "bpchar": ["'a'", "'a  '", "''"],
    "varchar": ["'a '", "''"],
    "varbit[]": ["'{101,\"\"}'"],
    "tid": ["'(4294967295,65535)'"],
    "xid": ["'4294967295'"],
    "cid": ["'1'"],
    "pg_snapshot": ["'10:20:10,14,15'"],
    "refcursor": ["'c'"],
    "int8range": ["'[1,9223372036854775807)'"],
    "tsrange": ["'[\"0044-03-15 12:00 BC\",infinity]'"],
    "tstzrange[]": ["'{\"[2024-01-01 00:00+00,infinity)\",empty,NULL}'"],
    "nummultirange": ["'{[1.0,2.50],(3,)}'"],
    "tsmultirange": ["'{}'"],
    "tstzmultirange": ["'{[2024-01-01 00:00+00,infinity)}'"],
    "datemultirange": ["'{[2024-01-01,2024-02-01)}'"],
    "int8multirange": ["'{[1,2),[5,6)}'"],
    "int4multirange[]": ["array['{[1,2),[5,6)}'::int4multirange]"],
    "json[]": ["array['{\"a\":  1}'::json]"],
    "tsvector[]": ["array['a:1A b'::tsvector]"],
    "timestamptz(3)": ["'2024-12-31 23:59:59.123+00'"],
    "interval day to second": ["'3 days 04:05:06.789'"],
    "bit varying(7)": ["B'1010101'"],
    "name[]": ["'{a,NULL}'"],
    '"char"[]': ["'{a,b}'"],
}
DOMAIN_SCHEMA = """
CREATE DOMAIN even AS positive CHECK (VALUE % 2 = 0);
CREATE DOMAIN yes AS boolean;
CREATE DOMAIN host AS inet;
CREATE DOMAIN code AS char(4);
CREATE DOMAIN title AS varchar(20);
CREATE DOMAIN list AS int[];
CREATE DOMAIN amount AS numeric(10,2);
CREATE DOMAIN span AS int4range;
CREATE DOMAIN mood_domain AS mood;
CREATE TYPE own_range AS RANGE (subtype = numeric);
"""
# "of each type" below
EVERY = {name: TYPES.get(name, []) + MORE.get(name, []) for name in [*TYPES, *MORE] if name not in TEXT_ONLY} | DOMAINS


@pytest.fixture
def domains(any_pair):
    any_pair.schema(SCHEMA + DOMAIN_SCHEMA)
    return any_pair


def comes(run):
    """What the log says of the format; once."""
    said = [e["message"] for e in run.events() if e["message"].startswith("the stream comes")]
    assert len(said) == 1, run.stderr[-4000:]
    return said[0]


def write_every_type(pair, types):
    """Each value inserted, updated to and from, deleted; by a key, and by the whole row."""
    for i, (name, literals) in enumerate(types.items()):
        values = [*(f"({literal})::{name}" for literal in literals), f"NULL::{name}"]
        rows = ", ".join(f"({n}, {value}, 0)" for n, value in enumerate(values))
        pair.on_source(f"INSERT INTO narrow_{i} VALUES {rows}")
        pair.on_source("INSERT INTO keyless_{0} SELECT v, id FROM narrow_{0}".format(i))
        pair.on_source("INSERT INTO full_{0} SELECT id, v, n FROM narrow_{0}".format(i))
        for n, value in enumerate(values[1:] + values[:1]):
            pair.on_source(f"UPDATE narrow_{i} SET v = {value}, n = n + 1 WHERE id = {n}")
        pair.on_source(f"UPDATE narrow_{i} SET n = n + 1")
        pair.on_source(f"DELETE FROM narrow_{i} WHERE id = {len(values) - 1}")
        pair.on_source(f"UPDATE full_{i} SET n = n + 1, id = id + 1000")
        pair.on_source(f"DELETE FROM full_{i} WHERE id = 1000")
        pair.on_source(f"UPDATE keyless_{i} SET n = n + 100")
        pair.on_source(f"DELETE FROM keyless_{i} WHERE n = 100")


def tables_of(pair, types):
    for i, name in enumerate(types):
        pair.schema(f"CREATE TABLE narrow_{i} (id int PRIMARY KEY, v {name}, n int);"
                    f"CREATE TABLE full_{i} (id int PRIMARY KEY, v {name}, n int);"
                    f"ALTER TABLE full_{i} REPLICA IDENTITY FULL;"
                    f"CREATE TABLE keyless_{i} (v {name}, n int); ALTER TABLE keyless_{i} REPLICA IDENTITY FULL")


@pytest.mark.smoke
@pytest.mark.parametrize("format_", ["binary", "text"])
def test_every_type(domains, format_):
    pair = domains
    tables_of(pair, EVERY)
    pair.make_slot()
    write_every_type(pair, EVERY)
    if format_ == "binary":
        assert comes(pair.penstock.catch_up()) == "the stream comes in binary"
    else:
        assert comes(pair.penstock.catch_up(format="text")) == "the stream comes as text, as --format asks"
    assert pair.same() > len(EVERY)


def keys():
    return {name: KEYS[name] for name in KEYS if name not in TEXT_ONLY} | {
        name: DOMAINS[name] for name in DOMAINS if name != "yes"} | {
        "varchar(8)": ["'a'", "'a '"], "name": ["'a'", "'b'"], '"char"': ["'a'", "'b'"], "cidr": ["'10.0.0.0/8'", "'::/0'"],
        "macaddr": ["'08:00:2b:01:02:03'"], "date": ["'infinity'", "'0044-03-15 BC'"], "timetz": ["'12:00+14'", "'12:00+13'"],
        "boolean": ["true", "false"], "oid": ["1", "4294967295"], "xid8": ["'1'", "'18446744073709551615'"],
        "pg_lsn": ["'16/B374D848'"], "text[]": ["'{}'", "'{a,NULL}'"], "varbit": ["B''", "B'1'"],
        "tsvector": ["'a:1'", "''"], "int4multirange": ["'{}'", "'{[1,2)}'"], "tstzrange": ["'empty'", "'(,)'"]}


@pytest.mark.parametrize("format_", ["binary", "text"])
def test_every_type_as_a_key(domains, format_):
    pair = domains
    for i, name in enumerate(keys()):
        pair.schema(f"CREATE TABLE key_{i} (k {name} PRIMARY KEY, n int)")
    pair.make_slot()
    for round_ in range(3):
        for i, (name, literals) in enumerate(keys().items()):
            for n, literal in enumerate(literals):
                pair.on_source(f"INSERT INTO key_{i} VALUES (({literal})::{name}, {n})"
                               f" ON CONFLICT (k) DO UPDATE SET n = key_{i}.n + 1")
            old, new = RESPELLED.get(name, (literals[0], literals[0]))
            pair.on_source(f"UPDATE key_{i} SET k = ({new})::{name}, n = n + 10 WHERE k = ({old})::{name}")
            pair.on_source(f"DELETE FROM key_{i} WHERE k = ({old})::{name}")
            pair.on_source(f"INSERT INTO key_{i} VALUES (({old})::{name}, {round_})")
    pair.penstock.catch_up(format=format_)
    assert pair.same() > len(keys())


@pytest.mark.parametrize("format_", ["binary", "text"])
def test_identity_and_generated_columns(any_pair, format_):
    pair = any_pair
    pair.schema("""
        CREATE TABLE numbered (k timestamptz PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, b bytea, j jsonb, x text,
            twice bigint GENERATED ALWAYS AS (length(x) * 2) STORED);
        ALTER TABLE numbered ALTER x SET STORAGE EXTERNAL;
        CREATE TABLE bag (n smallint GENERATED ALWAYS AS IDENTITY, f float8, c char(3), a numeric[], x text);
        ALTER TABLE bag REPLICA IDENTITY FULL; ALTER TABLE bag ALTER x SET STORAGE EXTERNAL""")
    pair.make_slot()
    pair.on_source("""INSERT INTO numbered (k, b, j, x) SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour',
        '\\x00ff', '{"a": 1.0}', repeat(i || 'x', 3000) FROM generate_series(1, 9) i""")
    pair.on_source("INSERT INTO bag (f, c, a, x) SELECT '-0', 'a', '{1.0,NaN}', repeat('y', 3000) FROM generate_series(1, 4)")
    for table in ("numbered", "bag"):
        pair.on_source(f"UPDATE {table} SET n = DEFAULT WHERE n % 2 = 0")
        pair.on_source(f"UPDATE {table} SET n = DEFAULT, x = x || '!' WHERE n % 3 = 0")
        pair.on_source(f"UPDATE {table} SET x = NULL WHERE n = (SELECT min(n) FROM {table})")
        pair.on_source(f"DELETE FROM {table} WHERE n = (SELECT max(n) FROM {table})")
    pair.penstock.catch_up(format=format_)
    assert pair.same() > 0


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_types_that_must_come_as_text(pair, name):
    if name in ("hstore", "citext"):
        try:
            pair.schema(f"CREATE EXTENSION {name}")
        except Exception:
            pytest.skip(f"{name} is not installed")
    if name == "xml":
        try:
            pair.on_source("SELECT '<a/>'::xml")
        except Exception:
            pytest.skip("the server has no xml")
    pair.schema(SCHEMA + DOMAIN_SCHEMA)
    pair.schema(f"CREATE TABLE before (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, odd {name}, n int)")
    pair.make_slot()
    literal = VALUES.get(name) or TYPES[name][0]
    pair.on_source(f"INSERT INTO t VALUES (1, ({literal})::{name}, 0), (2, NULL, 0)")
    refused = pair.penstock.fails(format="binary", expect=USAGE).the_error()
    assert f"--format binary is not possible: column public.t.odd is of type {TEXT_ONLY[name]}; take" in refused
    assert "--format auto or text" in refused
    run = pair.penstock.catch_up()
    assert comes(run) == f"the stream comes as text: column public.t.odd is of type {TEXT_ONLY[name]}"
    assert pair.same() == 2


@pytest.mark.parametrize("types", [
    ("int", "smallint"), ("bigint", "int"), ("numeric", "float8"), ("float4", "float8"), ("timestamp", "timestamptz"),
    ("bigint", "timestamptz"), ("text", "bytea"), ("char(3)", "text"), ("json", "jsonb"), ("int[]", "bigint[]"),
    ("text", "mood"), ("positive", "title")])
def test_types_that_differ(pair, types):
    """Some of them would be taken in binary without a word, as another value."""
    pair.schema(SCHEMA + DOMAIN_SCHEMA)
    for run, name in zip((pair.on_source, pair.on_target), types):
        run(f"CREATE TABLE t (id int PRIMARY KEY, odd {name})")
    pair.make_slot()
    for on in (pair.on_source, pair.on_target):
        on("SET search_path = ''")
    names = [on("SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = 'public.t'::regclass"
                " AND attname = 'odd'")[0][0] for on in (pair.on_source, pair.on_target)]
    assert "--format binary is not possible" in pair.penstock.fails(format="binary", expect=USAGE).the_error()
    said = comes(pair.penstock.catch_up())
    assert said == ("the stream comes as text: column public.t.odd is of type"
                    f" {names[0]} on the source and {names[1]} on the target")


@pytest.mark.parametrize("types", [
    ("smallint", "int"), ("smallint", "bigint"), ("int", "bigint"), ("varchar(5)", "text"), ("text", "varchar(9)"),
    ("positive", "bigint"), ("int", "positive"), ("title", "text")])
def test_types_that_only_widen(pair, types):
    pair.schema(SCHEMA + DOMAIN_SCHEMA)
    for run, name in zip((pair.on_source, pair.on_target), types):
        run(f"CREATE TABLE t (odd {name} PRIMARY KEY, n int); CREATE TABLE bag (odd {name});"
            "ALTER TABLE bag REPLICA IDENTITY FULL")
    pair.make_slot()
    values = (1, 32767) if "int" in types[0] + types[1] else ("", "ab ")
    for value in values:
        for table in ("t", "bag"):
            pair.on_source(f"INSERT INTO {table} (odd) VALUES (%s)", (value,))
    pair.on_source("UPDATE t SET n = 1")
    pair.on_source("UPDATE t SET odd = %s WHERE odd = %s", (9, 1) if values[0] == 1 else ("z", "ab "))
    pair.on_source("DELETE FROM bag WHERE odd = %s", (values[1],))
    pair.on_source("DELETE FROM t WHERE odd = %s", (values[1],))
    pair.penstock.catch_up(format="binary")
    pair.same()


def test_the_wire_is_as_said(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    asked = ("SELECT a.query FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid"
             " WHERE s.slot_name = %s")
    for format_, binary in ((None, True), ("text", False), ("binary", True), ("auto", True)):
        run = pair.penstock.start(format=format_)
        # the session that makes the slot has it for a moment, too
        (query,), = wait_until(lambda: [row for row in pair.source_cluster.sql(asked, (pair.name,))
                                        if row[0].startswith("START_REPLICATION")], what="the walsender")
        assert ("binary 'true'" in query) == binary
        run.stop()
        wait_until(lambda: not pair.source_cluster.sql(asked, (pair.name,)), what="the end of the walsender")


def test_column_lists_and_generated_columns_decide(pair):
    """What is not published does not matter."""
    if pair.source.server_version < 150000:
        pytest.skip("the source has no column lists")
    pair.schema(SCHEMA)
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, odd mood, n int,
        computed mood GENERATED ALWAYS AS ('happy'::mood) STORED)""")
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE t (id, n)")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_source("INSERT INTO t VALUES (1, 'sad', 7)")
    pair.penstock.catch_up(format="binary")
    assert pair.on_target("SELECT id, odd, n FROM t") == [(1, None, 7)]


def test_a_key_is_legible(pair):
    """What a conflict's message says of a row that came in binary."""
    pair.schema("CREATE TABLE t (a int, b uuid, c text, d date, n int, PRIMARY KEY (a, b, c, d))")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (-7, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'shoe', '2000-01-02', 0)")
    pair.penstock.catch_up(format="binary")
    pair.on_target("DELETE FROM t")
    pair.on_source("UPDATE t SET n = 1")
    error = pair.penstock.fails().the_error()
    assert "key a=-7, b=a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11, c=shoe, d=\\x00000001" in error


def ends_in_words(pair, run, column, type_):
    run.wait(60, FAILED)
    error = run.the_error()
    assert (f'the stream comes in binary, and column "{column}" of public.' in error
            and f"of type {type_} on the target, must come as text; start again with --format auto, which decides anew" in error)


def test_a_table_with_an_enum_joins_a_binary_stream(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, v int)")
    pair.make_slot()
    run = pair.penstock.start()
    pair.on_source("INSERT INTO t VALUES (1, 1)")
    pair.wait_rows("t", 1, run)
    pair.schema("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE late (id int PRIMARY KEY, m mood)")
    pair.on_source(f"ALTER PUBLICATION {pair.name} ADD TABLE late")
    pair.on_source("INSERT INTO t VALUES (2, 2)")
    pair.on_source("INSERT INTO late VALUES (1, 'happy')")
    pair.on_source("INSERT INTO t VALUES (3, 3)")
    ends_in_words(pair, run, "m", "public.mood")
    assert pair.on_target("SELECT count(*) FROM late") == [(0,)]
    assert comes(pair.penstock.catch_up()) == "the stream comes as text: column public.late.m is of type public.mood"
    assert pair.same() == 4


def test_a_domain_that_is_younger_than_the_stream(pair):
    """What it is of, only the next start can tell."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    run = pair.penstock.start()
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.wait_rows("t", 1, run)
    pair.schema("CREATE DOMAIN even AS int; CREATE TABLE late (id int PRIMARY KEY, e even)")
    pair.on_source(f"ALTER PUBLICATION {pair.name} ADD TABLE late")
    pair.on_source("INSERT INTO late VALUES (1, 2)")
    ends_in_words(pair, run, "e", "public.even")
    assert comes(pair.penstock.catch_up()) == "the stream comes in binary"
    assert pair.same() == 2


def test_a_type_changes_in_a_binary_stream(pair):
    """To one that must come as text, and back: what was written in between still must."""
    pair.schema("CREATE TYPE mood AS ENUM ('1', 'happy'); CREATE TABLE t (id int PRIMARY KEY, v text)")
    pair.make_slot()
    run = pair.penstock.start()
    pair.on_source("INSERT INTO t VALUES (1, 'happy')")
    pair.wait_rows("t", 1, run)
    pair.schema("ALTER TABLE t ALTER v TYPE mood USING v::mood")
    pair.on_source("INSERT INTO t VALUES (2, '1')")
    ends_in_words(pair, run, "v", "public.mood")
    pair.schema("ALTER TABLE t ALTER v TYPE text")
    pair.on_source("INSERT INTO t VALUES (3, 'anything')")
    run = pair.penstock.start()
    assert comes_soon(run) == "the stream comes in binary"
    ends_in_words(pair, run, "v", "text")
    pair.penstock.catch_up(format="text")
    assert pair.same() == 3
    assert comes(pair.penstock.catch_up()) == "the stream comes in binary"


def comes_soon(run):
    wait_until(lambda: re.search(r"the stream comes.*\n", run.stderr), what="the format in the log")
    return comes(run)


def test_a_type_widens_in_a_binary_stream(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, v int)")
    pair.make_slot()
    run = pair.penstock.start(format="binary")
    pair.on_source("INSERT INTO t VALUES (1, 1)")
    pair.wait_rows("t", 1, run)
    pair.on_target("ALTER TABLE t ALTER id TYPE bigint, ALTER v TYPE bigint")
    pair.on_source("INSERT INTO t VALUES (2, 2)")
    pair.on_source("UPDATE t SET v = v + 1")
    pair.on_source("ALTER TABLE t ALTER id TYPE bigint, ALTER v TYPE bigint")
    pair.on_source("INSERT INTO t VALUES (5000000000, 5000000000)")
    pair.on_source("UPDATE t SET v = v - 1")
    pair.wait_rows("t", 3, run)
    run.stop()
    pair.penstock.catch_up()
    assert pair.same() == 3


def test_the_targets_type_changes_beneath(pair):
    """Eight bytes are a time as well as a number: the target is told which they are."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, v bigint)")
    pair.make_slot()
    run = pair.penstock.start(format="binary")
    pair.on_source("INSERT INTO t VALUES (1, 1)")
    pair.wait_rows("t", 1, run)
    pair.on_target("ALTER TABLE t ALTER v TYPE timestamptz USING to_timestamp(v)")
    pair.on_source("INSERT INTO t VALUES (2, 2)")
    pair.on_source("UPDATE t SET v = 3 WHERE id = 1")
    run.wait(60, FAILED)
    assert "is of type timestamp with time zone but expression is of type bigint" in run.the_error()
    assert pair.on_target("SELECT extract(epoch FROM v)::int FROM t") == [(1,)]


@pytest.mark.parametrize("encodings", [("LATIN1", "UTF8"), ("UTF8", "LATIN1")])
def test_encodings(pair, encodings):
    """Text is in the target's encoding in binary, too: bare, and within what holds text."""
    pair.recreate(encodings)
    pair.schema("""CREATE TABLE t (id text PRIMARY KEY, v varchar(20), n name, l text[], j jsonb, k json, s tsvector,
        q tsquery, p jsonpath); ALTER TABLE t REPLICA IDENTITY FULL; CREATE TABLE bag (v text, j jsonb, s tsvector);
        ALTER TABLE bag REPLICA IDENTITY FULL""")
    pair.make_slot()
    for word in ("café", "üß", "é"):
        pair.on_source("INSERT INTO t VALUES (%(w)s, %(w)s, %(w)s, ARRAY[%(w)s], to_jsonb(%(w)s::text),"
                       " to_json(%(w)s::text), %(w)s::tsvector || 'ab', %(w)s::tsquery, ('$.\"' || %(w)s || '\"')::jsonpath)",
                       {"w": word})
    pair.on_source("INSERT INTO bag SELECT v, j, s FROM t")
    pair.on_source("UPDATE t SET v = v || 'ö'")
    pair.on_source("DELETE FROM bag WHERE v = 'üß'")
    pair.penstock.catch_up(format="binary")
    assert pair.same() == 5


@pytest.fixture(scope="module")
def far_apart():
    """The oldest and the newest version, and the newest once more."""
    made = []
    try:
        for major in (14, 18, 18):
            programs = programs_of(major)
            if programs is None:
                pytest.skip(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it")
            made.append(Cluster(f"format-{major}-{len(made)}", programs=programs))
        yield made
    finally:
        for cluster in made:
            cluster.remove()


@pytest.mark.parametrize("format_", ["binary", "text"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_versions(far_apart, make_pair, way, format_):
    source, target = far_apart[:2] if way == "up" else far_apart[1::-1]
    pair = make_pair("owner", source, target)
    types = EVERY if way == "up" else {name: EVERY[name] for name in EVERY if "interval" not in name}
    pair.schema(SCHEMA + DOMAIN_SCHEMA)
    tables_of(pair, types)
    pair.make_slot()
    write_every_type(pair, types)
    pair.penstock.catch_up(format=format_)
    assert pair.same() > len(types)


@pytest.mark.parametrize("way, format_", [("down", "binary"), ("down", "text"), ("within", "text")])
def test_chars_beyond_ascii(far_apart, make_pair, way, format_):
    """Of the type with quotes. Since PostgreSQL 16 their text is one that an older server takes for a backslash."""
    old, new, twin = far_apart
    pair = make_pair("owner", *{"down": (new, old), "within": (new, twin)}[way])
    pair.schema('CREATE DOMAIN mark AS "char"; CREATE TABLE t (id int PRIMARY KEY, c "char", d mark)')
    pair.make_slot()
    pair.on_source('INSERT INTO t VALUES (1, \'a\', \'b\'), (2, (-56)::"char", (-57)::"char")')
    run = pair.penstock.catch_up(format=format_)
    warned = [name for name in ("c", "d") if any(
        f'column "{name}" of public.t is of type "char"' in event["message"] for event in run.events())]
    misread = (way, format_) == ("down", "text")
    assert warned == (["c", "d"] if misread else [])
    codes = "SELECT c::int, d::\"char\"::int FROM t ORDER BY id"
    assert pair.on_source(codes) == [(97, 98), (-56, -57)]
    assert (pair.on_target(codes) == pair.on_source(codes)) == (not misread)


@pytest.mark.parametrize("way", ["up", "down", "within"])
def test_infinite_intervals(far_apart, make_pair, way):
    """PostgreSQL 17 has them. What they are in binary an older server would take for some other interval."""
    old, new, twin = far_apart
    pair = make_pair("owner", *{"up": (old, new), "down": (new, old), "within": (new, twin)}[way])
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, odd interval, list interval[])")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, '1 mon', '{1 day}')")
    said = comes(pair.penstock.catch_up())
    if way != "down":
        assert said == "the stream comes in binary"
    else:
        assert said == ("the stream comes as text: column public.t.odd is of type interval,"
                        " which has no infinite values on the older target")
    assert pair.same() == 1
    if way == "up":
        return
    pair.on_source("INSERT INTO t VALUES (2, 'infinity', '{-infinity}')")
    if way == "within":
        pair.penstock.catch_up(expect=DONE)
        assert pair.same() == 2
    else:
        assert 'invalid input syntax for type interval: "infinity"' in pair.penstock.fails().the_error()
