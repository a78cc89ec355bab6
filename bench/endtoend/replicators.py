"""What is compared: each starts on a slot that is there, applies until it is told to stop, and tells what it used."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from lib.cluster import die_with_parent, time_factor
from lib.program import wait_until
from lib.versions import major_of

from . import procs
from .rig import PUBLICATION, Failed


class Replicator:
    """One run between one source and one target database."""

    applies = True  # else it only receives

    def __init__(self, route, flags=None, port=None):
        self.route = route
        self.flags = flags or {}
        self.port = port  # of the network to the target, where there is one
        self.process = None

    def alive(self):
        """Raises when it has ended by itself."""

    def wait_streaming(self):
        """Until it holds the slot."""
        def holds():
            self.alive()
            return self.route.walsender()
        return wait_until(holds, 30, f"streaming by {self.name}")

    def apply_pids(self):
        return []

    def used(self):
        """CPU seconds by part since each process began, and memory; parts that are gone are left out."""
        parts = {"walsender": [self.route.walsender()], "target": self.apply_pids(),
                 "replicator": [self.process.pid] if self.process else []}
        found = {part: sum(procs.cpu_seconds(pid) or 0 for pid in pids if pid) for part, pids in parts.items()}
        if self.process:
            found["threads"] = procs.cpu_by_thread(self.process.pid)
            found["memory_mb"] = procs.peak_memory_mb(self.process.pid)
        return found


class Penstock(Replicator):
    """The program under test, as its users start it."""

    def __init__(self, name, binary, route, flags=None, port=None):
        super().__init__(route, flags, port)
        self.name = name
        self.binary = binary
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-bench-state-"))
        self.log = open(self.folder / "log", "w+", encoding="utf-8", errors="replace")

    def start(self):
        options = {"name": self.route.slot, "slot": self.route.slot, "publication": PUBLICATION,
                   "dir": self.folder / "state", "log-format": "json", "progress": "none"} | self.flags
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}
        # Not on the command line, which everybody can read.
        environment |= {"PENSTOCK_SOURCE": self.route.source_uri(),
                        "PENSTOCK_TARGET": self.route.target_uri(self.port)}
        arguments = [part for flag, value in options.items() for part in (f"--{flag}", str(value))]
        self.process = subprocess.Popen([self.binary, "stream", *arguments], env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self.log, preexec_fn=die_with_parent)

    def alive(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with exit code {self.process.returncode}: {self.said()}")

    def said(self):
        self.log.flush()
        return (self.folder / "log").read_text(errors="replace")[-1500:]

    def apply_pids(self):
        return [pid for (pid,) in self.route.rig.target.sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'penstock %%'"
            " AND application_name NOT LIKE 'penstock-bench%%'", (self.route.target_db,))]

    def stop(self):
        try:
            if self.process and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    code = self.process.wait(60 * time_factor())
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
                    raise Failed(f"{self.name} did not stop within 60 s: {self.said()}") from None
                if code != 3:
                    raise Failed(f"{self.name} ended with exit code {code} after SIGTERM: {self.said()}")
        finally:
            self.log.close()
            shutil.rmtree(self.folder, ignore_errors=True)


class Native(Replicator):
    """PostgreSQL's own logical replication: one subscription, one apply worker."""

    name = "native"

    def start(self):
        target = self.route.rig.target
        options = {"enabled": "false", "create_slot": "false", "copy_data": "false",
                   "slot_name": f"'{self.route.slot}'"} | self.flags
        told = ", ".join(f"{name} = {value}" for name, value in options.items())
        # What is measured begins when it is told to apply, as penstock's time begins when it is started.
        target.sql(f"CREATE SUBSCRIPTION {self.route.slot} CONNECTION '{self.route.source_uri()}'"
                   f" PUBLICATION {PUBLICATION} WITH ({told})", dbname=self.route.target_db)
        target.sql(f"ALTER SUBSCRIPTION {self.route.slot} ENABLE", dbname=self.route.target_db)

    def alive(self):
        # An apply worker that fails is started again, for ever. (The view came with PostgreSQL 15.)
        if major_of(self.route.rig.target.bin) >= 15 and self.route.rig.target.sql(
                "SELECT 1 FROM pg_stat_subscription_stats WHERE subname = %s AND apply_error_count > 0",
                (self.route.slot,)):
            raise Failed("native cannot apply; the target's log says why: " + "; ".join(
                line for line in self.route.rig.target.log.read_text(errors="replace").splitlines()
                if "ERROR" in line)[-500:])

    def apply_pids(self):
        return [pid for (pid,) in self.route.rig.target.sql(
            "SELECT pid FROM pg_stat_subscription WHERE subname = %s AND pid IS NOT NULL", (self.route.slot,))]

    def stop(self):
        target, slot = self.route.rig.target, self.route.slot
        if target.sql("SELECT 1 FROM pg_subscription WHERE subname = %s", (slot,)):
            for statement in ("DISABLE", "SET (slot_name = NONE)"):
                target.sql(f"ALTER SUBSCRIPTION {slot} {statement}", dbname=self.route.target_db)
            target.sql(f"DROP SUBSCRIPTION {slot}", dbname=self.route.target_db)
            wait_until(lambda: not self.apply_pids(), 30, "the end of the apply worker")


class Receiver(Replicator):
    """pg_recvlogical that throws everything away: as fast as one slot of this source can be."""

    name = "pg_recvlogical"
    applies = False

    def __init__(self, route, end_lsn):
        super().__init__(route)
        self.end_lsn = end_lsn
        self.walsender_seconds = 0

    def start(self):
        self.process = self.route.rig.spawn(
            self.route.rig.source.bin / "pg_recvlogical", "--dbname",
            f"host={self.route.rig.source.folder} port={self.route.rig.source.port} user=owner"
            f" dbname={self.route.source_db}", "--slot", self.route.slot,
            "--start", "--file", "/dev/null", "--no-loop", "--endpos", self.end_lsn,
            "--option", "proto_version=1", "--option", f"publication_names={PUBLICATION}",
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait_end(self, timeout):
        """Seconds on the monotonic clock at which it had all."""
        deadline = time.monotonic() + timeout
        sender = None
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise Failed(f"pg_recvlogical has not received all within {timeout:.0f} s")
            sender = sender or self.route.walsender()
            self.walsender_seconds = (procs.cpu_seconds(sender) if sender else None) or self.walsender_seconds
            time.sleep(0.01)
        ended = time.monotonic()
        if self.process.returncode != 0:
            raise Failed(f"pg_recvlogical failed: {self.process.stderr.read()[-500:]}")
        return ended

    def used(self):
        return {"walsender": self.walsender_seconds, "target": 0, "replicator": 0}

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
