"""Random histories: whatever the source goes through, the target shows each of its states in turn.

    PENSTOCK_SEEDS=1000 pytest tests/e2e/test_random.py    the first 1000 seeds, for a long run
    PENSTOCK_SEEDS=500-999 pytest …                        these
    PENSTOCK_SEED=17 pytest tests/e2e/test_random.py       seed 17 again, alone: what is written, and in
                                                           which order, follows from the seed
"""

import os
import random
import signal
import threading
import time

import psycopg2
import pytest

from lib.history import INVARIANTS, TICK, History
from lib.program import DONE, FAILED, STOPPED
from lib.storm import Storm

FIRST, _, LAST = os.environ.get("PENSTOCK_SEEDS", "10").rpartition("-")
SEEDS = range(int(FIRST), int(LAST) + 1) if FIRST else range(int(LAST))
ONE = os.environ.get("PENSTOCK_SEED")


class Scenario:
    """How penstock is run for a seed."""

    def __init__(self, seed):
        chance = random.Random(f"scenario {seed}")
        self.workers = (8, 2, 32, 1)[seed % 4]
        self.role = ("owner", "postgres", "postgres", "owner", "postgres", "owner")[seed % 6]
        self.mode = ("during", "killed", "after", "killed", "during")[seed % 5]
        self.cancelled = seed % 3 != 1  # whatever the workers are at, again and again
        self.trigger = seed % 7 == 5
        self.limits = chance.choice((
            {}, {}, {"batch_transactions": "1"}, {"batch_rows": "2"}, {"memory": "16MB"},
            {"batch_transactions": "3", "memory": "16MB"}))
        self.sessions = chance.choice((1, 3, 5, 8))
        self.by_root = chance.random() < 0.3
        self.layout = chance.random() < 0.3
        self.slow = seed % 6 == 4  # each row costs the target some milliseconds; a cancel would meet every batch
        self.format = ("binary", "text", "auto")[seed // 2 % 3]
        self.dispatchers = chance.choice((1, 4))
        self.conflict_memory = chance.choice(("1kB", "4MB"))  # 16 buckets, or the usual ones
        self.streaming = chance.choice(("off", "on", "parallel"))
        self.ack = chance.choice(("applied", "applied", "spooled"))
        self.apply = chance.choice(("sets", "sets", "rows"))
        if not self.limits:
            self.limits = chance.choice(({}, {}, {"batch_rows": "50"}, {"batch_transactions": "20"}))
        self.options = self.limits | {"workers": self.workers, "apply": self.apply, "format": self.format,
                                      "ack": self.ack,
                                      "dispatchers": self.dispatchers, "conflict_memory": self.conflict_memory,
                                      "streaming": self.streaming}

    def __str__(self):
        return ", ".join(f"{name} {value}" for name, value in vars(self).items() if name != "options")


def may_end(run):
    """The source needs a moment to see that the one before is gone; a cancel can take a transaction whole, and meet a
    start, before there is anything to go on with."""
    error = run.the_error()
    return ("is in use by" in error or "rolled back as a whole" in error
            or ("canceling statement due to user request" in error and "checkpoints by" not in run.stderr))


def eager_commits(pair):
    return sum(event.get("eager_transactions", 0) for run in pair.penstock.runs for event in run.events()
               if event.get("message") == "stream finished")


class Watcher(threading.Thread):
    """Looks at the target in repeatable-read snapshots, each of which must be a state of the source."""

    def __init__(self, pair, history):
        super().__init__()
        self.pair = pair
        self.history = history
        self.over = threading.Event()
        self.snapshots = []
        self.failure = None

    def run(self):
        try:
            connection = self.pair.target_cluster.connect(self.pair.name)
            connection.autocommit = False
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as cursor:
                while not self.over.is_set():
                    found = []
                    for statement in (TICK, INVARIANTS, self.history.digest):
                        cursor.execute(statement)
                        found.append(cursor.fetchone())
                    connection.commit()
                    self.snapshots.append(found)
                    time.sleep(0.005)
            connection.close()
        except psycopg2.Error as error:
            self.failure = error

    def judge(self):
        """Once the history is over: all that it noted is there."""
        self.over.set()
        self.join()
        assert self.failure is None, self.failure
        ticks = []
        for (tick,), invariants, digest in self.snapshots:
            assert [int(each) for each in invariants] == [0, 0, 0], f"tick {tick}: {invariants}"
            ticks.append(tick)
            if tick > 0:
                assert digest == self.history.state[tick], f"the snapshot at tick {tick} is no state of the source"
        assert ticks == sorted(ticks), "the target went back"
        return len(set(ticks))


class Keeper(threading.Thread):
    """Keeps penstock running, and kills it now and then where the scenario says so."""

    def __init__(self, pair, seed, scenario):
        super().__init__()
        self.pair = pair
        self.scenario = scenario
        self.random = random.Random(f"kills {seed}")
        self.over = threading.Event()
        self.kills = 0
        self.failure = None

    def run(self):
        try:
            while not self.over.is_set():
                run_ = self.pair.penstock.start(**self.scenario.options)
                end = self.random.uniform(0.05, 0.6) if self.scenario.mode == "killed" else 3600
                deadline = time.monotonic() + end
                while run_.running and not self.over.is_set() and time.monotonic() < deadline:
                    time.sleep(0.005)
                if not run_.running:
                    assert run_.process.returncode == FAILED and may_end(run_), run_.stderr
                elif self.scenario.mode == "killed" or self.random.random() < 0.5:
                    run_.kill(signal.SIGKILL)
                    run_.wait(10)
                    self.kills += 1
                else:  # a cancel may meet it on its way to the end, too
                    run_.kill(signal.SIGTERM)
                    assert run_.wait() == STOPPED or (run_.process.returncode == FAILED and may_end(run_)), run_.stderr
        except AssertionError as error:
            self.failure = error

    def finish(self):
        self.over.set()
        self.join()
        if self.failure is not None:
            raise self.failure


def catch_up(pair, scenario, **end):
    deadline = time.monotonic() + 240  # each try gets on by what it commits
    while True:
        run = pair.penstock.start(*([] if end else ["--stop-when-caught-up"]), **scenario.options, **end)
        code = run.wait(120)
        if code == DONE or not may_end(run) or time.monotonic() > deadline:
            assert code == DONE, run.stderr[-4000:]
            return
        time.sleep(0.05)


def stop_on_the_way(pair, scenario, history, seed):
    """--stop-at is exact: what had committed by then, and nothing more."""
    chance = random.Random(f"stops {seed}")
    for tick in sorted(chance.sample(range(1, history.tick), 4)):
        catch_up(pair, scenario, stop_at=history.position[tick])
        assert pair.on_target(TICK) == [(tick,)]
        assert pair.on_target(history.digest)[0] == history.state[tick]


@pytest.mark.parametrize("seed", [int(ONE)] if ONE else SEEDS)
def test_history(make_pair, seed):
    scenario = Scenario(seed)
    print(f"seed {seed}: {scenario}")
    pair = make_pair(scenario.role)
    history = History(pair, seed, sessions=scenario.sessions, trigger=scenario.trigger, layout=scenario.layout,
                      citext=scenario.format != "binary", slow=scenario.slow, padded=scenario.streaming == "parallel" and not scenario.slow)
    if scenario.streaming != "off":
        pair.stream_early()
    history.make_slot(scenario.by_root)
    history.begin()
    watcher = Watcher(pair, history)
    storm = Storm(pair, 0.005, age=0.5)
    keeper = Keeper(pair, seed, scenario)
    watcher.start()
    if scenario.cancelled:
        storm.start()
    if scenario.mode != "after":
        keeper.start()
    try:
        history.run()
        if keeper.is_alive():
            keeper.finish()
        if scenario.mode == "after":
            stop_on_the_way(pair, scenario, history, seed)
        catch_up(pair, scenario)
    finally:
        keeper.over.set()
        if keeper.ident is not None:
            keeper.join()
        storm.over.set()
        if storm.ident is not None:
            storm.join()
        watcher.over.set()
        watcher.join()
    assert storm.failure is None, storm.failure
    assert keeper.failure is None, keeper.failure
    seen = watcher.judge()
    assert pair.on_target(TICK) == [(history.tick,)]
    print(f"{history.committed} commits, {history.refused} refused, {keeper.kills} kills, {storm.hits} cancels, "
          f"{len(watcher.snapshots)} snapshots of {seen} states, {eager_commits(pair)} applied while in progress")
    assert pair.same() > 0
    # run once more with nothing to do: nothing comes twice
    catch_up(pair, scenario)
    assert pair.on_target(history.digest)[0] == history.state[history.tick]
    pair.same()
