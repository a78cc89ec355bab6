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


def _scheduled(task):
    """Seconds that the scheduler let a thread run, to the ns; None where the kernel does not tell."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def _ticks(path):
    """The same from the counts of ticks of 10 ms, which the kernel scales to what its scheduler counted."""
    fields = _fields(path / "stat")
    return (int(fields[11]) + int(fields[12])) * TICK if fields else None


def cpu_by_thread(pid):
    """{thread's name without its number: seconds}; nothing when the process is gone."""
    found = {}
    for task in (PROC / str(pid) / "task").glob("*"):
        seconds = _scheduled(task)
        seconds = _ticks(task) if seconds is None else seconds
        try:
            name = (task / "comm").read_text().strip().rstrip("0123456789 ")
        except OSError:
            continue
        found[name] = found.get(name, 0) + (seconds or 0)
    return found


def cpu_seconds(pid):
    """Of a process with all its threads, those that have ended as far as whole ticks of them are known. None when it
    is gone."""
    alive = cpu_by_thread(pid)
    ticks = _ticks(PROC / str(pid))
    if not alive or ticks is None:
        return None
    exact = sum(alive.values())
    return ticks if ticks - exact > 2 * TICK else exact


def peak_memory_mb(pid):
    """The largest resident set that the process ever had."""
    try:
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def tree_seconds(root):
    """All that a process and its descendants have used, those that have ended included: whoever reaps a child inherits
    its times."""
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
        while at not in (0, root):
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
        self.own = tree_seconds(os.getpid())

    def measured(self):
        """Shares of the whole machine, 0 to 1."""
        busy, stolen = _machine_seconds()
        all_seconds = max(time.monotonic() - self.began, TICK) * os.cpu_count()
        own = tree_seconds(os.getpid()) - self.own
        return {
            "own": round(own / all_seconds, 3),
            "others": round(max(0, busy - self.busy - own) / all_seconds, 3),
            "stolen": round((stolen - self.stolen) / all_seconds, 3),
        }
