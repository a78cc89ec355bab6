"""tools/bench measures what it says: a tiny run is complete, and what was slowed on purpose shows."""

import collections
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import pytest

from lib.program import ROOT, binary

sys.path.insert(0, str(ROOT / "bench"))

from endtoend import bars, plots, stats  # noqa: E402  pylint: disable=wrong-import-position

PARTS = ("replicator", "target", "walsender")


def bench(folder, *arguments, code=0):
    """Runs it; gives (results, page, what it said)."""
    done = subprocess.run(
        [str(ROOT / "tools" / "bench"), "--as-is", "--out", str(folder), *arguments], check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500,
        env=os.environ | {"PENSTOCK_BIN": binary()})
    assert done.returncode == code, done.stdout[-4000:]
    if code != 0:
        return None, None, done.stdout
    return json.loads((folder / "results.json").read_text()), (folder / "report.html").read_text(), done.stdout


def variants(results, name):
    case = next(case for case in results["cases"] if case["name"] == name)
    return {variant["key"]: variant for variant in case["variants"]}


def counted(variant):
    """Its runs; on a machine that is too busy for the load itself there is nothing to be tested."""
    if not variant["runs"] and variant["not_kept"]:
        pytest.skip(f"the source could not keep up with 150 transactions a second: {variant['not_kept']}")
    return variant["runs"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return bench(tmp_path_factory.mktemp("bench"), "--only", "tiny-*", "--runs", "1")


@pytest.fixture(scope="module")
def slowed(tmp_path_factory):
    """The same with 15 ms for each accounts row, and a build beside it that has but one worker."""
    folder = tmp_path_factory.mktemp("slowed")
    slow = folder / "slow"
    slow.write_text(f'#!/bin/sh\nshift\nexec "{pathlib.Path(binary()).resolve()}" stream "$@" --workers 1\n')
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    return bench(folder, "--only", "tiny-*", "--runs", "1", "--row-delay", "15", "--binary", f"slow={slow}",
                 "--set", "batch-transactions=50")  # so that so few transactions make a batch for every worker


def test_what_it_ran_on_is_told(tiny):
    results, _, said = tiny
    assert results["format"] == 1 and results["quick"] is False and results["took_seconds"] > 0
    assert results["command"][0] == "tools/bench" and "tiny-*" in results["command"]
    assert results["machine"]["processors"] >= 1 and results["machine"]["kernel"] and results["machine"]["sync_ms"] > 0
    assert "PostgreSQL" in results["versions"]["postgres"] and results["versions"]["penstock"].startswith("penstock")
    assert results["servers"]["fsync"] == "on", "numbers of servers that lose data are worth nothing"
    assert results["servers"]["synchronous_commit"] == "on"
    assert [case["name"] for case in results["cases"]] == ["tiny-drain", "tiny-lag"]
    assert "tiny-drain" in said and "x native" in said


def test_a_drain_is_told_with_its_cost(tiny):
    found = variants(tiny[0], "tiny-drain")
    assert set(found) == {"native", "penstock"}
    for variant in found.values():
        (run,) = variant["runs"]
        assert variant["failed"] == [] and run["equal"] is True
        assert run["count"] == 1000 and run["per_second"] == pytest.approx(1000 / run["seconds"])
        assert run["durable_seconds"] >= run["seconds"] > 0
        assert [count for _, count in run["curve"]] == [200, 1000]
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
    for variant in variants(tiny[0], "tiny-lag").values():
        assert variant["failed"] == []
        (run,) = counted(variant)
        lag = run["lag_ms"]
        assert 0 < lag["p50"] <= lag["p90"] <= lag["max"] and lag["count"] > 50
        assert run["equal"] is True and run["transactions"] > lag["count"] and run["offered"] == 200
        assert all(0 <= at <= 2.5 and median <= largest for at, median, largest in run["curve"])
        assert max(largest for *_, largest in run["curve"]) == pytest.approx(lag["max"], abs=0.001)
        assert sum(count for _, count in variant["summary"]["histogram"]) == lag["count"]
        values = [value for _, value in variant["summary"]["quantiles"]]
        assert values == sorted(values) and len(values) > 20


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
    assert [width for width, _ in drawings] == ["wide", "narrow"] * 7
    for _, drawing in drawings:
        assert "var(--s1)" in drawing or "var(--s2)" in drawing
        assert not re.search(r"#a[01]000\d", drawing)
    assert "native" in drawings[0][1] and "penstock" in drawings[0][1]


def test_a_slowed_target_shows_in_a_drain(tiny, slowed):
    before, after = variants(tiny[0], "tiny-drain"), variants(slowed[0], "tiny-drain")
    assert slowed[0]["builds"]["slow"].endswith("/slow")
    assert after["native"]["runs"][0]["seconds"] > 1000 * 0.015, "each row costs 15 ms, one behind the other"
    assert after["penstock:slow"]["runs"][0]["seconds"] > 1000 * 0.015
    assert before["native"]["runs"][0]["seconds"] < 1000 * 0.015
    assert after["penstock"]["summary"]["ratio"]["median"] > 2, "eight workers, against one apply worker"
    assert after["penstock:slow"]["summary"]["ratio"]["median"] < 2
    for variant in after.values():
        assert variant["runs"][0]["equal"] is True


def test_a_slowed_target_shows_in_the_lag(slowed):
    after = variants(slowed[0], "tiny-lag")
    for key in ("native", "penstock:slow"):  # 100 rows a second of 15 ms each: they fall behind more and more
        (run,) = counted(after[key])
        assert run["lag_ms"]["max"] > 300
        assert run["lag_ms"]["p50"] > counted(after["penstock"])[0]["lag_ms"]["p50"]


def test_a_build_that_fails_is_told_and_the_others_are_measured(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\necho "it is broken" >&2\nexit 1\n')
    broken.chmod(0o755)
    _, _, said = bench(tmp_path, "--only", "tiny-drain", "--runs", "1", "--binary", f"broken={broken}", code=1)
    found = variants(json.loads((tmp_path / "results.json").read_text()), "tiny-drain")
    assert len(found["penstock"]["runs"]) == 1 and found["penstock:broken"]["runs"] == []
    assert "it is broken" in found["penstock:broken"]["failed"][0] and "it is broken" in said


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
    assert judged["lag at 500/s, p50"]["met"] is None and judged["lag at 500/s, p50"]["measured"] is None
