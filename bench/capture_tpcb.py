#!/usr/bin/env python3
"""Captures the stream of a TPC-B load, for penstock-bench decode.

    PENSTOCK_BIN=build/release/penstock bench/capture_tpcb.py FILE [--transactions 20000] [--format binary|text]

Starts two throw-away servers of the installed version, fills both by pgbench -i -s 1, and runs pgbench on the source
while penstock stream --capture FILE follows it.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from lib.cluster import Cluster  # noqa: E402
from lib.pair import Pair  # noqa: E402

CLIENTS = 4
DIGEST = ("SELECT (SELECT sum(hashtextextended(a::text, 0)) FROM pgbench_accounts a),"
          " (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches),"
          " (SELECT count(*) FROM pgbench_history)")


def pgbench(cluster, database, *arguments):
    environment = os.environ | {"PGHOST": str(cluster.folder), "PGPORT": str(cluster.port), "PGUSER": "owner"}
    subprocess.run([str(cluster.bin / "pgbench"), *arguments, database], env=environment, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def capture(source, target, folder, wanted):
    pair = Pair(source, target, "tpcb", folder)
    try:
        for cluster in (source, target):
            pgbench(cluster, pair.name, "-i", "-s", "1")
        pair.make_slot()
        run = pair.penstock.start("--capture", wanted.file, "--format", wanted.format)
        pair.wait_streaming(run)
        pgbench(source, pair.name, "-n", "-c", str(CLIENTS), "-t", str(wanted.transactions // CLIENTS))
        pair.wait_rows("pgbench_history", wanted.transactions // CLIENTS * CLIENTS, run, timeout=600)
        run.stop()
        if pair.on_source(DIGEST) != pair.on_target(DIGEST):
            sys.exit("capture_tpcb: the target is not equal to the source")
    finally:
        pair.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--transactions", type=int, default=20000)
    parser.add_argument("--format", choices=("binary", "text"), default="binary")
    wanted = parser.parse_args()
    made = []
    try:
        for name in ("source", "target"):
            made.append(Cluster(name))
        with tempfile.TemporaryDirectory(prefix="penstock-tpcb-") as folder:
            capture(*made, pathlib.Path(folder), wanted)
    finally:
        for cluster in made:
            cluster.remove()


if __name__ == "__main__":
    main()
