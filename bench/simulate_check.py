#!/usr/bin/env python3
"""Holds penstock simulate against real drains: the same backlog of TPC-B transactions, with 1 to 32 workers.

    PENSTOCK_BIN=build/release/penstock bench/simulate_check.py [--transactions 40000] [--slow 4000] [--costs FILE]

Starts two throw-away servers of the installed version. Two loads: plain TPC-B, where the processors are the limit, and
one where each row of pgbench_accounts makes its session on the target wait for a millisecond (an AFTER trigger, ENABLE
ALWAYS, declared IMMUTABLE, with pg_sleep). The costs are measured with ONE worker, on the plain load: processor time by
thread and server, with large batches of sets, with a statement for each row, and with batches of one transaction.
Everything else is predicted from these, with the machine's number of processors, and then measured. --costs FILE keeps
them for penstock simulate --costs FILE.

Other work on the machine makes the drains slower than predicted; the column "others" says how many processors it had.
--nice -10 (as root) lets the drains go first.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from lib.cluster import Cluster  # noqa: E402
from lib.program import binary  # noqa: E402

WORKERS = (1, 2, 4, 8, 16, 32)
TICKS = os.sysconf("SC_CLK_TCK")
SLEEPER = """
    CREATE FUNCTION sleeper() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
        'BEGIN PERFORM pg_sleep(0.001); RETURN NULL; END';
    CREATE TRIGGER sleeper AFTER UPDATE ON pgbench_accounts FOR EACH ROW EXECUTE FUNCTION sleeper();
    ALTER TABLE pgbench_accounts ENABLE ALWAYS TRIGGER sleeper"""


# ---- processor time, in seconds

def stat_fields(path):
    """Of /proc/…/stat: the name, and the fields behind it."""
    text = pathlib.Path(path).read_text()
    return text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()


def server_cpu(cluster):
    """All that a server has used: its first process, that one's children, and those that have ended."""
    _name, fields = stat_fields(f"/proc/{cluster.process.pid}/stat")
    ticks = sum(int(fields[i]) for i in (11, 12, 13, 14))
    for each in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            _name, fields = stat_fields(each)
        except (OSError, ValueError):
            continue
        if int(fields[1]) == cluster.process.pid:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def machine_cpu():
    return sum(int(field) for i, field in
               enumerate(pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]) if i not in (3, 4)) / TICKS


def sample_threads(pid, found):
    """The processor time of each of penstock's threads so far, by kind."""
    for each in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (each / "comm").read_text().split()[0]
            found[each.name] = (name, int((each / "schedstat").read_text().split()[0]) / 1e9)
        except (OSError, IndexError):
            continue


def go_first(pid, nice):
    """The kernel shares processors among sessions before it looks at processes, where it is told to."""
    if nice:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        group = pathlib.Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(str(nice))


# ---- drains

class Load:
    """A backlog on the source, and a database on the target for each time that it is drained."""

    def __init__(self, source, target, name, transactions, on_target, folder):
        self.source, self.target, self.name, self.folder = source, target, name, folder
        self.transactions = transactions
        self.drains = 0
        for cluster in (source, target):
            cluster.sql(f"CREATE DATABASE {name} OWNER owner TEMPLATE template0")
            self.pgbench(cluster, "-i", "-q", "-s", "10")
            cluster.sql("CHECKPOINT")
        if on_target:
            for statement in on_target.split(";\n"):
                target.sql(statement, dbname=name)
        source.sql(f"CREATE PUBLICATION {name} FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers,"
                   " pgbench_history", dbname=name)
        source.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')", dbname=name)
        self.pgbench(source, "-n", "-c", "4", "-t", str(transactions // 4))

    def pgbench(self, cluster, *arguments):
        environment = os.environ | {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGUSER": "owner"}
        subprocess.run([str(cluster.bin / "pgbench"), *arguments, self.name], env=environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def drain(self, workers, *flags):
        """Applies all of the backlog to a fresh copy of the target; gives what that took."""
        self.drains += 1
        copy = f"{self.name}_{self.drains}"
        self.target.sql(f"CREATE DATABASE {copy} OWNER owner TEMPLATE {self.name}")
        self.source.sql(f"SELECT pg_copy_logical_replication_slot('{self.name}', '{copy}')", dbname=self.name)
        arguments = [binary(), "stream", "--source", self.source.uri(self.name, "owner"),
                     "--target", self.target.uri(copy, "owner"), "--name", copy, "--publication", self.name,
                     "--dir", str(self.folder / copy), "--workers", str(workers), "--stop-when-caught-up",
                     "--progress", "none", *flags]
        threads = {}
        before = [server_cpu(self.source), server_cpu(self.target), machine_cpu(), time.time()]
        with open(self.folder / f"{copy}.log", "w+b") as log:
            process = subprocess.Popen(arguments, stderr=log, stdout=log)
            while process.poll() is None:
                sample_threads(process.pid, threads)
                time.sleep(0.01)
            log.seek(0)
            if process.returncode != 0:
                sys.exit(f"penstock ended with {process.returncode}:\n{log.read().decode()}")
        after = [server_cpu(self.source), server_cpu(self.target), machine_cpu(), time.time()]
        # From the first commit to the last: what comes before is connecting and looking at catalogs.
        rows = self.target.sql("SELECT count(*), extract(epoch FROM min(pg_xact_commit_timestamp(xmin))),"
                               " extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) FROM pgbench_history",
                               dbname=copy)
        if rows[0][0] != self.transactions // 4 * 4:
            sys.exit(f"{rows[0][0]} of {self.transactions} transactions are on the target")
        self.target.sql(f"DROP DATABASE {copy} WITH (FORCE)")
        kinds = {}
        for kind, seconds in threads.values():
            kinds[kind] = kinds.get(kind, 0) + seconds
        source, target, machine, wall = (b - a for a, b in zip(before, after))
        own = sum(kinds.values())
        return {"seconds": float(rows[0][2] - rows[0][1]), "source": source, "target": target, "threads": kinds,
                "others": max(0.0, machine - source - target - own) / wall, "cpu": source + target + own}


def measure_round_trip(cluster):
    connection = cluster.connect("postgres", "owner")
    times = []
    with connection.cursor() as cursor:
        for _ in range(500):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            times.append(time.perf_counter() - began)
    connection.close()
    return statistics.median(times)


def measure_sleep(cluster):
    began = time.perf_counter()
    cluster.sql("SELECT count(pg_sleep(0.001)) FROM generate_series(1, 500)")
    return (time.perf_counter() - began) / 500


# Drains by one worker of which each has far more of one thing than the others: rows in sets, statements, batches.
COST_DRAINS = ((), ("--apply", "rows"), ("--batch-transactions", "1"))
COUNTS = ("sent_rows", "statements", "batches")


def solve(equations):
    """The unknowns of as many linear equations, each a list of factors and, last, what they come to."""
    rows = [list(map(float, equation)) for equation in equations]
    for at in range(len(rows)):
        pivot = max(range(at, len(rows)), key=lambda i: abs(rows[i][at]))
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = [value / rows[at][at] for value in rows[at]]
        for other in range(len(rows)):
            if other != at:
                rows[other] = [a - rows[other][at] * b for a, b in zip(rows[other], rows[at])]
    return [row[-1] for row in rows]


def measure_costs(load, capture, target, repeat):
    """Seconds of processor time, from drains by one worker: how many rows, statements and batches each of them sends is
    what the simulation counts."""
    changes = load.transactions * 4
    equations = []
    receive = []
    for flags in COST_DRAINS:
        drains = [load.drain(1, *flags) for _ in range(repeat)]
        counts = predict(capture, {}, *flags)[1]
        least = min(drain["target"] + drain["threads"].get("worker", 0) for drain in drains)
        equations.append([*(counts[name] for name in COUNTS), least])
        if not flags:
            receive = [d["source"] + d["threads"].get("reader", 0) + d["threads"].get("dispatcher", 0) for d in drains]
            share = statistics.median(d["threads"].get("dispatcher", 0) / d["cpu"] for d in drains)
            print(f"dispatching: {100 * share:.2f} % of a drain's processor time"
                  f" ({drains[0]['cpu'] / changes * 1e6:.1f} us a change in all); of {changes:,} changes"
                  f" {counts['sent_rows']:,} rows are sent, in {counts['statements']:,} statements")
    row, statement, batch = (max(0.0, cost) for cost in solve(equations))
    return {"cost-receive": min(receive) / changes, "cost-row": row, "cost-statement": statement, "cost-batch": batch,
            "round-trip": measure_round_trip(target)}


def as_flags(costs):
    return {name: f"{value * 1e9:.0f}ns" for name, value in costs.items()}


def predict(capture, costs, *flags):
    arguments = [binary(), "simulate", str(capture), "--json", "--cores", str(os.cpu_count())]
    for name, value in costs.items():
        arguments += [f"--{name}", value]
    found = json.loads(subprocess.run([*arguments, *flags], check=True, capture_output=True).stdout)
    return {run["workers"]: run for run in found["runs"]}


def compare(title, load, capture, costs, repeat, drain_flags, model_flags):
    predicted = predict(capture, costs, *drain_flags, *model_flags)
    print(f"\n{title}\n{'workers':>7} {'drained':>9} {'predicted':>9} {'off by':>7} {'speed-up':>8} {'predicted':>9}"
          f" {'others':>7}")
    first, first_wanted = None, None
    worst = 0
    for workers in WORKERS:
        drain = min((load.drain(workers, *drain_flags) for _ in range(repeat)), key=lambda d: d["seconds"])
        # Both from the first commit to the last one.
        seconds, wanted = drain["seconds"], predicted[workers]["seconds"] - predicted[workers]["first_commit"]
        first, first_wanted = first or seconds, first_wanted or wanted
        off = wanted / seconds - 1
        worst = max(worst, abs(off))
        print(f"{workers:7} {seconds:8.2f}s {wanted:8.2f}s {100 * off:+6.0f}% {first / seconds:8.1f}"
              f" {first_wanted / wanted:9.1f} {drain['others']:7.2f}", flush=True)
    print(f"at most {100 * worst:.0f} % off")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=40000, help="of plain TPC-B")
    parser.add_argument("--slow", type=int, default=4000, help="transactions with the millisecond")
    parser.add_argument("--repeat", type=int, default=3, help="drains of each kind; what disturbs only makes slower, so the fastest counts")
    parser.add_argument("--costs", type=pathlib.Path, help="write the costs there, as JSON")
    parser.add_argument("--nice", type=int, default=0, help="how nice servers and penstock are")
    parser.add_argument("--model", default="", help="more flags for penstock simulate, separated by blanks")
    wanted = parser.parse_args()
    go_first(os.getpid(), wanted.nice)
    made = []
    try:
        for name in ("source", "target"):
            made.append(Cluster(name, settings={"track_commit_timestamp": "on", "max_replication_slots": "100",
                                                "max_wal_size": "8GB", "shared_buffers": "256MB",
                                                "autovacuum": "off"}))
            go_first(made[-1].process.pid, wanted.nice)
        with tempfile.TemporaryDirectory(prefix="penstock-simulate-") as folder:
            check(made[0], made[1], pathlib.Path(folder), wanted)
    finally:
        for cluster in made:
            cluster.remove()


def check(source, target, folder, wanted):
    plain = Load(source, target, "plain", wanted.transactions, None, folder)
    slow = Load(source, target, "slow", wanted.slow, SLEEPER, folder)
    captures = {}
    for load in (plain, slow):
        captures[load.name] = folder / f"{load.name}.capture"
        load.drain(8, "--capture", str(captures[load.name]))
    costs = as_flags(measure_costs(plain, captures["plain"], target, wanted.repeat))
    sleep = f"{measure_sleep(target) * 1e9:.0f}ns"
    print("costs: " + ", ".join(f"{name} {value}" for name, value in costs.items()) + f", pg_sleep(0.001) {sleep}")
    if wanted.costs:
        wanted.costs.write_text(json.dumps({"simulate": costs}, indent=2) + "\n")
    more = wanted.model.split()
    compare("Plain TPC-B", plain, captures["plain"], costs, wanted.repeat, [], more)
    compare("A millisecond for each row of pgbench_accounts", slow, captures["slow"], costs, 1, [],
            ["--row-latency", f"public.pgbench_accounts={sleep}", *more])


if __name__ == "__main__":
    main()
