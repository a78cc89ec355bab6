"""What processes and the machine have used, from /proc."""

import os
import pathlib
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")
PROC = pathlib.Path("/proc")


def _fields(path):
    """The fields of a stat file behind the name, which may hold anything; None when the process is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except (OSError, IndexError):
        return None


def cpu_seconds(pid):
    """User and system time of a process with all its threads. The kernel gives it in ticks of 10 ms, but scales it
    to what its scheduler counted, so a sum over seconds is good to a tick. None when it is gone."""
    fields = _fields(PROC / str(pid) / "stat")
    return (int(fields[11]) + int(fields[12])) * TICK if fields else None


def cpu_by_thread(pid):
    """{thread's name without its number: seconds}."""
    found = {}
    for task in (PROC / str(pid) / "task").glob("*"):
        fields = _fields(task / "stat")
        if fields:
            name = (task / "comm").read_text().strip().rstrip("0123456789 ")
            found[name] = found.get(name, 0) + (int(fields[11]) + int(fields[12])) * TICK
    return found


def peak_memory_mb(pid):
    """The largest resident set that the process ever had."""
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def _own_seconds():
    """All that this process and its descendants have used, those that have ended included: whoever reaps a child
    inherits its times."""
    parents, used = {}, {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _fields(entry / "stat")
            if fields:
                pid = int(entry.name)
                parents[pid] = int(fields[1])
                used[pid] = sum(int(f) for f in fields[11:15]) * TICK
    total = 0
    for pid, seconds in used.items():
        at = pid
        while at not in (0, os.getpid()):
            at = parents.get(at, 0)
        if at:
            total += seconds
    return total


def _machine_seconds():
    """(busy, stolen) seconds of all processors since boot."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq) * TICK, steal * TICK


class Noise:
    """How much of the machine others used meanwhile: a run beside somebody else's work says little."""

    def __init__(self):
        self.began = time.monotonic()
        self.busy, self.stolen = _machine_seconds()
        self.own = _own_seconds()

    def measured(self):
        """Shares of the whole machine, 0 to 1."""
        busy, stolen = _machine_seconds()
        all_seconds = max(time.monotonic() - self.began, TICK) * os.cpu_count()
        own = _own_seconds() - self.own
        return {
            "own": round(own / all_seconds, 3),
            "others": round(max(0, busy - self.busy - own) / all_seconds, 3),
            "stolen": round((stolen - self.stolen) / all_seconds, 3),
        }
