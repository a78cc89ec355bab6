"""Large transactions flow to their worker while they arrive; memory stays within its budget.

    TMPDIR=/var/tmp PENSTOCK_LARGE_GB=10 pytest tests/e2e/test_large.py -k gigabytes     as many in one transaction

That needs a release binary (PENSTOCK_BIN), some minutes and, below TMPDIR, five times the room.
"""

import os
import pathlib
import signal
import threading
import time

import pytest

from lib.asking import wait_document
from lib.program import DONE, FAILED, wait_until

TABLES = "CREATE TABLE big (id int PRIMARY KEY, a text); CREATE TABLE small (id int PRIMARY KEY, n int)"
ROWS = 60000  # of a kilobyte: several times the memory that penstock gets
GIGABYTES = float(os.environ.get("PENSTOCK_LARGE_GB", "0"))
DIGEST = "SELECT count(*), sum(hashtextextended(t::text, 0)), min(id), max(id) FROM big t"


def peak_mb(run):
    """The largest resident memory of a process that still runs."""
    status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def fill(pair, first=1, rows=ROWS):
    pair.on_source("INSERT INTO big SELECT i, md5(i::text) || repeat('x', 1000)"
                   " FROM generate_series(%s, %s) i", (first, first + rows - 1))


def wait_for_apply(pair, run):
    """Until a worker is in the middle of the large transaction: of this run, not what one before it has left."""
    def busy():
        assert run.running, run.stderr
        return pair.target_cluster.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL"
            " AND application_name LIKE %s AND now() - xact_start > interval '100 ms'"
            " AND backend_start > to_timestamp(%s)", (pair.name, "penstock%worker%", run.started))[0][0]
    wait_until(busy, what="a worker in the middle of the transaction")


@pytest.mark.smoke
def test_memory_stays_within_its_budget(any_pair):
    pair = any_pair
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    run = pair.penstock.start(memory="16MB", workers=4)
    pair.wait_rows("small", 1, run)
    fill(pair)
    pair.on_source("UPDATE big SET a = 'short' WHERE id % 3 = 0")
    pair.on_source("DELETE FROM big WHERE id % 5 = 0")
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    pair.wait_rows("small", 2, run, timeout=120)
    peak = peak_mb(run)
    run.stop()
    assert run.finished()["memory_peak_mb"] <= 18
    assert peak < 16 + 100 or "asan" in run.process.args[0] or "tsan" in run.process.args[0]
    assert pair.same() > 0


def test_many_that_wait_for_the_target(pair):
    """None of them is large; what is received and not applied stays within the budget, and uses it."""
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start(memory="16MB", workers=4)
    pair.wait_streaming(run)
    blocker = pair.hold("LOCK TABLE big IN EXCLUSIVE MODE")
    for number in range(100):
        fill(pair, number * 400 + 1, 400)
    wait_document(pair.penstock.dir,
                  lambda d: d["stream"] and d["stream"]["reader"]["doing"] == "waits for memory", run)
    blocker.rollback()
    pair.wait_rows("big", 40000, run)
    run.stop()
    assert 14 <= run.finished()["memory_peak_mb"] <= 18
    assert pair.same() == 40000


@pytest.mark.parametrize("streaming", ["off", "on"])
def test_a_transaction_of_gigabytes(pair, streaming):
    """One transaction of every kind of row change, streamed and not, many times as large as --memory."""
    gigabytes, memory_mb, limit_mb = (GIGABYTES, 256, 400) if GIGABYTES else (0.1, 16, 116)
    patience = 60 + 600 * gigabytes
    pair.schema(TABLES)
    pair.make_slot()
    if not GIGABYTES:  # with so little the source would not stream it otherwise
        pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET logical_decoding_work_mem = '1MB'")
    run = pair.penstock.start("--streaming", streaming, "--log-level", "debug", memory=f"{memory_mb}MB", workers=4)
    pair.wait_streaming(run)
    started = time.monotonic()
    before = pair.wal_lsn()
    rows = int(gigabytes * 1e9 / 1000)
    pair.transaction(
        f"INSERT INTO big SELECT i, md5(i::text) || repeat('x', 950) FROM generate_series(1, {rows}) i",
        "UPDATE big SET a = md5(a) WHERE id % 25 = 0", "UPDATE big SET id = -id WHERE id % 100 = 1",
        "DELETE FROM big WHERE id % 10 = 3")
    changed = pair.on_source("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", (before,))[0][0]
    assert changed >= gigabytes * 1e9
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.wait_rows("small", 1, run, timeout=patience)
    peak = peak_mb(run)
    seconds = time.monotonic() - started
    run.stop(timeout=patience)
    print(f"{gigabytes} GB, streaming {streaming}: {seconds:.0f} s, at most {peak:.0f} MB resident")
    came = run.messages()
    assert ("Stream Commit" in came) == (streaming == "on")
    assert came["Insert"] >= rows
    assert run.finished()["memory_peak_mb"] <= memory_mb + 2
    assert peak < limit_mb or "asan" in run.process.args[0] or "tsan" in run.process.args[0]
    assert pair.on_source(DIGEST) == pair.on_target(DIGEST)
    assert pair.on_target("SELECT count(*) FROM big")[0][0] > rows * 0.8


def test_small_ones_before_between_and_after(any_pair):
    """Those behind a large one wait for it, whatever they touch; order stays."""
    pair = any_pair
    pair.schema(TABLES)
    pair.make_slot()
    for i in range(6):
        pair.on_source("INSERT INTO small VALUES (%s, 0)", (i,))
        fill(pair, i * 3000 + 1, 3000)
        pair.on_source("UPDATE big SET a = 'after ' || id WHERE id = %s", (i * 3000 + 7,))
        pair.on_source("DELETE FROM big WHERE id = %s", (i * 3000 + 8,))
        pair.on_source("UPDATE small SET n = n + 1")
    run = pair.penstock.catch_up(memory="16MB", workers=8, batch_rows=500)
    assert run.finished()["transactions"] == 6 * 5
    assert pair.same() > 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle(pair, how):
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    fill(pair)
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    for _ in range(3):
        # so that it is not at its end already
        between = pair.hold(f"INSERT INTO big VALUES ({ROWS // 2}, '')")
        run = pair.penstock.start(memory="16MB")
        wait_for_apply(pair, run)
        run.kill(how)
        if how == signal.SIGTERM:  # who takes it late may be at the end first
            wait_until(lambda r=run: "once more stops at once" in r.stderr or not r.running, 20,
                       "the signal to be taken")
        between.rollback()
        run.wait(30)
        assert pair.on_target("SELECT count(*) FROM big")[0][0] == 0
    pair.penstock.catch_up(memory="16MB")
    assert pair.same() == ROWS + 2


def test_a_large_one_that_the_target_has_is_passed_over(pair):
    """It is sent again when the source does not know yet that it is durable; it must not fill the memory."""
    pair.schema(TABLES)
    pair.make_slot()
    fill(pair)
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.penstock.catch_up(memory="16MB")
    before = pair.on_target("SELECT commit_lsn, end_lsn FROM penstock.progress")
    # as after a crash of penstock between the commit and the report: the stream begins before it again
    pair.drop_slot()
    pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
    pair.on_target("UPDATE penstock.durable SET reported_lsn = 'FFFFFFFF/0'")
    fill(pair, ROWS + 1, 1000)
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    end = pair.on_source("SELECT pg_current_wal_lsn()")[0][0]
    pair.on_target("UPDATE penstock.progress SET commit_lsn = %s", (end,))
    run = pair.penstock.catch_up(memory="16MB", batch_rows=100)
    assert run.finished()["transactions"] == 0
    assert pair.on_target("SELECT count(*) FROM big")[0][0] == ROWS
    assert before != pair.on_target("SELECT commit_lsn, end_lsn FROM penstock.progress")


def test_a_failure_in_the_middle_names_the_row(pair):
    pair.schema(TABLES)
    pair.make_slot()
    fill(pair, rows=20000)
    pair.penstock.catch_up(memory="16MB")
    pair.on_target("DELETE FROM big WHERE id = 15000")
    pair.on_source("UPDATE big SET a = a || 'y'")
    run = pair.penstock.start(memory="16MB")
    run.wait(60, expect=FAILED)
    assert "id=15000" in run.the_error() and "start again" in run.the_error()
    assert pair.on_target("SELECT count(*) FROM big WHERE a LIKE '%y'")[0][0] == 0
    pair.on_target("INSERT INTO big VALUES (15000, '')")
    pair.penstock.catch_up(memory="16MB")
    assert pair.same() == 20000


def test_a_column_that_is_missing_for_a_later_part(pair):
    """The table is first met in the middle, when the transaction is already on its way."""
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_source("INSERT INTO small VALUES (1, 1)")
    pair.penstock.catch_up()
    source = pair.connect(pair.source_cluster)
    source.autocommit = False
    with source.cursor() as cursor:
        cursor.execute("INSERT INTO big SELECT i, repeat('x', 1000) FROM generate_series(1, 8000) i")
        cursor.execute("ALTER TABLE small ADD COLUMN extra int DEFAULT 7")
        cursor.execute("INSERT INTO small VALUES (2, 2, 2)")
        cursor.execute("INSERT INTO big SELECT i, repeat('x', 1000) FROM generate_series(8001, 16000) i")
    source.commit()
    run = pair.penstock.start(memory="16MB", batch_rows=1000)
    run.wait(60, expect=FAILED)
    assert "ALTER TABLE public.small ADD COLUMN extra integer DEFAULT '7'" in run.the_error()
    assert pair.on_target("SELECT count(*) FROM big")[0][0] == 0
    pair.on_target("ALTER TABLE public.small ADD COLUMN extra integer DEFAULT '7'")
    pair.penstock.catch_up(memory="16MB", batch_rows=1000)
    assert pair.same() == 16002


def test_one_row_larger_than_the_memory(pair):
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_source("INSERT INTO small VALUES (1, 0)")
    pair.on_source("INSERT INTO big SELECT i, repeat(md5(random()::text), 640 * 1024)"  # 20 MB each
                   " FROM generate_series(1, 4) i")
    pair.on_source("INSERT INTO small VALUES (2, 0)")
    run = pair.penstock.catch_up(memory="16MB", timeout=120)
    assert run.wait() == DONE and "beyond the budget" in run.stderr
    assert pair.same() == 6


def test_writers_beside_large_ones(any_pair):
    """Concurrent small transactions, hot rows among them, while large ones come and go."""
    pair = any_pair
    pair.schema(TABLES)
    pair.make_slot()
    pair.on_source("INSERT INTO small SELECT i, 0 FROM generate_series(1, 20) i")
    run = pair.penstock.start(memory="16MB", workers=8, batch_rows=300)
    pair.wait_rows("small", 20, run)
    over = threading.Event()

    def write(number):
        connection = pair.source_cluster.connect(pair.name, "owner")
        with connection.cursor() as cursor:
            i = 0
            while not over.is_set():
                i += 1
                cursor.execute("UPDATE small SET n = n + 1 WHERE id = %s", (i % 20 + 1 if number else 1,))
        connection.close()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for writer in writers:
        writer.start()
    try:
        for i in range(8):
            fill(pair, i * 2000 + 1, 2000)
            pair.on_source("UPDATE big SET a = 'z' WHERE id BETWEEN %s AND %s", (i * 1000, i * 1500))
    finally:
        over.set()
        for writer in writers:
            writer.join()
    run.stop(timeout=120)
    pair.penstock.catch_up(timeout=120)
    assert pair.same() == 16020
