"""What cannot go on ends in words, with exit code 1, and also when it happens while penstock runs and makes lost
connections anew: nothing is passed over, and nothing is tried for ever."""

import os
import shutil
import signal
import subprocess

import pytest

from lib.program import FAILED, wait_until

TABLE = "CREATE TABLE t (id int PRIMARY KEY, a text)"


class Stopped:
    """penstock stands still meanwhile, and then finds itself in what has become of the world."""

    def __init__(self, run):
        self.run = run

    def __enter__(self):
        os.kill(self.run.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.run.pid, signal.SIGCONT)


def begin(pair, *extra, **changed):
    pair.schema(TABLE)
    pair.make_slot()
    run = pair.penstock.start(*extra, **changed)
    pair.on_source("INSERT INTO t SELECT generate_series(1, 10)")
    pair.wait_rows("t", 10, run)
    position = pair.wal_lsn()
    wait_until(lambda: pair.on_source("SELECT %s::pg_lsn <= confirmed_flush_lsn FROM pg_replication_slots"
                                      " WHERE slot_name = %s", (position, pair.name))[0][0], 40, "the confirmation")
    return run


def end_walsender(pair):
    pair.source_cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
                            " WHERE slot_name = %s AND active", (pair.name,))
    wait_until(lambda: not pair.on_source("SELECT active FROM pg_replication_slots WHERE slot_name = %s",
                                          (pair.name,))[0][0])


def ends(run, *words, timeout=40):
    assert run.wait(timeout) == FAILED, run.stderr[-3000:]
    error = run.the_error()
    for word in words:
        assert word in error, error
    return error


def test_the_slot_is_made_anew(pair):
    run = begin(pair)
    with Stopped(run):
        end_walsender(pair)
        pair.drop_slot()
        pair.on_source("INSERT INTO t VALUES (11)")
        pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (pair.name,))
        pair.on_source("INSERT INTO t VALUES (12)")
    ends(run, "made anew", "copy the data again")
    assert pair.on_target("SELECT count(*) FROM t") == [(10,)]


def test_the_slot_is_dropped(pair):
    run = begin(pair)
    with Stopped(run):
        end_walsender(pair)
        pair.drop_slot()
    ends(run, "is gone", "--name")


@pytest.mark.parametrize("running", [True, False])
def test_the_slot_loses_its_wal(own, make_pair, running):
    pair = make_pair("owner", own("source", max_slot_wal_keep_size="1MB"))
    run = begin(pair)
    if not running:
        run.stop()
    with Stopped(run) if running else open(os.devnull):
        if running:
            end_walsender(pair)
        for _ in range(6):
            pair.on_source("CREATE TABLE IF NOT EXISTS filler (a text); INSERT INTO filler"
                           " SELECT repeat('x', 1000) FROM generate_series(1, 3000)")
            pair.source_cluster.sql("SELECT pg_switch_wal()")
        pair.source_cluster.sql("CHECKPOINT")
        assert pair.on_source("SELECT wal_status FROM pg_replication_slots")[0][0] == "lost"
    ends(run if running else pair.penstock.start(), "wal_status is lost" if running else "lost", "copy the data again")


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_the_target_is_put_back(own, make_pair, ack):
    target = own("target")
    pair = make_pair("owner", None, target)
    run = begin(pair, "--ack", ack)
    run.stop()
    for connection in pair.connections:
        connection.close()
    pair.connections.clear()
    pair.source, = (pair.connect(pair.source_cluster),)
    target.stop()
    backup = target.folder / "backup"
    subprocess.run(["cp", "-a", target.data, backup], check=True)
    target.start()
    run = pair.penstock.start("--ack", ack)
    pair.wait_streaming(run)
    pair.on_source("INSERT INTO t VALUES (11)")
    pair.target = pair.connect(target)
    pair.wait_rows("t", 11, run)
    position = pair.wal_lsn()
    pair.source_cluster.sql("SELECT pg_switch_wal()")
    wait_until(lambda: pair.on_source("SELECT %s::pg_lsn <= confirmed_flush_lsn FROM pg_replication_slots"
                                      " WHERE slot_name = %s", (position, pair.name))[0][0], 40)
    if ack == "spooled":  # a spool that still has it all would mend it, and rightly
        run.stop()
        shutil.rmtree(pair.penstock.dir / "spool")
    pair.target.close()
    target.stop(signal.SIGQUIT)
    shutil.rmtree(target.data)
    backup.rename(target.data)
    target.start()
    ends(run if ack == "applied" else pair.penstock.start("--ack", ack), "put back to an older state",
         "copy the data again")
    assert target.sql("SELECT count(*) FROM t", dbname=pair.name) == [(10,)]
    pair.target = pair.connect(target)


def test_the_target_is_put_back_and_the_spool_has_it_all(own, make_pair):
    """Then nothing is lost, and it simply goes on."""
    target = own("target")
    pair = make_pair("owner", None, target)
    begin(pair, "--ack", "spooled").stop()
    pair.target.close()
    target.stop()
    backup = target.folder / "backup"
    subprocess.run(["cp", "-a", target.data, backup], check=True)
    target.start()
    pair.on_source("INSERT INTO t VALUES (11)")
    pair.penstock.catch_up("--ack", "spooled")
    target.stop()
    shutil.rmtree(target.data)
    backup.rename(target.data)
    target.start()
    pair.target = pair.connect(target)
    pair.penstock.catch_up("--ack", "spooled")
    assert pair.same() == 11


def test_the_target_database_is_dropped(pair):
    run = begin(pair)
    pair.target_cluster.sql(f"DROP DATABASE {pair.name} WITH (FORCE)")
    try:
        ends(run, "target: cannot connect", "does not exist", "--target")
    finally:
        pair.target_cluster.sql(f"CREATE DATABASE {pair.name}")


@pytest.mark.parametrize("ack", ["applied", "spooled"])
def test_a_role_that_may_not_log_in_any_more(make_pair, ack):
    pair = make_pair("owner")
    role = f"{pair.name}_role"
    for cluster in (pair.source_cluster, pair.target_cluster):
        cluster.sql(f"CREATE ROLE {role} LOGIN REPLICATION SUPERUSER")
    pair.penstock.target = pair.target_cluster.socket_uri(pair.name, role)
    try:
        run = begin(pair, "--ack", ack)
        pair.target_cluster.sql(f"ALTER ROLE {role} NOLOGIN")
        pair.target_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
        ends(run, "target: cannot connect", "not permitted to log in")
    finally:
        for cluster in (pair.source_cluster, pair.target_cluster):
            wait_until(lambda c=cluster: not c.sql("SELECT 1 FROM pg_stat_activity WHERE usename = %s", (role,)))
            cluster.sql(f"DROP OWNED BY {role}; DROP ROLE {role}") if cluster is pair.source_cluster else None
        pair.target_cluster.sql(f"DROP OWNED BY {role}", dbname=pair.name)
        pair.target_cluster.sql(f"DROP ROLE {role}")


def test_a_table_s_right_is_taken_away(pair):
    run = begin(pair)
    pair.on_target("REVOKE INSERT ON t FROM owner")
    pair.on_source("INSERT INTO t VALUES (11)")
    ends(run, "42501", "start again")
    pair.on_target("GRANT INSERT ON t TO owner")
    pair.penstock.catch_up()
    assert pair.same() == 11


def test_the_right_to_replicate_is_taken_away(pair):
    run = begin(pair)
    with Stopped(run):
        end_walsender(pair)
        pair.source_cluster.sql("ALTER ROLE owner NOREPLICATION")
    try:
        ends(run, "source:")
    finally:
        pair.source_cluster.sql("ALTER ROLE owner REPLICATION")
    pair.penstock.catch_up()
    assert pair.same() == 10


def test_a_new_timeline(own, make_pair):
    source = own("source")
    pair = make_pair("owner", source)
    begin(pair).stop()
    pair.source.close()
    source.stop()
    (source.data / "standby.signal").touch()
    source.start()
    source.sql("SELECT pg_promote()")
    wait_until(lambda: not source.sql("SELECT pg_is_in_recovery()")[0][0])
    pair.source = pair.connect(source)
    ends(pair.penstock.start(), "timeline 1", "now it is 2")


def test_another_server_under_the_same_address(own, make_pair):
    """Another system identifier, met while penstock runs."""
    source = own("source")
    pair = make_pair("owner", source)
    run = begin(pair)
    other = own("other")
    other.sql(f"CREATE DATABASE {pair.name} OWNER owner")
    pair.source.close()
    source.stop(signal.SIGQUIT)
    other.stop()
    port, other.port = other.port, source.port
    other.start()
    try:
        ends(run, "system identifier", "--source")
    finally:
        other.stop()
        other.port = port
        source.start()
    pair.source = pair.connect(source)
