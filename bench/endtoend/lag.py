"""How late the target is while the source is at work at a fixed rate. The load has open arrivals: pgbench -R begins a
transaction when its time has come, whatever became of those before, so a replicator that takes the processors away
shows as a source that is late, and such a run does not count."""

import contextlib
import dataclasses
import math
import tempfile
import time

from lib.program import wait_until

from . import procs, rig as rigs, stats
from .drain import cpu_each, noisy
from .replicators import Native, Penstock
from .rig import ERRORS, Failed, Route, load_of
from .workloads import CLIENTS, Disturbance

KEPT_SHARE = 0.97  # of the offered rate, and that much luck of a random schedule below it:
KEPT_SIGMAS = 3
SCHEDULE_LAG_MS = 25.0  # on average
TRIES = 3
CLOCK_MOVED_US = 200


@dataclasses.dataclass
class Lag:
    """A case: one workload, at one or several rates."""

    name: str
    what: str
    workload: object
    loads: list  # transactions a second, the markers included
    variants: list
    seconds: float = 12
    markers: float = 100  # a second
    warm_up: float = 2  # seconds of the same load before anything counts
    runs: int = 3
    row_ms: float = 0
    kind: str = "lag"
    compare_to: str = "native"
    plot: str = ""
    group: str = ""

    def settings(self):
        return {"loads": self.loads, "seconds": self.seconds, "markers_per_second": self.markers,
                "warm_up_seconds": self.warm_up, "clients": CLIENTS, "row_ms": self.row_ms,
                "workload": self.workload.what}


class Yardstick:
    """Markers into a database, and when they were seen in another."""

    def __init__(self, rig, source, target, rate, seconds, wait=30):
        """`source` and `target`: (cluster, database)."""
        self.rig = rig
        self.file = rig.folder / rig.fresh_name("markers")
        first = rig.marker + 1
        rig.marker += int(rate * seconds * 2) + 100
        plain = "sslmode=disable gssencmode=disable"
        self.process = rig.spawn(
            rig.tools / "penstock-bench", "lag", "--source", f"{source[0].admin_dsn(source[1])} {plain}",
            "--target", f"{target[0].admin_dsn(target[1])} {plain}", "--rate", rate, "--seconds", seconds,
            "--wait", wait, "--first", first, "--seed", first, "--out", self.file)
        self.wait = seconds + wait + 30

    def result(self):
        """Lags in ms and the curve over time."""
        if self.process.wait(self.wait) != 0:
            raise Failed("penstock-bench lag failed")
        lags = read_markers(self.file)
        self.file.unlink()
        return [lag for _, lag in lags], curve(lags)


def read_markers(path):
    """[(commit in us, lag in ms)] from what penstock-bench lag wrote; all must have arrived."""
    lines = path.read_text().splitlines()
    markers = [[int(field) for field in line.split()] for line in lines if not line.startswith("#")]
    moved = int(lines[0].split()[-1])
    if abs(moved) > CLOCK_MOVED_US:
        raise Failed(f"somebody set the machine's clock meanwhile, by {moved} us")
    lost = sum(1 for *_, seen in markers if seen == 0)
    if lost:
        raise Failed(f"{lost} of {len(markers)} markers have not arrived on the target")
    if not markers:
        raise Failed("not one marker was sent: the run is too short")
    return [(committed, (seen - committed) / 1000) for _, _, committed, seen in markers]


def kept(done, planned, late_ms):
    """Whether the source did what it was offered, and when it was to."""
    return done >= planned * KEPT_SHARE - KEPT_SIGMAS * math.sqrt(planned) and late_ms <= SCHEDULE_LAG_MS


def curve(lags, step=0.1):
    """[(seconds, median, largest)] for each tenth of a second in which a marker was committed."""
    began = min(at for at, _ in lags)
    slots = {}
    for at, lag in lags:
        slots.setdefault(int((at - began) / 1e6 / step), []).append(lag)
    return [(round((slot + 0.5) * step, 2), round(stats.percentile(sorted(found), 50) or found[0], 3),
             round(max(found), 3)) for slot, found in sorted(slots.items())]


class Bench:
    """One case at work."""

    def __init__(self, case, rig, say):
        self.case = case
        self.rig = rig
        self.say = say
        self.name = rig.fresh_name("lag")

    def prepare(self):
        rigs.make_source(self.rig, self.name, self.case.workload)
        rigs.make_target(self.rig, self.name, self.case.workload, self.case.row_ms)

    def clean(self):
        with contextlib.suppress(*ERRORS):
            for cluster in (self.rig.target, self.rig.source):
                rigs.drop_database(cluster, self.name)

    def offer(self, rate, seconds, log):
        return self.rig.pgbench(self.rig.source, self.name, "-n", "-c", CLIENTS, "-j", "1", "-R", f"{rate:g}",
                                "-T", max(1, round(seconds)), *self.case.workload.load(self.rig), log=log)

    def run(self, variant, load, compare):
        """One run at one load."""
        route = Route(self.rig, self.name, self.name, self.rig.fresh_name("bench_slot"))
        for cluster in (self.rig.source, self.rig.target):
            cluster.sql("VACUUM", dbname=self.name)
        self.rig.checkpoint()
        route.make_slot()
        proxy, port = self.rig.proxy(variant.delay_ms) if variant.delay_ms is not None else (None, None)
        if variant.kind == "penstock":
            replicator = Penstock(variant.label, variant.binary, route, variant.flags, port)
        else:
            replicator = Native(route, variant.flags)
        try:
            replicator.start()
            replicator.wait_streaming()
            result = self.loaded(replicator, load)
            self.wait_last()
            if compare:
                different = rigs.differing(rigs.digest(self.rig.source, self.name),
                                           rigs.digest(self.rig.target, self.name))
                if different:
                    raise Failed(f"{variant.label}: the target is not equal to the source in {', '.join(different)}")
                result["equal"] = True
        finally:
            replicator.stop()
            if proxy:
                proxy.kill()
            with contextlib.suppress(*ERRORS):
                route.drop_slot()
            self.rig.target.sql("DROP SCHEMA IF EXISTS penstock CASCADE", dbname=self.name)
        return result

    def loaded(self, replicator, load):
        case = self.case
        source, target = (self.rig.source, self.name), (self.rig.target, self.name)
        offered = load - case.markers
        with tempfile.TemporaryFile("w+") as log:
            self.offer(offered, case.warm_up, log).wait()
            noise = procs.Noise()
            before = replicator.used()
            disturbance = Disturbance(case.workload, self.rig, self.name, self.name) if case.workload.disturb else None
            log.seek(0)
            log.truncate()
            load_process = self.offer(offered, case.seconds, log)
            if disturbance:
                disturbance.start()
            yardstick = Yardstick(self.rig, source, target, case.markers, case.seconds)
            code = load_process.wait()
            if disturbance:
                disturbance.end()
            lags, over_time = yardstick.result()
            after = replicator.used()
            machine = noise.measured()
            replicator.alive()
            log.seek(0)
            told = log.read()
        if code != 0:
            raise Failed(f"pgbench failed: {told[-500:]}")
        done, late, latest = load_of(told)
        planned = offered * max(1, round(case.seconds))
        return {"load": load, "lag_ms": stats.lags(lags), "lags": lags, "curve": over_time, "machine": machine,
                "transactions": done + len(lags), "kept": kept(done, planned, late), "offered": planned, "done": done,
                "schedule_lag_ms": {"mean": late, "max": latest}, "memory_mb": after.get("memory_mb"),
                "cpu_us": cpu_each(minus(after, before), done + len(lags))}

    def wait_last(self):
        """Until the last of the load has arrived: both replicators commit in the source's order, so one more marker
        comes behind everything."""
        self.rig.marker += 1
        self.rig.source.sql("INSERT INTO bench_marker VALUES (%s)", (self.rig.marker,), self.name)
        wait_until(lambda: self.rig.target.sql("SELECT 1 FROM bench_marker WHERE id = %s", (self.rig.marker,),
                                               self.name), 60, "the end of the load on the target")


def minus(after, before):
    found = {part: after[part] - before[part] for part in ("replicator", "target", "walsender")}
    if "threads" in after:
        found["threads"] = {n: s - before.get("threads", {}).get(n, 0) for n, s in after["threads"].items()}
    return found


def measure(case, rig, say):
    bench = Bench(case, rig, say)
    results = {(variant.key, load): variant.told() | {"load": load, "runs": [], "not_kept": [], "failed": []}
               for load in case.loads for variant in case.variants}
    try:
        bench.prepare()
        for load in case.loads:
            for number in range(case.runs):
                for variant in case.variants[::-1 if number % 2 else 1]:
                    attempt(bench, variant, load, results[variant.key, load], number == case.runs - 1)
    finally:
        bench.clean()
    return {"name": case.name, "kind": case.kind, "what": case.what, "plot": case.plot, "unit": "transactions",
            "compare_to": case.compare_to, "settings": case.settings(),
            "variants": [summary(r, results.get((case.compare_to, r["load"]))) for r in results.values()]}


def attempt(bench, variant, load, result, compare):
    """One run; again when the source could not do what it was asked for."""
    hopeless = not result["runs"] and len(result["not_kept"]) >= TRIES
    for _ in range(0 if result["failed"] or hopeless else TRIES):
        try:
            run = bench.run(variant, load, compare)
        except ERRORS as error:
            result["failed"].append(str(error))
            bench.say(f"{variant.label} at {load:,}/s: {error}")
            return
        if run["kept"]:
            result["runs"].append(run)
            lag = run["lag_ms"]
            bench.say(f"{variant.label} at {load:,}/s: p50 {ms(lag['p50'])}, p99 {ms(lag['p99'])},"
                      f" max {ms(lag['max'])} ms, {run['cpu_us']['all']:.0f} us CPU" + noisy(run["machine"]))
            return
        result["not_kept"].append({key: run[key] for key in ("offered", "done", "schedule_lag_ms", "machine")})
        bench.say(f"{variant.label} at {load:,}/s: does not count, the source did {run['done']:,} of"
                  f" {run['offered']:,.0f} and was {run['schedule_lag_ms']['mean']:.0f} ms late on average"
                  + noisy(run["machine"]))


def ms(value):
    return "-" if value is None else f"{value:.2f}"


def summary(result, base):
    runs = result["runs"]
    everything = [lag for run in runs for lag in run.pop("lags")]
    told = {"lag_ms": {key: stats.spread([r["lag_ms"][key] for r in runs]) for key in ("p50", "p90", "p99", "max")},
            "all_lags_ms": stats.lags(everything),
            "histogram": histogram(everything),
            "quantiles": stats.quantiles(everything),
            "memory_mb": stats.spread([r["memory_mb"] for r in runs]),
            "cpu_us": {part: stats.spread([r["cpu_us"][part] for r in runs])
                       for part in ("all", "replicator", "target", "walsender")}}
    if base and base is not result:
        told["ratio"] = {key: stats.spread(stats.paired([r["lag_ms"][key] for r in runs],
                                                        [r["lag_ms"][key] for r in base["runs"]]))
                         for key in ("p50", "p90", "p99")}
    return result | {"summary": told}


def histogram(lags):
    """[(upper end in ms, count)]: ten buckets for each power of ten."""
    counts = {}
    for lag in lags:
        bucket = math.ceil(math.log10(max(lag, 0.01)) * 10)
        counts[bucket] = counts.get(bucket, 0) + 1
    return [(round(10 ** (bucket / 10), 4), count) for bucket, count in sorted(counts.items())]


def measure_yardstick(case, rig, say):
    """What a marker's way from the target to the bench takes: its own share in every lag."""
    name = rig.fresh_name("yardstick")
    rig.target.sql(f"CREATE DATABASE {name} OWNER owner TEMPLATE template0")
    try:
        rig.target.sql(rigs.MARKERS + rigs.SEEN, dbname=name, role="owner")
        rig.target.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")  # as both replicators apply
        rig.target.restart(track_commit_timestamp="on")
        noise = procs.Noise()
        lags, over_time = Yardstick(rig, (rig.target, name), (rig.target, name), case.markers, case.seconds).result()
        told = stats.lags(lags)
        machine = noise.measured()
        rig.target.restart(track_commit_timestamp="off")
        say(f"p50 {ms(told['p50'])}, p99 {ms(told['p99'])} ms" + noisy(machine))
    finally:
        rigs.drop_database(rig.target, name)
    return {"name": case.name, "kind": case.kind, "what": case.what, "plot": "", "settings": {
        "markers_per_second": case.markers, "seconds": case.seconds},
        "lag_ms": told, "curve": over_time, "histogram": histogram(lags), "machine": machine}


@dataclasses.dataclass
class YardstickCase:
    name: str
    what: str
    markers: float = 100
    seconds: float = 5
    kind: str = "yardstick"
    group: str = ""


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
