"""How fast a database comes over when nobody writes to it: the copy by itself, all of a migration, and what memory very
wide rows take. Every run begins with an empty database on the target."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from lib.cluster import die_with_parent
from lib.program import wait_until

from . import procs, rig as rigs, stats
from .drain import noisy
from .rig import ERRORS, PUBLICATION, Failed

PARTS = ("replicator", "target", "source")
PATIENCE = 1800  # seconds for one run
# penstock's phases as they are told beside others: what begins with each.
BEFORE = "before the copy"
PHASES = {"check": BEFORE, "schema": BEFORE, "slot": BEFORE, "copy": "copy", "unique indexes": "indexes",
          "stream": "stream, other indexes", "ready": "stream, other indexes"}


@dataclasses.dataclass
class Way:
    """One of those that are compared in a case: how the rows come over."""

    key: str
    label: str
    kind: str  # "penstock", "pipes", "native" or "pgcopydb"
    binary: str = ""
    flags: dict = dataclasses.field(default_factory=dict)
    runs: int = None  # other than the case's

    def told(self):
        return {"key": self.key, "label": self.label, "kind": self.kind, "flags": self.flags}


@dataclasses.dataclass
class Migrate:
    """A case: what there is on the source, and how much of the way is measured."""

    name: str
    what: str
    workload: object
    variants: list
    compare_to: str
    before: str = ""  # statements on the source, once its tables are there
    copy_only: bool = False  # pgbench_accounts' rows alone, without an index
    then: tuple = ()  # statements on the source, whose changes are brought over by a second run
    megabytes: int = 0  # where what counts is how much there is, not how many rows
    jobs: int = 2
    runs: int = 3
    kind: str = "migrate"
    plot: str = "migrate"
    group: str = ""

    @property
    def unit(self):
        return "megabytes" if self.megabytes else "rows"

    def settings(self):
        return {"workload": self.workload.what, "jobs": self.jobs, "copy_only": self.copy_only,
                "then": list(self.then)}


class Usage:
    """CPU seconds of a program and of both servers while it runs, and the most memory that it had."""

    def __init__(self, rig):
        self.rig = rig
        self.noise = procs.Noise()
        self.servers = self.of_servers()
        self.own = 0
        self.memory_mb = None
        self.began = time.monotonic()

    def of_servers(self):
        # Who ends between the look at the server and the look at its sessions is in neither; the next look has them.
        servers = {"source": self.rig.source, "target": self.rig.target}
        return {part: max(procs.tree_seconds(server.process.pid) for _ in range(2)) for part, server in servers.items()}

    def follow(self, *processes, log=None, watch=None):
        """Until they have ended, well. `watch` is called again and again meanwhile."""
        alive = list(processes)
        deadline = time.monotonic() + PATIENCE
        while alive:
            for process in list(alive):
                memory = procs.peak_memory_mb(process.pid)
                self.memory_mb = max(filter(None, (self.memory_mb, memory)), default=None)
                if ended(process):
                    self.own += process.seconds
                    alive.remove(process)
                    if process.returncode != 0:
                        said = pathlib.Path(log).read_text(errors="replace")[-1500:] if log else ""
                        raise Failed(f"{process.args[0]} ended with exit code {process.returncode}: {said}")
            if time.monotonic() > deadline:
                for process in alive:
                    process.kill()
                    process.wait()
                raise Failed(f"{processes[0].args[0]} has not ended within {PATIENCE} s")
            if watch:
                watch(processes[0].pid)
            time.sleep(0.01)

    def result(self):
        seconds = time.monotonic() - self.began
        now = self.of_servers()
        return {"seconds": seconds, "memory_mb": self.memory_mb, "machine": self.noise.measured(),
                "cpu": {"replicator": self.own} | {part: now[part] - self.servers[part] for part in now}}


class Copying:
    """What was used by the copy alone, from the lines of the log with which it begins and ends."""

    MARKS = ('"phase":"copy"', '"all tables are copied"')

    def __init__(self, log, usage):
        self.log = log
        self.usage = usage
        self.most = 0
        self.at = {}

    def look(self, pid):
        # What its threads that have ended used is lost soon; so it is looked at all the time.
        self.most = max(self.most, procs.cpu_seconds(pid) or 0)
        told = self.log.read_text(errors="replace")
        for mark in self.MARKS:
            if mark not in self.at and mark in told:
                self.at[mark] = self.usage.of_servers() | {"replicator": self.most}

    def used(self, way):
        if len(self.at) < len(self.MARKS):
            raise Failed(f"{way.label} ended before it was seen that the copy had")
        before, after = (self.at[mark] for mark in self.MARKS)
        return {part: after[part] - before[part] for part in PARTS}


def ended(process):
    """As poll() is, but for that the CPU seconds of the process and its children are kept."""
    if process.returncode is None:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid == 0:
            return False
        process.returncode = os.waitstatus_to_exitcode(status)
        process.seconds = used.ru_utime + used.ru_stime
    return True


class Bench:
    """One case at work."""

    def __init__(self, case, rig, say):
        self.case = case
        self.rig = rig
        self.say = say
        self.name = rig.fresh_name("migrate")
        self.rows = 0
        self.count = 0  # of what rates and costs are told in
        self.expected = None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-bench-migrate-"))

    def prepare(self):
        rigs.make_source(self.rig, self.name, self.case.workload)
        if self.case.before:
            self.rig.source.sql(self.case.before, dbname=self.name, role="owner")
        self.expected = rigs.digest(self.rig.source, self.name)
        if self.case.copy_only:
            self.expected = {"pgbench_accounts": self.expected["pgbench_accounts"]}
        self.rows = sum(rows for rows, _ in self.expected.values())
        self.count = self.case.megabytes or self.rows
        size = self.rig.source.sql("SELECT pg_size_pretty(pg_database_size(%s))", (self.name,))[0][0]
        self.say(f"{self.rows:,} rows, {size}")

    def clean(self):
        with contextlib.suppress(*ERRORS):
            rigs.drop_database(self.rig.source, self.name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, arguments, log=None, **keywords):
        """What it says goes to a file; gives the process."""
        with open(log or os.devnull, "ab") as out:
            keywords = {"stdout": out} | keywords
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}
            environment |= keywords.pop("env", {})
            environment["PATH"] = f"{self.rig.target.bin}:{environment.get('PATH', '')}"
            return subprocess.Popen([str(a) for a in arguments], env=environment, stderr=out, cwd=self.folder,
                                    preexec_fn=die_with_parent, **{"stdin": subprocess.DEVNULL} | keywords)

    def run(self, way, number):
        """One migration into a new database; its result."""
        target = self.rig.fresh_name(f"{self.name}_copy")
        self.rig.target.sql(f"CREATE DATABASE {target} OWNER owner TEMPLATE template0")
        self.rig.target.sql("CREATE SCHEMA IF NOT EXISTS public", dbname=target)
        self.rig.target.sql("ALTER SCHEMA public OWNER TO owner", dbname=target)
        self.rig.checkpoint()
        work = self.folder / target
        work.mkdir()
        try:
            usage = Usage(self.rig)
            more = getattr(self, way.kind)(way, target, work, usage) or {}
            result = usage.result() | more
            if number == 0:
                self.compare(way, target)
                result["equal"] = True
        finally:
            self.leave(way, target)
        result["count"] = self.count
        result["per_second"] = self.count / result["seconds"]
        cpu = result.pop("cpu")
        result["cpu_us"] = {part: cpu[part] * 1e6 / self.count for part in PARTS}
        result["cpu_us"]["all"] = sum(result["cpu_us"].values())
        return result

    def compare(self, way, target):
        found = rigs.digest(self.rig.target, target)
        different = rigs.differing(self.expected, {name: found.get(name) for name in self.expected})
        if different:
            raise Failed(f"{way.label}: the target is not equal to the source in {', '.join(different)}")

    def leave(self, way, target):
        """Takes away what a run leaves on both servers."""
        if way.kind == "native":
            with contextlib.suppress(*ERRORS):
                self.rig.target.sql(f"DROP SUBSCRIPTION IF EXISTS {target}", dbname=target)
        for slot in (target, "pgcopydb"):
            with contextlib.suppress(*ERRORS):
                self.rig.source.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                                    " WHERE slot_name = %s AND NOT active", (slot,), self.name)
        with contextlib.suppress(*ERRORS):
            self.rig.source.sql(f"DROP PUBLICATION IF EXISTS {target}", dbname=self.name)
        with contextlib.suppress(*ERRORS):
            rigs.drop_database(self.rig.target, target)

    # ---- the ways

    def penstock(self, way, target, work, usage):
        options = {"name": target, "dir": work / "state", "log-format": "json", "progress": "none",
                   "copy-jobs": self.case.jobs, "index-jobs": self.case.jobs, "pg-bin": self.rig.target.bin} | way.flags
        if self.case.copy_only:
            command = ["copy", "--table", "public.pgbench_accounts"]
        else:
            command = ["migrate", "--stop-when-caught-up"]
        command = [way.binary, *command, *(part for flag, value in options.items() for part in (f"--{flag}", value))]
        environment = {"PENSTOCK_SOURCE": self.rig.source.uri(self.name, "owner"),
                       "PENSTOCK_TARGET": self.rig.target.uri(target, "owner")}
        log, memory = work / "log", {}
        copying = Copying(log, usage)
        usage.follow(self.spawn(command, log, env=environment), log=log,
                     watch=copying.look if self.case.copy_only else None)
        events = events_of(log)
        if self.case.then:
            for statement in self.case.then:
                self.rig.source.sql(statement, dbname=self.name, role="owner")
            self.expected = rigs.digest(self.rig.source, self.name)
            copying_mb, usage.memory_mb = usage.memory_mb, None
            usage.follow(self.spawn(command, log, env=environment), log=log)
            memory = {"memory_by_part_mb": {"copy": copying_mb, "stream": usage.memory_mb},
                      "memory_mb": max(copying_mb, usage.memory_mb)}
        copied = next((e for e in events if e["message"] == "all tables are copied"), None)
        if copied is None:
            raise Failed(f"{way.label} does not say that all tables are copied")
        if self.case.copy_only:
            # The phase alone: neither the dump before nor the indexes behind, which the pipes do not have.
            return {"seconds": copied["seconds"], "command_seconds": time.monotonic() - usage.began, "cpu": copying.used(way)}
        return {"phases": phases_of(events)} | memory

    def pipes(self, way, target, work, usage):
        """Two halves of one table by the numbers of its pages, each through a pipe of its own."""
        self.rig.target.sql("CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84))"
                            " WITH (fillfactor = 100)", dbname=target, role="owner")
        pages = self.rig.source.sql("SELECT pg_relation_size('pgbench_accounts') / 8192", dbname=self.name)[0][0]
        jobs = self.case.jobs
        psql = [self.rig.target.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c"]
        log = work / "log"
        processes = []
        for job in range(jobs):
            low, high = pages * job // jobs, pages * (job + 1) // jobs
            last = "" if job + 1 == jobs else f" AND ctid < '({high},0)'"
            reading = self.spawn([*psql, f"COPY (SELECT * FROM pgbench_accounts WHERE ctid >= '({low},0)'{last})"
                                  " TO STDOUT (FORMAT binary)", self.rig.source.uri(self.name, "owner")], log,
                                 stdout=subprocess.PIPE)
            writing = self.spawn([*psql, "COPY pgbench_accounts FROM STDIN (FORMAT binary)",
                                  self.rig.target.uri(target, "owner")], log, stdin=reading.stdout)
            reading.stdout.close()
            processes += [reading, writing]
        usage.follow(*processes, log=log)

    def schema(self, target, work, usage):
        """As one makes it before a subscription: all that pg_dump knows, with the indexes."""
        log, file = work / "log", work / "schema.sql"
        programs = self.rig.target.bin
        usage.follow(self.spawn([programs / "pg_dump", "--schema-only", "--no-publications", "-f", file,
                                 self.rig.source.uri(self.name, "owner")], log), log=log)
        usage.follow(self.spawn([programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file,
                                 self.rig.target.uri(target, "owner")], log), log=log)

    def native(self, _way, target, work, usage):
        began = time.monotonic()
        self.schema(target, work, usage)
        made = time.monotonic()
        self.rig.target.sql(f"CREATE SUBSCRIPTION {target} CONNECTION '{self.rig.source.uri(self.name, 'owner')}'"
                            f" PUBLICATION {PUBLICATION}", dbname=target)
        connection = self.rig.target.connect(target)
        try:
            with connection.cursor() as cursor:
                def ready():
                    cursor.execute("SELECT count(*), count(*) FILTER (WHERE srsubstate = 'r') FROM pg_subscription_rel")
                    count, there = cursor.fetchone()
                    return count > 0 and count == there
                wait_until(ready, PATIENCE, "all tables of the subscription to be ready")
        finally:
            connection.close()
        return {"phases": [(BEFORE, made - began), ("copy", time.monotonic() - made)]}

    def pgcopydb(self, way, target, work, usage):
        log = work / "log"
        options = {"dir": work / "pgcopydb", "table-jobs": self.case.jobs, "index-jobs": self.case.jobs,
                   "split-tables-larger-than": "256MB"} | way.flags
        environment = {"PGCOPYDB_SOURCE_PGURI": self.rig.source.uri(self.name, "owner"),
                       "PGCOPYDB_TARGET_PGURI": self.rig.target.uri(target, "owner"), "TMPDIR": str(work)}
        usage.follow(self.spawn([way.binary, "clone", *(part for flag, value in options.items()
                                                         for part in (f"--{flag}", value))], log, env=environment),
                     log=log)


def events_of(log):
    """The lines of a log in JSON, those that are."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and "message" in event:
                found.append(event)
    return found


def seconds_of(event):
    return datetime.datetime.fromisoformat(event["time"]).timestamp()


def phases_of(events):
    """[(phase, seconds)] in their order, from the log's first line to its last."""
    found = {}
    name, since = BEFORE, seconds_of(events[0])
    for event in events:
        at = seconds_of(event)
        found[name] = found.get(name, 0) + at - since
        name, since = PHASES.get(event.get("phase"), name), at
    return [(name, round(seconds, 3)) for name, seconds in found.items()]


def measure(case, rig, say):
    """The case's result. What fails in one variant is said there and leaves the others."""
    bench = Bench(case, rig, say)
    results = {way.key: way.told() | {"runs": [], "failed": []} for way in case.variants}
    try:
        bench.prepare()
        for number in range(max(way.runs or case.runs for way in case.variants)):
            for way in case.variants[::-1 if number % 2 else 1]:
                if number >= (way.runs or case.runs) or results[way.key]["failed"]:
                    continue
                try:
                    run = bench.run(way, number)
                    results[way.key]["runs"].append(run)
                    memory = f", {run['memory_mb']:.0f} MB" if run["memory_mb"] else ""
                    say(f"{way.label}: {run['seconds']:.2f} s, {run['per_second']:,.0f} {case.unit}/s,"
                        f" {run['cpu_us']['all']:.2f} us CPU each{memory}" + noisy(run["machine"]))
                except ERRORS as error:
                    results[way.key]["failed"].append(str(error))
                    say(f"{way.label}: {error}")
    finally:
        bench.clean()
    return {"name": case.name, "kind": case.kind, "what": case.what, "plot": case.plot, "unit": case.unit,
            "compare_to": case.compare_to, "settings": case.settings(),
            "variants": [summary(r, results.get(case.compare_to)) for r in results.values()]}


def summary(result, base):
    runs = result["runs"]
    told = {"per_second": stats.spread([r["per_second"] for r in runs]),
            "seconds": stats.spread([r["seconds"] for r in runs]),
            "memory_mb": stats.spread([r["memory_mb"] for r in runs]),
            "cpu_us": {part: stats.spread([r["cpu_us"][part] for r in runs]) for part in ("all", *PARTS)}}
    if base and base is not result:
        told["ratio"] = stats.spread(stats.paired([r["per_second"] for r in runs],
                                                  [r["per_second"] for r in base["runs"]]))
    return result | {"summary": told}
