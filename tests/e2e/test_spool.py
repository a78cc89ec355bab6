"""--ack spooled: the state directory holds what the source has been told to forget."""

import random
import subprocess
import time

import pytest

from lib.load import Load
from lib.program import USAGE, wait_until
from lib.spooled import kill, spool_files

TABLES = "CREATE TABLE rows (id int PRIMARY KEY, a text); CREATE TABLE seen (n int)"
SPOOLED = ("--ack", "spooled")


def write(pair, first, count, size=100):
    pair.on_source("INSERT INTO rows SELECT i, repeat('x', %s) FROM generate_series(%s, %s) i",
                   (size, first, first + count - 1))


@pytest.mark.smoke
def test_load(any_pair):
    pair = any_pair
    load = Load(pair, threads=4, transactions=300)
    pair.make_slot()
    load.fill()
    run = pair.penstock.start(*SPOOLED, workers=4)
    pair.wait_streaming(run)
    load.start()
    load.join()
    pair.on_source("INSERT INTO hot VALUES (1000, 0)")
    pair.wait_rows("hot", 4, run)
    run.stop()
    load.check()


def test_the_target_goes_away(frail, make_pair):
    """The source may forget what came meanwhile; all of it is on the target in the end, once."""
    pair = make_pair("owner", None, frail[1])
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start(*SPOOLED, workers=4)
    write(pair, 1, 100)
    pair.wait_rows("rows", 100, run)
    for turn in range(3):
        pair.target_cluster.stop()
        first = 1000 * (turn + 1)
        for i in range(20):
            write(pair, first + i * 10, 10)
            pair.on_source("INSERT INTO seen VALUES (%s)", (first + i,))
        pair.wait_told()
        assert run.running, run.stderr
        pair.target_cluster.start()
        pair.target = pair.connect(pair.target_cluster)
        pair.wait_rows("seen", 20 * (turn + 1), run, timeout=60)
    run.stop()
    assert run.finished()["recoveries"] >= 3
    pair.penstock.catch_up(*SPOOLED)
    assert pair.same() == 100 + 3 * 220


def test_killed_again_and_again(make_pair):
    pair = make_pair("owner")
    load = Load(pair, threads=3, transactions=1500)
    pair.make_slot()
    load.fill()
    load.start()
    while load.running:
        run = pair.penstock.start(*SPOOLED, "--streaming", random.choice(("on", "off")), workers=4)
        pair.wait_streaming(run, timeout=60)
        time.sleep(random.random() * 1.5)
        run.kill()
        run.process.wait()
    load.join()
    pair.penstock.catch_up(*SPOOLED, timeout=120)
    load.check()


def test_segments_go_when_durable(make_pair):
    """Segments are deleted once all in them is durable on the target, not before."""
    pair = make_pair("owner")
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start(*SPOOLED, workers=2)
    pair.wait_streaming(run)
    blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
    pair.on_source("INSERT INTO seen VALUES (1)")
    for i in range(4):
        write(pair, 1 + i * 20000, 20000, 2000)
        pair.on_source("INSERT INTO seen VALUES (1)")
    pair.wait_told()
    assert len(spool_files(pair)) >= 3
    blocker.rollback()
    pair.wait_rows("seen", 5, run, timeout=120)
    pair.on_source("INSERT INTO seen VALUES (1)")
    wait_until(lambda: len(spool_files(pair)) <= 1, 30, "segments to be deleted")
    pair.wait_rows("seen", 6, run)
    run.stop()
    assert pair.same() == 80006


def spool_what_cannot_be_applied(pair):
    """A transaction that the source has forgotten and the target has not: only the spool has it."""
    pair.schema(TABLES)
    pair.make_slot()
    run = pair.penstock.start(*SPOOLED, workers=2)
    pair.wait_streaming(run)
    blocker = pair.hold("LOCK TABLE seen IN SHARE MODE")
    pair.on_source("INSERT INTO seen VALUES (1)")
    pair.wait_told()
    kill(pair, run)
    blocker.rollback()


def test_back_to_applied(pair):
    """What only the spool has must be applied first; then it is not needed."""
    spool_what_cannot_be_applied(pair)
    refused = pair.penstock.fails(expect=USAGE)
    assert "--ack spooled" in refused.the_error()
    pair.penstock.catch_up(*SPOOLED)
    assert pair.same() == 1
    pair.penstock.catch_up()
    pair.on_source("INSERT INTO seen VALUES (2)")
    pair.penstock.catch_up()
    assert pair.same() == 2
    assert not spool_files(pair)


def test_without_its_spool(pair):
    """A spool that is gone is told, not passed over."""
    spool_what_cannot_be_applied(pair)
    for file in spool_files(pair):
        file.unlink()
    for arguments in (SPOOLED, ()):
        run = pair.penstock.fails(*arguments)
        assert "cannot be had any more" in run.the_error()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes, where the right to mount one is there."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", folder],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("streaming", ["off", "on"])
def test_a_full_disk(make_pair, small_disk, streaming):
    """The reader stops, says so, keeps the connection, and goes on when there is room."""
    pair = make_pair("owner")
    pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET wal_sender_timeout = '8s'")
    pair.stream_early()
    pair.schema(TABLES)
    pair.make_slot()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(16 << 20))
    ack = SPOOLED if streaming == "off" else ()
    run = pair.penstock.start(*ack, "--streaming", streaming, workers=2, dir=small_disk / "state")
    pair.wait_streaming(run)
    pid = pair.on_source("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (pair.name,))
    write(pair, 1, 30_000, 500)
    wait_until(lambda: "is full" in run.stderr, 60, "word of the full disk")
    time.sleep(10)  # longer than the source waits for a word
    assert run.running
    filler.unlink()
    write(pair, 200_001, 10)
    if streaming == "on":
        subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    pair.wait_rows("rows", 30_010, run, timeout=120)
    assert pid == pair.on_source(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (pair.name,))
    assert "there is room again" in run.stderr
    run.stop()
    assert pair.same() == 30_010
