"""What the tests of the spool share."""

import pathlib


def spool_files(pair):
    return sorted((pathlib.Path(pair.penstock.dir) / "spool").glob("stream-*.spool"))


def end_sessions(pair):
    """penstock's, on the target."""
    pair.target_cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                            " AND application_name LIKE 'penstock%%'", (pair.name,))


def kill(pair, run):
    """And its sessions on the target, which would carry out what was sent already."""
    run.kill()
    run.process.wait()
    end_sessions(pair)
