"""What is wrong is said in one line, with what to do about it, and an exit code to tell by."""

import pathlib
import re
import socket
import time
import urllib.parse

import pytest

from lib.cluster import OWNER_PASSWORD, SUPERUSER_PASSWORD, Cluster
from lib.program import FAILED, USAGE, Run, wait_until


def secrets_of(text):
    """The passwords in it, plain or as a URI writes them."""
    words = [OWNER_PASSWORD, SUPERUSER_PASSWORD]
    words += [urllib.parse.quote(word, safe="") for word in words]
    return [word for word in words if word in text]


@pytest.fixture
def one_table(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    return pair


@pytest.fixture(autouse=True)
def no_password_is_ever_shown(make_pair, request):
    """After each test: whatever it ran, no standard error has a password in it."""
    yield
    pair = request.node.funcargs.get("pair")
    for run in pair.penstock.runs if pair else []:
        assert not secrets_of(run.stderr)


def usage_error(arguments, env=None):
    run = Run(arguments, env)
    run.wait(20, expect=USAGE)
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    assert lines, "nothing says what is wrong"
    assert not secrets_of(run.stderr)
    return run.stderr


def test_unknown_command():
    assert "strem" in usage_error(["strem"])


def test_no_command():
    run = Run([])
    run.wait(20, expect=USAGE)


@pytest.mark.smoke
def test_unknown_flag(one_table):
    pair = one_table
    run = pair.penstock.start("--wokers", "3")
    run.wait(20, expect=USAGE)
    assert "--wokers" in run.stderr
    assert "--workers" in run.stderr, "the nearest known one is named"


@pytest.mark.parametrize("flag, value", [
    ("workers", "0"), ("workers", "257"), ("workers", "many"), ("workers", "-1"), ("memory", "12 parsecs"),
    ("memory", "99999999999999999999GB"), ("stop_at", "yesterday"), ("log_format", "xml"), ("log_level", "loud"),
])
def test_bad_value(one_table, flag, value):
    run = one_table.penstock.start(**{flag: value})
    run.wait(20, expect=USAGE)
    assert "--" + flag.replace("_", "-") in run.stderr
    assert value in run.stderr


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("uri", ["postgresql://user:tops3cret@[::1/db", "postgresql://host/db?nonsense=1",
                                 "host=x nonsense", "no_such_word=1 password=tops3cret"])
def test_bad_uri(one_table, side, uri):
    run = one_table.penstock.start(**{side: uri})
    run.wait(20, expect=USAGE)
    assert side in run.stderr
    assert "tops3cret" not in run.stderr


@pytest.mark.parametrize("side", ["source", "target"])
def test_port_that_is_none(one_table, side):
    """What stands there could be the end of a password, so it is not repeated."""
    run = one_table.penstock.start(**{side: "postgresql://user:tops3cret@host:notaport/db"})
    run.wait(20, expect=USAGE)
    assert f"--{side}" in run.the_error() and "notaport" not in run.the_error()
    assert "tops3cret" not in run.stderr


def test_port_out_of_range(one_table):
    run = one_table.penstock.start(source="postgresql://user:tops3cret@host:99999/db")
    run.wait(20, expect=USAGE)
    assert "99999" in run.the_error() and "tops3cret" not in run.stderr


@pytest.mark.parametrize("uri", ["postgresql://user:tops@3cret@127.0.0.1:1/db",
                                 "postgresql://user:tops/3cret@127.0.0.1:1/db"])
def test_password_that_is_not_encoded(one_table, uri):
    """libpq takes a part of it for a host or a port, and would repeat it."""
    run = one_table.penstock.start(target=uri)
    run.wait(20, expect=USAGE)
    assert "3cret" not in run.stderr and "tops" not in run.stderr


@pytest.mark.parametrize("side", ["source", "target"])
def test_missing_uri(one_table, side):
    run = one_table.penstock.start(**{side: None})
    run.wait(20, expect=USAGE)
    assert f"--{side}" in run.stderr


def test_help_and_print_config(one_table):
    run = Run(["stream", "--help"])
    run.wait(20, expect=0)
    assert b"--stop-when-caught-up" in run.process.stdout.read()
    run = one_table.penstock.start("--print-config")
    run.wait(20, expect=0)
    shown = run.process.stdout.read().decode()
    assert "workers" in shown and not secrets_of(shown)


@pytest.mark.parametrize("side", ["source", "target"])
def test_server_is_down(one_table, side):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        port = taken.getsockname()[1]
        cluster = getattr(one_table, side + "_cluster")
        run = one_table.penstock.fails(**{side: cluster.uri(one_table.name, "owner", port=port)})
    error = run.the_error()
    assert side in error and str(port) in error


@pytest.mark.parametrize("side", ["source", "target"])
def test_wrong_password(one_table, side):
    cluster = getattr(one_table, side + "_cluster")
    uri = f"postgresql://owner:wr0ng-s3cret@127.0.0.1:{cluster.port}/{one_table.name}"
    run = one_table.penstock.fails(**{side: uri})
    assert side in run.the_error()
    assert "wr0ng-s3cret" not in run.stderr


@pytest.mark.parametrize("side", ["source", "target"])
def test_no_such_database(one_table, side):
    cluster = getattr(one_table, side + "_cluster")
    run = one_table.penstock.fails(**{side: cluster.uri("no_such_database", "owner")})
    assert "no_such_database" in run.the_error()


def test_publication_is_gone_while_the_slot_exists(one_table):
    pair = one_table
    pair.penstock.catch_up()
    pair.on_source(f"DROP PUBLICATION {pair.name}")
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    error = pair.penstock.fails().the_error()
    assert "publication" in error and pair.name in error


def test_slot_is_gone_while_a_progress_row_exists(one_table):
    pair = one_table
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO t VALUES (1, 'lost with the slot')")
    pair.drop_slot()
    error = pair.penstock.fails().the_error()
    assert "slot" in error and pair.name in error
    assert pair.on_source("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", (pair.name,)) == [(0,)]


def test_slot_made_anew_while_a_progress_row_exists(one_table):
    """The server would silently start later."""
    pair = one_table
    pair.penstock.catch_up()
    pair.drop_slot()
    pair.on_source("INSERT INTO t VALUES (1, 'lost with the slot')")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    assert "slot" in pair.penstock.fails().the_error()


def test_slot_of_another_plugin(one_table):
    pair = one_table
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE t")
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (pair.name,))
    assert "pgoutput" in pair.penstock.fails().the_error()


def test_slot_with_two_phase(one_table):
    pair = one_table
    pair.on_source(f"CREATE PUBLICATION {pair.name} FOR TABLE t")
    try:
        pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", (pair.name,))
    except Exception:
        pytest.skip("this server's slots have no two-phase decoding")
    assert "two" in pair.penstock.fails().the_error()


def test_another_source_is_refused(one_table, make_pair):
    """The same name and target, but another database behind --source."""
    pair = one_table
    pair.penstock.catch_up()
    other = make_pair("owner")
    other.on_source("CREATE TABLE t (id int PRIMARY KEY, a text)")
    run = pair.penstock.fails(source=pair.source_cluster.uri(other.name, "owner"))
    run.the_error()


def test_a_wrong_slot_leaves_the_running_one_alone(one_table, tmp_path):
    """A second start that is refused, from another folder, must not have taken the stream over."""
    pair = one_table
    run = pair.penstock.start()
    pair.wait_streaming(run)
    error = pair.penstock.fails(slot="mistyped", dir=tmp_path / "elsewhere").the_error()
    assert "mistyped" in error and pair.name in error
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.wait_rows("t", 1, run)
    run.stop()


@pytest.mark.parametrize("how", ["dropped", "another target"])
def test_a_target_that_has_forgotten_the_stream(one_table, make_pair, how):
    """The slot alone does not tell what was applied: rows could be lost or doubled."""
    pair = one_table
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.penstock.catch_up()
    target = pair.penstock.target
    if how == "dropped":
        pair.on_target("DROP SCHEMA penstock CASCADE")
    else:
        other = make_pair("owner")
        other.on_target("CREATE TABLE t (id int PRIMARY KEY, a text)")
        target = other.target_cluster.uri(other.name, "owner")
    pair.on_source("INSERT INTO t VALUES (2, 'b')")
    wait_until(lambda: pair.on_source("SELECT 1 FROM pg_replication_slots WHERE NOT active AND slot_name = %s",
                                      (pair.name,)), what="the end of the walsender, which may have heard more")
    confirmed = pair.confirmed_lsn()
    error = pair.penstock.fails(target=target).the_error()
    assert str(pair.penstock.dir) in error and "--target" in error
    assert pair.confirmed_lsn() == confirmed
    if how != "dropped":
        pair.penstock.catch_up()
        assert pair.same() == 2


def test_a_schema_that_another_user_made(make_pair):
    pair = make_pair("postgres")
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.penstock.catch_up()
    error = pair.penstock.fails(target=pair.target_cluster.uri(pair.name, "owner")).the_error()
    for privileges in ("USAGE ON SCHEMA penstock", "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA penstock"):
        assert f"GRANT {privileges} TO ...;" in error
        pair.target_cluster.sql(f"GRANT {privileges} TO owner", dbname=pair.name)
    pair.penstock.catch_up(target=pair.target_cluster.uri(pair.name, "owner"))


def test_rights_that_are_missing_are_granted_as_told(pair):
    name = 'a "b".C\\'
    quoted = '"' + name.replace('"', '""') + '"'
    pair.on_source(f"CREATE TABLE {quoted} (id int PRIMARY KEY)")
    pair.target_cluster.sql(f"CREATE TABLE {quoted} (id int PRIMARY KEY)", dbname=pair.name)
    pair.target_cluster.sql("GRANT USAGE ON SCHEMA public TO owner", dbname=pair.name)
    pair.make_slot()
    pair.on_source(f"INSERT INTO {quoted} VALUES (1)")
    grant = re.search(r"GRANT .*?;", pair.penstock.fails().the_error())
    pair.target_cluster.sql(grant.group(0), dbname=pair.name)
    pair.penstock.catch_up()
    assert pair.same() == 1


def test_stop_at_a_position_that_the_target_is_behind_already(one_table):
    """A success would say that the target is as the source was there."""
    pair = one_table
    pair.make_slot()
    before = pair.wal_lsn()
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    there = pair.wal_lsn()
    pair.penstock.catch_up()
    run = pair.penstock.start(stop_at=before)
    run.wait(20, expect=USAGE)
    assert before in run.the_error()
    run = pair.penstock.start("--stop-when-caught-up", stop_at=there)
    run.wait(20, expect=0)
    assert run.finished()["reason"] == "stop-at"


def test_wal_level_is_not_logical(one_table):
    replica = Cluster("replica", settings={"wal_level": "replica"})
    try:
        replica.sql("CREATE DATABASE d OWNER owner")
        replica.sql("CREATE TABLE t (id int PRIMARY KEY, a text)", dbname="d", role="owner")
        run = one_table.penstock.fails(source=replica.uri("d", "owner"))
        assert "wal_level" in run.the_error() and "logical" in run.the_error()
    finally:
        replica.remove()


def test_role_without_replication(one_table):
    pair = one_table
    pair.source_cluster.sql("ALTER ROLE owner NOREPLICATION")
    try:
        error = pair.penstock.fails().the_error()
        assert "REPLICATION" in error.upper()
    finally:
        pair.source_cluster.sql("ALTER ROLE owner REPLICATION")


def test_table_is_missing_on_the_target(one_table):
    pair = one_table
    pair.on_source("CREATE TABLE only_here (id int PRIMARY KEY)")
    error = pair.penstock.fails().the_error()
    assert "only_here" in error


def test_table_is_dropped_on_the_target_while_streaming(one_table):
    pair = one_table
    run = pair.penstock.start()
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.wait_rows("t", 1, run)
    pair.on_target("DROP TABLE t")
    pair.on_source("INSERT INTO t VALUES (2, 'b')")
    run.wait(60, expect=FAILED)
    error = run.the_error()
    assert re.search(r"\bt\b", error)
    pair.on_target("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT id FROM t") == [(2,)]


def the_alter(error):
    found = re.search(r"ALTER TABLE .*? ADD COLUMN [^;]*", error)
    assert found, f"no ALTER TABLE … ADD COLUMN in: {error}"
    return found.group(0)


COLUMN = """ADD COLUMN "Added Later" numeric(10,2) NOT NULL DEFAULT 7.5"""


def test_column_is_missing_on_the_target(one_table):
    pair = one_table
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.on_source(f"ALTER TABLE t {COLUMN}")
    pair.on_source("INSERT INTO t VALUES (2, 'b', 2.25)")
    alter = the_alter(pair.penstock.fails().the_error())
    pair.on_target(alter)
    pair.penstock.catch_up()
    assert pair.same() == 2


@pytest.mark.parametrize("computed", [True, False])
def test_column_whose_values_the_stream_does_not_bring(one_table, computed):
    """Added with a value for each row, which rewrites the table; and one that every row has as NULL."""
    pair = one_table
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.on_source("ALTER TABLE t ADD COLUMN b uuid" + " DEFAULT gen_random_uuid()" * computed)
    pair.on_source("INSERT INTO t VALUES (2, 'b')")
    error = pair.penstock.fails().the_error()
    assert "ADD COLUMN b uuid;" in error and "renamed" in error
    assert ("rows that were there before" in error) == computed


def test_column_is_added_on_the_source_while_streaming(one_table):
    pair = one_table
    run = pair.penstock.start()
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO t VALUES (1, 'a'), (5, 'e')")
    pair.wait_rows("t", 2, run)
    pair.on_source(f"ALTER TABLE t {COLUMN}")
    pair.transaction("INSERT INTO t VALUES (2, 'b', 2.25)", "UPDATE t SET a = 'c' WHERE id = 1")
    pair.on_source("INSERT INTO t VALUES (3, 'c')")
    run.wait(60, expect=FAILED)
    pair.on_target(the_alter(run.the_error()))
    pair.penstock.catch_up()
    assert pair.same() == 4


def test_table_without_replica_identity(one_table):
    pair = one_table
    pair.schema('CREATE TABLE "No Key" (a int)')
    error = pair.penstock.fails().the_error()
    alter = re.search(r'ALTER TABLE \S*"No Key" REPLICA IDENTITY FULL', error)
    assert alter, error
    # the source was left alone: its own updates work
    pair.on_source('INSERT INTO "No Key" VALUES (1)')
    pair.on_source('UPDATE "No Key" SET a = 2')
    pair.on_source(alter.group(0))
    pair.penstock.catch_up()
    pair.on_source('INSERT INTO "No Key" VALUES (3)')
    pair.penstock.catch_up()
    assert pair.on_target('SELECT a FROM "No Key"') == [(3,)]


def test_no_right_to_create_the_schema_on_the_target(one_table):
    pair = one_table
    target = pair.target_cluster
    target.sql("CREATE ROLE guest LOGIN PASSWORD 'gu3st-s3cret'")
    try:
        target.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest", dbname=pair.name)
        uri = f"postgresql://guest:gu3st-s3cret@127.0.0.1:{target.port}/{pair.name}"
        run = pair.penstock.fails(target=uri)
        grant = re.search(r"GRANT CREATE ON DATABASE \S+ TO \S+?(?=[;,.\s]|$)", run.the_error())
        assert grant, run.the_error()
        assert "gu3st-s3cret" not in run.stderr
        pair.on_target(grant.group(0))
        pair.on_source("INSERT INTO t VALUES (1, 'a')")
        pair.penstock.catch_up(target=uri)
    finally:
        target.sql("DROP OWNED BY guest CASCADE", dbname=pair.name)
        target.sql("DROP ROLE guest")


def test_state_directory_that_cannot_be_made(one_table, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    run = one_table.penstock.fails(dir=blocked / "state", expect=USAGE)
    assert str(blocked) in run.the_error()


def test_password_is_not_in_the_process_list(one_table):
    pair = one_table
    run = pair.penstock.start()
    pair.wait_streaming(run)
    command = pathlib.Path(f"/proc/{run.pid}/cmdline").read_bytes().decode()
    assert "stream" in command
    assert not secrets_of(command)
    titles = [p.read_bytes().decode(errors="replace") for p in pathlib.Path(f"/proc/{run.pid}/task").glob("*/comm")]
    assert not secrets_of(" ".join(titles))
    pair.on_source("INSERT INTO t VALUES (1, 'a')")
    pair.wait_rows("t", 1, run)
    run.stop()
    assert not secrets_of(run.stderr)


def test_a_locked_table_is_waited_for(one_table):
    """Somebody else's lock on the target is no error: the row comes when it is given back."""
    pair = one_table
    run = pair.penstock.start()
    pair.wait_streaming(run)
    locker = pair.connect(pair.target_cluster)
    with locker.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        pair.on_source("INSERT INTO t VALUES (1, 'behind a lock')")
        wait_until(lambda: pair.target_cluster.sql(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", (pair.name,)), 20,
            "it to wait")
        time.sleep(0.2)
        assert run.running, run.stderr[-3000:]
        cursor.execute("ROLLBACK")
    pair.wait_rows("t", 1, run)
    run.stop()
