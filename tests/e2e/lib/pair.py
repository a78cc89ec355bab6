"""A source and a target database, and the comparison of what is in them."""

import collections

import psycopg2
from psycopg2 import sql as quoting

from .cluster import SUPERUSER
from .program import Penstock, wait_until


class Pair:
    """A fresh database on each of two servers, owned by the plain role, and a penstock between them."""

    def __init__(self, source, target, name, folder, role="owner"):
        self.source_cluster = source
        self.target_cluster = target
        self.name = name
        self.role = role  # the target's, with which penstock applies
        self.connections = []
        self.closed = False
        for cluster in (source, target):
            cluster.create_database(name)
        self.source = self.connect(source)
        self.target = self.connect(target)
        self.penstock = Penstock(
            source.uri(name, "owner"), target.uri(name, role), name, folder / "state"
        )

    def connect(self, cluster, role="owner"):
        connection = cluster.connect(self.name, role)
        self.connections.append(connection)
        return connection

    def close(self):
        """Takes down what it has on both servers; once more is nothing."""
        if self.closed:
            return
        self.closed = True
        self.penstock.kill_all()
        for connection in self.connections:
            connection.close()
        slots = "SELECT slot_name FROM pg_replication_slots WHERE database = %s"
        for cluster in (self.source_cluster, self.target_cluster):
            cluster.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (self.name,),
            )
            for (slot,) in cluster.sql(slots, (self.name,)):
                drop_slot(cluster, slot)
            drop_database(cluster, self.name)
        self.penstock.forget_all()

    def recreate(self, encodings):
        """Both databases anew, the source's and the target's in these encodings."""
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        for cluster, encoding in zip((self.source_cluster, self.target_cluster), encodings):
            drop_database(cluster, self.name)
            cluster.sql(f"CREATE DATABASE {self.name} OWNER owner TEMPLATE template0 ENCODING '{encoding}'"
                        " LC_COLLATE 'C' LC_CTYPE 'C'")
        self.source, self.target = self.connect(self.source_cluster), self.connect(self.target_cluster)

    def on_source(self, statement, params=None):
        return run(self.source, statement, params)

    def on_target(self, statement, params=None):
        return run(self.target, statement, params)

    def schema(self, statements):
        """The same objects on both sides, owned by the plain role."""
        self.on_source(statements)
        self.on_target(statements)

    def transaction(self, *statements):
        """One transaction on the source."""
        self.source.autocommit = False
        try:
            with self.source.cursor() as cursor:
                for statement in statements:
                    if isinstance(statement, tuple):
                        cursor.execute(*statement)
                    else:
                        cursor.execute(statement)
            self.source.commit()
        finally:
            self.source.rollback()
            self.source.autocommit = True

    def hold(self, statement, cluster=None):
        """A session, on the target where nothing is said, whose transaction has carried out `statement`, until its
        rollback()."""
        holder = self.connect(cluster or self.target_cluster)
        holder.autocommit = False
        run(holder, statement)
        return holder

    def stream_early(self):
        """The source sends whatever takes more than 64 kB before its commit, where penstock asks for that."""
        self.source_cluster.sql(f"ALTER DATABASE {self.name} SET logical_decoding_work_mem = '64kB'")

    def make_slot(self, tables=None):
        """Publication and slot as penstock would make them: what is committed from now on is streamed."""
        names = quoting.SQL(", ").join(identifier(t) for t in tables or self.tables())
        self.on_source(
            quoting.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(quoting.Identifier(self.name), names)
        )
        self.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.name,))

    def tables(self):
        """All ordinary tables of the source that are the test's."""
        return self.on_source("""
            SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND n.nspname <> 'penstock' AND n.nspname !~ '^pg_'
              AND n.nspname <> 'information_schema' ORDER BY 1, 2""")

    def wal_lsn(self):
        """The source's WAL position: everything committed so far ends at or before it."""
        return self.on_source("SELECT pg_current_wal_insert_lsn()")[0][0]

    def confirmed_lsn(self):
        rows = self.on_source(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s", (self.name,))
        return rows[0][0] if rows else None

    def wait_slot_free(self):
        """Until nobody reads the slot: the walsender of a run that has just ended may for a moment still."""
        wait_until(lambda: not self.on_source(
            "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", (self.name,)), 20, "the slot to be free")

    def wait_told(self, run_=None, timeout=60):
        """Until the source has been told that all it has committed so far may be forgotten."""
        position = lsn_number(self.wal_lsn())

        def told():
            assert run_ is None or run_.running, f"penstock ended early:\n{run_.stderr[-4000:]}"
            return lsn_number(self.confirmed_lsn()) >= position
        wait_until(told, timeout, "the source to be told")

    def drop_slot(self):
        drop_slot(self.source_cluster, self.name)

    def wait_streaming(self, run_=None, timeout=30):
        """Until penstock holds the slot: this run, not the walsender of one that has just ended. A slot that is still
        being created counts as active too, but what is committed then may not come."""
        def active():
            if run_ is not None:
                assert run_.running, f"penstock ended early:\n{run_.stderr[-4000:]}"
            return self.on_source(
                "SELECT 1 FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid"
                " WHERE s.slot_name = %s AND a.backend_start > to_timestamp(%s) AND s.confirmed_flush_lsn IS NOT NULL",
                (self.name, run_.started if run_ is not None else 0))
        wait_until(active, timeout, "an active slot")

    def wait_rows(self, table, count, run_=None, timeout=60):
        """Until the target's table has at least so many rows."""
        def there():
            if run_ is not None:
                assert run_.running, f"penstock ended early:\n{run_.stderr[-4000:]}"
            statement = quoting.SQL("SELECT count(*) FROM {}").format(identifier(table))
            return self.on_target(statement)[0][0] >= count
        try:
            wait_until(there, timeout, f"{count} rows in {table}")
        except AssertionError as error:
            if run_ is not None:
                raise AssertionError(f"{error}; what penstock said last:\n{run_.stderr[-4000:]}") from None
            raise

    def same(self, tables=None, columns=None):
        """Both sides hold the same rows; gives how many those are."""
        return sum(self.same_table(table, columns) for table in tables or self.tables())

    def same_table(self, table, columns=None):
        names = columns or self.columns(table)
        statement = quoting.SQL("SELECT ROW({})::text FROM {}").format(
            quoting.SQL(", ").join(quoting.Identifier(n) for n in names), identifier(table))
        source = collections.Counter(row for (row,) in self.on_source(statement))
        target = collections.Counter(row for (row,) in self.on_target(statement))
        if source != target:
            lost = sorted((source - target).elements())
            extra = sorted((target - source).elements())
            shown = [f"  only on the source: {row[:300]}" for row in lost[:5]]
            shown += [f"  only on the target: {row[:300]}" for row in extra[:5]]
            raise AssertionError(
                f"{table}: {len(lost)} rows missing on the target, {len(extra)} too many\n"
                + "\n".join(shown))
        return sum(source.values())

    def columns(self, table):
        return [name for (name,) in self.on_source(
            quoting.SQL("""SELECT attname FROM pg_attribute WHERE attrelid = {}::regclass
                AND attnum > 0 AND NOT attisdropped ORDER BY attnum""").format(
                quoting.Literal(identifier(table).as_string(self.source))))]

    def recorded_lsn(self):
        """The furthest LSN in penstock's own tables on the target; None when there is none."""
        admin = self.target_cluster
        columns = admin.sql("""
            SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'penstock' AND c.relkind = 'r' AND a.attnum > 0
              AND a.atttypid = 'pg_lsn'::regtype""", dbname=self.name)
        found = []
        for table, column in columns:
            statement = quoting.SQL("SELECT max({}) FROM penstock.{}").format(
                quoting.Identifier(column), quoting.Identifier(table)).as_string(self.target)
            found.append(admin.sql(statement, dbname=self.name)[0][0])
        return max((lsn_number(lsn) for lsn in found if lsn), default=None)


def drop_database(cluster, name):
    """The server itself waits for the sessions that it ends for 5 s."""
    def dropped():
        try:
            cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
            return True
        except psycopg2.errors.ObjectInUse:
            return False
    wait_until(dropped, what=f"the end of all sessions of {name}")


def drop_slot(cluster, slot):
    """Who read it may have ended, and its walsender not yet."""
    wait_until(lambda: not cluster.sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", (slot,)),
               what=f"the end of slot {slot}'s walsender")
    cluster.sql("SELECT pg_drop_replication_slot(%s)", (slot,))


def run(connection, statement, params=None):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def identifier(table):
    """"name" as it is, or (schema, name)."""
    return quoting.Identifier(*table) if isinstance(table, tuple) else quoting.Identifier(table)


def lsn_number(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


__all__ = ["Pair", "SUPERUSER", "drop_slot", "identifier", "lsn_number", "run"]
