"""What memory very wide rows take: the jobs of the copy share --memory, and a row is in memory once."""

import pathlib
import re
import time

import pytest

from lib.migration import migrate
from lib.program import DONE, binary

SANITIZED = "asan" in binary() or "tsan" in binary()
CHARACTERS = 24 * 10**6  # of each wide value
OTHERS_MB = 40  # what penstock has in memory beside rows
TABLES = 4


def peak_mb(run):
    """Waits for the end, before which nothing is tried twice; gives the largest resident memory up to there."""
    peak = 0
    while run.running:
        status = pathlib.Path(f"/proc/{run.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", status)
        peak = int(found[1]) / 1024 if found else peak
        time.sleep(0.02)
    run.wait(1, DONE)
    assert "trying again" not in run.stderr
    return peak


def buffer_mb(characters):
    """What libpq takes for a message: a power of two."""
    return 2**(characters - 1).bit_length() / 2**20


def fill(pair, type_="text", rows=2, tables=TABLES):
    """Each row of each table is one wide value; all tables have a small one, too, in the end."""
    for i in range(tables):
        pair.on_source(f"CREATE TABLE wide_{i} (id int PRIMARY KEY, body {type_}, note text);"
                       f"ALTER TABLE wide_{i} ALTER body SET STORAGE EXTERNAL")
        pair.on_source(f"INSERT INTO wide_{i} SELECT g, repeat(md5(g::text), {CHARACTERS // 32})::{type_}"
                       f" FROM generate_series(1, {rows}) g")
        pair.on_source(f"INSERT INTO wide_{i} VALUES (100, 'short', 'x'), (101, NULL, NULL)")


def copied(pair, **options):
    """A whole migration by four jobs; gives its peak."""
    peak = peak_mb(migrate(pair, "--stop-when-caught-up", copy_jobs=4, **options))
    print(f"at most {peak:.0f} MB resident")
    assert pair.same() > 0
    return peak


def test_a_row_is_in_memory_once_for_each_job(pair):
    fill(pair, rows=1)
    peak = copied(pair, memory="512MB")
    assert peak <= TABLES * CHARACTERS / 1e6 + OTHERS_MB or SANITIZED


def test_rows_one_after_the_other_fill_a_buffer_for_each_job(pair):
    """Where the next row comes before the first was read, it fills the rest of the buffer, and that is all."""
    fill(pair, rows=5)
    peak = copied(pair, memory="512MB")
    assert peak <= TABLES * buffer_mb(CHARACTERS) + OTHERS_MB / 2 or SANITIZED


@pytest.mark.parametrize("way", ["binary", "text"])
def test_jobs_wait_for_room(pair, way):
    """Four jobs would take twice as much."""
    fill(pair, "bytea", rows=1)
    width = CHARACTERS * (1 if way == "binary" else 2)
    memory = 2 * buffer_mb(width)
    peak = copied(pair, memory=f"{memory:.0f}MB", format=way)
    assert peak <= 2 * width / 1e6 + OTHERS_MB or SANITIZED


def test_a_row_that_is_wider_than_the_budget_goes_alone(pair):
    fill(pair, rows=1)
    pair.on_source("CREATE TABLE small (id int PRIMARY KEY); INSERT INTO small SELECT generate_series(1, 1000)")
    peak = copied(pair, memory="16MB")
    assert peak <= CHARACTERS / 1e6 + OTHERS_MB or SANITIZED
