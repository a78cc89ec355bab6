"""Servers for the session, a pair of databases for each test.

    PENSTOCK_SOURCE_VERSION=14 PENSTOCK_TARGET_VERSION=18 pytest tests/e2e     all of it with these versions

of those that tools/fetch-postgres has got, or with the installed one where nothing is said.
"""

import itertools
import os
import pathlib
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lib.cluster import Cluster  # noqa: E402
from lib.pair import Pair  # noqa: E402
from lib.program import binary  # noqa: E402
from lib.versions import programs_of  # noqa: E402

NUMBERS = itertools.count(1)


def stop_in_order(_number, _frame):
    """SIGTERM ends the session as ^C does, so that it takes down the servers."""
    raise KeyboardInterrupt


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: also run with the binaries of the sanitizers")
    signal.signal(signal.SIGTERM, stop_in_order)


def pytest_sessionstart(session):
    if not session.config.option.collectonly and not os.access(binary(), os.X_OK):
        pytest.exit(f"there is no penstock at {binary()}: build it, or set PENSTOCK_BIN", returncode=1)


@pytest.fixture(scope="session")
def clusters():
    made = []
    try:
        for name in ("source", "target"):
            major = os.environ.get(f"PENSTOCK_{name.upper()}_VERSION")
            programs = programs_of(int(major)) if major else None
            if major and programs is None:
                pytest.exit(f"PostgreSQL {major} is not there: tools/fetch-postgres gets it", returncode=1)
            made.append(Cluster(name, programs=programs))
        yield tuple(made)
    finally:
        for cluster in made:
            cluster.remove()


@pytest.fixture
def own():
    """Makes servers for one test."""
    made = []

    def make(name, durable=False, **settings):
        made.append(Cluster("own-" + name, durable, settings={k: str(v) for k, v in settings.items()}))
        return made[-1]

    yield make
    for cluster in made:
        cluster.remove()


@pytest.fixture(scope="session")
def frail_clusters():
    made = []
    try:
        for name in ("source", "target"):
            made.append(Cluster("frail-" + name, durable=True))
        yield tuple(made)
    finally:
        for cluster in made:
            cluster.remove()


@pytest.fixture
def frail(frail_clusters):
    """Two servers that may go down, and lose what was not flushed: a source and a target."""
    for cluster in frail_clusters:
        if not cluster.running:  # a test failed that had stopped it
            cluster.start()
    return frail_clusters


@pytest.fixture
def make_pair(clusters, tmp_path):
    """For tests that need a certain role on the target, or more than one pair."""
    made = []

    def make(role="owner", source=None, target=None):
        number = next(NUMBERS)
        folder = tmp_path / str(number)
        folder.mkdir()
        pair = Pair(source or clusters[0], target or clusters[1], f"t{number}", folder, role)
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make_pair):
    """The target's role is a plain one without any right but to own its database."""
    return make_pair("owner")


@pytest.fixture(params=["owner", "postgres"])
def any_pair(make_pair, request):
    """Once with the plain role, once with a superuser: penstock then applies as a replica."""
    return make_pair(request.param)


@pytest.fixture
def early(make_pair, request):
    """A pair with the module's TABLES, whose source sends transactions while they are in progress."""
    pair = make_pair("owner")
    pair.stream_early()
    pair.schema(request.module.TABLES)
    pair.make_slot()
    return pair
