"""What a release must reach, and whether it does. A bar is met by the median of the runs."""

import dataclasses
import typing

from . import stats

SPARE_MB = 100  # of resident memory beyond --memory
UNITS = {"kB": 2**10, "MB": 2**20, "GB": 2**30}
MEMORY_DEFAULT = "512MB"


@dataclasses.dataclass
class Bar:
    name: str
    aim: float
    at_least: bool  # else at most
    unit: str
    measure: typing.Callable  # {case: result} -> the runs' values

    def judge(self, results):
        told = {"name": self.name, "aim": self.aim, "at_least": self.at_least, "unit": self.unit}
        spread = stats.spread(self.measure(results))
        if spread is None:
            return told | {"measured": None, "met": None}
        met = spread["median"] >= self.aim if self.at_least else spread["median"] <= self.aim
        return told | {"measured": spread, "met": met}


def variant(results, case, key, load=None):
    for found in results.get(case, {}).get("variants", []):
        if found["key"] == key and found.get("load") == load:
            return found
    return {"runs": []}


def rate(case, one, other):
    def measure(results):
        return stats.paired(*([run["per_second"] for run in variant(results, case, key)["runs"]]
                              for key in (one, other)))
    return measure


def wide_memory(results):
    """Megabytes beyond --memory, of every run with values of 100 MB."""
    over = []
    for found in results.get("migrate-wide", {}).get("variants", []):
        if found["key"] == "penstock":
            budget = bytes_of(str(found["flags"].get("memory", MEMORY_DEFAULT))) / 2**20
            over += [run["memory_mb"] - budget for run in found["runs"] if run.get("memory_mb")]
    return [max(over)] if over else []


def cpu(case):
    def measure(results):
        return stats.paired(*([run["cpu_us"]["all"] for run in variant(results, case, key)["runs"]]
                              for key in ("penstock", "native")))
    return measure


def lag(load, percentile):
    def measure(results):
        return stats.paired(*([run["lag_ms"][percentile] for run in variant(results, "lag-tpcb", key, load)["runs"]]
                              for key in ("penstock", "native")))
    return measure


def own_cpu(load):
    def measure(results):
        return [run["cpu_us"]["replicator"] for run in variant(results, "lag-tpcb", "penstock", load)["runs"]]
    return measure


def memory_over_budget(results):
    """Megabytes beyond --memory, of every run of the build itself in the drains and under load."""
    over = []
    for name, case in results.items():
        if not name.startswith(("drain-", "lag-")):
            continue
        for found in case.get("variants", []):
            if found["kind"] == "penstock":
                budget = bytes_of(str(found["flags"].get("memory", MEMORY_DEFAULT))) / 2**20
                over += [run["memory_mb"] - budget for run in found["runs"] if run.get("memory_mb")]
    return [max(over)] if over else []


def bytes_of(size):
    """As PostgreSQL writes sizes."""
    for unit, factor in UNITS.items():
        if size.endswith(unit):
            return int(size[:-len(unit)]) * factor
    return int(size)


BARS = [
    Bar("TPC-B backlog, rate", 1.6, True, "x native", rate("drain-tpcb", "penstock", "native")),
    Bar("TPC-B backlog, CPU of all parts", 0.6, False, "x native", cpu("drain-tpcb")),
    Bar("1 M rows in 10,000 transactions, rate", 1.4, True, "x native", rate("drain-ingest", "penstock", "native")),
    Bar("one update of 1 M rows, rate", 1.3, True, "x native", rate("drain-bulk", "penstock", "native")),
    Bar("rows of 1 ms, 16 workers, rate", 14, True, "x native", rate("drain-slow-rows", "workers-16", "native")),
    Bar("rows of 1 ms, 32 workers, rate", 27, True, "x native", rate("drain-slow-rows", "workers-32", "native")),
    Bar("target 5 ms away, rate", 0.8, True, "x without", rate("drain-delay", "delay-5", "delay-none")),
    Bar("lag at 500/s, p50", 1.1, False, "x native", lag(500, "p50")),
    Bar("lag at 500/s, p99", 1.5, False, "x native", lag(500, "p99")),
    Bar("lag at 1,000/s, p50", 1.1, False, "x native", lag(1000, "p50")),
    Bar("lag at 1,000/s, p99", 1.5, False, "x native", lag(1000, "p99")),
    Bar("lag at 2,500/s, p50", 1.2, False, "x native", lag(2500, "p50")),
    Bar("lag at 2,500/s, p99", 3.0, False, "x native", lag(2500, "p99")),
    Bar("penstock's own CPU at 2,500/s", 40, False, "us a transaction", own_cpu(2500)),
    Bar("largest resident memory beyond --memory", SPARE_MB, False, "MB", memory_over_budget),
    Bar("copy of one table, rate", 0.85, True, "x bare COPY pipes", rate("migrate-copy", "penstock", "pipes")),
    Bar("whole migration, rate beside native", 1, True, "x native", rate("migrate-all", "penstock", "native")),
    Bar("whole migration, rate beside pgcopydb", 1, True, "x pgcopydb", rate("migrate-all", "penstock", "pgcopydb")),
    Bar("values of 100 MB, memory beyond --memory", SPARE_MB, False, "MB", wide_memory),
]


def judge(results):
    return [bar.judge(results) for bar in BARS]
