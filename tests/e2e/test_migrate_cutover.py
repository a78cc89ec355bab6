"""What `penstock cutover` makes of sequences, and in which order it makes what acts by itself."""

import signal

import pytest

from lib.everything import SCHEMA, same_definitions
from lib.migration import cutover, migrate
from lib.points import needs_points
from lib.program import DONE, FAILED, USAGE


def test_sequences_that_have_given_nothing_yet(pair):
    """setval(…, false) and RESTART: the next value is another one than START, and last_value is not told."""
    pair.on_source("CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5000);"
                   "SELECT setval('t_id_seq', (SELECT max(id) + 1 FROM t), false);"
                   "CREATE SEQUENCE restarted; SELECT nextval('restarted'); ALTER SEQUENCE restarted RESTART 7000;"
                   "CREATE SEQUENCE \"down; \"\"1\"\"\" INCREMENT -2 MINVALUE -100000 MAXVALUE 100 START 100;"
                   "ALTER SEQUENCE \"down; \"\"1\"\"\" RESTART -50;"
                   "CREATE SEQUENCE fresh START 30; CREATE SEQUENCE emptied; SELECT setval('emptied', 1, false)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    report = [e for e in cutover(pair).events() if e["message"] == "cutover finished"][0]
    assert report["sequences"] == 3
    pair.on_target("INSERT INTO t DEFAULT VALUES")
    assert pair.on_target("SELECT max(id) FROM t") == [(5000 + 1000 + 1,)]
    assert pair.on_target("SELECT nextval('restarted'), nextval('\"down; \"\"1\"\"\"'), nextval('fresh'), nextval('emptied')") \
        == [(7000 + 1000, -50 - 2 * 1000, 30, 1)]
    same_definitions(pair)


def test_sequences_near_their_end(pair):
    """What is left of them stays: at their last value the first row of the target would fail."""
    pair.on_source("CREATE TABLE t (id smallserial PRIMARY KEY); SELECT setval('t_id_seq', 32000); INSERT INTO t DEFAULT VALUES;"
                   "CREATE SEQUENCE down INCREMENT -1 MINVALUE -5000 START -1; SELECT setval('down', -4500);"
                   "CREATE SEQUENCE round_ CYCLE MAXVALUE 100; SELECT setval('round_', 50)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    run = cutover(pair)
    (named,) = [e["message"] for e in run.events() if "near their end" in e["message"]]
    assert set(named.split(": ")[-1].split(", ")) == {"public.down", "public.t_id_seq"}
    pair.on_target("INSERT INTO t DEFAULT VALUES")
    assert pair.on_target("SELECT max(id), nextval('down'), nextval('round_') FROM t") == [(32002, -4501, 1)]


EVENTS = """
CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t); INSERT INTO t VALUES (1, 1);
CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t; CREATE TABLE seen (id serial PRIMARY KEY, tag text);
CREATE FUNCTION notice() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.seen (tag) VALUES (tg_tag); END $$;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER tg AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
COMMENT ON TRIGGER tg ON t IS 'does nothing'
"""
COMMENTS = "SELECT description FROM pg_description WHERE classoid IN ('pg_trigger'::regclass, 'pg_event_trigger'::regclass)" \
    " ORDER BY 1"


@needs_points
@pytest.mark.parametrize("point", [None, "cutover-view", "cutover-item:4"])
def test_an_event_trigger_sees_nothing_of_the_cutover(make_pair, point):
    """Only a superuser may make one; the last of the points is when it is there already."""
    pair = make_pair("postgres")
    pair.on_source(EVENTS)
    pair.source_cluster.sql("CREATE EVENT TRIGGER on_ddl ON ddl_command_start EXECUTE FUNCTION notice();"
                            "COMMENT ON EVENT TRIGGER on_ddl IS 'notices'", dbname=pair.name)
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    if point is not None:
        killed = pair.penstock.start("--fence", "none", command="cutover", env={"PENSTOCK_KILL_AT": point})
        assert killed.wait(60) == -signal.SIGKILL, killed.stderr[-3000:]
        there = pair.on_target("SELECT count(*) FROM pg_event_trigger")
        assert there == [(1 if point == "cutover-item:4" else 0,)]
        pair.on_source("INSERT INTO t VALUES (2, 1)")
    cutover(pair)
    pair.same()
    same_definitions(pair)
    assert pair.on_target(COMMENTS) == pair.on_source(COMMENTS) == [("does nothing",), ("notices",)]
    assert pair.on_target("TABLE m") == [(1 if point is None else 2,)]
    assert pair.on_target("SELECT evtname, evtevent, evtenabled FROM pg_event_trigger") == [("on_ddl", "ddl_command_start", "O")]


def test_a_table_that_is_published_late_is_named(pair):
    """Its rows from before are nobody's: the copy is done, and the stream has only changes."""
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY);"
                   "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
                   "CREATE TABLE p_0 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    run = migrate(pair, "--schema", "public", "--stop-when-caught-up")
    run.wait(60, DONE)
    assert "had begun" not in run.stderr
    late = ("CREATE TABLE late (id int PRIMARY KEY); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (10) TO (20);"
            "CREATE TABLE p_2 (id int PRIMARY KEY); ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES FROM (20) TO (30)")
    for statement in late.split(";"):  # each a transaction
        pair.on_source(statement)
    pair.on_source("INSERT INTO late VALUES (1); INSERT INTO p VALUES (1), (11)")
    run = cutover(pair, "--schema", "public", expect=USAGE)
    assert "does not publish public.late" in run.the_error() and "none of the rows" in run.the_error()
    pair.on_source(f"ALTER PUBLICATION {pair.name} ADD TABLE late")
    pair.on_source("INSERT INTO late VALUES (2)")
    pair.on_target(late)
    run = cutover(pair, "--schema", "public")
    tables, partitions = [e["message"] for e in run.events() if "had begun" in e["message"]]
    assert ": public.late;" in tables and ": public.p_2;" in partitions
    assert pair.on_target("SELECT array_agg(id) FROM late") == [([2],)]
    assert pair.on_target("SELECT array_agg(id ORDER BY id) FROM p") == [([1, 11],)]


def test_a_table_that_was_made_anew_is_refused(pair):
    """As a load does that swaps tables: nothing of the new one is published, and all looks as before."""
    pair.on_source("CREATE TABLE kept (id int PRIMARY KEY); CREATE SCHEMA \"S x\"; CREATE TABLE \"S x\".\"t\"\"1\" (id int PRIMARY KEY);"
                   "INSERT INTO \"S x\".\"t\"\"1\" VALUES (1)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    pair.on_source("BEGIN; CREATE TABLE \"S x\".new_ (id int PRIMARY KEY); INSERT INTO \"S x\".new_ VALUES (1), (2);"
                   "DROP TABLE \"S x\".\"t\"\"1\"; ALTER TABLE \"S x\".new_ RENAME TO \"t\"\"1\"; COMMIT")
    run = cutover(pair, expect=FAILED)
    assert 'is not on the target: "S x"."t""1";' in run.the_error()
    pair.on_target("INSERT INTO \"S x\".\"t\"\"1\" VALUES (2)")
    pair.target_cluster.sql("DELETE FROM penstock.copied_table WHERE quoted = '\"S x\".\"t\"\"1\"'", dbname=pair.name)
    cutover(pair)
    assert pair.same() == 2


def test_what_has_changed_in_the_sources_schema_is_named(pair):
    """The stream has rows alone: a table, a column or an index that came later is not on the target."""
    pair.on_source(SCHEMA)
    pair.on_source("CREATE TABLE left_out (id int PRIMARY KEY)")
    flags = ("--exclude-table", "left_out")
    migrate(pair, *flags, "--stop-when-caught-up").wait(60, DONE)
    pair.on_source("ALTER TABLE customer ADD COLUMN extra int;"
                   "CREATE INDEX journal_what ON journal (what); DROP VIEW happy; ALTER TABLE left_out ADD COLUMN c int; SELECT nextval('lone_seq')")
    pair.on_target("ALTER TABLE customer ADD COLUMN extra int")
    run = cutover(pair, *flags)
    (named,) = [e["message"] for e in run.events() if "schema has changed" in e["message"]]
    assert "in 4 objects" in named
    assert named.split("seen to it: ")[1].split(", ") == ["no more ACL public.TABLE happy", "new INDEX public.journal_what",
                                                          "TABLE public.customer", "no more VIEW public.happy"]


def test_nothing_has_changed(pair):
    pair.on_source(SCHEMA)
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    assert "schema has changed" not in cutover(pair).stderr


@needs_points
def test_names_of_two_lines_after_an_interrupted_cutover(pair):
    """What it has made is found by the name that the dump has printed, on one line."""
    pair.on_source("CREATE TABLE \"t\nt\" (id int PRIMARY KEY, v text); CREATE MATERIALIZED VIEW \"m\nm\" AS TABLE \"t\nt\";"
                   "CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$;"
                   "CREATE TRIGGER \"a\nb\" BEFORE INSERT ON \"t\nt\" FOR EACH ROW EXECUTE FUNCTION mark()")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    killed = pair.penstock.start("--fence", "none", command="cutover", env={"PENSTOCK_KILL_AT": "cutover-view"})
    assert killed.wait(60) == -signal.SIGKILL, killed.stderr[-3000:]
    pair.on_source("INSERT INTO \"t\nt\" VALUES (1, 'x')")
    cutover(pair)
    assert pair.on_target("TABLE \"t\nt\"") == pair.on_target("TABLE \"m\nm\"") == [(1, "x!")]
    same_definitions(pair)


def test_transactions_that_are_open_still_are_named(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    with pair.connect(pair.source_cluster) as writer, writer.cursor() as cursor:
        writer.autocommit = False
        cursor.execute("BEGIN; INSERT INTO t VALUES (1)")
        pid = writer.info.backend_pid
        pair.on_source("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'forgotten'")
        run = cutover(pair)
        (named,) = [e["message"] for e in run.events() if "are open still" in e["message"]]
        assert f"process {pid} (owner" in named and "prepared transaction 'forgotten'" in named
        writer.rollback()
    pair.on_source("ROLLBACK PREPARED 'forgotten'")


@needs_points
@pytest.mark.parametrize("point", [None, "cutover-item:3", "cutover-view"])
def test_forced_row_security(pair, point):
    """A table's owner meets it, too, once it is there: a check of a foreign key would, and the rows that come yet."""
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);"
                   "CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t); INSERT INTO u VALUES (1, 1), (2, 2);"
                   "CREATE MATERIALIZED VIEW m AS SELECT id FROM t;"
                   "ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;"
                   "CREATE POLICY not_all ON t USING (id > 1); COMMENT ON POLICY not_all ON t IS 'not all'")
    pair.source_cluster.sql("ALTER ROLE owner BYPASSRLS")
    try:
        migrate(pair, "--stop-when-caught-up").wait(60, DONE)
        if point is not None:
            killed = pair.penstock.start("--fence", "none", command="cutover", env={"PENSTOCK_KILL_AT": point})
            assert killed.wait(60) == -signal.SIGKILL, killed.stderr[-3000:]
            pair.on_source("INSERT INTO t VALUES (3); INSERT INTO u VALUES (3, 3)")
        cutover(pair)
        same_definitions(pair)
        everything = "SELECT (SELECT array_agg(id ORDER BY id) FROM t), (SELECT array_agg(t ORDER BY t) FROM u)"
        assert pair.target_cluster.sql(everything, dbname=pair.name) == pair.source_cluster.sql(everything, dbname=pair.name)
        assert pair.on_target("SELECT count(*) FROM t WHERE id = 1") == [(0,)]
    finally:
        pair.source_cluster.sql("ALTER ROLE owner NOBYPASSRLS")
