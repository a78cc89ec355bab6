#!/usr/bin/env python3
"""Runs each micro bench with next to no work, and checks what penstock-bench prints and how it ends.

    check_bench.py BINARY

The numbers themselves mean nothing here; that they are there, once each, in their units, does.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

SMALL = ["--share", "0.001", "--runs", "3"]
# What other scripts may go by: a bench that loses its name or its unit breaks them.
UNITS = {
    "ring": {"handoff": "ns/item"},
    "decode-tpcb": {"cost": "ns/change", "rate": "MB/s"},
    "key-hash-text": {"cost": "ns/key"},
    "key-hash-binary": {"cost": "ns/key"},
    "key-hash-wide": {"cost": "ns/key"},
    "conflict": {"rate": "keys/s", "cost": "ns/key"},
    "conflict-wide": {"rate": "keys/s", "cost": "ns/key"},
    "former": {"cost": "ns/change", "rate": "transactions/s"},
    "dispatch": {"cost": "ns/change", "rate": "transactions/s"},
    "statement-build": {"cost": "ns/shape"},
    "statement-bind": {"cost": "ns/change"},
    "checkpoint-uring": {"p50": "us", "p99": "us", "handing over": "us"},
    "checkpoint-thread": {"p50": "us", "p99": "us", "handing over": "us"},
    "checkpoint-direct": {"p50": "us", "p99": "us"},
} | {f"{by}-{what}-{size}": {"rate": "records/s" if size == "60" else "MB/s"}
     for by in ("spool", "thread") for what in ("append", "durable", "read") for size in ("60", "8k")}
NEED_NOT_BE_HERE = {"checkpoint-uring", "checkpoint-direct"}  # where a kernel or file system refuses


def fail(words):
    sys.exit(f"check_bench: {words}")


def run(binary, *arguments, code=0):
    ended = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=300)
    if ended.returncode != code:
        fail(f"{arguments} ended with {ended.returncode}, not {code}: {ended.stderr}")
    if code != 0 and (ended.stdout or len(ended.stderr.splitlines()) != 1):
        fail(f"{arguments} is to say one line on standard error and nothing else: {ended}")
    return ended.stdout if code == 0 else ended.stderr


def names_in_help(binary):
    text = run(binary, "--help")
    return re.findall(r"^  ([a-z][a-z0-9-]+)(?: |$)", text.split("\n\n")[-1], re.M)


def check_json(binary):
    found = json.loads(run(binary, "micro", "--json", *SMALL))
    if found["runs"] != 3 or found["share"] != 0.001 or not re.fullmatch(r"\d+\.\d+\.\d+", found["version"]):
        fail(f"the head of the JSON is wrong: {found}")
    units = {}
    for each in found["results"]:
        if each["metric"] in units.setdefault(each["name"], {}):
            fail(f"{each['name']} {each['metric']} is there twice")
        units[each["name"]][each["metric"]] = each["unit"]
        if not 0 < each["min"] <= each["median"] <= each["max"]:
            fail(f"no median between two extremes above 0: {each}")
        if each.get("at_least") and each["met"] != (each["median"] >= each["at_least"]):
            fail(f"wrong about what is wanted: {each}")
        if each.get("at_most") and each["met"] != (each["median"] <= each["at_most"]):
            fail(f"wrong about what is wanted: {each}")
    for name in UNITS.keys() - units.keys() - NEED_NOT_BE_HERE:
        fail(f"{name} is missing")
    for name, metrics in units.items():
        if metrics != UNITS.get(name):
            fail(f"{name} gives {metrics}, not {UNITS.get(name)}")
    if not any("at_least" in each and each["name"] == "conflict" for each in found["results"]):
        fail("nothing is wanted of the conflict table any more")


def check_table(binary):
    lines = run(binary, "ring", "conflict", *SMALL).splitlines()
    if not re.match(r"bench +median +spread$", lines[0]):
        fail(f"no head of a table: {lines[0]}")
    if [line.split()[:2] for line in lines[1:]] != [["ring", "handoff"], ["conflict", "rate"], ["conflict", "cost"]]:
        fail(f"not the rows that were asked for: {lines}")
    if not re.search(r"keys/s +\d+ % +at least 10000000: (yes|NO)$", lines[2]):
        fail(f"the table does not say what is wanted: {lines[2]}")


def check_usage(binary):
    for arguments, words in ((["confict"], 'the nearest is "conflict"'),
                             ([], "name what to run"),
                             (["micro", "--jsno"], "unknown flag"),
                             (["micro", "--runs"], "no number"),
                             (["micro", "--runs", "0.5"], "no number"),
                             (["micro", "--share", "0"], "no number"),
                             (["micro", "--share", "many"], "no number"),
                             (["decode"], "takes one file"),
                             (["insert"], "--target CONNINFO is needed"),
                             (["insert", "--target", "", "--rows", "7"], "one of the sizes"),
                             (["insert", "--target"], "--target CONNINFO is needed"),
                             (["insert", "--targt", "x"], "not understood")):
        if words not in run(binary, *arguments, code=2):
            fail(f"{arguments} is not answered with {words!r}")
    if "no-such" not in run(binary, "decode", "/no-such/file", code=1):
        fail("a capture that is not there is not named")


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        os.environ["TMPDIR"] = folder
        if names_in_help(binary) != list(UNITS):
            fail(f"--help lists {names_in_help(binary)}, not {list(UNITS)}")
        check_json(binary)
        check_table(binary)
        check_usage(binary)
        left = list(pathlib.Path(folder).iterdir())
        if left:
            fail(f"left behind: {left}")


if __name__ == "__main__":
    main()
