"""What `penstock cutover` makes of sequences, and in which order it makes what acts by itself."""

from lib.everything import same_definitions
from lib.migration import cutover, migrate
from lib.program import DONE


def test_sequences_that_have_given_nothing_yet(pair):
    """setval(…, false) and RESTART: the next value is another one than START, and last_value is not told."""
    pair.on_source("CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 5000);"
                   "SELECT setval('t_id_seq', (SELECT max(id) + 1 FROM t), false);"
                   "CREATE SEQUENCE restarted; SELECT nextval('restarted'); ALTER SEQUENCE restarted RESTART 7000;"
                   "CREATE SEQUENCE \"down; \"\"1\"\"\" INCREMENT -2 MINVALUE -100000 MAXVALUE 100 START 100;"
                   "ALTER SEQUENCE \"down; \"\"1\"\"\" RESTART -50;"
                   "CREATE SEQUENCE fresh START 30; CREATE SEQUENCE emptied; SELECT setval('emptied', 1, false)")
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    report = [e for e in cutover(pair).events() if e["message"] == "cutover finished"][0]
    assert report["sequences"] == 3
    pair.on_target("INSERT INTO t DEFAULT VALUES")
    assert pair.on_target("SELECT max(id) FROM t") == [(5000 + 1000 + 1,)]
    assert pair.on_target("SELECT nextval('restarted'), nextval('\"down; \"\"1\"\"\"'), nextval('fresh'), nextval('emptied')") \
        == [(7000 + 1000, -50 - 2 * 1000, 30, 1)]
    same_definitions(pair)
