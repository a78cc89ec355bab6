"""A migration of very many tables: nothing in it may cost more than in proportion to their number.

    PENSTOCK_MANY_TABLES=10000 pytest -s tests/e2e/test_migrate_many.py     the long run, with its times
"""

import os
import pathlib
import time

from lib.cluster import Cluster
from lib.everything import about
from lib.migration import cutover, migrate, wait_phase
from lib.program import DONE, FAILED, wait_until

COUNT = int(os.environ.get("PENSTOCK_MANY_TABLES", "500"))

# Every second one has rows, every fifth a second index, every tenth a foreign key.
MAKE = """DO $$ BEGIN FOR i IN %d..%d LOOP
    EXECUTE format('CREATE TABLE t%%s (id int PRIMARY KEY, a text, up int)', i);
    IF i %% 2 = 0 THEN EXECUTE format('INSERT INTO t%%s SELECT g, ''x'', 1 FROM generate_series(1, 10) g', i); END IF;
    IF i %% 5 = 0 THEN EXECUTE format('CREATE INDEX ON t%%s (a)', i); END IF;
    IF i %% 10 = 0 AND i > 10 THEN
        EXECUTE format('ALTER TABLE t%%s ADD FOREIGN KEY (up) REFERENCES t%%s', i, i - 10);
    END IF;
END LOOP; END $$"""
CHANGE = "DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('INSERT INTO t%%s VALUES (100, ''new'', 1)', i); END LOOP; END $$"


def in_pieces(pair, statement):
    """Each in one transaction, which holds a lock on every table that it touches."""
    for first in range(1, COUNT + 1, 500):
        pair.on_source(statement % (first, min(first + 499, COUNT)))


def memory_mb(run):
    status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def backends_mb(pair):
    """What the target's sessions of the workers hold for themselves."""
    pids = about(pair, "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%%worker%%'",
                 (pair.name,))
    found = []
    for (pid,) in pids:
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        found.append(int(rollup.split("Anonymous:")[1].split()[0]) / 1024)
    return found


def commits(pair):
    """Of all sessions so far; they tell it once a second at most."""
    return pair.source_cluster.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (pair.name,))[0][0]


def test_very_many_tables(pair):
    began = time.monotonic()

    def tell(what):
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    in_pieces(pair, MAKE)
    tell(f"{COUNT} tables are made")
    before = commits(pair)
    run = migrate(pair, progress="plain")
    for phase in ("schema", "copy", "unique indexes", "stream", "ready"):
        wait_phase(pair, {"schema": ("schema", "slot", "copy", "unique indexes", "stream", "ready"),
                          "copy": ("copy", "unique indexes", "stream", "ready"),
                          "unique indexes": ("unique indexes", "stream", "ready"),
                          "stream": ("stream", "ready"), "ready": "ready"}[phase], run, timeout=60 + COUNT / 20)
        tell(f"{phase}; {memory_mb(run):.0f} MB at most so far")
    assert about(pair, "SELECT count(*), sum(rows) FROM penstock.copied_table WHERE done") == [(COUNT, COUNT // 2 * 10)]
    assert pair.on_target("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                          " WHERE indisprimary AND relname LIKE 't%%pkey'")[0][0] == COUNT
    # A transaction under the snapshot for each table, and what does not grow with their number, autovacuum's among it.
    made = commits(pair) - before
    tell(f"{made} transactions on the source")
    assert made < COUNT * 1.5 + 100
    in_pieces(pair, CHANGE)
    changed = time.monotonic()
    tell("each has changed")
    wait_until(lambda: not run.running or pair.on_target(f"SELECT count(*) FROM t{COUNT} WHERE id = 100")[0][0],
               60 + COUNT / 20, "the last change")
    assert run.running, run.stderr[-3000:]
    tell(f"streamed, {(time.monotonic() - changed) / COUNT * 1000:.2f} ms for each; {memory_mb(run):.0f} MB, and the"
         f" workers' sessions {', '.join(f'{mb:.0f}' for mb in backends_mb(pair))} MB")
    assert memory_mb(run) < 50 + COUNT * 0.01
    done = cutover(pair)
    assert run.wait(60) == DONE
    report = [e for e in done.events() if e["message"] == "cutover finished"][0]
    tell(f"cut over in {report['seconds']:.1f} s")
    assert report["foreign_keys_validated"] == (COUNT - 1) // 10
    assert pair.same() == COUNT // 2 * 10 + COUNT


def test_more_tables_than_the_source_can_lock(make_pair, clusters):
    """That does not pass by itself: it is said, and not tried for ever."""
    few = {"max_locks_per_transaction": "10", "max_connections": "30", "max_wal_senders": "5",
           "max_prepared_transactions": "0"}
    source = Cluster("source", settings=few)
    try:
        pair = make_pair("owner", source, clusters[1])
        for first in range(1, 1500, 100):
            pair.on_source(MAKE % (first, first + 99))
        run = migrate(pair)
        run.wait(60, FAILED)
        assert "max_locks_per_transaction" in run.the_error() and "the same command goes on" in run.the_error()
        pair.close()
    finally:
        source.remove()
