"""A migration that is killed at any moment: the same command goes on, and in the end both sides are equal.

    PENSTOCK_KILLS=30 pytest tests/e2e/test_migrate_kills.py -k again     more of them in each migration
"""

import os
import random
import signal
import time

import pytest

from lib.everything import FILL, SCHEMA, Writers, fences, phase
from lib.migration import cutover, equal_after_cutover, finish, migrate
from lib.points import needs_points
from lib.program import DONE, wait_until

KILLS = int(os.environ.get("PENSTOCK_KILLS", "10"))


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_under_load(make_pair, seed):
    chance = random.Random(seed)
    pair = make_pair(chance.choice(("owner", "postgres")))
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=seed, pause=0.002) as writers:
        for _ in range(KILLS):
            run = migrate(pair, chunk_size="64kB", copy_jobs=chance.randint(1, 4))
            time.sleep(chance.uniform(0.2, 3.0))
            assert run.running, run.stderr[-3000:]
            run.kill()
            assert run.wait() == -signal.SIGKILL
        before = writers.committed
        wait_until(lambda: writers.committed > before + 20)
    assert finish(pair) > 10000


@needs_points
@pytest.mark.parametrize("point", ["schema-some", "slot-made", "phase-entered:3", "round-some", "chunk-before",
                                   "chunk-before:7", "chunk-after:5", "table-done:3", "phase-entered:4", "index-built",
                                   "index-built:3"])
def test_killed_at(pair, point):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=5, count=2, pause=0.002):
        run = migrate(pair, chunk_size="64kB", env={"PENSTOCK_KILL_AT": point})
        assert run.wait(60) == -signal.SIGKILL, run.stderr[-3000:]
        before = phase(pair)
        run = migrate(pair, chunk_size="64kB")
        wait_until(lambda: "workers, checkpoints by" in run.stderr or not run.running, 90)
        assert run.running, run.stderr[-3000:]
        if before == "copy":
            assert fences(pair) > 0
        run.stop()
    finish(pair)


# What a trigger, a foreign key and a materialised view of the target would make of changes that come behind them.
LATE = '''
UPDATE stamped SET v = 'late' WHERE id < 50; INSERT INTO stamped VALUES (900, 'late');
DELETE FROM customer WHERE id % 50 = 1; INSERT INTO customer (name) VALUES ('late');
INSERT INTO "Sales ""dept"""."Order; Line" ("Customer Id", "select", amount) SELECT max(id), 'late', 7 FROM customer;
INSERT INTO tree VALUES (500, 501), (501, 500); DELETE FROM tree WHERE id = 299; SELECT nextval('lone_seq');
REFRESH MATERIALIZED VIEW totals; REFRESH MATERIALIZED VIEW over_totals
'''


@needs_points
@pytest.mark.parametrize("point, role", [
    ("phase-entered", "owner"), ("cutover-item:4", "owner"), ("cutover-item:4", "postgres"), ("cutover-view:2", "owner"),
    ("cutover-view:2", "postgres")])
def test_killed_in_the_cutover(make_pair, point, role):
    """What the source commits until the cutover goes on comes, too, and nothing fires that it has made."""
    pair = make_pair(role)
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    pair.on_source("CREATE RULE hardly AS ON DELETE TO stamped WHERE OLD.id < 0 DO INSTEAD NOTHING")
    migrate(pair, "--stop-when-caught-up").wait(90, DONE)
    killed = pair.penstock.start("--fence", "none", command="cutover", env={"PENSTOCK_KILL_AT": point})
    assert killed.wait(60) == -signal.SIGKILL, killed.stderr[-3000:]
    pair.on_source(LATE)
    if point == "cutover-view:2":
        killed = pair.penstock.start("--fence", "none", command="cutover", env={"PENSTOCK_KILL_AT": "cutover-anew"})
        assert killed.wait(60) == -signal.SIGKILL, killed.stderr[-3000:]
        assert phase(pair) == "ready"
        pair.on_source("UPDATE stamped SET v = 'later' WHERE id < 20")
    run = cutover(pair)
    equal_after_cutover(pair)
    for view in ("totals", "over_totals"):
        query = f"SELECT * FROM {view} ORDER BY 1"
        assert pair.on_target(query) == pair.on_source(query)
    assert "nothing keeps writers away" in run.stderr
    assert pair.on_target("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f'")[0][0]
