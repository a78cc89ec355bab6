"""`penstock migrate`, from an empty target to the cutover."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading

import pytest

from lib.cluster import die_with_parent, time_factor
from lib.everything import FILL, SCHEMA, Writers, phase, same_definitions
from lib.migration import cutover, equal_after_cutover, hold_copy, migrate, wait_phase
from lib.program import DONE, FAILED, USAGE, binary, wait_until


def test_everything_under_load(any_pair):
    pair = any_pair
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=1) as writers:
        run = migrate(pair, chunk_size="128kB")
        wait_phase(pair, "ready", run)
        assert pair.on_target("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")[0][0] == 0
        assert pair.on_target("SELECT count(*) FROM pg_constraint WHERE contype = 'f'")[0][0] == 0
        before = writers.committed
        wait_until(lambda: writers.committed > max(before + 50, 100))
    done = cutover(pair)
    assert run.wait(30) == DONE, "the running migrate hands over"
    assert equal_after_cutover(pair) > 10000
    report = [e for e in done.events() if e["message"] == "cutover finished"][0]
    assert report["materialised_views"] == 2 and report["foreign_keys_validated"] == 2
    assert pair.on_target("SELECT count(*) FROM totals")[0][0] > 0
    assert phase(pair) == "done"
    # The target is alive: keys, sequences and triggers work there.
    pair.on_target("INSERT INTO customer (name) VALUES ('first here')")
    pair.on_target("INSERT INTO stamped VALUES (1000, 'x')")
    assert pair.on_target("SELECT touched FROM stamped WHERE id = 1000")[0][0] == 1


def test_large_tables_are_copied_in_chunks_and_toast_counts(pair):
    pair.on_source("CREATE TABLE big (id int PRIMARY KEY, doc text); ALTER TABLE big ALTER doc SET STORAGE EXTERNAL")
    pair.on_source("INSERT INTO big SELECT i, repeat('x', 2500) FROM generate_series(1, 4000) i")
    pages = pair.on_source("SELECT pg_relation_size('big') / 8192")[0][0]
    assert pages < 40, "nearly all of it is TOAST"
    migrate(pair, "--stop-when-caught-up", chunk_size="2MB").wait(60, DONE)
    chunks = pair.on_target("SELECT first_page, rows FROM penstock.copied_chunk ORDER BY 1")
    assert 5 <= len(chunks) <= 9
    assert sum(rows for _, rows in chunks) == 4000
    assert pair.same() == 4000


def test_unique_indexes_come_before_the_stream_and_others_concurrently(pair):
    pair.target_cluster.sql(f"ALTER DATABASE {pair.name} SET log_statement = 'ddl'")
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, a int, b int); CREATE UNIQUE INDEX t_a ON t (a);"
                   "CREATE INDEX t_b ON t (b); INSERT INTO t SELECT i, i, i FROM generate_series(1, 1000) i")
    run = migrate(pair, "--stop-when-caught-up", index_memory="7MB")
    run.wait(60, DONE)
    said = [e["message"] for e in run.events()]
    assert any("maintenance_work_mem = 7MB" in message for message in said)
    log = pair.target_cluster.log.read_text(errors="replace")
    log = log[log.rindex("CREATE TABLE public.t ("):]
    assert log.index("ADD CONSTRAINT t_pkey") < log.index("CREATE INDEX CONCURRENTLY t_b")
    assert log.index("CREATE UNIQUE INDEX t_a") < log.index("CREATE INDEX CONCURRENTLY t_b")
    same_definitions(pair)


def test_indexes_of_a_materialised_view_that_needs_a_primary_key(pair):
    """It can only be made when that is there, and its unique index, which a concurrent refresh needs, behind it."""
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i % 3 FROM generate_series(1, 9) i;"
                   "CREATE MATERIALIZED VIEW m AS SELECT id, v, count(*) AS n FROM t GROUP BY id;"
                   "CREATE UNIQUE INDEX m_id ON m (id); CREATE INDEX m_v ON m (v); COMMENT ON INDEX m_id IS 'of m'")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    cutover(pair)
    same_definitions(pair)
    pair.on_target("REFRESH MATERIALIZED VIEW CONCURRENTLY m")
    assert pair.on_target("SELECT count(*) FROM m") == [(9,)]


def test_what_ends_like_a_comment_of_the_dump(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); COMMENT ON TABLE t IS 'list:\n-- one';"
                   "COMMENT ON COLUMN t.id IS 'see\nSET default_tablespace';"
                   "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1\n-- one$$")
    run = migrate(pair, "--no-owner", "--stop-when-caught-up")
    run.wait(60, DONE)
    assert "left out" not in run.stderr
    cutover(pair)
    same_definitions(pair)
    column = "SELECT col_description('t'::regclass, 1)"
    assert pair.on_target(column) == pair.on_source(column)


def test_tables_that_are_there_already(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY, n int)")
    pair.on_target("ALTER TABLE u ALTER n TYPE bigint")
    pair.on_source("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) i; INSERT INTO u VALUES (1, 1)")
    pair.on_target("INSERT INTO t VALUES (1, 'in the way')")
    failed = migrate(pair, "--schema-from", "none", "--stop-when-caught-up")
    failed.wait(30, FAILED)
    assert "public.t is not empty" in failed.the_error()
    pair.on_target("TRUNCATE t")
    migrate(pair, "--schema-from", "none", "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 101


def test_partitions_that_are_there_already(pair):
    """What is no partitioned table on the source may be one on the target, whose rows and triggers are its partitions'."""
    pair.on_source("CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL;"
                   "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i")
    pair.on_target("CREATE TABLE t (id int, v text) PARTITION BY HASH (id);"
                   "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
                   "CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY HASH (id);"
                   "CREATE TABLE t_1_0 PARTITION OF t_1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
                   "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := 'bad'; RETURN NEW; END $$;"
                   "INSERT INTO t SELECT i, 'x' FROM generate_series(1, 10) i;"
                   "CREATE TRIGGER spoils BEFORE INSERT ON t_1_0 FOR EACH ROW EXECUTE FUNCTION spoil()")
    run = migrate(pair, "--schema-from", "none", "--stop-when-caught-up")
    run.wait(30, FAILED)
    assert "2 checks failed" in run.the_error() and "public.t is not empty" in run.the_error()
    pair.on_target("TRUNCATE t")
    run = migrate(pair, "--schema-from", "none", "--stop-when-caught-up")
    run.wait(30, FAILED)
    assert "public.t (spoils)" in run.the_error()
    pair.on_target("ALTER TABLE t_1_0 DISABLE TRIGGER USER")
    migrate(pair, "--schema-from", "none", "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 10


def test_tables_in_the_way_and_other_refusals(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    run = migrate(pair)
    run.wait(30, FAILED)
    assert "public.t" in run.the_error() and "--schema-from none" in run.the_error()
    pair.on_target("DROP TABLE t")
    pair.on_source("CREATE TABLE keyless (a int)")
    run = migrate(pair)
    run.wait(30, FAILED)
    assert "keyless" in run.the_error() and "REPLICA IDENTITY FULL" in run.the_error()
    assert phase(pair) is None
    run = cutover(pair, expect=USAGE)
    assert "migrate" in run.the_error()


def test_filters(pair):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    migrate(pair, "--table", "customer", "--table", '"Sales ""dept""".*', "--stop-when-caught-up").wait(60, DONE)
    tables = pair.on_target("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace IN"
                            " (SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'Sales \"dept\"')) ORDER BY 1")
    assert [name for (name,) in tables] == ["Order; Line", "customer"]
    pair.same(["customer", ('Sales "dept"', "Order; Line")])
    cutover(pair, "--table", "customer", "--table", '"Sales ""dept""".*')
    assert pair.on_target("SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated")[0][0] == 1


def test_what_is_excluded_is_not_made(pair):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    flags = ("--exclude-table", "journal", "--exclude-schema", '"Sales ""dept"""',
             "--exclude-table", "part")
    migrate(pair, *flags, "--stop-when-caught-up").wait(60, DONE)
    names = {name for (name,) in pair.on_target("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'm')")}
    assert {"customer", "tree", "descendant"} <= names
    assert not names & {"journal", "part", "part_0", "part 2 low", "Order; Line", "totals"}
    pair.same(["customer", "tree", "ancestor", "descendant", "big_text"])


def test_objects_that_need_what_is_excluded_are_named(pair):
    pair.on_source("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int CONSTRAINT b_a REFERENCES a);"
                   "CREATE VIEW both_ AS SELECT b.id FROM a JOIN b USING (id); CREATE VIEW only_b AS SELECT * FROM b;"
                   "CREATE TABLE c (id int PRIMARY KEY, a int CONSTRAINT c_a REFERENCES a);"
                   "CREATE POLICY p ON b USING (EXISTS (SELECT FROM a WHERE a.id = b.a))")
    run = migrate(pair, "--exclude-table", "a", "--exclude-table", "c", "--stop-when-caught-up")
    run.wait(60, DONE)
    (named,) = [e["message"] for e in run.events() if "the filters leave out" in e["message"]]
    assert named.startswith("3 objects") and "FK CONSTRAINT public.b b_a" in named and "VIEW public.both_" in named \
        and "POLICY public.b p" in named and "only_b" not in named
    cutover(pair, "--exclude-table", "a", "--exclude-table", "c")
    assert pair.on_target("SELECT to_regclass('only_b') IS NOT NULL, to_regclass('both_')") == [(True, None)]


def test_with_tables_named_only_foreign_keys_between_them_come(pair):
    pair.on_source("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int CONSTRAINT b_a REFERENCES a);"
                   "CREATE VIEW seen AS SELECT * FROM b")
    run = migrate(pair, "--table", "b", "--stop-when-caught-up")
    run.wait(60, DONE)
    (named,) = [e["message"] for e in run.events() if "the filters leave out" in e["message"]]
    assert named.startswith("1 objects") and "FK CONSTRAINT public.b b_a" in named


def test_a_table_without_those_that_inherit_from_it(pair):
    pair.on_source("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (PRIMARY KEY (id)) INHERITS (a);"
                   "INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)")
    migrate(pair, "--exclude-table", "b", "--stop-when-caught-up").wait(60, DONE)
    pair.on_source("INSERT INTO a VALUES (3); INSERT INTO b VALUES (4)")
    cutover(pair, "--exclude-table", "b")
    assert pair.on_target("SELECT array_agg(id ORDER BY id), to_regclass('b') FROM a") == [([1, 3], None)]


def test_default_privileges_are_only_for_what_comes_later(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE MATERIALIZED VIEW m AS SELECT id, v FROM t GROUP BY id;"
                   "CREATE VIEW w AS SELECT id, v FROM t GROUP BY id; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    cutover(pair)
    acls = "SELECT relname, relacl::text FROM pg_class WHERE relname IN ('t', 'm', 'w') ORDER BY 1"
    assert pair.on_target(acls) == pair.on_source(acls) == [("m", None), ("t", None), ("w", None)]
    assert pair.on_target("SELECT count(*) FROM pg_default_acl") == [(1,)]


def test_what_no_dump_of_the_schema_brings_is_named(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE conf (id int PRIMARY KEY); INSERT INTO conf VALUES (1);"
                   "CREATE PUBLICATION \"My own\" FOR TABLE t")
    for statement in (f"ALTER DATABASE {pair.name} SET TimeZone = 'Asia/Tokyo'",
                      f"ALTER ROLE owner IN DATABASE {pair.name} SET work_mem = '5MB'",
                      f"CREATE SUBSCRIPTION sub_{pair.name} CONNECTION 'host=nowhere' PUBLICATION p"
                      " WITH (connect = false, slot_name = NONE)",
                      "ALTER EXTENSION plpgsql ADD TABLE conf",
                      "UPDATE pg_extension SET extconfig = ARRAY['conf'::regclass::oid], extcondition = '{\"\"}'"):
        pair.source_cluster.sql(statement, dbname=pair.name)
    try:
        run = migrate(pair, "--stop-when-caught-up")
        run.wait(60, DONE)
    finally:
        pair.source_cluster.sql(f"DROP SUBSCRIPTION sub_{pair.name}", dbname=pair.name)
    warnings = [e["message"] for e in run.events() if e["level"] == "warn"]
    for words, names in (("publications and subscriptions", f'publication "My own", subscription sub_{pair.name}'),
                         ("settings of the database", "TimeZone, role owner: work_mem"), ("extensions", "public.conf")):
        (named,) = [message for message in warnings if words in message]
        assert named.endswith(": " + names)
    assert run.stderr.index("public.conf") < run.stderr.index("making the source's schema")


def test_a_schema_that_is_named_comes_with_its_grants(pair):
    pair.on_source("CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY); CREATE SCHEMA other;"
                   "CREATE SEQUENCE app.alone; COMMENT ON SEQUENCE app.alone IS 'not asked for';"
                   "GRANT USAGE ON SCHEMA app, other TO PUBLIC; GRANT SELECT ON app.t TO PUBLIC;"
                   "COMMENT ON SCHEMA app IS 'of the application';"
                   "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC;"
                   "ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT SELECT ON TABLES TO PUBLIC")
    migrate(pair, "--schema", "app", "--stop-when-caught-up").wait(60, DONE)
    for query in ("SELECT nspacl::text, obj_description(oid) FROM pg_namespace WHERE nspname = 'app'",
                  "SELECT relacl::text FROM pg_class WHERE oid = 'app.t'::regclass",
                  "SELECT defaclobjtype, defaclacl::text FROM pg_default_acl d JOIN pg_namespace n ON n.oid = defaclnamespace"
                  " WHERE nspname = 'app'"):
        assert pair.on_target(query) == pair.on_source(query)
    assert pair.on_target("SELECT to_regclass('app.alone'), to_regnamespace('other'), count(*) FROM pg_default_acl") \
        == [(None, None, 1)]


def test_acknowledged_when_spooled(pair):
    """The spool begins with the stream; what it has, and the target does not, is there at the cutover."""
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 1000) i")
    run = migrate(pair, ack="spooled")
    wait_phase(pair, "ready", run)
    with pair.connect(pair.target_cluster) as blocker, blocker.cursor() as cursor:
        blocker.autocommit = False
        cursor.execute("BEGIN; LOCK TABLE t IN EXCLUSIVE MODE")
        pair.on_source("UPDATE t SET v = 'y' WHERE id % 3 = 0")
        pair.wait_told(run)
        run.kill()
        run.process.wait()
    cutover(pair, ack="spooled")
    assert equal_after_cutover(pair) == 1000


def test_unlogged_tables_come_as_they_are_at_the_snapshot(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);"
                   "CREATE UNLOGGED TABLE \"cache; 1\" (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id * 2) STORED);"
                   "CREATE UNLOGGED TABLE left_out (id int); INSERT INTO left_out VALUES (1);"
                   "INSERT INTO \"cache; 1\" SELECT i, 'v' || i FROM generate_series(1, 1000) i")
    run = migrate(pair, "--exclude-table", "left_out")
    wait_phase(pair, "ready", run)
    named = [e["message"] for e in run.events() if "unlogged" in e["message"]]
    assert len(named) == 1 and 'public."cache; 1"' in named[0] and "no stream has their changes" in named[0]
    assert run.events().index(next(e for e in run.events() if "unlogged" in e["message"])) < \
        run.events().index(next(e for e in run.events() if "creating the replication slot" in e["message"]))
    assert pair.same(["cache; 1"]) == 1000
    pair.on_source("UPDATE \"cache; 1\" SET v = 'later'; INSERT INTO t VALUES (2)")
    cutover(pair, "--exclude-table", "left_out")
    assert pair.same(["t"]) == 2
    assert pair.on_target("SELECT relpersistence, count(*) FROM pg_class, \"cache; 1\" WHERE relname = 'cache; 1'"
                          " AND v <> 'later' GROUP BY 1") == [("u", 1000)]
    assert pair.on_target("SELECT to_regclass('left_out')") == [(None,)]


def test_a_pg_dump_that_is_too_old_is_named(pair, tmp_path):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY)")
    for program in ("pg_dump", "pg_restore"):
        (tmp_path / program).write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) 9.6.1'\n")
        (tmp_path / program).chmod(0o755)
    run = migrate(pair, "--pg-bin", tmp_path)
    run.wait(30, USAGE)
    assert "is of version 9" in run.the_error() and "postgresql-client-" in run.the_error()


def test_pg_dumps_own_words_are_shown_and_no_password_is_in_argv(pair, tmp_path):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY)")
    for program in ("pg_dump", "pg_restore"):
        (tmp_path / program).write_text(
            f"#!/bin/sh\n[ \"$1\" = --version ] && {{ echo '{program} (PostgreSQL) 99.1'; exit; }}\n"
            f"tr '\\0' ' ' < /proc/$$/cmdline >> {tmp_path}/argv\n"
            "echo 'pg_dump: reading schemas' >&2; echo 'pg_dump: error: no milk today' >&2; exit 1\n")
        (tmp_path / program).chmod(0o755)
    run = migrate(pair, "--pg-bin", tmp_path)
    run.wait(30, FAILED)
    assert "no milk today" in run.the_error() and "reading schemas" not in run.the_error()
    argv = (tmp_path / "argv").read_text()
    assert "dbname=" in argv and f"'{pair.name}'" in argv
    password = re.search(r"postgresql://owner:([^@]*)@", pair.penstock.source).group(1)
    assert password not in argv and "p@ss" not in argv and "password" not in argv.replace("--no-password", "")


def test_copy_alone_and_then_the_stream(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE INDEX ON t (a);"
                   "INSERT INTO t SELECT i, i FROM generate_series(1, 100) i")
    pair.penstock.start(command="copy").wait(60, DONE)
    pair.same()
    pair.on_source("UPDATE t SET a = -a")
    pair.penstock.catch_up()
    assert pair.same() == 100
    same_definitions(pair)


def test_a_stream_is_refused_while_the_copy_is_not_done(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, c text); INSERT INTO t VALUES (1, 'x')")
    pair.on_target("CREATE TABLE t (id int PRIMARY KEY, c text CHECK (c <> 'x'))")
    run = migrate(pair, "--schema-from", "none")
    run.wait(60, FAILED)
    assert 'table public.t cannot be copied' in run.the_error() and "t_c_check" in run.the_error()
    run = pair.penstock.fails(expect=USAGE)
    assert "penstock migrate" in run.the_error()
    pair.on_target("ALTER TABLE t DROP CONSTRAINT t_c_check")
    migrate(pair, "--schema-from", "none", "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 1


def test_a_table_with_very_many_columns(pair):
    columns = ", ".join(f'"c {i}" int' for i in range(1599))
    pair.on_source(f"CREATE TABLE wide (id int PRIMARY KEY, {columns})")
    pair.on_source('INSERT INTO wide (id, "c 0", "c 1598") SELECT i, i, -i FROM generate_series(1, 50) i')
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert pair.same() == 50


@pytest.mark.parametrize("form", ["text", "json"])
def test_progress_lines_hold_no_garbage(pair, form):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000)")
    run = migrate(pair, "--stop-when-caught-up", progress="auto", log_format=form)
    run.wait(60, DONE)
    for line in run.stderr.splitlines():
        assert line.isprintable(), repr(line)
        if form == "json":
            json.loads(line)


def test_bars_on_a_terminal(pair):
    pair.on_source("CREATE TABLE \"odd\x1b[31m name\" (id int PRIMARY KEY, v text);"
                   "INSERT INTO \"odd\x1b[31m name\" SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    arguments = ["--source", pair.penstock.source, "--target", pair.penstock.target, "--name", pair.name, "--dir",
                 str(pair.penstock.dir), "--chunk-size", "256kB", "--copy-jobs", "1", "--stop-when-caught-up"]
    shown = []

    def show():
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(master, 65536):
                shown.append(piece)

    def said():
        return b"".join(shown).decode(errors="replace")
    terminal = threading.Thread(target=show, daemon=True)

    def start():
        process = subprocess.Popen([binary(), "migrate", *arguments], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
                                   preexec_fn=die_with_parent)
        os.close(slave)
        terminal.start()
        return process
    process, holder = hold_copy(pair, 3, start)
    bars = r"copy +\[#*\.*\] +\d+%  [0-9.]+ [kM]?B, [0-9.]+ [kM]?B/s.*, \d+ rows/s, 1 tab"
    wait_until(lambda: re.search(bars, said()), what="the bars")
    holder.rollback()
    assert process.wait(60 * time_factor()) == DONE, said()[-2000:]
    terminal.join()
    text = said()
    assert "\x1b[31m" not in text, "a table's name reaches no terminal as it is"
    screen = []  # as a terminal would show it at the end
    for part in re.split(r"(\r\x1b\[\d+A\x1b\[J)", text.replace("\r\n", "\n")):
        up = re.fullmatch(r"\r\x1b\[(\d+)A\x1b\[J", part)
        if up:
            del screen[-int(up.group(1)):]
        else:
            assert "\x1b" not in part
            screen += part.splitlines()
    assert not [line for line in screen if "[#" in line or "[." in line], "the bars are gone at the end"
    assert len([line for line in screen if "all tables are copied" in line]) == 1
    assert pair.same() == 20000


def test_what_is_done_is_not_done_again(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, a int REFERENCES t); INSERT INTO t VALUES (1, 1)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    made = pair.on_target("SELECT oid FROM pg_class WHERE relname IN ('t', 't_pkey') ORDER BY 1")
    run = migrate(pair, "--stop-when-caught-up")
    run.wait(60, DONE)
    assert made == pair.on_target("SELECT oid FROM pg_class WHERE relname IN ('t', 't_pkey') ORDER BY 1")
    assert not [e for e in run.events() if "copying" in e["message"]]
    cutover(pair)
    assert "done already" in cutover(pair, expect=USAGE).the_error()
    again = migrate(pair)
    again.wait(30, USAGE)
    assert "done already" in again.the_error()
    assert "is not applied any more" in pair.penstock.fails(expect=USAGE).the_error()
