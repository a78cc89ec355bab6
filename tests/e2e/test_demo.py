"""`tools/demo` says what is so: that all is equal when it is, and what differs when something does."""

import os
import re
import shutil
import signal
import subprocess

from lib.cluster import postgres_bin, time_factor
from lib.program import ROOT, binary


def demo(program, *extra):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PENSTOCK_", "PG"))}
    environment |= {"PENSTOCK_BIN": str(program), "PENSTOCK_PG_BIN": str(postgres_bin())}
    process = subprocess.Popen(
        [ROOT / "tools" / "demo", "--scale", "1", "--seconds", "1", "--rate", "200", "--clients", "4", *extra],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=600 * time_factor())
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # it takes down its servers
            process.wait(30)
    return process.returncode, said


def test_the_whole_story():
    code, said = demo(binary())
    assert code == 0, said
    assert re.search(r"differences +0$", said, re.M)
    assert re.search(r"killed in its phase: ", said) and re.search(r"bytes behind; the newest row", said)
    rows = dict(re.findall(r"^ +(public\.\S+|constraints|triggers|indexes) +(\d+) rows, 0 differences$", said, re.M))
    assert int(rows["public.pgbench_accounts"]) == 100000
    assert int(rows["public.pgbench_history"]) > 0 and rows["public.pgbench_history"] == rows["public.teller_log"]
    assert int(rows["constraints"]) >= 10 and int(rows["triggers"]) == 1
    assert "Writing to the target" in said


def test_what_differs_is_told(tmp_path):
    """A penstock that leaves a row and a foreign key out at the cutover."""
    psql = shutil.which("psql", path=str(postgres_bin())) or "psql"
    program = tmp_path / "penstock"
    program.write_text(
        f"#!/bin/bash\n[[ $1 == cutover ]] || exec {binary()} \"$@\"\n{binary()} \"$@\" || exit\n"
        f"{psql} -q \"$PENSTOCK_TARGET\" -c 'DELETE FROM pgbench_history WHERE ctid = (SELECT ctid FROM pgbench_history"
        " LIMIT 1); ALTER TABLE teller_log DROP CONSTRAINT teller_log_tid_fkey'\n")
    program.chmod(0o755)
    code, said = demo(program)
    assert code == 1, said
    assert re.search(r"public.pgbench_history +\d+ rows, 1 differences$", said, re.M), said
    assert re.search(r"constraints +\d+ rows, 1 differences$", said, re.M), said
    assert re.search(r"differences +2$", said, re.M), said
