"""Exactly once, through any fault. Under a load with a table that shows doubles, one fault after the other; after
each the target must equal the source, and all the while the slot may not have confirmed what could be lost.

    PENSTOCK_FAULTS=200 PENSTOCK_SEED=7 python3 -m pytest tests/e2e/test_faults.py

is the long run; the seed of a failed one is in its message."""

import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

import psycopg2
import pytest

from lib.cluster import Cluster
from lib.load import Load
from lib.pair import lsn_number
from lib.program import DONE, STOPPED, binary, wait_until
from lib.proxy import Proxy
from lib.seccomp import refuse_io_uring

FAULTS = int(os.environ.get("PENSTOCK_FAULTS", "8"))
SEED = int(os.environ.get("PENSTOCK_SEED", random.randrange(1 << 30)))
IMPATIENT = "?keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=2000&connect_timeout=5"
# What a crash of the target forgets is as much as it may.
FORGETFUL = {"wal_writer_delay": "10s", "checkpoint_timeout": "1h"}


class Sampler(threading.Thread):
    """Sees to it that the source was never told more than what the target, or the spool, holds durably."""

    def __init__(self, rig):
        super().__init__(daemon=True)
        self.rig = rig
        self.over = threading.Event()
        self.samples = 0
        self.failure = None

    def run(self):
        while not self.over.wait(0.03):
            try:
                # in this order: what is recorded only grows
                confirmed = lsn_number(self.rig.ask(self.rig.source, """
                    SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = %s""", self.rig.name))
                safe = self.rig.spool_end() if self.rig.ack == "spooled" else lsn_number(self.rig.ask(
                    self.rig.target, "SELECT reported_lsn FROM penstock.durable WHERE name = %s", self.rig.name))
            except (psycopg2.Error, IndexError, OSError):
                continue  # the server is down, or nothing is there yet
            if self.rig.began < confirmed and safe is not None:
                self.samples += 1
                if confirmed > safe:
                    self.failure = f"confirmed {confirmed:X}, but safe is only {safe:X}"
                    return

    def end(self):
        self.over.set()
        self.join()
        assert self.failure is None, self.failure
        assert self.samples > 0, "nothing was sampled"


class Rig:
    """Two durable servers with proxies before them, a penstock between, a load."""

    def __init__(self, make_pair, clusters, seed):
        self.chance = random.Random(seed)
        self.ack = self.chance.choice(("applied", "spooled"))
        self.source, self.target = clusters
        self.pair = make_pair(self.chance.choice(("owner", "postgres")), *clusters)
        self.name = self.pair.name
        self.proxies = {}
        for side, role in (("source", "owner"), ("target", self.pair.role)):
            cluster = getattr(self, side)
            self.proxies[side] = Proxy(cluster.port)
            setattr(self.pair.penstock, side,
                    cluster.uri(self.name, role, port=self.proxies[side].port) + IMPATIENT)
        self.source.sql(f"ALTER DATABASE {self.name} SET wal_sender_timeout = '6s'")
        self.source.sql(f"ALTER DATABASE {self.name} SET logical_decoding_work_mem = '64kB'")
        self.pair.schema("CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, note text);"
                         "CREATE TABLE journal (worker int, i int, amount bigint);"
                         "ALTER TABLE journal REPLICA IDENTITY FULL;"
                         "CREATE TABLE big (id bigint PRIMARY KEY, a text);"
                         "CREATE TABLE marks (n int PRIMARY KEY)")
        self.pair.make_slot()
        self.began = lsn_number(self.pair.confirmed_lsn())
        self.pair.on_source("INSERT INTO accounts SELECT i, 0, '' FROM generate_series(1, 30) i")
        self.mark = 0
        self.first = 0
        self.done = {}
        self.load = None
        self.process = None
        self.start()

    def ask(self, cluster, statement, *params):
        return cluster.sql(statement, params, dbname=self.name)[0][0]

    def spool_end(self):
        """The last position in the newest segment: what is not there cannot be durable."""
        folder = pathlib.Path(self.pair.penstock.dir) / "spool"
        newest = max(folder.glob("stream-*.spool"), default=None)
        if newest is None:
            return None
        said = subprocess.run([binary(), "inspect", "--summary", "--json", newest], capture_output=True, text=True,
                              check=False).stdout.splitlines()
        facts = json.loads(said[-1]) if said else {}
        last = facts.get("last_lsn") or facts.get("start_lsn")
        return lsn_number(last) if last else None

    def start(self, **changed):
        extra = ["--ack", self.ack, "--streaming", self.chance.choice(("on", "off", "parallel"))]
        options = {"memory": "16MB", "batch_rows": 300} if self.chance.random() < 0.5 else {}
        run = self.pair.penstock.start(*extra, workers=self.chance.choice((1, 3, 6)), **options, **changed)
        self.process = run
        # A connection that is refused or cut before the server has said a word ends a start: that may be a mistyped
        # port. So the next fault comes when it has begun.
        wait_until(lambda: "workers, checkpoints by" in run.stderr or not run.running, 30, "the stream to begin")
        assert run.running, run.stderr[-3000:]

    def begin_load(self):
        self.first += 100_000
        first = self.first
        load = Load(self.pair, threads=3, transactions=10_000, retry=True, schema=False)
        stop = self.stopping = threading.Event()

        def statements(worker, i):
            if stop.is_set():
                load.transactions = 0
                return
            chance = random.Random(first + i * 10 + worker)
            one, other = sorted(chance.sample(range(1, 31), 2))
            yield "UPDATE accounts SET balance = balance - %s WHERE id = %s", (i, one)
            yield "UPDATE accounts SET balance = balance + %s WHERE id = %s", (i, other)
            yield "INSERT INTO journal VALUES (%s, %s, %s)", (worker, first + i, i)
            if i % 150 == 40:  # a large one
                yield ("INSERT INTO big SELECT %s + n, repeat('x', 150) FROM generate_series(1, 3000) n",
                       ((first * 3 + i * 3 + worker) * 10_000,))
            if i % 10 == 0:
                yield "SELECT pg_sleep(0.02)", None

        load.statements = statements
        load.start()
        self.load = load

    def end_load(self):
        self.stopping.set()
        self.load.join()

    def settle(self):
        """Everything that the source has is on the target, once."""
        self.end_load()
        pair = self.pair
        for connection in pair.connections:
            connection.close()
        pair.connections.clear()
        pair.source, pair.target = pair.connect(self.source), pair.connect(self.target)
        self.mark += 1
        pair.on_source("INSERT INTO marks VALUES (%s)", (self.mark,))
        if not self.process.running:
            raise AssertionError(f"penstock ended:\n{self.process.stderr[-4000:]}")
        pair.wait_rows("marks", self.mark, self.process, timeout=60)
        pair.same()
        assert pair.on_target("SELECT sum(balance) FROM accounts") == [(0,)]
        assert pair.on_target("SELECT count(*) FROM (SELECT 1 FROM journal GROUP BY worker, i"
                              " HAVING count(*) > 1) d") == [(0,)]

    # ---- the faults

    def kill(self):
        self.process.kill()
        self.process.process.wait()
        self.start()

    def stop(self):
        self.process.kill(signal.SIGTERM)
        assert self.process.wait(60) == STOPPED, self.process.stderr[-3000:]
        self.start()

    def crash_target(self):
        self.target.restart(signal.SIGQUIT)

    def crash_source(self):
        self.source.restart(signal.SIGQUIT)

    def crash_target_and_kill(self):
        self.process.kill()
        self.process.process.wait()
        self.target.restart(signal.SIGQUIT)
        self.start()

    def end_sessions(self, cluster):
        share = self.chance.choice((0.2, 1.0))
        cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                    " AND application_name LIKE 'penstock%%' AND random() < %s", (self.name, share))

    def end_sessions_of_the_target(self):
        self.end_sessions(self.target)

    def end_sessions_of_the_source(self):
        self.end_sessions(self.source)

    def cut(self):
        self.any_proxy().cut(self.chance.choice((0.3, 1.0)), self.chance)

    def cut_in_a_message(self):
        self.any_proxy().cut_in_a_message(self.chance.choice((0.3, 1.0)), self.chance)

    def packets_vanish(self):
        self.any_proxy().black_hole(self.chance.choice((0.3, 1.0)), self.chance)

    def fall_silent_and_kill(self):
        """What the dead process's sessions were doing is not over."""
        self.any_proxy().black_hole()
        self.kill()

    def slow(self):
        proxy = self.any_proxy()
        proxy.delay, proxy.bytes_per_second = 0.005, 2_000_000
        time.sleep(0.5)
        proxy.delay = proxy.bytes_per_second = 0

    def refuse(self):
        proxy = self.any_proxy()
        proxy.refusing = True
        proxy.cut()
        time.sleep(self.chance.uniform(0.1, 1.0))
        proxy.refusing = False

    def spoil_checkpoint(self):
        """Torn, cut short, an old one, from elsewhere: a hint that is lost costs nothing."""
        path = pathlib.Path(self.pair.penstock.dir) / "checkpoint"
        old = path.read_bytes() if path.exists() else bytes(8192)
        time.sleep(0.2)
        self.process.kill()
        self.process.process.wait()
        what = self.chance.choice(("torn", "short", "old", "elsewhere", "gone"))
        if what == "torn":
            at = self.chance.randrange(8000)
            path.write_bytes(old[:at] + self.chance.randbytes(8192 - at))
        elif what == "short":
            path.write_bytes(old[:self.chance.randrange(8000)])
        elif what == "old":
            path.write_bytes(old)
        elif what == "elsewhere":
            path.write_bytes(self.chance.randbytes(8192))
        elif path.exists():
            path.unlink()
        self.start()

    def without_io_uring(self):
        self.process.kill()
        self.process.process.wait()
        self.start(preexec=refuse_io_uring)

    def any_proxy(self):
        return self.proxies[self.chance.choice(("source", "target"))]

    FAULTS = (kill, kill, stop, crash_target, crash_source, crash_target_and_kill, end_sessions_of_the_target,
              end_sessions_of_the_source, cut, cut_in_a_message, packets_vanish, fall_silent_and_kill, slow, refuse,
              spoil_checkpoint, without_io_uring)

    def close(self):
        if self.load is not None:
            self.stopping.set()
            self.load.join()
        self.process.kill()
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture
def durable():
    made = []
    try:
        for name in ("source", "target"):
            made.append(Cluster("durable-" + name, durable=True, settings=FORGETFUL if name == "target" else {}))
        yield made
    finally:
        for cluster in made:
            cluster.remove()


def test_faults(durable, make_pair):
    """Every so many faults another stream, with other options."""
    passed = {}
    chance = random.Random(SEED)
    deck = []
    rig = None
    for number in range(FAULTS):
        if number % 5 == 0:
            if rig is not None:
                sampler.end()
                rig.close()
                rig.pair.close()  # a server has only so many slots
            rig = Rig(make_pair, durable, chance.random())
            sampler = Sampler(rig)
            sampler.start()
        if not deck:
            deck = list(Rig.FAULTS)
            chance.shuffle(deck)
        fault = deck.pop()
        name = f"{fault.__name__}, {rig.ack}"
        try:
            rig.begin_load()
            time.sleep(chance.uniform(0.1, 0.6))
            fault(rig)
            time.sleep(chance.uniform(0.1, 0.4))
            rig.settle()
            assert sampler.failure is None, sampler.failure
        except BaseException as error:
            rig.close()
            raise AssertionError(f"PENSTOCK_SEED={SEED}, fault {number + 1}: {name}: {error}") from error
        passed[name] = passed.get(name, 0) + 1
    sampler.end()
    rig.close()
    print(f"seed {SEED}: " + "; ".join(f"{name}: {count}" for name, count in sorted(passed.items())))


def test_the_thread_in_place_of_io_uring(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT generate_series(1, 1000)")
    run = pair.penstock.start("--stop-when-caught-up", "--ack", "spooled", preexec=refuse_io_uring)
    run.wait(30, expect=DONE)
    assert "checkpoints by thread" in run.stderr
    assert pair.same() == 1000
