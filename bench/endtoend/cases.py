"""All that can be measured, by name; what each is for, and how much of it a quick run does."""

import fnmatch

from . import workloads
from .drain import Drain, Variant
from .lag import Lag, YardstickCase
from .migrate import Migrate, Way

BULK_UPDATE = "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= {rows}"
BULK_INSERT = ("INSERT INTO events (device, at, reading, note) SELECT g, now(), g * 0.37,"
               " 'reading ' || g || ' of a device' FROM generate_series(1, {rows}) g")

# It has no key, and who migrates a database wants UPDATEs and DELETEs of all its tables to come over.
HISTORY_KEY = "ALTER TABLE pgbench_history REPLICA IDENTITY FULL"


def marks(total, parts):
    return [total * part // parts for part in range(1, parts + 1)]


def count_of(number, what):
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def bulk_maker(rows, statement=BULK_UPDATE):
    def make(rig, database, _count):
        rig.source.sql(statement.format(rows=rows), dbname=database, role="owner")
        return 1
    return make


class Builder:
    """Makes the cases for what the command line asks for."""

    def __init__(self, wanted, binaries, pgcopydb=None):
        self.pgcopydb = pgcopydb  # its program, where there is one
        self.quick = wanted.quick
        self.binaries = binaries  # [(label, path)], the first is the build itself
        self.flags = wanted.flags
        self.row_ms = wanted.row_delay
        self.delay_ms = wanted.delay
        self.runs = wanted.runs
        self.cases = []

    def of(self, quick, full):
        return quick if self.quick else full

    def runs_or(self, quick, full):
        return self.runs or self.of(quick, full)

    def at_most(self, quick, full):
        """For what only shows where a limit is, however often the rest is repeated."""
        return min(self.runs or full, self.of(quick, full))

    def penstocks(self, key="penstock", label="", flags=None, **more):
        """The same variant of each build."""
        found = []
        for number, (name, path) in enumerate(self.binaries):
            found.append(Variant(key if number == 0 else f"{key}:{name}", f"{name}{', ' if label else ''}{label}",
                                 "penstock", str(path), {**self.flags, **(flags or {})},
                                 **{"delay_ms": self.delay_ms, **more}))
        return found

    def parallel(self):
        """Transactions in progress are applied meanwhile."""
        return self.penstocks("parallel", "--streaming parallel", {"streaming": "parallel"})[:1]

    def add(self, case, *groups):
        case.group = groups
        self.cases.append(case)

    def build(self):
        self.add(YardstickCase("yardstick", "how long a marker's way from the target to the bench takes by itself",
                               seconds=self.of(3, 10)), "lag")
        self.drains()
        self.lags()
        self.sweeps()
        self.migrations()
        self.tiny()
        return self.cases

    def drains(self):
        native = [Variant("native", "native", "native")]
        receive = [Variant("receive", "pg_recvlogical", "receive", runs=self.at_most(1, 2))]
        count = self.of(20_000, 200_000)
        runs = self.runs_or(2, 3)
        self.add(Drain(
            "drain-tpcb", f"a backlog of {count:,} TPC-B transactions", workloads.tpcb(self.of(5, 20)),
            marks(count, 10), native + self.penstocks() + receive + self.of([], [Variant(
                "native-binary", "native, binary", "native", flags={"binary": "true"}, runs=self.at_most(1, 2))]),
            runs=runs, row_ms=self.row_ms, plot="drain"), "drain", "bars")
        rows = self.of(100_000, 1_000_000)
        self.add(Drain(
            "drain-ingest", f"a backlog of {rows:,} new rows in {rows // 100:,} transactions", workloads.ingest(100),
            marks(rows // 100, 10), native + self.penstocks() + receive, rows_each=100, runs=runs,
            row_ms=self.row_ms, plot="drain"), "drain", "bars")
        small = self.penstocks("small-memory", "--memory 64MB", {"memory": "64MB"}, runs=self.at_most(1, 2))[:1]
        parallel = self.parallel()
        self.add(Drain(
            "drain-bulk", f"one transaction that updates {rows:,} rows", workloads.bulk(rows), [1],
            native + self.penstocks() + receive + small + parallel, rows_each=rows, runs=runs, make=bulk_maker(rows),
            row_ms=self.row_ms, plot="drain"), "drain", "bars")
        self.add(Drain(
            "drain-load", f"one transaction that inserts {rows:,} rows", workloads.ingest(100), [1],
            native + self.penstocks() + parallel, rows_each=rows, runs=runs, make=bulk_maker(rows, BULK_INSERT),
            row_ms=self.row_ms, plot="drain"), *(() if self.quick else ("drain",)))
        steps = self.of([400, 3_000], [3_000, 48_000])
        self.add(Drain(
            "drain-slow-rows",
            "a backlog of TPC-B where each accounts row costs the target 1 ms",
            workloads.tpcb(self.of(5, 20)), steps, [Variant("native", "native", "native", upto=0)]
            + self.penstocks("workers-16", "16 workers", {"workers": 16})
            + self.penstocks("workers-32", "32 workers", {"workers": 32}),
            runs=self.runs_or(1, 3), row_ms=1, plot="drain"), "drain", "bars")
        count = self.of(15_000, 80_000)
        self.add(Drain(
            "drain-delay", "the TPC-B backlog with a network between penstock and the target",
            workloads.tpcb(self.of(5, 10)), marks(count, 5),
            [v for delay in self.of((None, 0, 5, 20), (None, 0, 1, 5, 20)) for v in self.penstocks(
                f"delay-{'none' if delay is None else delay}",
                "no proxy" if delay is None else f"{delay} ms each way", delay_ms=delay,
                # What no bar asks for is told by fewer runs.
                runs=None if delay in (None, 5) else self.at_most(1, 2))],
            runs=self.runs_or(1, 3), compare_to="delay-none", plot="delay", row_ms=self.row_ms), "drain", "bars")

    def lags(self):
        def pair():
            return [Variant("native", "native", "native")] + self.penstocks()
        seconds, runs = self.of(4, 8), self.runs_or(1, 3)
        self.add(Lag("lag-tpcb", "lag under TPC-B by offered load", workloads.tpcb(self.of(5, 20)),
                     self.of([500, 1000], [500, 1000, 2500]), pair(), seconds=seconds, markers=self.of(100, 150),
                     runs=runs, plot="load",
                     row_ms=self.row_ms), "lag", "bars")
        few = self.runs_or(1, 2)
        for workload, load in (
                (workloads.ingest(10), 500), (workloads.HOT_ROW, 200), (workloads.WIDE, 300),
                (workloads.many_tables(self.of(50, 200)), 500), (workloads.FOREIGN_KEYS, 400),
                (workloads.large_among_small(self.of(50_000, 200_000)), 400),
                (workloads.slow_among_small(300_000), 200), (workloads.TABLE_CHANGES, 400)):
            # A quick run shows one of them; the others are there by their names.
            groups = ("lag",) if not self.quick or workload.name == "large-among-small" else ()
            variants = pair() + (self.parallel() if workload.name.endswith("-among-small") else [])
            self.add(Lag(f"lag-{workload.name}", f"lag under: {workload.what}", workload, [load], variants,
                         seconds=14 if workload.name == "slow-among-small" else self.of(5, 6), markers=100, runs=few,
                         plot="time", row_ms=self.row_ms), *groups)

    def sweeps(self):
        workers = self.of((1, 8, 16), (1, 2, 4, 8, 16, 32))
        runs = self.runs_or(1, 2)
        scale = self.of(5, 10)
        count = self.of(15_000, 40_000)
        self.sweep_workers(workers, runs, scale, count)
        for flag, values, words in (
                ("transactions", self.of((50, 2000), (10, 50, 200, 1000, 5000)), count_of),
                ("rows", self.of((200, 10_000), (40, 200, 1000, 10_000, 50_000)), count_of),
                # A transaction of TPC-B has some 300 bytes of rows.
                ("bytes", self.of((16, 16_000), (16, 64, 250, 1000, 16_000)), lambda n, _: f"{n:,} kB")):
            name = "sweep-batch" if flag == "transactions" else f"sweep-batch-{flag}"
            # A quick run shows the first; the others are there by their names.
            groups = ("sweep",) if not self.quick or flag == "transactions" else ()
            self.add(Drain(
                name, f"the TPC-B backlog by --batch-{flag}", workloads.tpcb(scale), marks(count, 3),
                [v for n in values for v in self.penstocks(
                    f"batch-{n}", f"at most {words(n, flag.rstrip('s'))}",
                    self.limit_of(flag, n, values))], runs=runs,
                compare_to=f"batch-{values[0]}", plot=f"--batch-{flag}{', kB' if flag == 'bytes' else ''}",
                row_ms=self.row_ms), *groups)
        self.sweep_latency(scale)

    @staticmethod
    def limit_of(flag, value, values):
        """The flag, and out of its way those that would be reached before."""
        limits = {"transactions": {}, "rows": {"batch-transactions": 1_000_000},
                  "bytes": {"batch-transactions": 1_000_000, "batch-rows": 10_000_000}}[flag]
        return limits | {f"batch-{flag}": f"{value}kB" if flag == "bytes" else value}

    def sweep_latency(self, scale):
        """The same by how long a row of the target takes: a case for each, because that is part of the target."""
        for row_ms in (0.2, 1, 5):
            serial = self.of(400, 1_500) if row_ms < 5 else self.of(150, 400)
            self.add(Drain(
                f"sweep-row-{row_ms:g}ms", f"TPC-B where each accounts row costs the target {row_ms:g} ms",
                workloads.tpcb(scale), [serial, serial * self.of(8, 16)],
                [Variant("native", "native", "native", upto=0)] + [v for n in self.of((8, 32), (4, 8, 16, 32)) for v in self.penstocks(
                    f"workers-{n}", count_of(n, "worker"), {"workers": n})],
                runs=self.runs_or(1, 2), plot="workers", row_ms=row_ms), *(() if self.quick else ("sweep",)))

    def sweep_workers(self, workers, runs, scale, count):
        self.add(Drain(
            "sweep-workers", "the TPC-B backlog by --workers", workloads.tpcb(scale), marks(count, 3),
            [v for n in workers for v in self.penstocks(f"workers-{n}", count_of(n, "worker"), {"workers": n})],
            runs=runs, compare_to="workers-1", plot="workers", row_ms=self.row_ms), "sweep")
        self.add(Drain(
            "sweep-workers-slow", "the same where each accounts row costs the target 1 ms",
            workloads.tpcb(scale), self.of([400, 3_000], [3_000, 15_000]),
            [v for n in workers for v in self.penstocks(
                f"workers-{n}", count_of(n, "worker"), {"workers": n},
                upto=0 if n < 8 else None)],
            runs=runs, compare_to="workers-1", plot="workers", row_ms=1), "sweep")

    def ways(self, flags=None, **more):
        """penstock's, of each build."""
        return [Way("penstock" if number == 0 else f"penstock:{name}", name, "penstock", str(path),
                    {**(flags or {}), **self.flags}, **more)
                for number, (name, path) in enumerate(self.binaries)]

    def copy_case(self, name, scale, runs):
        # Chunks so small that both jobs have something to do to the end.
        return Migrate(
            name, f"the copy of pgbench_accounts at scale {scale}, by 2 jobs, beside two bare pipes of COPY, each with "
            "one half of its pages", workloads.tpcb(scale),
            [Way("pipes", "two COPY pipes", "pipes"), *self.ways({"chunk-size": f"{scale}MB"})],
            compare_to="pipes", before=HISTORY_KEY, copy_only=True, runs=runs, plot="copy")

    def whole_case(self, name, scale, runs):
        others = [Way("native", "native", "native")]
        if self.pgcopydb:
            others.append(Way("pgcopydb", "pgcopydb clone", "pgcopydb", str(self.pgcopydb)))
        return Migrate(
            name, f"a whole migration of pgbench's tables at scale {scale} by 2 jobs: schema, rows and indexes, until "
            "the stream has caught up", workloads.tpcb(scale), others + self.ways(), compare_to="native",
            before=HISTORY_KEY, runs=runs)

    def migrations(self):
        scale, runs = self.of(5, 50), self.runs_or(1, 3)
        self.add(self.copy_case("migrate-copy", scale, self.runs_or(2, 3)), "migrate", "bars")
        self.add(self.whole_case("migrate-all", scale, runs), "migrate", "bars")
        # A quick run leaves it out, for what it moves; it is there by its name.
        self.add(Migrate(
            "migrate-wide", "a migration of values of 100 MB, of which one in four is changed before it goes on",
            workloads.values_of(100, 4, self.of(1, 2)), self.ways(), compare_to="penstock", jobs=4,
            megabytes=400 * self.of(1, 2), plot="",
            then=("UPDATE value_1 SET body = repeat(md5('new'), 3125000)",), runs=self.at_most(1, 2)),
            *(() if self.quick else ("migrate", "bars")))

    def tiny(self):
        """Seconds long: to see that the bench itself works. Only when asked for by name."""
        self.add(Drain("tiny-drain", "a small backlog of TPC-B", workloads.tpcb(1), [100, 300],
                       [Variant("native", "native", "native")] + self.penstocks(), runs=self.runs or 2,
                       row_ms=self.row_ms, plot="drain"))
        self.add(Lag("tiny-lag", "lag under a little TPC-B", workloads.tpcb(1), [200],
                     [Variant("native", "native", "native")] + self.penstocks(), seconds=1, markers=100, warm_up=1,
                     runs=self.runs or 1, plot="load", row_ms=self.row_ms))
        self.add(self.copy_case("tiny-copy", 1, self.runs or 1))
        self.add(self.whole_case("tiny-migrate", 1, self.runs or 1))


def chosen(cases, names):
    """Those that are named, by their name, a pattern or a group; for no names all that are in a group."""
    if not names:
        return [case for case in cases if case.group]
    found = []
    for name in names:
        here = [case for case in cases if fnmatch.fnmatchcase(case.name, name) or name in case.group]
        if not here:
            raise KeyError(name)
        found += [case for case in here if case not in found]
    return [case for case in cases if case in found]


GROUPS = {"bars": "what a release must reach", "drain": "backlogs", "lag": "lag under load", "sweep": "flags",
          "migrate": "all of a database"}
