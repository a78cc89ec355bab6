"""penstock migrate --ack spooled: what the source commits while the tables are copied is received meanwhile."""

import contextlib
import pathlib
import random
import signal
import time

import pytest

from lib.cluster import Cluster
from lib.everything import FILL, SCHEMA, Writers, fences, phase
from lib.migration import cutover, equal_after_cutover, migrate, wait_phase
from lib.points import needs_points
from lib.program import DONE, FAILED, USAGE, wait_until

SPOOLED = ("--ack", "spooled")


def spool_files(pair):
    return sorted((pathlib.Path(pair.penstock.dir) / "spool").glob("stream-*.spool"))


def finish(pair, timeout=180):
    migrate(pair, *SPOOLED, "--stop-when-caught-up").wait(timeout, DONE)
    cutover(pair, timeout=timeout)
    return equal_after_cutover(pair)


@contextlib.contextmanager
def held_copy(pair):
    """A migration that has begun to copy; no chunk is done before the end of this."""
    run = migrate(pair, *SPOOLED, chunk_size="64kB", env={"PENSTOCK_KILL_AT": "chunk-before"})
    assert run.wait(60) == -signal.SIGKILL, run.stderr[-3000:]
    blocker = pair.target_cluster.connect(pair.name)
    blocker.autocommit = False
    with blocker.cursor() as cursor:
        cursor.execute("LOCK TABLE penstock.copied_chunk IN SHARE MODE")
    yield
    blocker.close()


@needs_points
@pytest.mark.smoke
@pytest.mark.parametrize("streaming", ["off", "on"])
def test_received_while_it_copies(pair, streaming):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=1, count=2, pause=0.002):
        with held_copy(pair):
            for how in ("kill", "cut", "kill", "stop", None):
                run = migrate(pair, *SPOOLED, "--streaming", streaming, chunk_size="64kB")
                pair.wait_told(run)
                time.sleep(0.5)
                pair.wait_told(run)
                assert phase(pair) == "copy"
                wait_until(lambda r=run: "received into the spool" in r.stderr, what="word of it")  # a thread of its own
                if how == "cut":
                    pair.source_cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                                            " WHERE slot_name = %s", (pair.name,))
                    wait_until(lambda: "the source is there again" in run.stderr, 20, "the source to be there again")
                    pair.wait_told(run)
                if how in ("kill", "cut"):
                    run.kill()
                    run.process.wait()
                elif how == "stop":
                    assert run.stop() == 3
        wait_phase(pair, ("stream", "ready"), run)
        assert fences(pair) > 0
        run.kill()
        run.process.wait()
    assert finish(pair) > 10000


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again(make_pair, seed):
    chance = random.Random(seed)
    pair = make_pair(chance.choice(("owner", "postgres")))
    pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET logical_decoding_work_mem = '64kB'")
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=seed, pause=0.002):
        for _ in range(10):
            run = migrate(pair, *SPOOLED, "--streaming", chance.choice(("on", "off", "parallel")), chunk_size="64kB",
                          copy_jobs=chance.randint(1, 4))
            deadline = time.monotonic() + chance.uniform(0.2, 4.0)
            while run.running and time.monotonic() < deadline:
                time.sleep(0.01)
            run.kill()
            run.process.wait()
            assert run.process.returncode == -signal.SIGKILL, run.stderr[-3000:]
    assert finish(pair) > 10000


@needs_points
@pytest.mark.parametrize("point", ["phase-entered:3", "chunk-after:5", "phase-entered:4", "index-built"])
def test_killed_at(pair, point):
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=5, count=2, pause=0.002):
        run = migrate(pair, *SPOOLED, chunk_size="64kB", env={"PENSTOCK_KILL_AT": point})
        assert run.wait(60) == -signal.SIGKILL, run.stderr[-3000:]
        run = migrate(pair, *SPOOLED, chunk_size="64kB")
        wait_phase(pair, ("stream", "ready"), run)
        pair.wait_told(run)
        run.stop()
    assert finish(pair) > 10000


@needs_points
def test_not_with_another_ack(pair):
    """Before it copies for hours."""
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with held_copy(pair):
        run = migrate(pair, *SPOOLED)
        pair.on_source("INSERT INTO customer (name) VALUES ('late')")
        pair.wait_told(run)
        run.kill()
        run.process.wait()
        run = migrate(pair)
        run.wait(30, USAGE)
        assert "go on with --ack spooled" in run.the_error()
    assert finish(pair) > 1000


@needs_points
def test_without_its_spool(pair):
    """What the source has forgotten is nowhere: in words, as soon as the stream is looked at."""
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with held_copy(pair):
        run = migrate(pair, *SPOOLED)
        pair.on_source("INSERT INTO customer (name) VALUES ('late')")
        pair.wait_told(run)
        run.kill()
        run.process.wait()
        for file in spool_files(pair):
            file.unlink()
        run = migrate(pair, *SPOOLED, "--stop-when-caught-up")
        wait_until(lambda: "but the spool in" in run.stderr or not run.running, 30, "word of it")
    run.wait(60, FAILED)
    assert "copy the data again" in run.the_error()


@pytest.fixture(name="own_clusters")
def fixture_own_clusters():
    """Servers that the test may stop."""
    made = []
    try:
        for name in ("source", "target"):
            made.append(Cluster(name, durable=True))
        yield made
    finally:
        for cluster in made:
            cluster.remove()


@needs_points
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_server_crashes_in_the_copy(own_clusters, make_pair, which):
    pair = make_pair("owner", *own_clusters)
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with held_copy(pair):
        run = migrate(pair, *SPOOLED, chunk_size="64kB")
        pair.on_source("INSERT INTO customer (name) SELECT 'before' FROM generate_series(1, 50)")
        pair.wait_told(run)
        own_clusters[which == "target"].restart(signal.SIGQUIT)
        for connection in pair.connections:
            connection.close()
        pair.connections.clear()
        pair.source, pair.target = (pair.connect(cluster) for cluster in own_clusters)
        pair.on_source("INSERT INTO customer (name) SELECT 'after' FROM generate_series(1, 50)")
        pair.wait_told(run)
    wait_phase(pair, ("stream", "ready"), run)
    run.stop()
    assert finish(pair) > 1000
