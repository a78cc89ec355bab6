"""Many clients at once: hot rows, rows of one's own, and a sum that must stay 0 at every moment."""

import random
import signal
import time

import pytest

from lib.load import Load
from lib.program import STOPPED


@pytest.mark.smoke
def test_a_backlog_of_concurrent_transactions(any_pair):
    load = Load(any_pair, threads=4, transactions=300)
    any_pair.make_slot()
    load.fill()
    load.start()
    load.join()
    any_pair.penstock.catch_up()
    load.check()


@pytest.mark.parametrize("workers", [1, 8])
def test_following_while_they_write(make_pair, workers):
    """At every moment the target shows a state that the source has had: so the sum is 0 there, too."""
    pair = make_pair("owner")
    pair.penstock.workers = workers
    load = Load(pair, threads=4, transactions=500)
    pair.make_slot()
    load.fill()
    run = pair.penstock.start()
    pair.wait_rows("accounts", 50, run)
    load.start()
    watched = 0
    while load.running or watched <= 5:
        # both in one statement, so in one snapshot
        total, journal, hot = pair.on_target(
            "SELECT (SELECT sum(balance) FROM accounts), (SELECT count(*) FROM journal),"
            " (SELECT coalesce(sum(n), 0) FROM hot)")[0]
        assert total == 0
        assert journal == hot, "a transaction is there in part"
        watched += 1
        time.sleep(0.005)
    load.join()
    run.stop()
    pair.penstock.catch_up()
    load.check()


def test_stopped_and_killed_under_load(any_pair):
    pair = any_pair
    load = Load(pair, threads=4, transactions=600)
    pair.make_slot()
    load.fill()
    load.start()
    rounds = 0
    while load.running or rounds < 4:
        run = pair.penstock.start()
        pair.wait_streaming(run)
        time.sleep(random.uniform(0.05, 0.6))
        if rounds % 2:
            run.kill(signal.SIGTERM)
            run.wait(30, expect=STOPPED)
        else:
            run.kill(signal.SIGKILL)
            run.wait()
        rounds += 1
    load.join()
    pair.penstock.catch_up()
    load.check()


def test_commit_order_is_the_source_s(pair):
    """A row written in transaction n never shows without the rows of those before it."""
    pair.schema("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    pair.make_slot()
    for i in range(1, 600):
        pair.on_source(f"INSERT INTO {'ab'[i % 2]} VALUES (%s)", (i,))
    run = pair.penstock.start()
    seen = 0
    deadline = time.monotonic() + 60
    while seen < 599 and time.monotonic() < deadline:
        rows = [n for (n,) in pair.on_target("SELECT id FROM a UNION ALL SELECT id FROM b ORDER BY 1")]
        assert rows == list(range(1, len(rows) + 1))
        seen = len(rows)
    assert seen == 599
    run.stop()
