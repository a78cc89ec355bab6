"""How the stream flows to the workers: large batches while the source is far behind, and none that waits
while it is not."""

import time

import pytest

from lib.program import wait_until

TABLE = "CREATE TABLE rows (id int PRIMARY KEY, a text)"
# A batch is filled up to a quarter of its limits.
LIMIT, FILL = 2000, 500
FLOW = {"workers": 16, "batch_transactions": LIMIT}


def write(pair, first, count, size=20):
    """So many transactions of a row each."""
    pair.on_source(f"""DO $$ BEGIN FOR i IN {first}..{first + count - 1} LOOP
        INSERT INTO rows VALUES (i, repeat('x', {size})); COMMIT; END LOOP; END $$""")


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
    assert done["batches"] <= 5000 / FILL + 10
    assert pair.same() == 5000


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_a_lone_transaction_goes_at_once(pair, dispatchers):
    """Before a drain, and after it."""
    backlog(pair, 3000)
    run = pair.penstock.start(dispatchers=dispatchers, **FLOW)
    pair.wait_rows("rows", 3000, run)
    for i in range(3001, 3201):
        pair.on_source("INSERT INTO rows VALUES (%s, '')", (i,))
        time.sleep(0.01)
    pair.wait_rows("rows", 3200, run)
    run.stop()
    done = run.finished()
    # Each was a batch of its own, unless one took longer than the pause.
    assert 100 <= done["batches"] <= 3000 / FILL + 10 + 200
    assert pair.same() == 3200


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_a_batch_is_not_held_for_ever(pair, dispatchers):
    """With limits out of reach it is sent when nothing more comes: the end of the backlog is on the target
    though nobody writes any more."""
    backlog(pair, 700)
    run = pair.penstock.start(dispatchers=dispatchers, batch_transactions=1000000, batch_rows=1000000)
    pair.wait_rows("rows", 700, run)
    run.stop()
    assert run.finished()["batches"] <= 10
    assert pair.same() == 700


@pytest.mark.parametrize("dispatchers", [1, 4])
def test_a_stop_sends_what_is_held(pair, dispatchers):
    backlog(pair, 40000)
    run = pair.penstock.start(dispatchers=dispatchers, batch_transactions=1000000, batch_rows=1000000,
                              log_level="debug")
    pair.wait_streaming(run)
    time.sleep(0.15)
    asked = time.monotonic()
    run.stop()
    assert time.monotonic() - asked < 20
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
    assert done["batches"] <= 4 * (510 / FILL + 4) + 6
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
    # What the workers had when the target stood still was small.
    assert run.finished()["batches"] <= 14000 / FILL + 40
    assert pair.same() == 14010


def lsn(pair, end):
    return pair.on_source("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s",
                          (end, pair.name))[0][0]
