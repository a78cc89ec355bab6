"""The program under test, run as a user runs it."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from .cluster import die_with_parent, time_factor

ROOT = pathlib.Path(__file__).resolve().parents[3]

DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 3
# What is waited for comes soon, or never: so nothing is given up sooner than this, because a busy machine is slow. How
# fast something is, a test says by itself.
PATIENCE = 60


def binary():
    return os.environ.get("PENSTOCK_BIN") or str(ROOT / "build" / "dev" / "penstock")


class Run:
    """One process. Its standard error goes to a file, so that it can be read while it runs."""

    def __init__(self, arguments, env=None, preexec=None):
        self.arguments = arguments
        self.log = tempfile.NamedTemporaryFile(prefix="penstock-stderr-")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}
        environment |= env or {}
        self.started = time.time()

        def before():
            die_with_parent()
            if preexec is not None:
                preexec()

        self.process = subprocess.Popen(
            [binary(), *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.log, env=environment, preexec_fn=before,
        )

    @property
    def stderr(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process.poll() is None

    def kill(self, how=signal.SIGKILL):
        if self.running:
            self.process.send_signal(how)

    def wait(self, timeout=60, expect=None):
        """Waits for the end; gives the exit code, which is `expect` where that is given."""
        try:
            code = self.process.wait(max(timeout, PATIENCE) * time_factor())
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            raise AssertionError(
                f"penstock did not end within {max(timeout, PATIENCE)} s; what it said last:\n{self.stderr[-4000:]}"
            ) from None
        if expect is not None:
            assert code == expect, f"exit code {code}, not {expect}; what it said:\n{self.stderr[-4000:]}"
        return code

    def stop(self, timeout=60):
        """SIGTERM, and the exit code that belongs to it."""
        self.kill(signal.SIGTERM)
        return self.wait(timeout, expect=STOPPED)

    def events(self):
        """The log lines, as dictionaries; a line that is not JSON has only its text as the message."""
        found = []
        for line in self.stderr.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                level = re.search(r"\b(DEBUG|INFO|WARN|ERROR)\b", line)
                event = {"level": level.group(1) if level else "", "message": line}
            found.append(event)
        return found

    def errors(self):
        return [e["message"] for e in self.events() if str(e.get("level", "")).upper() == "ERROR"]

    def the_error(self):
        """The one line of level ERROR."""
        errors = self.errors()
        assert len(errors) == 1, f"one ERROR line wanted, {len(errors)} found:\n{self.stderr[-4000:]}"
        return errors[0]

    def finished(self):
        """The facts of the last line, "stream finished"."""
        events = [e for e in self.events() if e.get("message") == "stream finished"]
        assert events, f"no line says that the stream finished:\n{self.stderr[-4000:]}"
        assert events[-1] is not None and self.events()[-1] == events[-1], "it is not the last line"
        return events[-1]

    def messages(self):
        """How many messages of each kind came: said at the end, at level debug."""
        found = [e for e in self.events() if e["message"] == "messages received"]
        assert len(found) == 1, f"{len(found)} lines say which messages came:\n{self.stderr[-4000:]}"
        return {kind: count for kind, count in found[0].items() if kind[0].isupper()}


class Penstock:
    """`penstock stream` between one pair of databases, with one name and one state directory."""

    def __init__(self, source, target, name, folder, workers=4):
        self.source = source
        self.target = target
        self.name = name
        self.dir = folder
        self.workers = workers
        self.runs = []

    def start(self, *extra, **changed):
        options = {
            "source": self.source, "target": self.target, "name": self.name, "dir": str(self.dir),
            "workers": str(self.workers), "log-format": "json", "progress": "none",
        }
        env = changed.pop("env", None)
        preexec = changed.pop("preexec", None)  # runs in the new process before penstock
        command = changed.pop("command", "stream")
        options |= {name.replace("_", "-"): value for name, value in changed.items()}
        arguments = [command]
        for name, value in options.items():
            if value is not None:
                arguments += [f"--{name}", str(value)]
        run = Run(arguments + [str(e) for e in extra], env, preexec)
        self.runs.append(run)
        return run

    def catch_up(self, *extra, timeout=60, expect=DONE, **changed):
        """Runs until everything that the source has committed by now is on the target."""
        run = self.start("--stop-when-caught-up", *extra, **changed)
        run.wait(timeout, expect)
        return run

    def fails(self, *extra, expect=FAILED, timeout=60, **changed):
        """A run that is to end by itself with an error; gives the run."""
        run = self.start("--stop-when-caught-up", *extra, **changed)
        run.wait(timeout, expect)
        return run

    def kill_all(self):
        for run in self.runs:
            run.kill()
        for run in self.runs:
            run.process.wait()

    def forget_all(self):
        """Lets go of what the runs have open; after kill_all, when nobody reads their words any more."""
        for run in self.runs:
            run.process.stdout.close()
            run.log.close()
        self.runs.clear()


def wait_until(condition, timeout=30, what="the condition"):
    timeout = max(timeout, PATIENCE)
    deadline = time.monotonic() + timeout * time_factor()
    pause = 0.01
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(pause)
        pause = min(pause * 1.2, 0.05)  # most questions cost a server a process
