"""The two servers, databases on them, and the small programs around: load, markers, the slow network."""

import os
import pathlib
import re
import select
import subprocess
import tempfile
import time

import psycopg2
import psycopg2.extensions
from lib.cluster import Cluster, die_with_parent
from lib.program import wait_until
from lib.versions import major_of

# As a server is for production where nothing says otherwise: fsync and full pages on. What would come at a moment of
# its own choosing (checkpoints, autovacuum) is done between the runs instead.
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "max_connections": "300",
    "max_wal_senders": "30",
    "max_replication_slots": "20",
    "max_prepared_transactions": "0",
    "jit": "off",
}
SOURCE_SETTINGS = {"track_commit_timestamp": "on"}  # what a marker's time begins with
# Native's launcher starts no worker sooner than that after the one before, which is meant for workers that fail. With the
# default of 5 s a short run would wait for the run before it.
TARGET_SETTINGS = {"wal_retrieve_retry_interval": "100ms"}
PUBLICATION = "bench"
CHANNEL = "bench_marker"

MARKERS = """CREATE TABLE bench_marker (id bigint PRIMARY KEY);"""
# Declared IMMUTABLE so that penstock does not take it for a trigger whose effects it must not reorder. ALWAYS, because
# both replicators apply as replicas do.
SEEN = """
    CREATE FUNCTION bench_seen() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
        $$BEGIN PERFORM pg_notify('bench_marker', NEW.id::text); RETURN NULL; END$$;
    CREATE TRIGGER seen AFTER INSERT ON bench_marker FOR EACH ROW EXECUTE FUNCTION bench_seen();
    ALTER TABLE bench_marker ENABLE ALWAYS TRIGGER seen;"""
# Each changed row costs the target this long, as one does whose page must be fetched from elsewhere first. AFTER,
# because what a trigger does BEFORE could change the row's keys, which penstock therefore does not reorder.
SLOW = """
    CREATE FUNCTION bench_slow() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
        $$BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END$$;
    CREATE TRIGGER slow AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION bench_slow();
    ALTER TABLE {table} ENABLE ALWAYS TRIGGER slow;"""


class Failed(Exception):
    """One case could not be measured; the others go on."""


# What one case may fail with.
ERRORS = (Failed, AssertionError, OSError, subprocess.SubprocessError, psycopg2.Error)


class Rig:
    """Source and target, as long as the bench runs."""

    def __init__(self, tools, extra_settings=None):
        self.tools = tools  # the folder of penstock-bench
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        settings = SETTINGS | (extra_settings or {})
        self.source = Cluster("bench-source", durable=True, settings=settings | SOURCE_SETTINGS)
        self.target = Cluster("bench-target", durable=True, settings=settings | TARGET_SETTINGS)
        self.marker = 0  # the last one's id
        self.names = 0
        self.bases = {}  # (cluster, workload): the database with its tables and rows, to be copied
        self.helpers = []

    def close(self):
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        for cluster in (self.source, self.target):
            cluster.remove()
        for path in self.folder.glob("*"):
            path.unlink(missing_ok=True)
        self.folder.rmdir()

    def fresh_name(self, what):
        self.names += 1
        return f"{what}_{self.names}"

    def settings(self):
        """What both servers run with, for the report."""
        return {"both": SETTINGS, "source": SOURCE_SETTINGS, "target": TARGET_SETTINGS, "otherwise": "the server's defaults",
                "fsync": self.target.sql("SHOW fsync")[0][0],
                "synchronous_commit": self.target.sql("SHOW synchronous_commit")[0][0]}

    def spawn(self, *arguments, **keywords):
        """A helper that dies with the bench."""
        process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent, **keywords)
        self.helpers = [h for h in self.helpers if h.poll() is None] + [process]
        return process

    def proxy(self, delay_ms):
        """A network between penstock and the target; gives (process, port)."""
        process = self.spawn(self.tools / "penstock-bench", "proxy", "--to", self.target.port,
                             "--delay-us", int(delay_ms * 1000), stdout=subprocess.PIPE, text=True)
        return process, int(process.stdout.readline())

    def checkpoint(self):
        for cluster in (self.source, self.target):
            cluster.sql("CHECKPOINT")

    def pgbench(self, cluster, database, *arguments, synchronous=True, log=None):
        """Started, not waited for."""
        environment = os.environ | {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGUSER": "owner"}
        if not synchronous:
            environment["PGOPTIONS"] = "-c synchronous_commit=off"
        return self.spawn(cluster.bin / "pgbench", *arguments, database, env=environment,
                          stdout=log or subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def run_pgbench(self, cluster, database, *arguments, synchronous=True):
        """Waited for; gives what it said."""
        with tempfile.TemporaryFile("w+") as log:
            code = self.pgbench(cluster, database, *arguments, synchronous=synchronous, log=log).wait()
            log.seek(0)
            told = log.read()
        if code != 0:
            raise Failed(f"pgbench {' '.join(map(str, arguments))} failed: {told[-500:]}")
        return told


class Route:
    """A database on the source and one on the target, and a slot between them."""

    def __init__(self, rig, source_db, target_db, slot):
        self.rig = rig
        self.source_db = source_db
        self.target_db = target_db
        self.slot = slot

    def source_uri(self):
        return self.rig.source.uri(self.source_db, "owner")

    def target_uri(self, port=None):
        return self.rig.target.uri(self.target_db, "owner", port=port)

    def make_slot(self, like=None):
        """At the source's present position, or where the slot `like` stands."""
        if like is None:
            self.rig.source.sql("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,),
                                self.source_db)
        else:
            self.rig.source.sql("SELECT pg_copy_logical_replication_slot(%s, %s)", (like, self.slot), self.source_db)

    def walsender(self):
        rows = self.rig.source.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (self.slot,))
        return rows[0][0] if rows else None

    def confirmed(self, lsn):
        rows = self.rig.source.sql(
            "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots WHERE slot_name = %s",
            (lsn, self.slot))
        return bool(rows and rows[0][0])

    def drop_slot(self):
        wait_until(lambda: self.walsender() is None, 30, f"the end of slot {self.slot}'s walsender")
        self.rig.source.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                            " WHERE slot_name = %s", (self.slot,), self.source_db)


def base_database(rig, cluster, workload):
    """A database with the workload's tables and rows and the table of markers, made once."""
    key = (cluster, workload.what)
    if key not in rig.bases:
        name = rig.fresh_name("base")
        cluster.sql(f"CREATE DATABASE {name} OWNER owner TEMPLATE template0")
        cluster.sql(MARKERS + workload.schema, dbname=name, role="owner")
        workload.fill(rig, cluster, name)
        cluster.sql("VACUUM ANALYZE", dbname=name)
        rig.bases[key] = name
    return rig.bases[key]


def make_source(rig, name, workload):
    """The database that will be replicated, all its tables published."""
    copy_database(rig.source, base_database(rig, rig.source, workload), name)
    tables = ", ".join(f'"{table}"' for table in tables_of(rig.source, name))
    rig.source.sql(f"CREATE PUBLICATION {PUBLICATION} FOR TABLE {tables}", dbname=name, role="owner")


def make_target(rig, name, workload, row_ms):
    """The same tables, and what tells that a marker came."""
    copy_database(rig.target, base_database(rig, rig.target, workload), name)
    slow = SLOW.format(seconds=row_ms / 1000, table=workload.slow_table) if row_ms else ""
    rig.target.sql(SEEN + slow, dbname=name, role="owner")


def tables_of(cluster, name):
    return [table for (table,) in cluster.sql(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
        dbname=name)]


def digest(cluster, name):
    """{table: (rows, sum of the rows' hashes)}: equal when the tables are, whatever the order of rows."""
    found = {}
    connection = cluster.connect(name)
    try:
        with connection.cursor() as cursor:
            for table in tables_of(cluster, name):
                cursor.execute(f'SELECT count(*), sum(hashtextextended(t::text, 0)) FROM "{table}" t')
                found[table] = cursor.fetchone()
    finally:
        connection.close()
    return found


def differing(one, other):
    return sorted(table for table in one.keys() | other.keys() if one.get(table) != other.get(table))


def copy_database(cluster, template, name):
    """A copy, file by file, with its tables in the server's memory."""
    how = " STRATEGY file_copy" if major_of(cluster.bin) >= 15 else ""
    cluster.sql(f"CREATE DATABASE {name} OWNER owner TEMPLATE {template}{how}")
    if cluster.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_prewarm'"):
        cluster.sql("CREATE EXTENSION pg_prewarm; SELECT sum(pg_prewarm(oid)) FROM pg_class"
                    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i');"
                    " DROP EXTENSION pg_prewarm", dbname=name)


def drop_database(cluster, name):
    cluster.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Listener:
    """Hears of markers on the target; costs nothing while none come."""

    def __init__(self, cluster, name):
        self.connection = cluster.connect(name)
        self.connection.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
        with self.connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        self.seen = {}  # id: monotonic seconds

    def wait(self, marker, timeout, alive):
        """Until the marker was seen; `alive` is called about once a second and raises when waiting is in vain."""
        deadline = time.monotonic() + timeout
        while marker not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"marker {marker} has not arrived within {timeout:.0f} s")
            if not select.select([self.connection], [], [], min(left, 1))[0]:
                alive()
                continue
            now = time.monotonic()
            self.connection.poll()
            while self.connection.notifies:
                self.seen.setdefault(int(self.connection.notifies.pop(0).payload), now)
        return self.seen[marker]

    def close(self):
        self.connection.close()


PROCESSED = re.compile(r"number of transactions actually processed: (\d+)")
SCHEDULE = re.compile(r"rate limit schedule lag: avg ([\d.]+) \(max ([\d.]+)\) ms")


def load_of(told):
    """(transactions, average and largest schedule lag in ms) out of what pgbench said."""
    processed, schedule = PROCESSED.search(told), SCHEDULE.search(told)
    if not processed:
        raise Failed(f"pgbench said nothing of transactions: {told[-500:]}")
    lags = (float(schedule.group(1)), float(schedule.group(2))) if schedule else (0.0, 0.0)
    return int(processed.group(1)), *lags
