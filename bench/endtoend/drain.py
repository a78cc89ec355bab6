"""How fast a backlog is worked off. It is made once, while nobody replicates, and kept by a slot; each run begins with
a copy of that slot and of the target as it was then, so all do exactly the same work, in alternation."""

import contextlib
import dataclasses
import time

from . import procs, rig as rigs, stats
from .replicators import Native, Penstock, Receiver
from .rig import ERRORS, Failed, Listener, Route


@dataclasses.dataclass
class Variant:
    """One of those that are compared in a case."""

    key: str  # unique in the case
    label: str
    kind: str  # "penstock", "native" or "receive"
    binary: str = ""
    flags: dict = dataclasses.field(default_factory=dict)
    delay_ms: float = None  # of the network to the target, each way; None: no proxy
    upto: int = None  # ends with this mark of the backlog: for those that would take too long
    runs: int = None  # other than the case's

    def told(self):
        facts = {"key": self.key, "label": self.label, "kind": self.kind, "flags": self.flags}
        if self.delay_ms is not None:
            facts["delay_ms"] = self.delay_ms
        return facts


@dataclasses.dataclass
class Drain:
    """A case: its workload, how much of it, and who is compared."""

    name: str
    what: str
    workload: object
    marks: list  # how many transactions stand before each marker; the last one is the end
    variants: list
    runs: int = 3
    row_ms: float = 0
    rows_each: int = 0  # of a transaction, where what counts is rows, not transactions
    make: object = None  # (rig, database, transactions): makes transactions; None: by the workload's script
    kind: str = "drain"
    compare_to: str = "native"
    plot: str = ""
    group: str = ""

    @property
    def transactions(self):
        return self.marks[-1]

    @property
    def unit(self):
        """What rates and costs are told in."""
        return "rows" if self.rows_each else "transactions"

    def settings(self):
        return {"transactions": self.transactions, "rows_each": self.rows_each, "row_ms": self.row_ms,
                "workload": self.workload.what}


def make_by_script(case, rig, database, count):
    clients = min(count, 8)
    rig.run_pgbench(rig.source, database, "-n", "-c", clients, "-j", "2", "-t", count // clients,
                    *case.workload.load(rig), synchronous=False)
    return count // clients * clients


class Bench:
    """One case at work."""

    def __init__(self, case, rig, say):
        self.case = case
        self.rig = rig
        self.say = say
        self.name = rig.fresh_name("drain")
        self.template = f"{self.name}_template"
        self.keeper = Route(rig, self.name, self.template, rig.fresh_name("bench_keeper"))
        self.routes = []
        self.marks = []  # (marker, transactions before it)
        self.end_lsn = None
        self.expected = None

    def runs_of(self, variant):
        return variant.runs or self.case.runs

    def prepare(self):
        case, rig = self.case, self.rig
        rigs.make_source(rig, self.name, case.workload)
        rigs.make_target(rig, self.template, case.workload, case.row_ms)
        self.keeper.make_slot()
        began = time.monotonic()
        make, done = case.make or (lambda *a: make_by_script(case, *a)), 0
        for mark in case.marks:
            done += make(rig, self.name, mark - done)
            rig.marker += 1
            rig.source.sql("INSERT INTO bench_marker VALUES (%s)", (rig.marker,), self.name)
            self.marks.append((rig.marker, done * (case.rows_each or 1)))
        self.end_lsn = rig.source.sql("SELECT pg_current_wal_insert_lsn()")[0][0]
        self.expected = rigs.digest(rig.source, self.name)
        self.say(f"{done:,} transactions made in {time.monotonic() - began:.0f} s")

    def clean(self):
        """All that it made; what cannot be taken away goes with the servers."""
        for route in [*self.routes, self.keeper]:
            with contextlib.suppress(*ERRORS):
                route.drop_slot()
            with contextlib.suppress(*ERRORS):
                rigs.drop_database(self.rig.target, route.target_db)
        with contextlib.suppress(*ERRORS):
            rigs.drop_database(self.rig.target, self.template)
            rigs.drop_database(self.rig.source, self.name)

    def replicator(self, variant, route, port):
        if variant.kind == "penstock":
            return Penstock(variant.label, variant.binary, route, variant.flags, port)
        if variant.kind == "native":
            return Native(route, variant.flags, port)
        return Receiver(route, self.end_lsn)

    def run(self, variant, number):
        """One drain, from the start of the replicator until the target has everything and is equal."""
        route = Route(self.rig, self.name, self.rig.fresh_name(f"{self.name}_copy"), self.rig.fresh_name("bench_slot"))
        self.routes.append(route)
        route.make_slot(self.keeper.slot)
        proxy, port = self.rig.proxy(variant.delay_ms) if variant.delay_ms is not None else (None, None)
        if variant.kind != "receive":
            rigs.copy_database(self.rig.target, self.template, route.target_db)
        self.rig.checkpoint()
        replicator = self.replicator(variant, route, port)
        listener = None
        try:
            listener = Listener(self.rig.target, route.target_db) if replicator.applies else None
            noise = procs.Noise()
            began = time.monotonic()
            replicator.start()
            result = self.follow(variant, replicator, listener, began)
            result["machine"] = noise.measured()
            if proxy:
                result["proxy_cpu_us"] = procs.cpu_seconds(proxy.pid) * 1e6 / result["count"]
            if replicator.applies and variant.upto is None:
                result["durable_seconds"] = self.wait_durable(route, began)
        finally:
            if listener:
                listener.close()
            replicator.stop()
            if proxy:
                proxy.kill()
        if replicator.applies:
            if variant.upto is None and number == 0:
                different = rigs.differing(self.expected, rigs.digest(self.rig.target, route.target_db))
                if different:
                    raise Failed(f"{variant.label}: the target is not equal to the source in {', '.join(different)}")
                result["equal"] = True
            rigs.drop_database(self.rig.target, route.target_db)
        route.drop_slot()
        return result

    def follow(self, variant, replicator, listener, began):
        marker, count = self.marks[-1 if variant.upto is None else variant.upto]
        if replicator.applies:
            ended = listener.wait(marker, 600, replicator.alive)
        else:
            ended = replicator.wait_end(300)
        used = replicator.used()
        seconds = ended - began
        result = {"seconds": seconds, "count": count, "per_second": count / seconds,
                  "cpu_us": cpu_each(used, count), "memory_mb": used.get("memory_mb")}
        if listener:
            result["curve"] = [(round(listener.seen[m] - began, 3), before)
                               for m, before in self.marks if m in listener.seen]
        return result

    def wait_durable(self, route, began):
        """Until the source was told that it need not keep the backlog: nothing can be lost any more."""
        deadline = time.monotonic() + 60
        while not route.confirmed(self.end_lsn):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)
        return time.monotonic() - began


def cpu_each(used, count):
    """Microseconds a transaction, or a row, by part; "all" is everything that works for replication: what decodes,
    carries and applies."""
    parts = {part: used[part] * 1e6 / count for part in ("replicator", "target", "walsender")}
    parts["all"] = sum(parts.values())
    if "threads" in used:
        parts["threads"] = {name: seconds * 1e6 / count for name, seconds in used["threads"].items()}
    return parts


def measure(case, rig, say):
    """The case's result. What fails in one variant is said there and leaves the others."""
    bench = Bench(case, rig, say)
    results = {variant.key: variant.told() | {"runs": [], "failed": []} for variant in case.variants}
    try:
        bench.prepare()
        for number in range(max(bench.runs_of(v) for v in case.variants)):
            # In turn, and every second time the other way round, so that none always comes behind the same one.
            for variant in case.variants[::-1 if number % 2 else 1]:
                if number >= bench.runs_of(variant) or results[variant.key]["failed"]:
                    continue
                try:
                    run = bench.run(variant, number)
                    results[variant.key]["runs"].append(run)
                    say(f"{variant.label}: {run['per_second']:,.0f} {case.unit}/s,"
                        f" {run['cpu_us']['all']:.1f} us CPU each" + noisy(run["machine"]))
                except ERRORS as error:
                    results[variant.key]["failed"].append(str(error))
                    say(f"{variant.label}: {error}")
    finally:
        bench.clean()
    return {"name": case.name, "kind": case.kind, "what": case.what, "plot": case.plot, "unit": case.unit,
            "compare_to": case.compare_to, "settings": case.settings(),
            "variants": [summary(r, results.get(case.compare_to)) for r in results.values()]}


def noisy(machine):
    others = machine["others"] + machine["stolen"]
    return f" (others had {others:.0%} of the machine)" if others > 0.1 else ""


def summary(result, base):
    runs = result["runs"]
    told = {
        "per_second": stats.spread([r["per_second"] for r in runs]),
        "seconds": stats.spread([r["seconds"] for r in runs]),
        "durable_seconds": stats.spread([r.get("durable_seconds") for r in runs]),
        "memory_mb": stats.spread([r["memory_mb"] for r in runs]),
        "cpu_us": {part: stats.spread([r["cpu_us"][part] for r in runs])
                   for part in ("all", "replicator", "target", "walsender")},
    }
    if any("proxy_cpu_us" in run for run in runs):
        told["proxy_cpu_us"] = stats.spread([run["proxy_cpu_us"] for run in runs])
    if base and base is not result:
        told["ratio"] = stats.spread(stats.paired(
            [r["per_second"] for r in runs], [r["per_second"] for r in base["runs"]]))
        told["cpu_ratio"] = stats.spread(stats.paired(
            [r["cpu_us"]["all"] for r in runs], [r["cpu_us"]["all"] for r in base["runs"]]))
    return result | {"summary": told}
