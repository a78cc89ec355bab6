"""A fixed history in which a source sends every kind of message that penstock asks for, and what must have come.

The transactions that are to be streamed change mostly a table that is not published: it counts for the source's
logical_decoding_work_mem, and nothing of it is sent, so that a captured history stays small.
"""

import collections

ALWAYS = {"Begin", "Commit", "Origin", "Relation", "Type", "Insert", "Update", "Delete", "Truncate", "Message"}
STREAMED = {"Stream Start", "Stream Stop", "Stream Commit", "Stream Abort"}

COMMON = """
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pairing AS (a int, b text);
CREATE TABLE plain (id int PRIMARY KEY, a text, n numeric(10,2), b bytea, big text);
ALTER TABLE plain ALTER big SET STORAGE EXTERNAL;
CREATE TABLE bag (a int, b text);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE domained (id int PRIMARY KEY, p positive);
CREATE TABLE emptied (id serial PRIMARY KEY, a int);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text);
CREATE TABLE marks (id int PRIMARY KEY);
"""
TYPED = "CREATE TABLE typed (id int PRIMARY KEY, m mood, c pairing, ms mood[])"
ON_SOURCE = """
CREATE TABLE ballast (id int, a text);
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
CREATE TABLE chosen (id int PRIMARY KEY, secret text, a int);
"""
ON_TARGET = """
CREATE TABLE computed (id int PRIMARY KEY, a int, twice int {computed});
CREATE TABLE parts (id int, k int, v text, PRIMARY KEY (id, k));
CREATE TABLE chosen (id int PRIMARY KEY, a int);
"""

# What a transaction of these statements brings, Begin and Commit apart.
STEPS = [
    ({"Insert": 3}, ["INSERT INTO plain VALUES (1, 'a', 1.50, '\\xff00', repeat('x', 2500)), (2, '', NULL, '', NULL),"
                     " (3, 'é\t\\', 'NaN', NULL, 'short')"]),
    ({"Update": 2}, ["UPDATE plain SET a = 'unchanged big' WHERE id = 1", "UPDATE plain SET id = 12 WHERE id = 2"]),
    ({"Delete": 1}, ["DELETE FROM plain WHERE id = 3"]),
    ({"Insert": 3, "Update": 1, "Delete": 1}, [
        "INSERT INTO bag VALUES (1, NULL), (1, NULL), (2, 'x')", "UPDATE bag SET b = 'y' WHERE a = 2",
        "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 1)"]),
    ({"Insert": 2, "Update": 1}, ["INSERT INTO domained VALUES (1, 7), (2, NULL)", "UPDATE domained SET p = 8"
                                  " WHERE id = 2"]),
    ({"Insert": 3, "Truncate": 1}, ["INSERT INTO emptied (a) VALUES (1), (2), (3)", "TRUNCATE emptied, bag"
                                    " RESTART IDENTITY"]),
    ({"Insert": 2}, ["INSERT INTO emptied (a) VALUES (4)", "INSERT INTO bag VALUES (3, 'z')"]),
    ({"Insert": 2, "Truncate": 1}, ["INSERT INTO parent VALUES (1)", "INSERT INTO child VALUES (1, 1)",
                                    "TRUNCATE parent CASCADE"]),
    ({"Insert": 2}, ["INSERT INTO parent VALUES (2)", "INSERT INTO child VALUES (2, 2)"]),
    ({"Insert": 2, "Update": 1, "Delete": 1}, [
        "INSERT INTO always (a) VALUES ('one'), ('two')", "UPDATE always SET id = DEFAULT WHERE a = 'one'",
        "DELETE FROM always WHERE a = 'two'"]),
    ({"Insert": 2, "Update": 1}, ["INSERT INTO computed (id, a) VALUES (1, 1), (2, NULL)",
                                  "UPDATE computed SET a = 5 WHERE id = 1"]),
    # by the root: a row that moves comes as a Delete and an Insert
    ({"Insert": 4, "Update": 1, "Delete": 2}, [
        "INSERT INTO parts VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 1, 'c')", "UPDATE parts SET v = 'd' WHERE id = 2",
        "UPDATE parts SET k = 2 WHERE id = 1", "DELETE FROM parts WHERE id = 3"]),
    ({"Message": 2, "Insert": 1}, [
        "SELECT pg_logical_emit_message(true, 'a prefix', 'within')", "INSERT INTO marks VALUES (1)",
        "SELECT pg_logical_emit_message(true, '', decode('00ff', 'hex'))"]),
    ({"Message": 1}, ["SELECT pg_logical_emit_message(true, 'alone', '')"]),
    ({"Insert": 2}, ["SAVEPOINT s", "INSERT INTO plain (id) VALUES (30)", "ROLLBACK TO s",
                     "INSERT INTO plain (id) VALUES (31)", "SAVEPOINT s", "INSERT INTO plain (id) VALUES (32)"]),
    # described anew
    ({"Update": 1}, ["ALTER TABLE domained ALTER id SET STATISTICS 10", "ALTER TABLE domained REPLICA IDENTITY FULL",
                     "UPDATE domained SET p = 9 WHERE id = 1"]),
]
TRUNCATED_PARTS = ({"Truncate": 1, "Insert": 1}, ["TRUNCATE parts", "INSERT INTO parts VALUES (4, 2, 'e')"])
TYPED_STEP = ({"Insert": 2, "Update": 1}, [
    "INSERT INTO typed VALUES (1, 'sad', '(1,x)', '{sad,NULL}'), (2, NULL, NULL, NULL)",
    "UPDATE typed SET m = 'happy' WHERE id = 2"])
# Some of the publication's columns and rows: an Update that brings a row in is an Insert, one out a Delete.
CHOSEN_STEP = ({"Insert": 3, "Update": 1, "Delete": 1}, [
    "INSERT INTO chosen VALUES (-1, 's', 1), (1, 's', 1), (2, 's', 2)", "UPDATE chosen SET a = 9 WHERE id = 1",
    "UPDATE chosen SET id = 5 WHERE id = -1", "UPDATE chosen SET id = -2 WHERE id = 2"])
# Kept under a gid, and so whole at its end, whether it was large or not.
PREPARED = {"Insert": 2}


class History:
    """On a Pair without tables; its source has this major version."""

    def __init__(self, pair, major, binary):
        self.pair = pair
        self.major = major
        self.binary = binary
        self.marks = 1  # the history's own
        self.expected = collections.Counter()
        self.origin = f"elsewhere_{pair.name}"
        pair.source_cluster.sql(f"ALTER DATABASE {pair.name} SET logical_decoding_work_mem = '64kB'")
        pair.schema(COMMON)
        if not binary:
            pair.schema(TYPED)
        pair.on_source(ON_SOURCE)
        pair.on_target(ON_TARGET.format(computed="" if major >= 18 else "GENERATED ALWAYS AS (a * 2) STORED"))
        self.tables = ["plain", "bag", "domained", "emptied", "parent", "child", "always", "marks", "computed",
                       "parts"] + ([] if binary else ["typed"])

    def publication(self):
        """The statement that makes it."""
        tables = ", ".join(self.tables) + (", chosen (id, a) WHERE (id > 0)" if self.major >= 15 else "")
        generated = ", publish_generated_columns = stored" if self.major >= 18 else ""
        return (f"CREATE PUBLICATION {self.pair.name} FOR TABLE {tables}"
                f" WITH (publish_via_partition_root = true{generated})")

    def make_slot(self):
        self.pair.on_source(self.publication())
        self.pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.pair.name,))

    def steps(self):
        return (STEPS + [TRUNCATED_PARTS] + ([] if self.binary else [TYPED_STEP])
                + ([CHOSEN_STEP] if self.major >= 15 else []))

    def play(self, reached):
        """`reached` waits until so many rows are in the target's marks."""
        for brings, statements in self.steps():
            self.pair.transaction(*statements)
            self._expect(brings)
        self.pair.on_source("SELECT pg_logical_emit_message(false, 'between', 'outside of any')")
        self.expected["Message"] += 1
        self._with_origin(1)
        self._prepared()
        self._large(reached)
        self._with_origin(1000, ballast=True)
        self._mark(reached)

    def _expect(self, brings):
        self.expected += collections.Counter(brings) + collections.Counter(("Begin", "Commit"))

    def _mark(self, reached):
        """Whatever was written before has been decoded and sent when it is there."""
        self.marks += 1
        self.pair.on_source("INSERT INTO marks VALUES (%s)", (self.marks,))
        self._expect({"Insert": 1})
        reached(self.marks)

    def _with_origin(self, first, ballast=False):
        """A transaction that the source itself has from elsewhere."""
        connection = self.pair.connect(self.pair.source_cluster, "postgres")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_replication_origin_create(%s) WHERE NOT EXISTS"
                           " (SELECT FROM pg_replication_origin WHERE roname = %s)", (self.origin, self.origin))
            cursor.execute("SELECT pg_replication_origin_session_setup(%s)", (self.origin,))
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_replication_origin_xact_setup('1/23456', '2024-02-29 12:00+00')")
            if ballast:
                cursor.execute(BALLAST)
            cursor.execute("INSERT INTO bag VALUES (%s, 'from elsewhere')", (first,))
            cursor.execute("COMMIT")
            cursor.execute("SELECT pg_replication_origin_session_reset()")
        self._expect({"Origin": 1, "Insert": 1})

    def _prepared(self):
        name = self.pair.name
        for number, end in enumerate(("COMMIT", "ROLLBACK")):
            for statement in (
                "BEGIN", f"INSERT INTO plain (id) VALUES ({40 + number})", "SAVEPOINT s",
                f"INSERT INTO bag VALUES ({40 + number}, 'prepared')", f"PREPARE TRANSACTION '{name} {number}'",
                f"{end} PREPARED '{name} {number}'",
            ):
                self.pair.on_source(statement)
        self._expect(PREPARED)

    def _large(self, reached):
        """Two transactions in progress at once, one of which is rolled back, with a subtransaction that is, too."""
        kept, gone = (self.pair.connect(self.pair.source_cluster) for _ in range(2))
        run(gone, "BEGIN", BALLAST, "INSERT INTO plain (id) VALUES (50)", "UPDATE plain SET a = 'gone' WHERE id = 50")
        run(kept, "BEGIN", "INSERT INTO plain VALUES (60, 'large', 1, '\\x00', repeat('y', 2200))", BALLAST,
            "SAVEPOINT s", "INSERT INTO bag VALUES (61, 'gone')", BALLAST)
        self._mark(reached)
        run(kept, "ROLLBACK TO s", "SAVEPOINT t", "UPDATE plain SET a = 'larger' WHERE id = 60",
            "UPDATE plain SET id = 62 WHERE id = 60", "INSERT INTO bag VALUES (61, 'kept'), (62, NULL)",
            "UPDATE bag SET b = 'changed' WHERE a = 62", "DELETE FROM bag WHERE a = 61",
            "INSERT INTO domained VALUES (61, 1)", "INSERT INTO emptied (a) VALUES (5)", "TRUNCATE emptied",
            "INSERT INTO parts VALUES (60, 1, 'large')", "SELECT pg_logical_emit_message(true, 'large', 'within')",
            "SELECT pg_logical_emit_message(false, 'large', 'beside')", BALLAST, "RELEASE t",
            "DELETE FROM plain WHERE id = 62")
        if not self.binary:
            run(kept, "INSERT INTO typed VALUES (60, 'happy', '(2,)', '{}')")
            self.expected["Insert"] += 1
        self._mark(reached)
        run(gone, "ROLLBACK")
        run(kept, "COMMIT")
        self._expect({"Insert": 6, "Update": 3, "Delete": 2, "Truncate": 1, "Message": 2})

    def check_same(self):
        """Both sides hold the same, as far as it is published; gives the number of rows."""
        rows = sum(self.pair.same_table(table) for table in self.tables)
        if self.major >= 15:
            chosen = self.pair.on_source("SELECT id, a FROM chosen WHERE id > 0 ORDER BY id")
            assert self.pair.on_target("SELECT id, a FROM chosen ORDER BY id") == chosen
            rows += len(chosen)
        return rows

    def check_messages(self, came, streaming):
        """What a run that began before the history and ended behind it counted."""
        assert set(came) == ALWAYS | (STREAMED if streaming else set())
        assert came["Begin"] == came["Commit"]
        counted = set(self.expected)
        if streaming:
            assert came["Stream Start"] == came["Stream Stop"] >= 4
            assert came["Stream Commit"] == 2
            assert came["Stream Abort"] >= 2
            # what was rolled back came too; the streamed ones have no Begin
            counted -= {"Begin", "Commit"}
            wrong = {kind: (came[kind], self.expected[kind]) for kind in counted if came[kind] < self.expected[kind]}
        else:
            if self.major == 14:  # Begin and Commit of transactions without anything come as well
                assert came["Begin"] >= self.expected["Begin"]
                counted -= {"Begin", "Commit"}
            wrong = {kind: (came[kind], self.expected[kind]) for kind in counted if came[kind] != self.expected[kind]}
        assert not wrong, f"came and expected: {wrong}"

    def close(self):
        """Origins belong to the whole server."""
        self.pair.source_cluster.sql(
            "SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = %s", (self.origin,))


BALLAST = "INSERT INTO ballast SELECT i, repeat('b', 100) FROM generate_series(1, 1000) i"


def run(connection, *statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
