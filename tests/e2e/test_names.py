"""Names that need quoting in every place where a name can stand, and what penstock writes to disk and shows."""

import pathlib
import re
import stat
import subprocess
import urllib.parse

import psycopg2
import pytest
from psycopg2 import sql as quoting

from lib.cluster import OWNER_PASSWORD, SUPERUSER_PASSWORD
from lib.program import DONE, Penstock, binary, wait_until

ODD = "Od\"d.na'me\\ %s{}, $1 --ÄŽ日"


def padded(start):
    """63 bytes, the most that a name can have, ending in a character of several."""
    name = start + ODD
    return name + "x" * (61 - len(name.encode())) + "é"


DATABASE, ROLE, SCHEMA, TABLE, KEYED = (padded(start) for start in ("D", "R", "S", "T", "K"))
COLUMNS = [padded(start) for start in "abc"]
PUBLICATION = padded("P")
NAME = "n_" + "0123456789" * 3 + "12345678"  # names of penstock's and of slots have rules of their own
SLOT = "s_" + "0123456789" * 6 + "z"


def q(statement, *names):
    return quoting.SQL(statement).format(*(quoting.Identifier(name) for name in names))


def connect(cluster, role="postgres"):
    connection = psycopg2.connect(host=str(cluster.folder), port=cluster.port, user=role, dbname=DATABASE)
    connection.autocommit = True
    return connection


def run(connection, statement, params=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def odd(clusters, tmp_path):
    admins = []
    for cluster in clusters:
        assert len(DATABASE.encode()) == 63
        admin = cluster.connect("postgres")
        run(admin, q("CREATE ROLE {} LOGIN REPLICATION PASSWORD 'odd'", ROLE))
        run(admin, q("CREATE DATABASE {} OWNER {} TEMPLATE template0", DATABASE, ROLE))
        admins.append(admin)
    connections = [connect(cluster, ROLE) for cluster in clusters]
    yield (*connections, tmp_path)
    for cluster, admin, connection in zip(clusters, admins, connections):
        connection.close()
        for slot, in run(admin, "SELECT slot_name FROM pg_replication_slots WHERE database = %s", (DATABASE,)):
            wait_until(lambda a=admin, s=slot: not run(
                a, "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (s,))[0][0])
            run(admin, "SELECT pg_drop_replication_slot(%s)", (slot,))
        run(admin, q("DROP DATABASE {} WITH (FORCE)", DATABASE))
        run(admin, q("DROP ROLE {}", ROLE))
        admin.close()


def uri(cluster):
    user, database = (urllib.parse.quote(name, safe="") for name in (ROLE, DATABASE))
    return f"postgresql://{user}:odd@127.0.0.1:{cluster.port}/{database}"


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_odd_names_everywhere(odd, clusters, ack):
    source, target, folder = odd
    for connection in (source, target):
        run(connection, q("CREATE SCHEMA {}", SCHEMA))
        run(connection, q("CREATE TABLE {}.{} ({} int PRIMARY KEY, {} text, {} text UNIQUE)", SCHEMA, TABLE, *COLUMNS))
        run(connection, q("CREATE TABLE {}.{} ({} int, {} text)", SCHEMA, KEYED, *COLUMNS[:2]))
        run(connection, q("ALTER TABLE {}.{} REPLICA IDENTITY FULL", SCHEMA, KEYED))
    penstock = Penstock(uri(clusters[0]), uri(clusters[1]), NAME, folder / 'state "of\\ things\'')
    first = penstock.catch_up("--ack", ack, publication=PUBLICATION, slot=SLOT)  # makes publication and slot itself
    run(source, q("INSERT INTO {}.{} SELECT i, 'a', 'c' || i FROM generate_series(1, 500) i", SCHEMA, TABLE))
    run(source, q("INSERT INTO {}.{} SELECT i, 'a' FROM generate_series(1, 20) i", SCHEMA, KEYED))
    run(source, q("UPDATE {}.{} SET {} = 'b' WHERE {} < 100", SCHEMA, TABLE, COLUMNS[1], COLUMNS[0]))
    run(source, q("UPDATE {}.{} SET {} = {} + 1000 WHERE {} < 5", SCHEMA, TABLE, *COLUMNS[:1] * 3))
    run(source, q("DELETE FROM {}.{} WHERE {} = 7", SCHEMA, TABLE, COLUMNS[0]))
    run(source, q("DELETE FROM {}.{} WHERE {} = 7", SCHEMA, KEYED, COLUMNS[0]))
    second = penstock.catch_up("--ack", ack, publication=PUBLICATION, slot=SLOT)
    for table in (TABLE, KEYED):
        rows = [run(c, q("SELECT * FROM {}.{} ORDER BY 1", SCHEMA, table)) for c in (source, target)]
        assert rows[0] == rows[1] and len(rows[0]) == (499 if table == TABLE else 19)
    run(source, q("TRUNCATE {}.{}", SCHEMA, TABLE))
    run(target, q("DELETE FROM {}.{}", SCHEMA, KEYED))
    run(source, q("DELETE FROM {}.{} WHERE {} = 3", SCHEMA, KEYED, COLUMNS[0]))
    third = penstock.fails("--ack", ack, publication=PUBLICATION, slot=SLOT)
    assert "Od" in third.the_error()
    for each in (first, second, third):
        assert ":odd@" not in each.stderr


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_what_is_on_disk_is_the_owner_s_alone_and_holds_no_password(pair, tmp_path, ack):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 5000) i")
    capture = tmp_path / "captured"
    run_ = pair.penstock.start("--ack", ack, "--streaming", "on", "--log-level", "debug", capture=capture)
    pair.wait_rows("t", 5000, run_)
    folder = pathlib.Path(pair.penstock.dir)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    paths = sorted(folder.rglob("*"))
    assert any(path.suffix == ".spool" for path in paths) == (ack == "spooled") or ack == "applied"
    for path in [*paths, capture]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    run_.stop()
    passwords = [p for plain in (OWNER_PASSWORD, SUPERUSER_PASSWORD)
                 for p in (plain, urllib.parse.quote(plain, safe=""))]
    shown = [run_.stderr.encode()]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()] + [capture]
    for path in files:
        shown.append(path.read_bytes())
        said = subprocess.run([binary(), "inspect", "--json", path], capture_output=True, check=False)
        assert said.returncode == DONE or path.name in ("lock", "reached"), path
        shown.append(said.stdout + said.stderr)
    for text in shown:
        assert not any(re.search(re.escape(p).encode(), text) for p in passwords)
