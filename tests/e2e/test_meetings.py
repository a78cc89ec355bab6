"""A process that is met at any moment: by a cutover, by a second penstock, by a signal."""

import fcntl
import os
import pathlib
import signal
import time

import pytest

from lib.everything import phase
from lib.migration import migrate, wait_phase
from lib.points import needs_points
from lib.program import DONE, STOPPED, USAGE, Run, wait_until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, n int)"
# From the lock on the state directory to the stream's threads.
POINTS = ["state-locked", "state-held", "migration-open", "prepared", "stream-connecting", "stream-made"]


def stopped_at(point):
    return {"PENSTOCK_KILL_AT": point, "PENSTOCK_KILL_BY": str(int(signal.SIGSTOP))}


def wait_stopped(run):
    def stopped():
        assert run.running, run.stderr[-3000:]
        return pathlib.Path(f"/proc/{run.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    wait_until(stopped, 60, "the process to stop at its point")


def begin(pair):
    """A migration that has nothing left but the cutover."""
    pair.on_source(TABLE)
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 100) i")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    pair.on_source("UPDATE t SET n = n + 1")


def cut_over(pair):
    return pair.penstock.start("--fence", "none", command="cutover")


@needs_points
@pytest.mark.parametrize("point", [*POINTS, "stream-ended"])
def test_a_cutover_meets_migrate(pair, point):
    begin(pair)
    ends = ["--stop-when-caught-up"] if point == "stream-ended" else []
    run = migrate(pair, *ends, env=stopped_at(point))
    wait_stopped(run)
    meeting = cut_over(pair)
    # Whom to ask is not known yet where the lock has just been taken.
    asked = pair.penstock.dir / "cutover"
    wait_until(lambda: asked.exists() if point == "state-locked" else "asking the penstock" in meeting.stderr,
               30, "the cutover to ask")
    time.sleep(0.2)
    run.kill(signal.SIGCONT)
    assert run.wait(60) == DONE, run.stderr[-3000:]
    assert "handed over to the cutover" in run.stderr
    meeting.wait(60, DONE)
    assert phase(pair) == "done" and pair.same() == 100


@needs_points
@pytest.mark.parametrize("point", [*POINTS[1:], "stream-ended"])
def test_nobody_comes_in_between(pair, point):
    begin(pair)
    run = migrate(pair, "--stop-when-caught-up", env=stopped_at(point))
    wait_stopped(run)
    with open(pair.penstock.dir / "lock", "rb") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    run.kill(signal.SIGCONT)
    run.wait(60, DONE)


@needs_points
def test_a_cutover_that_comes_too_early_stops_nobody(pair):
    pair.on_source(TABLE)
    run = migrate(pair, env=stopped_at("round-some"))
    wait_stopped(run)
    early = cut_over(pair)
    early.wait(30, USAGE)
    assert 'its phase is "copy"' in early.the_error()
    run.kill(signal.SIGCONT)
    wait_phase(pair, "ready", run)
    run.stop()


@needs_points
@pytest.mark.parametrize("command", ["stream", "migrate", "copy", "cutover"])
def test_a_signal_in_the_first_moments(pair, command):
    env = {"PENSTOCK_KILL_AT": "options-read", "PENSTOCK_KILL_BY": str(int(signal.SIGTERM))}
    run = pair.penstock.start(command=command, env=env)
    run.wait(30, STOPPED)
    assert "the same command goes on" in run.stderr
    assert not pair.penstock.dir.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command, code", [("stream", STOPPED), ("migrate", STOPPED), ("copy", STOPPED),
                                           ("cutover", STOPPED), ("help", None), ("inspect", None)])
def test_a_signal_that_is_there_already(command, code, number):
    """It came before the process could say what it does with it."""
    def send():
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        os.kill(os.getpid(), number)
    run = Run([command], preexec=send)
    assert run.wait(30) in ((0, USAGE) if code is None else (code,)), run.stderr
