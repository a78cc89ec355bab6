"""What the stream carries: each kind of change, in transactions of each kind."""

import pytest

from lib.program import wait_until


@pytest.mark.smoke
def test_insert_update_delete(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text, b int)")
    pair.make_slot()
    pair.transaction("INSERT INTO t SELECT i, 'row ' || i, i FROM generate_series(1, 100) i")
    pair.transaction("UPDATE t SET a = a || '!', b = b + 1 WHERE id % 2 = 0")
    pair.transaction("DELETE FROM t WHERE id % 3 = 0")
    pair.transaction("INSERT INTO t VALUES (3, 'again', 0)", "UPDATE t SET b = 7 WHERE id = 3")
    run = pair.penstock.catch_up()
    assert pair.same() == 68
    assert run.finished()["reason"] == "caught-up"


def test_makes_publication_and_slot_itself(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.on_source("INSERT INTO t VALUES (1, 'before the slot')")
    pair.penstock.catch_up()
    assert pair.on_source("SELECT pubname FROM pg_publication") == [(pair.name,)]
    assert pair.confirmed_lsn()
    pair.on_source("INSERT INTO t VALUES (2, 'after it')")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT * FROM t") == [(2, "after it")]


def test_names_of_slot_and_publication(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    slot = pair.name + "_other_slot"
    names = {"slot": slot, "publication": "Other Publication"}
    pair.penstock.catch_up(**names)
    pair.on_source("INSERT INTO t VALUES (1)")
    pair.penstock.catch_up(**names)
    assert pair.same() == 1
    assert pair.on_source("SELECT pubname FROM pg_publication") == [("Other Publication",)]


def test_nulls_and_empty_strings(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text, b varchar(5), c bytea, d int)")
    pair.make_slot()
    pair.on_source("""INSERT INTO t VALUES (1, NULL, NULL, NULL, NULL), (2, '', '', '', 0),
        (3, 'NULL', 'null', '\\x00', NULL), (4, ' ', '  ', '\\x5c4e', 1), (5, E'\\\\N', E'\\t', '\\xff', 2)""")
    pair.on_source("UPDATE t SET a = NULL, d = 5 WHERE id = 2")
    pair.on_source("UPDATE t SET a = '', b = NULL, c = '' WHERE id IN (1, 4)")
    pair.penstock.catch_up()
    assert pair.same() == 5


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_unchanged_toast_survives(any_pair, size):
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, n int, big text, other text);
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL""")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 0, repeat(i || 'x', %s), repeat('y', 5000)"
                   " FROM generate_series(1, 4) i", (size // 2,))
    pair.on_source("UPDATE t SET n = 1")
    pair.transaction("UPDATE t SET n = 2 WHERE id = 1", "UPDATE t SET other = repeat('z', 6000) WHERE id = 1")
    pair.transaction("UPDATE t SET id = 10 WHERE id = 2")
    pair.transaction("UPDATE t SET big = 'short now' WHERE id = 3", "UPDATE t SET n = 3 WHERE id = 3")
    pair.transaction("DELETE FROM t WHERE id = 4",
                     f"INSERT INTO t VALUES (4, 9, repeat('new', {size // 3}), NULL)",
                     "UPDATE t SET n = 10 WHERE id = 4")
    pair.penstock.catch_up()
    assert pair.same() == 4


def test_unchanged_toast_of_a_row_made_in_the_same_batch(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, n int, big text);
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL""")
    pair.make_slot()
    for i in range(20):
        pair.transaction(("INSERT INTO t VALUES (%s, 0, repeat('a', 9000))", (i,)))
        pair.transaction(("UPDATE t SET n = n + 1 WHERE id = %s", (i,)))
        pair.transaction(("UPDATE t SET id = id + 100 WHERE id = %s", (i,)))
        pair.transaction(("UPDATE t SET n = n + 1 WHERE id = %s", (i + 100,)))
    pair.penstock.catch_up()
    assert pair.same() == 20


def test_primary_key_changes(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (a int, b text, c int, PRIMARY KEY (a, b))")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'k' || i, i FROM generate_series(1, 30) i")
    pair.on_source("UPDATE t SET a = a + 1000 WHERE a <= 10")
    pair.on_source("UPDATE t SET b = b || 'x', c = -1 WHERE a BETWEEN 11 AND 20")
    pair.transaction("DELETE FROM t WHERE a = 21", "UPDATE t SET a = 21, b = 'k21' WHERE a = 22")
    pair.transaction("UPDATE t SET a = -a", "UPDATE t SET a = -a WHERE a < -15")
    pair.penstock.catch_up()
    assert pair.same() == 29


def test_two_rows_swap_their_keys_in_one_transaction(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'row ' || i FROM generate_series(1, 6) i")
    for one, other in ((1, 2), (3, 4), (1, 3), (5, 6), (2, 5)):
        pair.transaction(("UPDATE t SET id = -1 WHERE id = %s", (one,)),
                         ("UPDATE t SET id = %s WHERE id = %s", (one, other)),
                         ("UPDATE t SET id = %s WHERE id = -1", (other,)))
    pair.penstock.catch_up()
    assert pair.same() == 6


def test_chain_of_key_moves(any_pair):
    """Each transaction takes the key that the one before has freed."""
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, i FROM generate_series(1, 20) i")
    for _ in range(3):
        for i in range(20, 0, -1):
            pair.on_source("UPDATE t SET id = id + 1 WHERE id = %s", (i,))
        for i in range(1, 21):
            pair.on_source("UPDATE t SET id = id - 1 WHERE id = %s", (i + 1,))
        pair.transaction("DELETE FROM t WHERE id = 7")
        pair.transaction("INSERT INTO t VALUES (7, 77)")
    pair.penstock.catch_up()
    assert pair.same() == 20


def test_truncate(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id serial PRIMARY KEY, n int);
        CREATE TABLE c (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY)""")
    pair.make_slot()
    for table in "acd":
        pair.on_source(f"INSERT INTO {table} SELECT generate_series(1, 50)")
    pair.on_source("INSERT INTO b (n) SELECT generate_series(1, 50)")
    pair.on_source("TRUNCATE a")
    pair.on_source("INSERT INTO a VALUES (1), (2)")
    pair.transaction("INSERT INTO c VALUES (100)", "TRUNCATE b, c RESTART IDENTITY", "INSERT INTO c VALUES (1)")
    pair.on_source("INSERT INTO b (n) VALUES (5)")
    pair.transaction("TRUNCATE d", "INSERT INTO d VALUES (1)", "TRUNCATE d", "INSERT INTO d VALUES (2)")
    pair.penstock.catch_up()
    assert pair.same() == 5
    assert pair.on_target("SELECT id FROM b") == [(1,)]


def test_truncate_of_tables_that_reference_each_other(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent)""")
    pair.make_slot()
    pair.on_source("INSERT INTO parent SELECT generate_series(1, 10)")
    pair.on_source("INSERT INTO child SELECT i, i FROM generate_series(1, 10) i")
    pair.on_source("TRUNCATE parent CASCADE")
    pair.on_source("INSERT INTO parent VALUES (1)")
    pair.on_source("INSERT INTO child VALUES (1, 1)")
    pair.penstock.catch_up()
    assert pair.same() == 2


def test_full_identity_without_a_key(any_pair):
    pair = any_pair
    pair.schema("""CREATE TABLE t (a int, b text, j json, f float8);
        ALTER TABLE t REPLICA IDENTITY FULL""")
    pair.make_slot()
    row = "(1, 'same', '{\"a\": 1}', 'NaN')"
    pair.on_source(f"INSERT INTO t VALUES {row}, {row}, {row}, {row}")
    pair.on_source("INSERT INTO t VALUES (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL), (2, NULL, '[]', '-0')")
    # exactly one of several equal rows goes, exactly one changes
    pair.on_source("DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a = 1 LIMIT 1)")
    pair.on_source("UPDATE t SET b = 'changed' WHERE ctid = (SELECT ctid FROM t WHERE a = 1 LIMIT 1)")
    pair.on_source("DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a IS NULL LIMIT 1)")
    pair.on_source("UPDATE t SET a = 5 WHERE a IS NULL")
    pair.transaction("DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a = 1 AND b = 'same' LIMIT 1)",
                     f"INSERT INTO t VALUES {row}",
                     "DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE a = 1 AND b = 'same' LIMIT 1)")
    pair.penstock.catch_up()
    assert pair.same() == 4


def test_full_identity_with_a_big_value(pair):
    pair.schema("""CREATE TABLE t (a int, big text); ALTER TABLE t REPLICA IDENTITY FULL;
        ALTER TABLE t ALTER big SET STORAGE EXTERNAL""")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, repeat(i::text, 20000) FROM generate_series(1, 5) i")
    pair.on_source("UPDATE t SET a = a * 10 WHERE a > 2")
    pair.on_source("DELETE FROM t WHERE a IN (1, 40)")
    pair.penstock.catch_up()
    assert pair.same() == 3


def test_identity_by_another_index(pair):
    pair.schema("""CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, n int);
        CREATE UNIQUE INDEX t_code ON t (code); ALTER TABLE t REPLICA IDENTITY USING INDEX t_code""")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'c' || i, 0 FROM generate_series(1, 20) i")
    pair.on_source("UPDATE t SET n = n + 1 WHERE id > 5")
    pair.on_source("UPDATE t SET id = id + 100 WHERE id <= 5")
    pair.on_source("UPDATE t SET code = 'd' || code WHERE id BETWEEN 6 AND 9")
    pair.on_source("DELETE FROM t WHERE id IN (10, 11)")
    pair.penstock.catch_up()
    assert pair.same() == 18


def test_a_second_unique_index_whose_values_move_between_rows(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE, n int)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, 'c' || i, 0 FROM generate_series(1, 10) i")
    for round_ in range(30):
        one, other = round_ % 10 + 1, (round_ * 7 + 3) % 10 + 1
        if one == other:
            continue
        code = pair.on_source("SELECT code FROM t WHERE id = %s", (one,))[0][0]
        if code is None:
            continue
        pair.on_source("UPDATE t SET code = NULL, n = n + 1 WHERE id = %s", (one,))
        pair.on_source("UPDATE t SET code = %s, n = n + 1 WHERE id = %s", (code, other))
        pair.transaction(("DELETE FROM t WHERE id = %s", (other,)))
        pair.transaction(("INSERT INTO t VALUES (%s, %s, 100)", (1000 + round_, code)))
        pair.transaction(("UPDATE t SET code = NULL WHERE code = %s", (code,)),
                         ("INSERT INTO t VALUES (%s, %s, 7)", (other, code)))
    pair.penstock.catch_up()
    pair.same()


@pytest.mark.smoke
def test_large_transaction(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text, n int); CREATE TABLE s (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO s SELECT generate_series(1, 10)")
    pair.transaction("INSERT INTO t SELECT i, 'row ' || i, 0 FROM generate_series(1, 100000) i",
                     "UPDATE t SET n = n + 1 WHERE id % 10 = 0", "DELETE FROM t WHERE id % 25 = 0")
    pair.on_source("INSERT INTO s SELECT generate_series(11, 20)")
    pair.on_source("UPDATE t SET a = 'later' WHERE id % 1000 = 1")
    pair.penstock.catch_up(timeout=120)
    assert pair.same() == 96000 + 20


def test_large_transaction_in_little_memory(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 40000) i")
    pair.on_source("UPDATE t SET a = 'y' WHERE id % 2 = 0")
    pair.penstock.catch_up(memory="16MB", timeout=120)
    assert pair.same() == 40000


def test_a_value_larger_than_the_memory_budget(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, a text)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1, repeat('0123456789abcdef', 2 * 1024 * 1024)), (2, 'small')")
    pair.on_source("INSERT INTO t VALUES (3, 'behind it')")
    pair.penstock.catch_up(memory="16MB", timeout=120)
    assert pair.same() == 3


def test_empty_and_rolled_back_transactions_and_savepoints(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)")
    pair.make_slot()
    pair.transaction("SELECT txid_current()")
    pair.transaction("INSERT INTO t VALUES (1, 1)", "ROLLBACK")
    pair.transaction("INSERT INTO t VALUES (2, 1)", "SAVEPOINT a", "INSERT INTO t VALUES (3, 1)",
                     "ROLLBACK TO a", "INSERT INTO t VALUES (4, 1)", "SAVEPOINT b",
                     "UPDATE t SET n = 2 WHERE id = 2", "SAVEPOINT c", "DELETE FROM t WHERE id = 4",
                     "ROLLBACK TO c", "RELEASE b", "INSERT INTO t VALUES (5, 1)")
    pair.transaction("SAVEPOINT a", "INSERT INTO t VALUES (6, 1)", "ROLLBACK TO a")
    pair.transaction("SELECT pg_logical_emit_message(true, 'other', 'nothing of ours')")
    pair.on_source("SELECT pg_logical_emit_message(false, 'other', 'nor this')")
    pair.penstock.catch_up()
    assert pair.same() == 3


def test_prepared_transactions_arrive_when_they_commit(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.transaction("INSERT INTO t VALUES (1)", f"PREPARE TRANSACTION '{pair.name}_one'")
    pair.transaction("INSERT INTO t VALUES (2)", f"PREPARE TRANSACTION '{pair.name}_two'")
    pair.on_source("INSERT INTO t VALUES (3)")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT id FROM t") == [(3,)]
    pair.on_source(f"COMMIT PREPARED '{pair.name}_one'")
    pair.on_source(f"ROLLBACK PREPARED '{pair.name}_two'")
    pair.penstock.catch_up()
    assert pair.same() == 2


def test_transactions_of_tables_that_are_not_published(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
    pair.make_slot(["t"])
    for i in range(20):
        pair.on_source("INSERT INTO other VALUES (%s)", (i,))
    run = pair.penstock.catch_up()
    pair.transaction("INSERT INTO other VALUES (100)", "INSERT INTO t VALUES (1)")
    for i in range(20):
        pair.on_source("INSERT INTO other VALUES (%s)", (i + 200,))
    run = pair.penstock.catch_up()
    assert pair.same(["t"]) == 1
    assert pair.on_target("SELECT count(*) FROM other") == [(0,)]
    assert run.finished()["reason"] == "caught-up"


def test_stop_at_is_exact(any_pair):
    pair = any_pair
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    positions = []
    for i in range(1, 31):
        pair.on_source("INSERT INTO t VALUES (%s)", (i,))
        positions.append(pair.wal_lsn())
    run = pair.penstock.start(stop_at=positions[9])
    run.wait(60, expect=0)
    assert run.finished()["reason"] == "stop-at"
    assert pair.on_target("SELECT count(*), max(id) FROM t") == [(10, 10)]
    pair.penstock.start(stop_at=positions[19]).wait(60, expect=0)
    assert pair.on_target("SELECT count(*), max(id) FROM t") == [(20, 20)]
    pair.penstock.catch_up()
    assert pair.same() == 30


def test_stop_at_the_commit_itself(pair):
    """The transaction whose commit record starts at the LSN is in, the next one is not."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    for i in range(1, 6):
        pair.on_source("INSERT INTO t VALUES (%s)", (i,))
    changes = pair.on_source("""SELECT lsn, get_byte(data, 0), data
        FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, 'proto_version', '1',
        'publication_names', %s)""", (pair.name, pair.name))
    commits = [bytes(data) for _, kind, data in changes if kind == ord("C")]
    assert len(commits) == 5
    third = int.from_bytes(commits[2][2:10], "big")  # kind, flags, then the commit's LSN
    pair.penstock.start(stop_at=f"{third >> 32:X}/{third & 0xFFFFFFFF:X}").wait(60, expect=0)
    assert pair.on_target("SELECT max(id) FROM t") == [(3,)]


def test_a_slot_without_progress_starts_where_it_is_confirmed(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT generate_series(1, 5)")
    pair.on_source("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", (pair.name,))
    pair.on_source("INSERT INTO t SELECT generate_series(6, 10)")
    pair.penstock.catch_up()
    assert pair.on_target("SELECT count(*), min(id) FROM t") == [(5, 6)]


def test_target_is_up_to_date_within_moments(pair):
    """Not only when it is told to end: a single small transaction arrives by itself."""
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    run = pair.penstock.start()
    pair.wait_streaming(run)
    for i in range(1, 6):
        pair.on_source("INSERT INTO t VALUES (%s)", (i,))
        wait_until(lambda n=i: pair.on_target("SELECT count(*) FROM t") == [(n,)], 5, f"row {i}")
    run.stop()
    assert run.finished()["reason"] == "signal"


def test_by_socket_and_with_settings_from_the_environment(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY)")
    pair.make_slot()
    pair.on_source("INSERT INTO t VALUES (1)")
    environment = {
        "PENSTOCK_SOURCE": pair.source_cluster.socket_uri(pair.name, "owner"),
        "PENSTOCK_TARGET": pair.target_cluster.socket_uri(pair.name, "owner"),
        "PENSTOCK_WORKERS": "2",
    }
    pair.penstock.catch_up(source=None, target=None, workers=None, env=environment)
    assert pair.same() == 1


@pytest.mark.parametrize("workers", [1, 16])
def test_numbers_of_workers(pair, workers):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)")
    pair.make_slot()
    for i in range(200):
        pair.transaction(("INSERT INTO t VALUES (%s, 0)", (i,)),
                         ("UPDATE t SET n = n + 1 WHERE id = %s", (i // 2,)))
    pair.penstock.catch_up(workers=workers)
    assert pair.same() == 200


def test_more_shapes_of_changes_than_are_kept_prepared(pair):
    """Each set of columns that come unchanged needs its own statement; the target must not keep them all. In batches
    so small that the changes of the row stay apart."""
    columns = [f"c{i}" for i in range(12)]
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, %s)" % ", ".join(f"{c} text" for c in columns))
    for column in columns:
        pair.schema(f"ALTER TABLE t ALTER {column} SET STORAGE EXTERNAL")
    pair.make_slot()
    pair.on_source("INSERT INTO t SELECT 1, %s" % ", ".join(["repeat('x', 2100)"] * 12))
    pair.on_source("""
        DO $$ DECLARE sets text; BEGIN
        FOR mask IN 1..2300 LOOP
            SELECT string_agg(format('c%s = repeat(%L, 2100)', i, chr(97 + mask % 26)), ', ') INTO sets
            FROM generate_series(0, 11) i WHERE mask & (1 << i) <> 0;
            EXECUTE 'UPDATE t SET ' || sets;
            COMMIT;
        END LOOP; END $$""")
    run = pair.penstock.catch_up(workers=1, batch_transactions=5, log_level="debug")
    assert "prepared statements" in run.stderr
    assert pair.same() == 1


def test_smallest_batches(pair):
    pair.schema("CREATE TABLE t (id int PRIMARY KEY, n int)")
    pair.make_slot()
    for i in range(100):
        pair.transaction(("INSERT INTO t VALUES (%s, 0)", (i,)), "UPDATE t SET n = n + 1 WHERE id = 0")
    pair.penstock.catch_up(batch_transactions=1)
    assert pair.same() == 100
