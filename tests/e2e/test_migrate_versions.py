"""`penstock migrate` to servers of later versions than the source's, under load, to the cutover."""

import pytest

from lib.cluster import Cluster
from lib.everything import FILL, SCHEMA, Writers, same_definitions, same_rows, sequences_are_beyond
from lib.program import DONE, wait_until
from lib.versions import cached, others, programs_of

THERE = [major for major in others() if major > 15 and cached(major)]
NONE = [pytest.param(0, marks=pytest.mark.skip("no later version is there: tools/fetch-postgres gets them"))]


@pytest.fixture(name="later", params=THERE or NONE)
def fixture_later(request):
    cluster = Cluster("target", programs=programs_of(request.param))
    yield cluster
    cluster.remove()


def test_to_a_later_version(later, clusters, make_pair):
    pair = make_pair("owner", clusters[0], later)
    pair.on_source(SCHEMA)
    pair.on_source(FILL)
    with Writers(pair, seed=1, count=2, pause=0.005) as writers:
        run = pair.penstock.start(command="migrate", chunk_size="128kB")
        wait_until(lambda: "ready for cutover" in run.stderr or not run.running, 90)
        assert run.running, run.stderr[-3000:]
        before = writers.committed
        wait_until(lambda: writers.committed > before + 20)
    pair.penstock.start("--fence", "none", command="cutover").wait(120, DONE)
    assert same_rows(pair) > 10000
    sequences_are_beyond(pair, 1000)
    # What pg_get_viewdef and the like print differs by version: what does not is compared.
    same_definitions(pair, ("index", "trigger", "column", "policy", "inherits", "function", "enum"))
    pair.on_target("INSERT INTO customer (name) VALUES ('first here')")


@pytest.mark.parametrize("later", THERE[:1] or NONE, indirect=True)
def test_chars_on_the_way_back(later, clusters, make_pair):
    """Copied as text, a "char" beyond ASCII is another one on a server before 16: that is said. In binary it is the same."""
    tables = """CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE plain (id int PRIMARY KEY, c "char");
                CREATE TABLE mixed (id int PRIMARY KEY, c "char", m mood)"""
    pair = make_pair("owner", later, clusters[0])
    pair.schema(tables)
    pair.on_source('INSERT INTO plain VALUES (1, (-56)::"char"); INSERT INTO mixed VALUES (1, \'a\', \'ok\')')
    run = pair.penstock.start("--schema-from", "none", command="copy")
    run.wait(60, DONE)
    warned = [event["message"] for event in run.events() if 'type "char"' in event["message"]]
    assert [words.split()[0] for words in warned] == ["public.mixed"]
    for table in ("plain", "mixed"):
        codes = f"SELECT c::int FROM {table}"
        assert pair.on_target(codes) == pair.on_source(codes)
