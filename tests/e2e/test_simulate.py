"""penstock simulate: a small stream captured from a real source, and what is said of it; wrong files and wrong usage."""

import json
import subprocess

import pytest

from lib.program import DONE, FAILED, USAGE, binary, wait_until

TRANSACTIONS = 200
COSTS = ("--cost-receive", "20us", "--cost-row", "100us", "--cost-statement", "0", "--cost-batch", "0", "--round-trip", "0",
         "--batch-transactions", "1")


def simulate(*arguments, expect=DONE, env=None):
    done = subprocess.run([binary(), "simulate", *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env=env)
    assert done.returncode == expect, done.stderr
    return done


def found(*arguments):
    return json.loads(simulate("--json", *arguments).stdout)


def refused(expect, *arguments):
    done = simulate(*arguments, expect=expect)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def speed_ups(forecast):
    return {run["workers"]: run["speed_up"] for run in forecast["runs"]}


@pytest.fixture
def capture(pair, tmp_path):
    """One change each: a first one of each table, for which everything behind waits, then one hot row, then rows of
    their own."""
    pair.schema("CREATE TABLE own (id int PRIMARY KEY, n int);"
                "CREATE TABLE hot (id int PRIMARY KEY, n int)")
    pair.on_source(f"INSERT INTO own SELECT i, 0 FROM generate_series(1, {TRANSACTIONS}) i")
    pair.on_source("INSERT INTO hot VALUES (7, 0), (8, 0)")
    pair.on_target(f"INSERT INTO own SELECT i, 0 FROM generate_series(1, {TRANSACTIONS}) i")
    pair.on_target("INSERT INTO hot VALUES (7, 0), (8, 0)")
    pair.make_slot()
    file = tmp_path / "small.capture"
    pair.transaction("UPDATE own SET n = 1 WHERE id = 1")
    for i in range(TRANSACTIONS):
        pair.transaction(("UPDATE hot SET n = %s WHERE id = 7", (i,)))
    for i in range(2, TRANSACTIONS + 1):
        pair.transaction(("UPDATE own SET n = %s WHERE id = %s", (i, i)))
    pair.penstock.catch_up("--capture", str(file))
    return file


def test_tells_what_limits(pair, capture):
    forecast = found(capture, *COSTS)
    assert forecast["transactions"] == 2 * TRANSACTIONS == forecast["changes"]
    assert forecast["keys_from"] == "replica identity"
    runs = {run["workers"]: run for run in forecast["runs"]}
    assert list(runs) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert runs[1]["seconds"] == pytest.approx(20e-6 + 2 * TRANSACTIONS * 100e-6, rel=1e-6)
    # The hot row's changes run one after the other, and 16 workers are all busy with them; then rows that share
    # nothing run as fast as they are received. With 256 they have been received by then.
    assert runs[16]["seconds"] == pytest.approx(TRANSACTIONS * (100e-6 + 20e-6), rel=0.05)
    assert runs[256]["seconds"] == pytest.approx(TRANSACTIONS * 100e-6, rel=0.05)
    assert runs[16]["limit"] == "bound_rows"
    for run in runs.values():
        assert run["sent_rows"] == 2 * TRANSACTIONS == run["statements"], "no two changes share a batch"
        assert sum(run["path"].values()) == pytest.approx(run["seconds"], rel=1e-3)
        assert run["short"] == (run["batches"] < 4 * run["workers"])
    tables = {table["table"]: table for table in forecast["tables"]}
    assert tables["public.own"]["changes"] == tables["public.hot"]["changes"] == TRANSACTIONS
    assert tables["public.hot"]["waited"] > TRANSACTIONS * 0.9 and tables["public.own"]["waited"] <= 1
    assert forecast["keys"][0]["key"] == "public.hot (id) = (7)"
    assert forecast["keys"][0]["waited"] > TRANSACTIONS * 0.9


def test_words(pair, capture):
    text = simulate(capture, *COSTS, "--row-latency", "public.own=1ms").stdout
    assert f'small.capture": {2 * TRANSACTIONS} transactions with {2 * TRANSACTIONS} changes of 2 tables' in text
    assert "use         --workers " in text and "limit       " in text
    assert "public.hot (id) = (7)" in text
    assert "too short" in text


def test_latency_is_by_table(pair, capture):
    plain, slow = found(capture, *COSTS), found(capture, *COSTS, "--row-latency", "public.own=1ms")
    # 200 rows that wait for a millisecond: one worker waits for all of them, 256 for one or two at a time.
    assert slow["runs"][0]["seconds"] - plain["runs"][0]["seconds"] == pytest.approx(TRANSACTIONS * 1e-3, rel=1e-6)
    assert slow["runs"][8]["seconds"] - plain["runs"][8]["seconds"] < TRANSACTIONS * 1e-3 / 20
    assert speed_ups(slow)[256] > 3 * speed_ups(plain)[256]


def test_asks_the_targets_catalogs(pair, tmp_path):
    """A unique index that only the target has: two rows that change places there meet, and offline nobody knows."""
    pair.schema("CREATE TABLE seat (id int PRIMARY KEY, place int)")
    pair.on_target("CREATE UNIQUE INDEX ON seat (place)")
    pair.make_slot()
    for i in range(1, 101):
        pair.transaction(("INSERT INTO seat VALUES (%s, %s)", (i, i)))
        pair.transaction(("UPDATE seat SET place = NULL WHERE id = %s", (i,)))
    for i in range(1, 101):
        pair.transaction(("INSERT INTO seat VALUES (%s, 7)", (1000 + i,)), ("DELETE FROM seat WHERE place = 7", None))
    file = tmp_path / "seats.capture"
    pair.penstock.catch_up("--capture", str(file))
    offline = found(file, *COSTS)
    online = found(file, *COSTS, "--target", pair.penstock.target)
    assert online["keys_from"] == "target"
    assert any(key["key"] == "public.seat (place) = (7)" for key in online["keys"])
    assert not any("(place)" in key["key"] for key in offline["keys"])
    assert online["runs"][8]["bound"] > offline["runs"][8]["bound"]
    wait_until(lambda: not pair.target_cluster.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'penstock%%'", (pair.name,)),
        what="the end of its sessions")


def test_settings(pair, capture, tmp_path):
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps({"more": [1], "simulate": {"cost-row": "1ms", "cores": 2, "apply": "rows",
                                                           "row-latency": "public.own=5us,1us"}}))
    shown = simulate("--print-config", capture, "--costs", costs, "--cores", "4").stdout.splitlines()
    assert "cost-row = 1ms  # --costs" in shown
    assert "cores = 4  # flag" in shown
    assert "apply = rows  # --costs" in shown
    assert "fill = 25  # default" in shown
    assert "row-latency = public.own=5us,1us  # --costs" in shown
    assert not any(line.startswith(("slot", "# slot", "source")) for line in shown)
    one = found(capture, "--costs", costs)["runs"][0]["seconds"]
    other = found(capture)["runs"][0]["seconds"]
    assert one > 10 * other


@pytest.mark.smoke
def test_wrong_files(tmp_path):
    assert "no-such" in refused(FAILED, tmp_path / "no-such")
    other = tmp_path / "other"
    other.write_bytes(b"no capture at all\n" * 100)
    assert "other" in refused(FAILED, other)
    other.write_bytes(b"")
    assert "other" in refused(FAILED, other)


def test_torn_and_empty(pair, capture, tmp_path):
    whole = capture.read_bytes()
    torn = tmp_path / "torn"
    torn.write_bytes(whole[:-1000])
    done = simulate("--json", torn, expect=FAILED)
    assert 2 * TRANSACTIONS - 20 < json.loads(done.stdout)["transactions"] < 2 * TRANSACTIONS
    assert "torn at byte" in done.stderr
    empty = tmp_path / "empty"
    empty.write_bytes(whole[:512])
    assert "no whole transaction" in refused(FAILED, empty)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    assert "torn at byte 5" in refused(FAILED, damaged)


@pytest.mark.smoke
def test_wrong_usage(tmp_path):
    file = tmp_path / "costs.json"
    assert "no file named" in refused(USAGE)
    assert "is the second" in refused(USAGE, "a", "b")
    assert '--slot is no flag of "penstock simulate"' in refused(USAGE, "a", "--slot", "s")
    assert "the nearest is --cost-row" in refused(USAGE, "a", "--cost-rwo", "1us")
    assert "a time from 0 to 1s" in refused(USAGE, "a", "--cost-row", "fast")
    assert "a time from 0 to 1s" in refused(USAGE, "a", "--cost-row", "2s")
    assert "--row-latency" in refused(USAGE, "a", "--row-latency", "public.t=")
    assert "unable to open" in refused(USAGE, "a", "--costs", file)
    for text, words in (("{", "no JSON, line 1"), ("[]", 'no object "simulate"'), ('{"simulate": 1}', "no object"),
                        ('{"simulate": {"cost-rwo": 1}}', "the nearest is cost-row"),
                        ('{"simulate": {"cost-row": [1]}}', '"cost-row" must be'),
                        ('{"simulate": {"cost-row": "soon"}}', "a time from 0 to 1s"),
                        ('{"simulate": {"json": true}}', "no setting"),
                        ('{"simulate": {"slot": "s"}}', "no setting")):
        file.write_text(text)
        assert words in refused(USAGE, "a", "--costs", file)
    done = subprocess.run([binary(), "stream", "--cores", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == USAGE and 'a flag only of "penstock simulate"' in done.stderr


def test_an_unreachable_target(tmp_path, pair, capture):
    said = refused(FAILED, capture, "--target", "postgresql://nobody:secret@127.0.0.1:1/none")
    assert "secret" not in said
    pair.on_target("DROP TABLE hot")
    assert "public.hot" in refused(FAILED, capture, "--target", pair.penstock.target)


@pytest.mark.smoke
def test_every_kind_of_table(pair, tmp_path):
    """What changes wait for has a name, whatever it is: parents, whole tables, TRUNCATE, keys of several columns."""
    pair.schema('CREATE TABLE parent (id int PRIMARY KEY, n int);'
                'CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);'
                'CREATE TABLE full_one (a int, b text); ALTER TABLE full_one REPLICA IDENTITY FULL;'
                'CREATE TABLE late (id int PRIMARY KEY, u int UNIQUE DEFERRABLE);'
                'CREATE TABLE "odd, ""name" (a text, "b c" numeric, n int, PRIMARY KEY (a, "b c"));'
                'CREATE TABLE emptied (id int PRIMARY KEY)')
    pair.make_slot()
    pair.transaction("INSERT INTO parent VALUES (1, 0), (2, 0)", "INSERT INTO full_one VALUES (1, 'x')",
                     "INSERT INTO late VALUES (1, 1)", "INSERT INTO emptied VALUES (0)",
                     """INSERT INTO "odd, ""name" VALUES ('it''s', 1.50, 0), (E'two\\nlines', 2, 0)""")
    for i in range(1, 21):
        pair.transaction(("INSERT INTO child VALUES (%s, 1)", (i,)))
        pair.transaction("UPDATE parent SET id = id + 100 WHERE id = 2", "UPDATE parent SET id = 2 WHERE id = 102")
        pair.transaction(("UPDATE full_one SET b = %s WHERE a = 1", (f"x{i}",)))
        pair.transaction(("UPDATE late SET u = %s", (i + 1,)))
        pair.transaction(("UPDATE \"odd, \"\"name\" SET n = %s", (i,)))
        pair.transaction(("INSERT INTO emptied VALUES (%s)", (i,)), "TRUNCATE emptied")
    pair.transaction("DELETE FROM parent WHERE id = 1")
    file = tmp_path / "kinds.capture"
    pair.penstock.catch_up("--capture", str(file), "--format", "text")
    offline, online = found(file, *COSTS), found(file, *COSTS, "--target", pair.penstock.target)
    names = [{key["key"] for key in forecast["keys"]} for forecast in (offline, online)]
    for each in names:
        assert "public.odd, \"name (a, b c) = (it's, 1.50)" in each, each
        assert 'public.odd, "name (a, b c) = (two\nlines, 2)' in each, each
        assert any(name.startswith("public.full_one as a whole: ") for name in each), each
        assert any(name.startswith("public.emptied as a whole") for name in each), each
    assert "public.late as a whole: a unique key of it is deferrable" in names[1]
    assert not any("public.late as a whole: a unique" in name for name in names[0])
    # Enforced foreign keys are at work for the plain role: the parent's move writes its children's whole table.
    assert any("public.child" in name or "public.parent is tied to" in name for name in names[1]), names[1]
    for forecast in (offline, online):
        # The parent's DELETE takes its children along, on the source.
        assert forecast["changes"] == 7 + 20 * 9 + 21 and len(forecast["tables"]) == 6
    # What a value holds stays on its line.
    assert "(two\\nlines, 2)" in simulate(file, *COSTS).stdout
