#!/usr/bin/env python3
"""Runs tests on a machine that stands still now and then: stops and continues, at random, processes below them.

    tests/e2e/rattle.py WHAT python3 -m pytest -q tests/e2e/test_stop.py

WHAT is penstock, backends (the servers' sessions and walsenders), tests (pytest itself), or all. Gives the tests' exit
code. What fails only here has assumed that something had happened already, or not yet; but a test that stops
processes itself, or holds something to a time, may fail rightly.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

KINDS = ("penstock", "backends", "tests")


def running():
    """Gives (pid, parent, state, name, command line) of each process."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            before, _, after = (folder / "stat").read_text().rpartition(")")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        state, parent = after.split()[:2]
        yield int(folder.name), int(parent), state, before.partition("(")[2], command


def below(root, kind):
    """The running processes of a kind below `root`, but for those that are stopped already."""
    processes = list(running())
    family = {root}
    for _ in processes:
        more = {pid for pid, parent, *_ in processes if parent in family} - family
        if not more:
            break
        family |= more
    for pid, _, state, name, command in processes:
        # A session's title ends with where its client is and what it does: "[local] idle", "127.0.0.1(40000) idle".
        session = name == "postgres" and command.startswith("postgres: ") and ("[local]" in command or "(" in command)
        if pid in family and state != "T" and (name == "penstock" if kind == "penstock" else session):
            yield pid


def hold(pids, seconds):
    held = []
    for pid in pids:
        try:
            os.kill(pid, signal.SIGSTOP)
            held.append(pid)
        except ProcessLookupError:
            pass
    time.sleep(seconds)
    for pid in held:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def a_while():
    """Seconds: mostly as long as a busy machine takes, now and then as long as one that has no processor to give."""
    longest = random.choices((0.05, 0.4, 1.2), (70, 26, 4))[0]
    return random.uniform(0, longest)


def main(what, command):
    tests = subprocess.Popen(command)
    while tests.poll() is None:
        time.sleep(random.uniform(0.02, 0.6))
        kind = random.choice(KINDS) if what == "all" else what
        pids = [tests.pid] if kind == "tests" else list(below(tests.pid, kind))
        if pids:
            hold(random.sample(pids, random.randint(1, min(3, len(pids)))), a_while())
    return tests.returncode


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in (*KINDS, "all"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
