"""How the stream flows to the workers: large batches while the source is far behind, and none that waits
while it is not."""

import os
import signal
import time

import pytest

from lib.asking import wait_document
from lib.cluster import time_factor
from lib.program import wait_until

TABLE = "CREATE TABLE rows (id int PRIMARY KEY, a text)"
# A batch is filled up to a quarter of its limits.
LIMIT, FILL = 2000, 500
# Transactions that a busy machine may bring late though nothing is behind.
LATE = 20
FLOW = {"workers": 16, "batch_transactions": LIMIT}


def write(pair, first, count, size=20):
    """So many transactions of a row each."""
    pair.on_source(f"""DO $$ BEGIN FOR i IN {first}..{first + count - 1} LOOP
        INSERT INTO rows VALUES (i, repeat('x', {size})); COMMIT; END LOOP; END $$""")


def write_one_by_one(pair, run, ids, there):
    """Each a transaction, when the one before is on the target: a machine that stands still for a while makes one of
    them late, not all that come meanwhile. `there`: rows that are there before."""
    for id_ in ids:
        pair.on_source("INSERT INTO rows VALUES (%s, '')", (id_,))
        there += 1
        pair.wait_rows("rows", there, run)


def wait_sent(pair):
    """Until all that the source has written is in the socket."""
    position = pair.wal_lsn()
    sent = "SELECT bool_and(sent_lsn >= %s) FROM pg_stat_replication"
    wait_until(lambda: pair.source_cluster.sql(sent, (position,)) == [(True,)], 30, "the walsender to have sent all")


def backlog(pair, count, size=20):
    """Transactions that were committed longer ago than what counts as far behind, before penstock comes."""
    pair.schema(TABLE)
    pair.make_slot()
    write(pair, 1, count, size)
    time.sleep(0.3)


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_batches_are_filled_in_a_drain(pair, dispatchers):
    backlog(pair, 5000)
    done = pair.penstock.catch_up(dispatchers=dispatchers, **FLOW).finished()
    assert done["transactions"] == 5000
    # But the last, and where the source made a pause.
    assert done["batches"] <= 5000 / FILL + 10 + done["dry_batches"]
    assert done["batch_transactions_p50"] >= FILL / 4 or done["dry_batches"] >= done["batches"] / 2
    assert done["late_transactions"] == done["received_transactions"] == 5000
    assert done["held_batches"] > 0
    assert pair.same() == 5000
    for turn in range(1, 16):
        if done["pauses"] > 0:
            break
        # One that is kept from the processor finds enough each time it looks.
        write(pair, 10000 * turn, 5000)
        time.sleep(0.3)
        done = pair.penstock.catch_up(dispatchers=dispatchers, **FLOW).finished()
    assert done["pauses"] > 0


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_a_lone_transaction_goes_at_once(pair, dispatchers):
    """Before there was a drain, and after one."""
    pair.schema(TABLE)
    run = pair.penstock.start(dispatchers=dispatchers, **FLOW)
    pair.wait_streaming(run)
    write(pair, -100, 1)
    pair.wait_rows("rows", 1, run)
    write_one_by_one(pair, run, range(-99, 0), 1)
    run.stop()
    done = run.finished()
    if dispatchers == 1:
        # Nobody is woken for it but a worker. Not for the first one of a table, nor where the dispatcher slept badly.
        assert done["direct_transactions"] > 50
    else:
        assert done["direct_transactions"] == 0
    # The first one, which came while the stream began, may have been late; and a machine may be slow.
    assert done["held_batches"] <= done["late_transactions"] <= LATE
    assert done["pauses"] <= 3 * LATE
    write(pair, 1, 3000)
    time.sleep(0.3)
    run = pair.penstock.start(dispatchers=dispatchers, **FLOW)
    pair.wait_rows("rows", 3100, run)
    write_one_by_one(pair, run, range(3001, 3201), 3100)
    run.stop()
    done = run.finished()
    # Those of the drain, and no other. Each other was a batch of its own.
    assert 3000 <= done["late_transactions"] <= 3000 + LATE
    assert done["held_batches"] <= 3000 / FILL + 10 + LATE + done["dry_batches"]
    assert 200 < done["batches"] <= 3000 / FILL + 10 + 200 + done["dry_batches"]
    assert pair.same() == 3300


def pairs_of_transactions(pair, first, count):
    """So many pairs, of which each lies in the socket before penstock looks; what it said at its end."""
    run = pair.penstock.start(workers=2)
    pair.wait_streaming(run)
    there = 2 * first
    write_one_by_one(pair, run, range(there, there + 2), there)
    # No more at once than the kernel has on the way to somebody who does not read.
    for id_ in range(there + 2, there + 2 + 2 * count, 2):
        os.kill(run.pid, signal.SIGSTOP)
        write(pair, id_, 2)
        wait_sent(pair)
        os.kill(run.pid, signal.SIGCONT)
        pair.wait_rows("rows", id_ + 2, run)
    run.stop()
    return run.finished()


def test_what_comes_together_goes_out_together(pair):
    """Transactions that lie in the socket when the reader looks, and are not late, are a batch: the first of them is
    not sent ahead of the others by itself."""
    pair.schema(TABLE)
    for turn in range(3):
        done = pairs_of_transactions(pair, 51 * turn, 50)
        assert done["transactions"] == 102
        # Where the first one went ahead, there would be five more and up to fifty. A machine that stands still for a
        # while may bring some late, and those go by the dispatcher.
        if done["batches"] <= 2 + 50 + 1 and done["direct_transactions"] > 50:
            break
    else:
        pytest.fail(f"{done['batches']} batches, {done['direct_transactions']} transactions by the reader")
    assert pair.same() == 102 * (turn + 1)


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_a_batch_is_not_held_for_ever(pair, dispatchers):
    """With limits out of reach it is sent when nothing more comes: the end of the backlog is on the target
    though nobody writes any more."""
    backlog(pair, 700)
    run = pair.penstock.start(dispatchers=dispatchers, batch_transactions=1000000, batch_rows=1000000)
    pair.wait_rows("rows", 700, run)
    run.stop()
    done = run.finished()
    assert 1 <= done["batches"] <= 10 + done["dry_batches"]
    assert 1 <= done["dry_batches"] <= done["held_batches"]
    assert pair.same() == 700


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_a_stop_sends_what_is_held(pair, dispatchers):
    backlog(pair, 40000)
    run = pair.penstock.start(dispatchers=dispatchers, batch_transactions=1000000, batch_rows=1000000,
                              log_level="debug")
    wait_document(pair.penstock.dir, lambda d: d["stream"] and d["stream"]["metrics"]["received_transactions"] > 0, run)
    asked = time.monotonic()
    run.stop()
    assert time.monotonic() - asked < 20 * time_factor()
    done = run.finished()
    # What had come whole when it was asked is on the target, not only what had been sent on.
    assert done["transactions"] == run.messages()["Commit"] == count(pair)
    assert done["transactions"] > 0
    pair.penstock.catch_up()
    assert pair.same() == 40000


def count(pair):
    return pair.on_target("SELECT count(*) FROM rows")[0][0]


def test_an_end_inside_the_backlog_sends_what_is_held(pair):
    pair.schema(TABLE)
    pair.make_slot()
    write(pair, 1, 1000)
    end = pair.wal_lsn()
    write(pair, 1001, 1000)
    time.sleep(0.3)
    run = pair.penstock.start(stop_at=end, batch_transactions=1000000, batch_rows=1000000)
    run.wait(expect=0)
    assert run.finished()["transactions"] == count(pair) == 1000
    pair.penstock.catch_up()
    assert pair.same() == 2000


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_a_large_transaction_between_small_ones(pair, dispatchers):
    """It has a batch of its own; what is held before it goes first, and what comes behind it is filled again."""
    pair.schema(TABLE)
    pair.make_slot()
    for part in range(3):
        write(pair, part * 10000 + 1, 510)
        pair.on_source("INSERT INTO rows SELECT i, 'y' FROM generate_series(%s, %s) i",
                       (part * 10000 + 1000, part * 10000 + 7000))
        pair.on_source("UPDATE rows SET a = 'z' WHERE id BETWEEN %s AND %s", (part * 10000 + 500, part * 10000 + 3000))
    write(pair, 50000, 510)
    time.sleep(0.3)
    done = pair.penstock.catch_up(dispatchers=dispatchers, batch_rows=2000, **FLOW).finished()
    assert done["transactions"] == 4 * 510 + 6
    assert done["batches"] <= 4 * (510 / FILL + 4) + 6 + done["dry_batches"]
    assert pair.same() == 4 * 510 + 3 * 6001


def test_held_batches_leave_room_in_memory(pair):
    """Limits far beyond the budget: a batch is filled only as far as every worker can have one."""
    backlog(pair, 6000, size=6000)
    done = pair.penstock.catch_up(memory="16MB", batch_bytes="1GB", batch_transactions=1000000, workers=7).finished()
    assert done["transactions"] == 6000
    # A few rows of 6 kB are some 36 MB: every worker had more than one.
    assert done["batches"] >= 14
    assert pair.same() == 6000


def test_a_backlog_in_the_spool(pair):
    """The target takes nothing for a while. What lies in the spool then is late, though the source sent it at once."""
    pair.schema(TABLE)
    pair.make_slot()
    run = pair.penstock.start("--ack", "spooled", memory="16MB", **FLOW)
    pair.wait_streaming(run)
    write(pair, 1, 10)
    pair.wait_rows("rows", 10, run)
    pair.target.autocommit = False
    pair.on_target("LOCK TABLE rows IN ACCESS EXCLUSIVE MODE")
    # More than memory has room for.
    write(pair, 11, 14000, size=1500)
    end = pair.wal_lsn()
    wait_until(lambda: pair.confirmed_lsn() and lsn(pair, end), what="the end of the backlog in the spool")
    time.sleep(0.3)
    pair.target.rollback()
    pair.target.autocommit = True
    pair.wait_rows("rows", 14010, run, timeout=120)
    run.stop()
    done = run.finished()
    # What came first was on time; what the workers had when the target stood still was small.
    assert done["late_transactions"] >= 3000
    # And a batch is filled up to an eighth of the memory's share.
    assert done["batches"] <= 14000 * 1500 / ((16 << 20) / 8 / (FLOW["workers"] + 1)) + 40 + done["dry_batches"]
    assert pair.same() == 14010


def lsn(pair, end):
    return pair.on_source("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s",
                          (end, pair.name))[0][0]


STAGES = {
    "reader": ("source", "paced", "memory", "room", "disk"),
    "dispatcher": ("input", "baton", "room"),
    "worker": ("input", "turn", "server", "pause"),
}


def test_the_time_of_each_stage(pair):
    """The waits of a stage are parts of its time, and the stage that limits is named."""
    pair.schema(TABLE)
    pair.on_target("""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END'""")
    pair.on_target("CREATE TRIGGER slow BEFORE INSERT ON rows FOR EACH ROW EXECUTE FUNCTION slow()")
    pair.on_target("ALTER TABLE rows ENABLE ALWAYS TRIGGER slow")
    pair.make_slot()
    write(pair, 1, 1500)
    run = pair.penstock.catch_up(dispatchers=2, workers=4)
    done = run.finished()
    seconds = {stage: done[f"{stage}_seconds"] for stage in STAGES}
    for stage, waits in STAGES.items():
        waited = sum(done[f"{stage}_{wait}_seconds"] for wait in waits)
        assert 0 < waited <= seconds[stage] * 1.01, stage
    assert 0 < seconds["reader"] < done["seconds"]
    assert seconds["worker"] > 2 * seconds["dispatcher"] * 0.8
    # Each row takes 2 ms of the target's time.
    assert done["worker_server_seconds"] > 1500 * 0.002 * 0.5
    assert done["limit"] in ("target", "order")
    assert done["applied_changes"] == done["rows"] == 1500
    assert done["received_bytes"] > 1500 * 20
    assert done["batch_changes_max"] >= done["batch_changes_p50"] >= 1


def test_a_stream_that_keeps_up_waits_for_the_source(pair):
    pair.schema(TABLE)
    run = pair.penstock.start()
    pair.wait_streaming(run)
    for i in range(50):
        pair.on_source("INSERT INTO rows VALUES (%s, '')", (i,))
        time.sleep(0.02)
    pair.wait_rows("rows", 50, run)
    run.stop()
    done = run.finished()
    assert done["limit"] == "source"
    assert done["reader_source_seconds"] > done["reader_seconds"] / 2
    assert done["worker_input_seconds"] > done["worker_seconds"] / 2


def test_a_summary_for_people(pair):
    backlog(pair, 100)
    run = pair.penstock.catch_up(log_format="text")
    lines = run.stderr.splitlines()
    for start in ("reader: busy ", "dispatchers: busy ", "workers: busy "):
        assert len([line for line in lines if start in line]) == 1, run.stderr
    assert len([line for line in lines if "transactions and" in line and "; limited by the " in line]) == 1
    assert "stream finished" in lines[-1] and "limit=" in lines[-1] and "reader_" not in lines[-1]


SLOW = """CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_sleep(0.005); RETURN NULL; END $$;
CREATE TRIGGER take_long AFTER UPDATE ON rows FOR EACH ROW EXECUTE FUNCTION take_long();
ALTER TABLE rows ENABLE ALWAYS TRIGGER take_long"""


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_rows_that_take_long(pair, dispatchers):
    """Batches are small enough for all workers to have one, none waits for its turn with what need not, and nothing goes
    out that must."""
    count, workers = 3000, 16
    pair.schema(TABLE + "; CREATE TABLE hot (id int PRIMARY KEY, n int)")
    pair.on_target(SLOW)
    pair.make_slot()
    pair.on_source("INSERT INTO rows SELECT i, '' FROM generate_series(1, %s) i", (count,))
    pair.on_source("INSERT INTO hot SELECT i, 0 FROM generate_series(0, 6) i")
    pair.penstock.catch_up()
    pair.on_source(f"""DO $$ BEGIN FOR i IN 1..{count} LOOP
        UPDATE rows SET a = i WHERE id = i; UPDATE hot SET n = i WHERE id = i % 7; COMMIT; END LOOP; END $$""")
    time.sleep(0.3)
    done = pair.penstock.catch_up(workers=workers, dispatchers=dispatchers).finished()
    assert pair.same() == count + 7
    # One after the other they take 15 s and more; on a slow machine all of it takes longer.
    assert done["worker_server_seconds"] > count * 0.005 and done["seconds"] < done["worker_server_seconds"] / 2
    assert done["batches"] >= 2 * workers
    assert done["batch_transactions_p50"] <= 100
    # Who goes too early meets locks, and must let go of its own.
    assert done["retries"] == 0
