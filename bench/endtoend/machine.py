"""On what it was measured: whoever reads a number must be able to tell whether it could be theirs."""

import os
import pathlib
import platform
import re
import statistics
import subprocess
import tempfile
import time

from lib.program import ROOT


def said(*command):
    """The first line of what a program says, or None where it is not there."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip().split("\n")[0] or None


def _line(path, pattern):
    try:
        found = re.search(pattern, pathlib.Path(path).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1).strip() if found else None


def sync_ms():
    """How long the disk below the temporary folder takes to make 8 kB durable: the median of 50."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            began = time.monotonic()
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - began) * 1e3)
    return round(statistics.median(took), 3)


def commit():
    """The commit that the sources are at, with "+" behind it when they were changed since."""
    head = said("git", "-c", "safe.directory=*", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    changed = said("git", "-c", "safe.directory=*", "-C", str(ROOT), "status", "--porcelain", "-uno")
    return head + ("+" if changed else "")


def describe():
    memory = _line("/proc/meminfo", r"^MemTotal:\s+(\d+)")
    return {
        "processor": _line("/proc/cpuinfo", r"^model name\s*:\s*(.*)$") or platform.machine(),
        "processors": os.cpu_count(),
        "virtual": bool(_line("/proc/cpuinfo", r"^flags\s*:.*\b(hypervisor)\b")),
        "memory_gb": round(int(memory) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "system": _line("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "clock": _line("/sys/devices/system/clocksource/clocksource0/current_clocksource", r"(.*)"),
        "sync_ms": sync_ms(),
    }
