"""Every kind of message that each version of PostgreSQL sends, received and applied."""

import subprocess

import pytest

from lib.cluster import Cluster
from lib.messages import History
from lib.program import DONE, binary
from lib.versions import SUPPORTED, major_of, programs_of

# Streaming, what lets the source forget, the form of rows: each with each of the others.
MODES = [("off", "applied", "text"), ("off", "spooled", "binary"), ("on", "applied", "binary"),
         ("on", "spooled", "text")]


@pytest.fixture(scope="module", params=SUPPORTED)
def source(request, clusters):
    """A source of that version, and the version."""
    major = request.param
    if major == major_of(clusters[0].bin):
        yield clusters[0], major
        return
    programs = programs_of(major)
    if programs is None:
        pytest.skip(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it, or says why not")
    cluster = Cluster(f"source-{major}", programs=programs)
    try:
        yield cluster, major
    finally:
        cluster.remove()


@pytest.fixture
def history(source, make_pair):
    made = []

    def make(form):
        cluster, major = source
        made.append(History(make_pair("owner", source=cluster), major, form == "binary"))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.mark.parametrize("streaming, ack, form", MODES, ids=["-".join(mode) for mode in MODES])
def test_every_kind(history, streaming, ack, form, tmp_path):
    """While it is made, with a subtransaction and a transaction rolled back after they were sent."""
    it = history(form)
    pair = it.pair
    it.make_slot()
    capture = tmp_path / "stream.capture"
    run = pair.penstock.start("--streaming", streaming, "--ack", ack, "--format", form, "--log-level", "debug",
                              "--capture", capture)
    pair.wait_streaming(run)
    it.play(lambda marks: pair.wait_rows("marks", marks, run))
    run.stop()
    assert it.check_same() >= 24
    it.check_messages(run.messages(), streaming == "on")
    done = subprocess.run([binary(), "inspect", "--summary", str(capture)], timeout=60, check=False)
    assert done.returncode == DONE


@pytest.mark.parametrize("streaming", ["off", "on"])
def test_every_kind_from_the_source_s_past(history, streaming):
    """All of it is there before penstock is: the source reads it from its WAL in one go."""
    it = history("text")
    it.make_slot()
    it.play(lambda marks: None)
    run = it.pair.penstock.catch_up("--streaming", streaming, "--log-level", "debug")
    assert it.check_same() >= 24
    came = run.messages()
    assert came["Message"] >= it.expected["Message"] and came["Origin"] == it.expected["Origin"]
    assert ("Stream Commit" in came) == (streaming == "on")
