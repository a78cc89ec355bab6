"""tools/bench measures what it says: a tiny run is complete, and what was slowed on purpose shows."""

import collections
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

import psycopg2
import pytest

from lib.cluster import Cluster, die_with_parent, postgres_bin, time_factor
from lib.program import ROOT, binary, wait_until

sys.path.insert(0, str(ROOT / "bench"))

from endtoend import bars, lag, plots, rig, stats  # noqa: E402  pylint: disable=wrong-import-position

OWN = pathlib.Path(binary()).resolve()
SPOILT = ("penstock:broken", "penstock:lossy")
PARTS = ("replicator", "target", "walsender")
# Milliseconds: so many that the seconds which a busy machine adds here and there do not matter beside those of all rows.
ROW_DELAY = 40


class Started:
    """One run of the bench, which goes on beside what is tested meanwhile."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        self.process = subprocess.Popen(
            [str(ROOT / "tools" / "bench"), "--as-is", "--out", str(folder), *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=os.environ | {"PENSTOCK_BIN": binary()},
            preexec_fn=die_with_parent)
        self.found = None

    def wait(self, code=0):
        """Gives (results, page, what it said)."""
        if self.found is None:
            try:
                said = self.process.communicate(timeout=1200 * time_factor())[0]
            except subprocess.TimeoutExpired:
                self.process.terminate()
                raise
            assert self.process.returncode == code, said[-4000:]
            measured = (self.folder / "results.json").exists()
            self.found = (json.loads((self.folder / "results.json").read_text()),
                          (self.folder / "report.html").read_text(), said) if measured else (None, None, said)
        return self.found


def bench(folder, *arguments, code=0):
    return Started(folder, *arguments).wait(code)


def program(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def variants(results, name):
    case = next(case for case in results["cases"] if case["name"] == name)
    return {variant["key"]: variant for variant in case["variants"]}


def sound(results, name):
    """Without those that are there to fail."""
    return {key: variant for key, variant in variants(results, name).items() if key not in SPOILT}


def counted(variant):
    """Its runs; on a machine that is too busy for the load itself there is nothing to be tested."""
    if not variant["runs"] and variant.get("not_kept"):
        pytest.skip(f"the source could not keep up with 200 transactions a second: {variant['not_kept']}")
    return variant["runs"]


def begin_slowed(folder):
    """With ROW_DELAY for each accounts row, and a build beside that has but one worker."""
    slow = program(folder / "slow", f'shift\nexec "{OWN}" stream "$@" --workers 1')
    return Started(folder, "--only", "tiny-drain", "--only", "tiny-lag", "--runs", "1", "--row-delay", str(ROW_DELAY),
                   "--binary", f"slow={slow}", "--set", "batch-transactions=20")  # that gives every worker several


def begin_tiny(folder):
    """All of the tiny cases; beside the build one that fails, and one that spoils rows: before a backlog's own come, or
    behind a copy. In the others, which take longer, it fails as well."""
    spoil = (f'"{postgres_bin() / "psql"}" -X -q "$PENSTOCK_TARGET" -c "UPDATE pgbench_accounts'
             ' SET abalance = 7 WHERE aid <= 1000" >&2')
    broken = program(folder / "broken", 'echo "it is broken" >&2\nexit 1')
    lossy = program(folder / "lossy", f'case "$1 $PENSTOCK_TARGET" in\n*/lag* | migrate*) exit 1 ;;\n'
                    f'copy*) "{OWN}" "$@" && {spoil}; exit ;;\nesac\n{spoil}\nexec "{OWN}" "$@"')
    return Started(folder, "--only", "tiny-*", "--runs", "1", "--binary", f"broken={broken}", "--binary",
                   f"lossy={lossy}")


@pytest.fixture(scope="module", autouse=True)
def beside(tmp_path_factory):
    """Both runs of the bench begin at once: most of each is waiting."""
    begun = {}
    try:
        for name, begin in (("slowed", begin_slowed), ("tiny", begin_tiny)):
            begun[name] = begin(tmp_path_factory.mktemp(name))
        yield begun
    finally:
        for run in begun.values():
            if run.process.poll() is None:
                run.process.terminate()
                run.process.wait()


@pytest.fixture(scope="module")
def tiny(beside):
    return beside["tiny"].wait(code=1)


@pytest.fixture(scope="module")
def slowed(beside):
    return beside["slowed"].wait()


# First what needs none of the two runs, while they go on.

@pytest.fixture
def proxied(clusters):
    """Makes networks to the source server; gives a connection through one, with so many ms each way."""
    started = []

    def connect(delay_ms):
        process = subprocess.Popen(
            [pathlib.Path(binary()).resolve().parent / "penstock-bench", "proxy", "--to", str(clusters[0].port),
             "--delay-us", str(delay_ms * 1000)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return psycopg2.connect(clusters[0].uri("postgres", "owner", port=int(process.stdout.readline())))

    yield connect
    for process in started:
        process.kill()
        process.wait()


def test_the_network_delays_each_way_and_changes_nothing(proxied):
    connection = proxied(150)
    cursor = connection.cursor()
    began = time.monotonic()
    cursor.execute("SELECT 1")  # psycopg2 sends BEGIN first, and waits for it
    assert time.monotonic() - began >= 0.6
    # Much at once is late once, not once a piece; and comes whole and in order. Few rows, because time is the server's, too.
    data = "".join(f"{n}\t{str(n) * 100}\n" for n in range(15_000))
    cursor.execute("CREATE TEMPORARY TABLE there (at serial, n int, more text)")
    began = time.monotonic()
    cursor.copy_expert("COPY there (n, more) FROM STDIN", io.StringIO(data))
    assert 0.3 <= time.monotonic() - began < 12 * time_factor()
    cursor.execute("SELECT count(*) FROM there WHERE at = n + 1")
    assert cursor.fetchone() == (15_000,)
    back = io.StringIO()
    cursor.copy_expert("COPY (SELECT n, more FROM there ORDER BY at) TO STDOUT", back)
    assert back.getvalue() == data
    connection.close()


def test_the_network_passes_the_end_on(proxied, clusters):
    source = clusters[0]
    connection = proxied(5)
    pid = connection.get_backend_pid()
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
    assert source.sql(alive, (pid,)) == [(1,)]
    connection.close()
    wait_until(lambda: source.sql(alive, (pid,)) == [(0,)], what="the end of the session behind the proxy")
    connection = proxied(0)
    source.sql("SELECT pg_terminate_backend(%s)", (connection.get_backend_pid(),))
    with pytest.raises(psycopg2.Error):
        connection.cursor().execute("SELECT 1")


def test_a_run_counts_only_when_the_source_kept_its_rate():
    assert lag.kept(done=10_000, planned=10_000, late_ms=1)
    assert lag.kept(done=9_500, planned=10_000, late_ms=1)  # 3 % and three sigmas
    assert not lag.kept(done=9_300, planned=10_000, late_ms=1)
    assert not lag.kept(done=10_000, planned=10_000, late_ms=26)


def test_markers_need_the_source_s_commit_times(pair, tmp_path):
    pair.schema("CREATE TABLE bench_marker (id bigint PRIMARY KEY)")
    arguments = ["--source", pair.source_cluster.admin_dsn(pair.name), "--target",
                 pair.target_cluster.admin_dsn(pair.name), "--rate", "1000", "--seconds", "0.5", "--wait", "0",
                 "--out", tmp_path / "m"]
    done = subprocess.run([pathlib.Path(binary()).resolve().parent / "penstock-bench", "lag", *arguments], check=False,
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "track_commit_timestamp" in done.stderr
    assert pair.on_source("SELECT count(*) > 5 FROM bench_marker") == [(True,)]
    done = subprocess.run([pathlib.Path(binary()).resolve().parent / "penstock-bench", "lag", "--rate", "none"],
                          check=False, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "--rate" in done.stderr


def test_wrong_arguments_are_refused(tmp_path):
    assert "no case or group 'nothing'" in bench(tmp_path, "--only", "nothing", code=2)[2]
    assert "--runs" in bench(tmp_path, "--runs", "0", code=2)[2]
    assert "there is no program" in bench(tmp_path, "--binary", str(tmp_path / "none"), code=1)[2]


def test_percentiles_and_pairs():
    values = list(range(1, 1001))
    assert stats.percentile(values, 50) == 500 and stats.percentile(values, 99.9) == 999
    assert stats.percentile(values[:99], 99) is None, "of 99 values none is above it"
    assert stats.percentile([], 50) is None
    assert stats.paired([2, 9, 4], [1, 3]) == [2, 3]
    assert stats.spread([3, None, 1, 2]) == {"median": 2, "min": 1, "max": 3, "runs": 3}
    assert stats.spread([None]) is None


def test_bars_are_judged_by_the_median_of_the_pairs():
    def case(own, native, cpu):
        return {"variants": [
            {"key": key, "kind": key, "flags": {}, "runs": [
                {"per_second": rate, "cpu_us": {"all": cpu[key]}, "memory_mb": memory} for rate in rates]}
            for key, rates, memory in (("penstock", own, 620), ("native", native, None))]}
    judged = {bar["name"]: bar for bar in bars.judge(
        {"drain-tpcb": case([30, 48, 20], [10, 30, 20], {"penstock": 30, "native": 45})})}
    rate, cpu = judged["TPC-B backlog, rate"], judged["TPC-B backlog, CPU of all parts"]
    assert rate["measured"] == {"median": 1.6, "min": 1, "max": 3, "runs": 3} and rate["met"] is True
    assert cpu["measured"]["median"] == pytest.approx(2 / 3) and cpu["met"] is False
    assert judged["largest resident memory beyond --memory"]["met"] is False  # 620 of 512 + 100
    assert judged["copy of one table, rate"]["met"] is None, "nothing was migrated"
    assert judged["lag at 500/s, p50"]["met"] is None and judged["lag at 500/s, p50"]["measured"] is None


def test_the_bars_of_migrations():
    def case(memory=None, **rates):
        return {"variants": [{"key": key, "kind": "penstock", "flags": {"memory": "256MB"}, "runs": [
            {"per_second": rate, "memory_mb": memory} for rate in each]} for key, each in rates.items()]}
    judged = {bar["name"]: bar for bar in bars.judge({
        "migrate-copy": case(pipes=[10, 20, 10], penstock=[8, 17, 9]),
        "migrate-all": case(native=[10], penstock=[11]),
        "migrate-wide": case(memory=357, penstock=[1])})}
    assert judged["copy of one table, rate"]["measured"]["median"] == 0.85 and judged["copy of one table, rate"]["met"]
    assert judged["whole migration, rate beside native"]["met"] is True
    assert judged["whole migration, rate beside pgcopydb"]["met"] is None, "it is not installed"
    assert judged["values of 100 MB, memory beyond --memory"]["measured"]["max"] == 101
    assert judged["values of 100 MB, memory beyond --memory"]["met"] is False


# The two runs

def test_what_it_ran_on_is_told(tiny):
    results, _, said = tiny
    assert results["format"] == 1 and results["quick"] is False and results["took_seconds"] > 0
    assert results["command"][0] == "tools/bench" and "tiny-*" in results["command"]
    assert "--out" not in results["command"], "where the results are is no part of what was measured"
    assert results["machine"]["processors"] >= 1 and results["machine"]["kernel"] and results["machine"]["sync_ms"] > 0
    assert "PostgreSQL" in results["versions"]["postgres"] and results["versions"]["penstock"].startswith("penstock")
    assert results["servers"]["fsync"] == "on", "numbers of servers that lose data are worth nothing"
    assert results["servers"]["synchronous_commit"] == "on"
    assert [case["name"] for case in results["cases"]] == [
        "tiny-drain", "tiny-lag", "tiny-copy", "tiny-migrate"]
    assert "tiny-drain" in said and "x native" in said


def test_a_drain_is_told_with_its_cost(tiny):
    found = sound(tiny[0], "tiny-drain")
    assert set(found) == {"native", "penstock"}
    for variant in found.values():
        (run,) = variant["runs"]
        assert variant["failed"] == [] and run["equal"] is True
        assert run["count"] == 296 and run["per_second"] == pytest.approx(296 / run["seconds"])
        assert run["durable_seconds"] >= run["seconds"] > 0
        assert [count for _, count in run["curve"]] == [96, 296]
        assert 0 < run["curve"][0][0] <= run["curve"][1][0] == pytest.approx(run["seconds"], abs=0.01)
        assert run["cpu_us"]["all"] == pytest.approx(sum(run["cpu_us"][part] for part in PARTS))
        assert run["cpu_us"]["target"] > 1 and run["cpu_us"]["walsender"] > 1
        assert set(run["machine"]) == {"own", "others", "stolen"} and run["machine"]["own"] > 0
    assert found["native"]["runs"][0]["cpu_us"]["replicator"] == 0
    own = found["penstock"]["runs"][0]
    assert own["cpu_us"]["replicator"] > 0 and own["memory_mb"] > 1
    assert {"reader", "worker"} <= set(own["cpu_us"]["threads"])
    assert found["penstock"]["summary"]["ratio"]["median"] == pytest.approx(
        own["per_second"] / found["native"]["runs"][0]["per_second"])


def test_a_lag_is_told_with_its_distribution(tiny):
    for variant in sound(tiny[0], "tiny-lag").values():
        assert variant["failed"] == []
        (run,) = counted(variant)
        told = run["lag_ms"]
        assert 0 < told["p50"] <= told["p90"] <= told["max"] and told["count"] > 50
        assert run["equal"] is True and run["transactions"] > told["count"] and run["offered"] == 100
        # Markers are sent for a second, and waited for for half a minute.
        assert all(0 <= at < 35 and median <= largest for at, median, largest in run["curve"])
        assert max(largest for *_, largest in run["curve"]) == pytest.approx(told["max"], abs=0.001)
        assert sum(count for _, count in variant["summary"]["histogram"]) == told["count"]
        values = [value for _, value in variant["summary"]["quantiles"]]
        assert values == sorted(values) and len(values) > 20


def test_a_migration_is_told_with_its_cost(tiny):
    """All of it, and the copy by itself."""
    copies, wholes = sound(tiny[0], "tiny-copy"), sound(tiny[0], "tiny-migrate")
    assert set(copies) == {"pipes", "penstock"}
    assert {"native", "penstock"} <= set(wholes) <= {"native", "penstock", "pgcopydb"}
    assert ("pgcopydb" in wholes) == (shutil.which("pgcopydb") is not None)
    for count, found in ((100_000, copies), (100_011, wholes)):
        for key, variant in found.items():
            if key == "pgcopydb" and variant["failed"]:
                continue  # a version of PostgreSQL that it does not know
            (run,) = variant["runs"]
            assert variant["failed"] == [] and run["equal"] is True
            assert run["count"] == count and run["per_second"] == pytest.approx(count / run["seconds"])
            assert run["cpu_us"]["all"] == pytest.approx(
                sum(run["cpu_us"][part] for part in ("replicator", "target", "source")))
            assert min(run["cpu_us"].values()) > 0 and run["cpu_us"]["target"] > 0.2, "what sessions use counts"
            assert run["memory_mb"] > 1
    whole = wholes["penstock"]["runs"][0]
    phases = dict(whole["phases"])
    assert list(phases) == ["before the copy", "copy", "indexes", "stream, other indexes"] and min(phases.values()) > 0
    assert 0.3 * whole["seconds"] < sum(phases.values()) <= whole["seconds"], "starting and ending are no phases"
    copied = copies["penstock"]["runs"][0]
    assert 0 < copied["seconds"] < 0.8 * copied["command_seconds"], "the copy alone"
    assert wholes["penstock"]["summary"]["ratio"]["median"] == pytest.approx(
        whole["per_second"] / wholes["native"]["runs"][0]["per_second"])


def test_the_page_is_complete_and_needs_no_network(tiny):
    results, page, _ = tiny
    for case in results["cases"]:
        assert f'<section id="{case["name"]}">' in page
    for fact in (results["machine"]["kernel"], results["commit"] or "unknown", "prefers-color-scheme: dark"):
        assert fact in page
    links = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)
    assert links and all(link.startswith("#") for link in links), links
    assert not re.search(r"@import|url\((?!#)|<script", page)
    assert "NaN" not in page and "None" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    ids = collections.Counter(re.findall(r'\bid="([^"]*)"', page))
    assert max(ids.values()) == 1, ids.most_common(3)


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed")
def test_the_plots_are_there_for_both_widths_and_take_the_page_s_colours(tiny):
    page = tiny[1]
    drawings = re.findall(r'<div class="plot (wide|narrow)"[^>]*>(<svg.*?</svg>)', page, flags=re.DOTALL)
    assert [width for width, _ in drawings] == ["wide", "narrow"] * 11
    for _, drawing in drawings:
        assert "var(--s" in drawing
        assert not re.search(r"#a[01]000\d", drawing)
    assert "native" in drawings[0][1] and "penstock" in drawings[0][1]


def test_a_slowed_target_shows_in_a_drain(tiny, slowed):
    before, after = variants(tiny[0], "tiny-drain"), variants(slowed[0], "tiny-drain")
    assert slowed[0]["builds"]["slow"].endswith("/slow")
    rows = 296 * ROW_DELAY / 1000
    assert after["native"]["runs"][0]["seconds"] > rows, "each row costs so much, one behind the other"
    assert after["penstock:slow"]["runs"][0]["seconds"] > rows
    assert before["native"]["runs"][0]["seconds"] < after["native"]["runs"][0]["seconds"]
    ratio = {key: after[key]["summary"]["ratio"]["median"] for key in ("penstock", "penstock:slow")}
    # Between 3 and 4 where nothing else is at work.
    assert ratio["penstock"] > 1.3, "eight workers, against one apply worker"
    assert ratio["penstock:slow"] < 0.75 * ratio["penstock"], "a slowed build is told apart from the other"
    for variant in after.values():
        assert variant["runs"][0]["equal"] is True


def test_a_slowed_target_shows_in_the_lag(slowed):
    after = variants(slowed[0], "tiny-lag")
    for key in ("native", "penstock:slow"):  # 100 rows a second of so much each: they fall behind more and more
        (run,) = counted(after[key])
        assert run["lag_ms"]["max"] > 300
        assert run["lag_ms"]["p50"] > counted(after["penstock"])[0]["lag_ms"]["p50"]


def test_a_build_that_fails_or_loses_rows_is_told_and_the_others_are_measured(tiny):
    results, page, said = tiny
    for case in ("tiny-drain", "tiny-copy"):
        found = {key: variant for key, variant in variants(results, case).items() if key in SPOILT}
        counted(variants(results, case)["penstock"])
        assert found["penstock:broken"]["runs"] == [] and found["penstock:lossy"]["runs"] == []
        assert "it is broken" in found["penstock:broken"]["failed"][0]
        assert "it is broken" in said and "it is broken" in page
        assert "not equal to the source in pgbench_accounts" in found["penstock:lossy"]["failed"][0]


# When they are over, because it is about single moments.

class Carrier(threading.Thread):
    """Brings each marker from one database into another, 80 ms after its commit, and leaves one out."""

    LEFT_OUT = 5

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.ends = cluster.connect("marked"), cluster.connect("seen")
        self.over = threading.Event()
        self.brought = {}  # id: (its commit, when its INSERT began, when that was over), seconds of the wall clock

    def run(self):
        source, target = (end.cursor() for end in self.ends)
        while not self.over.is_set():
            source.execute("SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM bench_marker"
                           " WHERE NOT id = ANY (%s) ORDER BY id", (list(self.brought) or [0],))
            for marker, committed in source.fetchall():
                time.sleep(max(0, committed + 0.08 - time.time()))
                began = time.time()
                if marker != self.LEFT_OUT:
                    target.execute("INSERT INTO bench_marker VALUES (%s)", (marker,))
                self.brought[marker] = committed, began, time.time()
            time.sleep(0.002)


@pytest.fixture
def marked():
    """A server with a database to write markers into and one to see them in."""
    cluster = Cluster("marked", settings={"track_commit_timestamp": "on"})
    for name in ("marked", "seen"):
        cluster.sql(f"CREATE DATABASE {name}")
        cluster.sql(rig.MARKERS, dbname=name)
    cluster.sql(rig.SEEN, dbname="seen")
    yield cluster
    cluster.remove()


def test_a_lag_is_from_the_source_s_commit_until_it_is_seen(marked, tmp_path):
    carrier = Carrier(marked)
    carrier.start()
    file = tmp_path / "markers"
    subprocess.run([pathlib.Path(binary()).resolve().parent / "penstock-bench", "lag", "--source",
                    marked.admin_dsn("marked"), "--target", marked.admin_dsn("seen"), "--rate", "40", "--seconds", "1.5",
                    "--wait", "6", "--out", file], check=True)
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 20
    wait_until(lambda: len(carrier.brought) == len(lines), what="the carrier to have brought all")
    carrier.over.set()
    carrier.join()
    gaps, heard = [], []
    for marker, line in enumerate(lines, 1):
        planned, sent, committed, seen = (int(field) / 1e6 for field in line)
        true_commit, began, ended = carrier.brought[marker]
        assert planned <= sent <= committed == pytest.approx(true_commit, abs=2e-6)
        gaps.append(planned)
        if marker == Carrier.LEFT_OUT:
            assert seen == 0
            continue
        assert seen - committed >= 0.08 and seen >= began
        heard.append(seen - ended)
    # Most of them: whoever is to hear a single one may not be running at that moment.
    assert stats.percentile(sorted(heard), 80) <= 0.25 * time_factor(), "the notification comes with the commit"
    gaps = [after - before for before, after in zip(gaps, gaps[1:])]
    assert min(gaps) < 0.4 / 40 and max(gaps) > 1.6 / 40, "the times are random ones"
    with pytest.raises(rig.Failed, match=f"1 of {len(lines)} markers"):
        lag.read_markers(file)
    file.write_text("\n".join(line for line in file.read_text().splitlines()
                              if line[0] == "#" or not line.endswith(" 0")))
    assert all(80 <= late < 8000 for _, late in lag.read_markers(file))
    file.write_text(re.sub(r"clock_moved_us -?\d+", "clock_moved_us 900", file.read_text(), count=1))
    with pytest.raises(rig.Failed, match="clock"):
        lag.read_markers(file)


def test_the_ways_of_an_insert_are_compared_on_a_real_server():
    """Every table, by every way and in both forms; each way really brings its rows, or penstock-bench fails."""
    done = subprocess.run([sys.executable, ROOT / "bench" / "insert_ways.py", "--bench", OWN.with_name("penstock-bench"),
                           "--rows", "100", "--total", "200", "--runs", "1", "--delay-ms", "1"], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300 * time_factor())
    assert done.returncode == 0, done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("narrow", "wide"))]
    assert [tuple(line[:5]) for line in lines] == [
        (table, indexes, "100", way, form) for table in ("narrow", "wide") for indexes in ("0", "1", "4")
        for way in ("FROM", "list", "COPY") for form in ("text", "binary")], done.stdout
    for line in lines:
        backend, own, run_ms = map(float, line[5:])
        # COPY's command and its data, or a statement with its arrays: there is the network's way to and from it.
        assert backend > 0 and own > 0 and run_ms >= (4 if line[3] == "COPY" else 2), line
