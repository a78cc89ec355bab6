"""tools/bench: reads the command line, measures case by case, and writes what came out."""

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import sys
import time

from lib.cluster import postgres_bin
from lib.program import ROOT

from . import bars, cases, drain, lag, machine, markdown, migrate, report, table
from .rig import ERRORS, Rig

FORMAT = 1  # of the JSON
HELP = """\
Measures penstock beside PostgreSQL's own logical replication, end to end: starts two durable servers of its own,
makes backlogs and load on one, and tells how fast and how late the other follows, at what cost. Results come as a
table, as results.json and as report.html, which opens anywhere. docs/PERFORMANCE.md says how to read them.
"""


def pair_of(text):
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=VALUE')
    return name.removeprefix("--"), value


def arguments(command):
    parser = argparse.ArgumentParser(prog="tools/bench", description=HELP,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything: two to three minutes, for a first "
                        "impression; without it some twenty-two")
    parser.add_argument("--only", metavar="NAME", action="append", default=[],
                        help="only this case or group of cases, or what matches a pattern (\"lag-*\"); repeatable; "
                        "groups: " + ", ".join(f"{name} ({what})" for name, what in cases.GROUPS.items()))
    parser.add_argument("--list", action="store_true", help="print the cases and what they measure, and end")
    parser.add_argument("--runs", metavar="N", type=int, help="repeat each measurement so often; without it 1 to 3 "
                        "times, as the case needs")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, default=pathlib.Path("bench-results"),
                        help="where results.json and report.html go (default: ./bench-results)")
    parser.add_argument("--binary", metavar="[NAME=]PATH", action="append", default=[],
                        help="measure this build of penstock beside the one built here; repeatable")
    parser.add_argument("--set", metavar="FLAG=VALUE", type=pair_of, action="append", default=[], dest="flags",
                        help="start penstock with this flag in every case, as in --set workers=16; repeatable")
    parser.add_argument("--row-delay", metavar="MS", type=float, default=0,
                        help="each changed row of a workload's main table costs the target this long, as when its "
                        "pages must be fetched from far away")
    parser.add_argument("--delay", metavar="MS", type=float,
                        help="put a network between penstock and the target, so long each way")
    parser.add_argument("--as-is", action="store_true", help="install and build nothing (PENSTOCK_BIN names the "
                        "program, and penstock-bench is taken from beside it)")
    parser.add_argument("--from", metavar="FILE", type=pathlib.Path, dest="source",
                        help="measure nothing: print and draw an earlier results.json again")
    parser.add_argument("--fill", metavar="FILE", type=pathlib.Path,
                        help="also put the tables into this Markdown file, between the lines "
                        f"{markdown.BEGIN} and {markdown.END}")
    wanted = parser.parse_args(command)
    if wanted.runs is not None and wanted.runs < 1:
        parser.error("--runs takes a number above 0")
    wanted.flags = dict(wanted.flags)
    return wanted, parser


def builds(wanted):
    """[(label, path)] of the programs to be measured."""
    own = pathlib.Path(os.environ.get("PENSTOCK_BIN") or ROOT / "build" / "release" / "penstock")
    found = [("penstock", own)]
    for number, text in enumerate(wanted.binary, 2):
        name, equals, path = text.rpartition("=")
        found.append((name if equals else f"penstock {number}", pathlib.Path(path)))
    for name, path in [*found, ("what measures", own.with_name("penstock-bench"))]:
        if not os.access(path, os.X_OK):
            sys.exit(f"bench: there is no program at {path} ({name}): build it, or leave out --as-is")
    if len({name for name, _ in found}) < len(found):
        sys.exit("bench: two builds have the same name: tell them apart by --binary NAME=PATH")
    return [(name, path.resolve()) for name, path in found]


def without_places(command):
    """Without where the results went: that says nothing to who reads them elsewhere."""
    kept, skip = [], False
    for argument in command:
        if not skip and not argument.startswith(("--out", "--fill")):
            kept.append(argument)
        skip = not skip and argument in ("--out", "--fill")
    return kept


def describe(wanted, programs, rig, command):
    version = machine.said(str(postgres_bin() / "postgres"), "--version")
    return {
        "format": FORMAT, "started": lag.now(), "command": ["tools/bench", *without_places(command)], "commit": machine.commit(),
        "quick": wanted.quick, "machine": machine.describe(), "versions": {"postgres": version} | {
            name: machine.said(str(path), "--version") for name, path in programs},
        "builds": {name: str(path) for name, path in programs}, "flags": wanted.flags, "servers": rig.settings(),
    }


def measure(case, rig, say):
    if case.kind == "yardstick":
        return lag.measure_yardstick(case, rig, say)
    return {"lag": lag, "drain": drain, "migrate": migrate}[case.kind].measure(case, rig, say)


def skipped():
    """What one would expect beside the others, and why it is not."""
    if shutil.which("pgcopydb"):
        return [f"pgcopydb follow: {machine.said('pgcopydb', '--version')} is here, but its steps differ from version"
                " to version, so this bench drives its clone alone"]
    return ["pgcopydb: it is not installed here; tools/install-deps --bench does where there is a package"]


def write(results, out):
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "report.html").write_text(report.page(results))
    return out / "report.html"


def run(wanted, command):
    programs = builds(wanted)
    try:
        selected = cases.chosen(cases.Builder(wanted, programs, shutil.which("pgcopydb")).build(), wanted.only)
    except KeyError as error:
        print(f"bench: there is no case or group {error}; --list shows them", file=sys.stderr)
        return 2
    began = time.monotonic()
    out = table.Out(len(selected))
    interrupted = False
    rig = Rig(programs[0][1].parent)
    try:
        results = describe(wanted, programs, rig, command) | {"skipped": skipped(), "cases": []}
        out.head(results)
        try:
            measure_all(selected, rig, results["cases"], out)
        except KeyboardInterrupt:
            interrupted = True
            results["skipped"].append("all cases behind the interruption")
        results["took_seconds"] = round(time.monotonic() - began)
    finally:
        rig.close()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # the servers, too, now that they have ended
    results["cpu_seconds"] = round(used.ru_utime + used.ru_stime)
    results["bars"] = bars.judge({case["name"]: case for case in results["cases"]})
    code = finish(results, wanted, out)
    return 130 if interrupted else code


def measure_all(selected, rig, found, out):
    for case in selected:
        out.begin(case)
        try:
            found.append(measure(case, rig, out.say))
        except ERRORS as error:
            out.say(f"failed: {error}")
            found.append({"name": case.name, "kind": "failed", "what": case.what, "failed": str(error)})


def finish(results, wanted, out):
    path = write(results, wanted.out)
    if wanted.fill:
        markdown.fill(results, wanted.fill)
    out.tables(results)
    out.end(results, path)
    wrong = [case for case in results["cases"] if case["kind"] == "failed"
             # Another program may not know this version of PostgreSQL; that is told, and no fault of this one.
             or any(variant["failed"] and variant["kind"] != "pgcopydb" for variant in case.get("variants", []))]
    return 1 if wrong else 0


def main(command):
    wanted, _ = arguments(command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if wanted.list:
        for case in cases.Builder(wanted, [("penstock", pathlib.Path("penstock"))]).build():
            print(f"{case.name:24} {' '.join(case.group):12} {case.what}")
        return 0
    if wanted.source:
        results = json.loads(wanted.source.read_text())
        return finish(results, wanted, table.Out(0))
    try:
        return run(wanted, command)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
