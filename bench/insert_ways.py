#!/usr/bin/env python3
"""Runs penstock-bench insert on a throw-away server of the installed version, if need be with a network in between.

    bench/insert_ways.py [--delay-ms 5] [--bench build/release/penstock-bench] [--rows N] [--runs N]
        [--total N]

What it measures: penstock-bench --help. PENSTOCK_PG_BIN names the programs of another version.
"""

import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from lib.cluster import Cluster  # noqa: E402

# As for a drain: nothing comes at a moment of its own choosing.
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
            "full_page_writes": "on"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, help="put a network between, so long each way")
    parser.add_argument("--bench", default=ROOT / "build" / "release" / "penstock-bench", type=pathlib.Path)
    parser.add_argument("--rows", help="only runs of so many rows")
    parser.add_argument("--runs", default="5", help="measure so often, and take the medians")
    parser.add_argument("--total", default="50000", help="rows that each measurement brings")
    wanted = parser.parse_args()
    server = Cluster("insert-ways", settings=SETTINGS)
    proxy = None
    try:
        server.sql("CREATE DATABASE bench OWNER owner", dbname="postgres")
        print(server.sql("SELECT version()")[0][0].split(" on ")[0])
        port = server.port
        if wanted.delay_ms is not None:
            proxy = subprocess.Popen(
                [wanted.bench, "proxy", "--to", str(port), "--delay-us", str(int(wanted.delay_ms * 1000))],
                stdout=subprocess.PIPE, text=True)
            port = int(proxy.stdout.readline())
            print(f"{wanted.delay_ms:g} ms each way")
        sys.stdout.flush()
        arguments = ["--runs", wanted.runs, "--total", wanted.total] + (["--rows", wanted.rows] if wanted.rows else [])
        return subprocess.run([wanted.bench, "insert", "--target", server.uri("bench", "owner", port=port), *arguments],
                              check=False).returncode
    finally:
        if proxy:
            proxy.kill()
            proxy.wait()
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
