"""What a running penstock says of itself from outside: `penstock status`, the control socket, HTTP."""

import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import tempfile
import time
import urllib.parse

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lib.asking import (connect, control_file, converse, document, http_port, request, seconds_of, status, streaming,
                        wait_document)
from lib.cluster import OWNER_PASSWORD, SUPERUSER_PASSWORD, time_factor
from lib.pair import lsn_number
from lib.program import DONE, FAILED, STOPPED, USAGE, binary, wait_until
from lib.proxy import Doorman

NOBODY = 65534
PATHS = ["/", "/status", "/metrics", "/healthz"]


def begin(pair, *extra, rows=100, **changed):
    """A stream with HTTP that has brought some rows over."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, v int)")
    pair.make_slot()
    pair.on_source(f"INSERT INTO t SELECT i, 0 FROM generate_series(1, {rows}) i")
    run = pair.penstock.start("--http", "0", *extra, **changed)
    pair.wait_rows("t", rows, run)
    return run


def at_rest(found, rows):
    """All of so many rows is there, and counted, and everybody waits: a worker counts a moment after its commit."""
    stream = found["stream"]
    return (streaming(found) and stream["rows"] == rows and stream["lag_bytes"] == 0 and stream["lag_seconds"] == 0
            and stream["waiting_transactions"] == 0 and stream["reader"]["doing"] == "waits for the source"
            and all(w["doing"] == "waits for a batch" and w["batch"] is None for w in stream["workers"]))


def families(text):
    """Prometheus' own parser, and what it is too kind to say."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, f"{family.name} is told twice"
        assert family.name.startswith("penstock_") and family.documentation and family.type != "unknown", family
        found[family.name] = family
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \S+ .+|penstock_\w+(\{.*\})? [-+0-9.eInf]+", line), line
    assert text.endswith("\n")
    return found


def value(found, name):
    """The only sample of a counter or gauge."""
    samples = found[name].samples
    assert len(samples) == 1, samples
    return samples[0].value


@pytest.mark.smoke
def test_a_stream_says_how_it_goes(pair):
    run = begin(pair, workers=3)
    port = http_port(run)
    end = lsn_number(pair.wal_lsn())
    found = wait_document(pair.penstock.dir, lambda d: at_rest(d, 100) and d["stream"]["limit"] == "source"
                          and d["stream"]["confirmed_lsn"] and lsn_number(d["stream"]["source_lsn"]) >= end, run)
    assert found["name"] == pair.name and found["pid"] == run.pid and found["command"] == "stream"
    assert found["phase"] == "stream" and found["healthy"] and found["trouble"] is None and found["copy"] is None
    assert found["source"] == {"host": "127.0.0.1", "port": str(pair.source_cluster.port), "database": pair.name,
                               "user": "owner"}
    assert found["target"]["port"] == str(pair.target_cluster.port)
    stream = found["stream"]
    assert stream["transactions"] >= 1 and stream["batches"] >= 1 and stream["blocker"] is None
    assert [w["number"] for w in stream["workers"]] == [1, 2, 3]
    assert stream["metrics"]["applied_changes"] == 100
    positions = [lsn_number(stream[f"{which}_lsn"]) for which in
                 ("confirmed", "durable", "applied", "dispatched", "received")]
    assert positions[0] <= positions[1] and positions[2] <= positions[3] <= positions[4]

    table = status(pair.penstock.dir)
    assert table.returncode == 0 and table.stderr == ""
    assert f'penstock stream, "{pair.name}", pid {run.pid}' in table.stdout
    assert re.search(rf"^source +{pair.name} on 127.0.0.1:{pair.source_cluster.port} as owner$", table.stdout, re.M)
    assert re.search(r"^workers +3 × waits for a batch$", table.stdout, re.M)
    assert re.search(r"^applied +\d+ transactions, 100 rows, in \d+ batches$", table.stdout, re.M)

    assert json.loads(request(port, "/status")[2]).keys() == found.keys()
    metrics = families(request(port, "/metrics")[2])
    assert value(metrics, "penstock_applied_changes") == 100
    assert value(metrics, "penstock_healthy") == 1 and metrics["penstock_applied_changes"].type == "counter"
    assert request(port, "/healthz")[0::2] == (200, "streaming\n")
    run.stop()
    assert not control_file(pair.penstock.dir).exists()


def test_rates_are_of_what_happens(pair):
    run = begin(pair)
    began = time.monotonic()
    written = 0

    def at_our_pace(found):
        """Once we have written for longer than the rates look back. A machine may stand still for a while."""
        nonlocal written
        for _ in range(20):
            pair.on_source(f"UPDATE t SET v = {written} WHERE id = {1 + written % 100}")
            written += 1
            time.sleep(0.005)
        seconds = time.monotonic() - began
        rates = found["stream"]["rates"]
        return (seconds > 8 and written / seconds / 4 < rates["transactions_per_s"] < written / seconds * 4
                and rates["received_bytes_per_s"] > 0)
    wait_document(pair.penstock.dir, at_our_pace, run, what="a rate that is ours")
    wait_document(pair.penstock.dir, lambda d: d["stream"]["rates"]["transactions_per_s"] == 0, run)


def test_what_the_source_has_not_sent_is_behind_too(pair):
    run = begin(pair)
    walsender = pair.on_source("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (pair.name,))[0][0]
    os.kill(walsender, signal.SIGSTOP)
    try:
        pair.on_source("UPDATE t SET v = 1")
        written = lsn_number(pair.wal_lsn())
        found = wait_document(pair.penstock.dir, lambda d: lsn_number(d["stream"]["source_lsn"]) >= written
                              and d["stream"]["waiting_transactions"] == 0, run)
        assert found["stream"]["lag_bytes"] > 1000
        assert lsn_number(found["stream"]["received_lsn"]) < written
    finally:
        os.kill(walsender, signal.SIGCONT)
    wait_document(pair.penstock.dir, lambda d: d["stream"]["lag_bytes"] == 0, run)
    pair.same()


def test_every_metric_is_told_with_its_kind_and_help(pair):
    run = begin(pair)
    wait_document(pair.penstock.dir, lambda d: at_rest(d, 100), run)  # else the lag may not be counted yet
    found = families(request(http_port(run), "/metrics")[2])
    table = pathlib.Path(__file__).parents[2].joinpath("core", "metrics.def").read_text()
    rows = re.findall(r'^PEN_METRIC\(\s*(\w+),\s*"(\w+)",\s*(\w+),\s*(\w+),\s*"', table, re.M)
    suffix = {"SECONDS": "_seconds", "BYTES": "_bytes", "NONE": ""}
    assert len(rows) > 20
    for _, name, unit, kind in rows:
        assert found[f"penstock_{name}{suffix[unit]}"].type == kind.lower(), name
    lag = found["penstock_lag_seconds"]
    assert lag.type == "histogram"
    counts = [s.value for s in lag.samples if s.name.endswith("_bucket")]
    total = [s.value for s in lag.samples if s.name.endswith("_count")][0]
    assert counts == sorted(counts) and counts[-1] == total > 0
    assert [s.labels["le"] for s in lag.samples if s.name.endswith("_bucket")][-1] == "+Inf"
    info = found["penstock_info"].samples[0]
    assert info.labels["name"] == pair.name and info.labels["command"] == "stream"


def test_counters_never_go_back(pair):
    run = begin(pair)
    port = http_port(run)
    before = {}
    for i in range(60):
        pair.on_source(f"UPDATE t SET v = {i} WHERE id <= 20")
        for name, family in families(request(port, "/metrics")[2]).items():
            if family.type == "counter":
                now = family.samples[0].value
                assert now >= before.get(name, 0), name
                before[name] = now
    wait_until(lambda: value(families(request(port, "/metrics")[2]), "penstock_worker_seconds") > 0)


def test_another_user_gets_nothing(pair):
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    run = begin(pair)
    folder = pathlib.Path(pair.penstock.dir)
    mode = control_file(folder).stat()
    assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600 and mode.st_uid == os.geteuid()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def ask_as_nobody():
        script = ("import os, socket, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
                  "s = socket.socket(socket.AF_UNIX)\n"
                  "try:\n    s.connect('/proc/self/fd/%s/control' % sys.argv[1])\n"
                  "    s.sendall(b'status\\n')\n    print('answer', len(s.recv(100)))\n"
                  "except OSError as error:\n    print(type(error).__name__)\n")
        opened = os.open(folder, os.O_PATH)
        try:
            return subprocess.run(["/usr/bin/python3", "-c", script, str(opened)], pass_fds=(opened,), text=True,
                                  capture_output=True, check=True).stdout.strip()
        finally:
            os.close(opened)
    assert ask_as_nobody() == "PermissionError", "by the modes"
    folder.chmod(0o777)
    control_file(folder).chmod(0o777)
    assert ask_as_nobody() in ("answer 0", "BrokenPipeError", "ConnectionResetError"), "by the kernel's word for the user"
    assert document(folder)["pid"] == run.pid


def test_no_password_is_told(pair):
    """Not by any answer, and neither to whom blocks it."""
    run = begin(pair)
    pair.hold("LOCK TABLE t IN SHARE MODE")
    pair.on_source("UPDATE t SET v = 1")
    wait_document(pair.penstock.dir, lambda d: d["stream"]["blocker"], run)
    port = http_port(run)
    shown = [request(port, path)[2] for path in PATHS] + [converse(pair.penstock.dir)]
    shown += [status(pair.penstock.dir, *flags).stdout for flags in ((), ("--json",))]
    shown.append(pathlib.Path(f"/proc/{run.pid}/cmdline").read_bytes().decode())
    shown.append(run.stderr)
    for password in (OWNER_PASSWORD, SUPERUSER_PASSWORD):
        for form in (password, urllib.parse.quote(password, safe=""), json.dumps(password)[1:-1]):
            assert not any(form in text for text in shown)
    assert not any("postgresql://" in text for text in shown[:-2])


def test_only_get_and_head(pair):
    port = http_port(begin(pair))
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        code, headers, _ = request(port, "/status", method)
        assert code == 405 and headers["Allow"] == "GET, HEAD", method
    for path in PATHS:
        code, headers, body = request(port, path)
        head_code, head_headers, head_body = request(port, path, "HEAD")
        assert code == head_code == 200 and body and head_body == "", path
        assert headers["Content-Type"] == head_headers["Content-Type"]
        assert headers["Cache-Control"] == "no-store" and "default-src 'none'" in headers["Content-Security-Policy"]
    assert request(port, "/status?x=1")[0] == 200
    for path in ("/nothing", "/status/", "//status", "/../status", "/%2e%2e/etc/passwd"):
        assert request(port, path)[0] == 404, path
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert client.recv(100).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b""))
    assert request(port, "/status")[0] == 200


def test_other_names_for_this_machine_are_refused(pair):
    """DNS rebinding: a page from elsewhere whose name came to point here."""
    port = http_port(begin(pair))
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example",
                 "192.0.2.1", "[::2]", "127.0.0.1:99999", "127.0.0.1:", "@localhost"):
        assert request(port, "/status", Host=host)[0] == 403, host
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", "[::1]:1", "127.1.2.3"):
        assert request(port, "/status", Host=host)[0] == 200, host


def test_where_it_listens(pair):
    run = begin(pair)
    assert "http://127.0.0.1:" in run.stderr and "everybody who reaches" not in run.stderr
    port = http_port(run)
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=False)
    if listening.returncode == 0:
        assert re.findall(r"(\S+):%d\b" % port, listening.stdout) == ["127.0.0.1"]
    taken = pair.penstock.start("--http", f"127.0.0.1:{port}", dir=str(pair.penstock.dir) + "-2")
    taken.wait(20, expect=FAILED)
    assert f"127.0.0.1:{port}" in taken.the_error() and "another program has that port" in taken.the_error()
    run.stop()
    run = pair.penstock.start("--http", str(port))
    assert http_port(run) == port, "the same port again at once"
    run.stop()
    run = pair.penstock.start("--http", "0.0.0.0:0")
    assert request(http_port(run), "/healthz", Host="some.name.example")[0] in (200, 503)
    assert "everybody who reaches 0.0.0.0:" in run.stderr
    run.stop()
    if socket.has_ipv6 and pathlib.Path("/proc/net/if_inet6").exists():
        run = pair.penstock.start("--http", "[::1]:0")
        assert request(http_port(run), "/status", host="::1")[0] == 200
        assert "everybody who reaches" not in run.stderr


@pytest.mark.parametrize("text", ["", "x", "65536", "-1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "host.example:80",
                                  "::1:80", "[::1]", "[::1]80", "[127.0.0.1]:80", "1.2.3:80", ":", "127.0.0.1:80:80",
                                  "[fe80::1%lo]:80", "8080 ", "0x50", "postgresql://u:pw@h/d"])
def test_bad_addresses_are_usage_errors(pair, text):
    run = pair.penstock.start(f"--http={text}")
    run.wait(10, expect=USAGE)
    assert "--http" in run.the_error() and "pw@" not in run.stderr


def test_a_blocked_target(pair):
    run = begin(pair, workers=2)
    blocker = pair.hold("LOCK TABLE t IN SHARE MODE")
    pid = blocker.info.backend_pid
    pair.on_source("UPDATE t SET v = 1 WHERE id = 1")
    pair.on_source("UPDATE t SET v = 2 WHERE id = 2")

    def held_up(found):
        """For a while, by each of the clocks that are looked at below: they begin at different moments."""
        stream = found["stream"]
        return (stream["blocker"] and stream["lag_seconds"] > 2
                and any(w["batch"] and w["batch_seconds"] > 2 and w["doing"] == "waits for the target"
                        for w in stream["workers"])
                and any("waits for a lock" in note["message"] for note in found["warnings"]))
    found = wait_document(pair.penstock.dir, held_up, run)
    stream = found["stream"]
    assert f"pid {pid}," in stream["blocker"] and "UPDATE" not in stream["blocker"]
    assert found["healthy"], "it goes on by itself when the lock is gone"
    assert stream["waiting_transactions"] >= 1 and stream["lag_bytes"] > 0
    wait_document(pair.penstock.dir, lambda d: d["stream"]["limit"] == "target", run)
    table = status(pair.penstock.dir).stdout
    assert re.search(rf"^BLOCKED by +pid {pid},", table, re.M)
    assert re.search(r"worker \d has had the oldest batch for", table)
    assert value(families(request(http_port(run), "/metrics")[2]), "penstock_blocked") == 1
    blocker.rollback()
    wait_document(pair.penstock.dir, lambda d: not d["stream"]["blocker"] and at_rest(d, 102), run)
    pair.same()


@pytest.mark.smoke
def test_a_migration_in_all_its_phases(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE INDEX t_v ON t (v); CREATE TABLE small (id int"
                   " PRIMARY KEY); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 4000) i;"
                   "INSERT INTO small VALUES (1)")
    directory = pair.penstock.dir
    before = pair.hold("CREATE TABLE small ()")  # the schema's own waits for what becomes of it
    run = pair.penstock.start("--http", "0", command="migrate", copy_jobs=1, chunk_size="128kB")
    found = wait_document(directory, lambda d: d["phase"] != "check", run)
    assert found["command"] == "migrate" and found["stream"] is None
    port = http_port(run)
    wait_until(lambda: pair.on_target("SELECT to_regclass('penstock.copied_chunk')")[0][0], 20, "its tables")
    # each chunk records itself first
    blocker = pair.hold("LOCK TABLE penstock.copied_chunk IN SHARE MODE")
    before.rollback()
    found = wait_document(directory, lambda d: d["phase"] == "copy" and d["copy"] and d["copy"]["in_work"], run)
    assert found["healthy"] and found["state"] == "preparing" and found["stream"] is None
    copy = found["copy"]
    assert copy["tables"] == 2 and copy["tables_left"] >= 1 and copy["round"] == 1 and copy["jobs"] == 1
    assert 0 <= copy["percent"] < 100 and copy["in_work"][0]["table"] in ("public.t", "public.small")
    assert re.search(r"^copy +\[[#.]{24}\] +\d+%", status(directory).stdout, re.M)
    metrics = families(request(port, "/metrics")[2])
    assert value(metrics, "penstock_copy_tables") == 2 and 0 <= value(metrics, "penstock_copy_ratio") < 1
    assert request(port, "/healthz")[0::2] == (200, "preparing\n")
    blocker.rollback()
    found = wait_document(directory, lambda d: d["phase"] == "ready" and streaming(d), run, 60)
    assert found["copy"] is None and found["indexes"] is None and http_port(run) == port
    pair.on_source("INSERT INTO small VALUES (2)")
    wait_document(directory, lambda d: d["stream"]["rows"] == 1, run)
    run.stop()


@pytest.mark.smoke
def test_clients_that_say_nothing_hold_nothing_up(pair):
    run = begin(pair)
    port = http_port(run)
    silent = [connect(pair.penstock.dir) for _ in range(100)]
    silent += [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for client in silent[100:150]:
        client.sendall(b"GET /status HTTP/1.1\r\nHost: loc")  # and never goes on
    for i in range(5):
        pair.on_source(f"INSERT INTO t VALUES ({1000 + i}, 0)")
        assert seconds_of(lambda: document(pair.penstock.dir)) < 3 * time_factor()
    pair.wait_rows("t", 105, run, timeout=5)
    deadline = time.monotonic() + 60 * time_factor()
    gone = 0
    for client in silent[:100]:
        client.settimeout(max(0.1, deadline - time.monotonic()))
        gone += client.recv(1) == b""
    assert gone == 100, "each is sent away after a while"
    assert request(port, "/status", timeout=20)[0] == 200
    for client in silent:
        client.close()
    run.stop()


def test_a_slow_reader_and_odd_questions(pair):
    run = begin(pair, workers=64)
    for question in (b"\n", b"stop\n", b"status please\n", b"\xff\x00\n"):
        assert json.loads(converse(pair.penstock.dir, question)) == {"error": "the only question is status"}
    with connect(pair.penstock.dir) as client:
        client.sendall(b"x" * 5000)
        with pytest.raises(ConnectionError):
            while client.recv(100) == b"":
                client.sendall(b"x")
    with connect(pair.penstock.dir) as client:
        for byte in b"status\n":
            client.sendall(bytes([byte]))
            time.sleep(0.05)
        assert client.recv(1) == b"{"
        found = b"{"
        while piece := client.recv(512):  # a sip at a time
            found += piece
        assert json.loads(found)["pid"] == run.pid
    with connect(pair.penstock.dir) as client:
        client.sendall(b"status\n")  # and is off
    assert document(pair.penstock.dir)["pid"] == run.pid


def test_none_runs(pair, tmp_path):
    gone = status(tmp_path / "nowhere")
    assert gone.returncode == FAILED and "none runs with the state directory" in gone.stderr
    assert "no checkpoint" in gone.stderr and gone.stdout == ""
    run = begin(pair)
    wait_document(pair.penstock.dir, lambda d: streaming(d) and lsn_number(d["stream"]["durable_lsn"])
                  >= lsn_number(d["stream"]["applied_lsn"]), run)
    run.stop()
    over = status(pair.penstock.dir)
    assert over.returncode == FAILED and over.stdout == ""
    applied, durable = re.search(r"up to (\S+), durably up to (\S+)$", over.stderr.strip()).groups()
    assert lsn_number(applied) > 0 and lsn_number(durable) >= lsn_number(applied)
    written = re.search(r"written (\S+),", over.stderr).group(1)
    assert abs(time.time() - time.mktime(time.strptime(written, "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 3600
    told = json.loads(status(pair.penstock.dir, "--json").stdout)
    assert told == {"running": False, "checkpoint": {"applied_lsn": applied, "durable_lsn": durable, "written": written}}


def test_what_a_killed_one_left(pair):
    run = begin(pair)
    wait_document(pair.penstock.dir, streaming, run)
    run.kill(signal.SIGKILL)
    run.wait(10)
    assert stat.S_ISSOCK(control_file(pair.penstock.dir).stat().st_mode)
    assert "none runs" in status(pair.penstock.dir).stderr
    again = pair.penstock.start()
    assert wait_document(pair.penstock.dir, streaming, again)["pid"] == again.pid
    # one that is refused, because that one has the directory, leaves its socket alone
    refused = pair.penstock.start()
    refused.wait(20, expect=FAILED)
    assert document(pair.penstock.dir)["pid"] == again.pid
    again.stop()


def test_something_else_in_the_sockets_place(pair):
    pathlib.Path(pair.penstock.dir).mkdir(mode=0o700)
    control_file(pair.penstock.dir).write_text("mine")
    run = begin(pair)
    wait_until(lambda: "no socket is in its place" in run.stderr, 10, "a warning")
    assert document(pair.penstock.dir) is None
    run.stop()
    assert control_file(pair.penstock.dir).read_text() == "mine"


def test_two_in_two_directories(make_pair):
    pairs = [make_pair(), make_pair()]
    runs = [begin(pair, rows=10 + i) for i, pair in enumerate(pairs)]
    for i, pair in enumerate(pairs):
        found = wait_document(pair.penstock.dir, lambda d, n=10 + i: at_rest(d, n), runs[i])
        assert found["pid"] == runs[i].pid and found["name"] == pair.name
        assert json.loads(request(http_port(runs[i]), "/status")[2])["pid"] == runs[i].pid


def test_a_directory_with_a_long_path(pair, tmp_path):
    """A socket's address has 108 bytes."""
    folder = tmp_path / ("long" * 40) / ("path" * 40)
    folder.mkdir(parents=True)
    pair.penstock.dir = folder / "state"
    run = begin(pair)
    assert wait_document(pair.penstock.dir, streaming, run)["pid"] == run.pid
    run.stop()
    assert not control_file(pair.penstock.dir).exists()


def test_a_relative_directory_by_its_name(pair):
    with tempfile.TemporaryDirectory() as folder:
        pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
        run = pair.penstock.start(dir=None, preexec=lambda: os.chdir(folder))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}

        def asked():
            assert run.running, run.stderr[-3000:]
            return subprocess.run([binary(), "status", "--name", pair.name, "--json"], capture_output=True, text=True,
                                  cwd=folder, env=environment, check=False)
        wait_until(lambda: asked().returncode == 0, 20, "an answer")
        assert json.loads(asked().stdout)["pid"] == run.pid
        run.stop()


def test_a_lost_target(pair):
    """/healthz says what is the matter, and the counters go on where they were."""
    doorman = Doorman(pair.target_cluster.port, "57P03", "the database system is starting up")
    doorman.refusing = False
    pair.penstock.target = pair.target_cluster.uri(pair.name, "owner", port=doorman.port)
    try:
        run = begin(pair)
        port = http_port(run)
        wait_document(pair.penstock.dir, lambda d: d["stream"]["rows"] == 100, run)
        doorman.refusing = True
        pair.target_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                                " AND application_name LIKE 'penstock%%'", (pair.name,))
        found = wait_document(pair.penstock.dir, lambda d: d["state"] == "recovering"
                              and "is starting up" in (d["reason"] or ""), run)
        assert not found["healthy"] and found["recoveries"] >= 1 and found["stream"]["rows"] == 100
        code, _, body = request(port, "/healthz")
        assert code == 503 and body.startswith("recovering: target: ") and "starting up" in body
        assert value(families(request(port, "/metrics")[2]), "penstock_healthy") == 0
        pair.on_source("INSERT INTO t VALUES (1000, 0)")
        doorman.refusing = False
        found = wait_document(pair.penstock.dir, lambda d: streaming(d) and d["stream"]["rows"] >= 101, run)
        assert found["healthy"] and found["reason"] is None and request(port, "/healthz")[0] == 200
        assert any("trying again" in note["message"] for note in found["warnings"])
        run.stop()
    finally:
        doorman.close()


def test_a_spool_and_a_stop_that_takes_its_time(pair):
    run = begin(pair, "--ack", "spooled")
    blocker = pair.hold("LOCK TABLE t IN SHARE MODE")
    pair.on_source("INSERT INTO t SELECT i, 0 FROM generate_series(1001, 5000) i")
    found = wait_document(pair.penstock.dir, lambda d: d["stream"]["spool_bytes"] > 100000 and d["stream"]["blocker"]
                          and d["stream"]["confirmed_lsn"]
                          and lsn_number(d["stream"]["confirmed_lsn"]) > lsn_number(d["stream"]["durable_lsn"]), run)
    assert found["stream"]["lag_bytes"] > 0
    run.kill(signal.SIGTERM)
    found = wait_document(pair.penstock.dir, lambda d: d["state"] == "stopping", run)
    assert not found["healthy"]
    assert request(http_port(run), "/healthz")[0::2] == (503, "stopping: by a signal\n")
    blocker.rollback()
    run.wait(30)


def test_watching(pair):
    run = begin(pair)

    def watch(*flags, **how):
        return subprocess.Popen([binary(), "status", "--dir", str(pair.penstock.dir), "--watch", *flags],
                                stdin=subprocess.DEVNULL, **how)
    lines = watch(stdout=subprocess.PIPE, text=True)
    first, second = lines.stdout.readline(), lines.stdout.readline()
    assert "stream, streaming, " in first and "transactions/s" in first and first[:19] < second[:19]
    lines.kill()
    documents = watch("--json", stdout=subprocess.PIPE, text=True)
    assert [json.loads(documents.stdout.readline())["pid"] for _ in range(2)] == [run.pid] * 2
    documents.kill()
    master, slave = pty.openpty()
    screen = watch(stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    while shown.count(b"\x1b[H") < 3:  # cleared, then drawn twice
        shown += os.read(master, 65536)
    assert shown.startswith(b"\x1b[H\x1b[2J") and shown.count(b"limited by") >= 1 and b"\x1b[K" in shown
    run.kill(signal.SIGTERM)
    deadline = time.monotonic() + 60 * time_factor()
    try:  # a terminal that nobody reads would hold it up
        while time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                shown += os.read(master, 65536)
    except OSError:  # the other end is closed
        pass
    assert screen.wait(10 * time_factor()) == FAILED
    os.close(master)
    run.wait(expect=STOPPED)
    assert b"none runs with the state directory" in shown
    for process in (lines, documents):
        process.wait()
        process.stdout.close()


def test_names_and_words_reach_no_terminal_as_they_are(pair):
    pair.schema('CREATE TABLE "odd\x1b[31m" (id int PRIMARY KEY)')
    pair.make_slot()
    run = pair.penstock.start("--http", "0", "--on-conflict", "skip", progress="plain")
    pair.on_target('INSERT INTO "odd\x1b[31m" VALUES (1)')
    pair.on_source('INSERT INTO "odd\x1b[31m" VALUES (1)')
    wait_document(pair.penstock.dir, lambda d: d["stream"] and d["stream"]["skipped"] == 1
                  and any("odd" in note["message"] for note in d["warnings"]), run)
    table = status(pair.penstock.dir).stdout
    assert "odd" in table and "\x1b" not in table and "\x1b" not in request(http_port(run), "/status")[2]
    assert value(families(request(http_port(run), "/metrics")[2]), "penstock_skipped_changes") == 1


def test_the_page_needs_nothing_from_elsewhere(pair):
    run = begin(pair)
    page = request(http_port(run), "/")[2]
    assert page.startswith("<!doctype html>") and "prefers-color-scheme: dark" in page and "/status" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", page) and "@import" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert pair.name not in page, "it is the same for all; names come by /status"


def test_the_cutover_can_be_asked_too(pair):
    pair.on_source("CREATE TABLE t (id int PRIMARY KEY); CREATE SEQUENCE s; INSERT INTO t VALUES (1)")
    run = pair.penstock.start("--http", "0", command="migrate")
    wait_document(pair.penstock.dir, lambda d: d["phase"] == "ready" and streaming(d), run, 60)
    port = http_port(run)
    blocker = pair.hold("LOCK TABLE penstock.schema_item IN EXCLUSIVE MODE; LOCK TABLE penstock.migration IN SHARE MODE")
    # the same options: the port is the migration's until it has ended
    cut = pair.penstock.start("--fence", "none", "--http", str(port), command="cutover")
    found = wait_document(pair.penstock.dir, lambda d: d["command"] == "cutover" and d["phase"] != "check", cut, 60)
    assert found["pid"] == cut.pid and found["name"] == pair.name
    assert run.wait(30) == DONE, run.stderr[-3000:] + cut.stderr[-2000:]
    blocker.rollback()
    cut.wait(60, expect=DONE)
    assert not control_file(pair.penstock.dir).exists()
