"""Tables whose keys are equal, unequal, shared or moved in ways that dependencies must see.

For lib/history.py: the statements of each table's work, as there.
"""

DIGESTED = {
    "many": "id, a, b, c, d, n", "maybe": "a, b, v", "flt": "k, v", "pad": "k, v", "folded": "k, code, v",
    "boss": "id, v", "staff": "id, boss, mentor, v", "task": "id, staff, spare, v", "kin": "id, up, v",
    "booked": "id, a, b", "spread": "id, k, code, v",
}
CITEXT_DIGESTED = {"shout": "k, v"}

SCHEMA = """
CREATE TABLE many (id int PRIMARY KEY, a int UNIQUE, b text UNIQUE, c int, d int, n int, UNIQUE (c, d));
CREATE TABLE maybe (a int, b int, v int);
CREATE UNIQUE INDEX maybe_key ON maybe (a, b);
ALTER TABLE maybe REPLICA IDENTITY FULL;
CREATE TABLE flt (k float8 PRIMARY KEY, v int);
CREATE TABLE pad (k char(4) PRIMARY KEY, v int);
CREATE COLLATION fold (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE folded (k text COLLATE fold PRIMARY KEY, code text COLLATE fold UNIQUE, v int);
CREATE TABLE boss (id int PRIMARY KEY, v int);
CREATE TABLE staff (id int PRIMARY KEY, boss int REFERENCES boss ON DELETE CASCADE ON UPDATE CASCADE,
    mentor int REFERENCES staff ON DELETE SET NULL ON UPDATE CASCADE, v int);
CREATE TABLE task (id int PRIMARY KEY, staff int REFERENCES staff ON DELETE SET NULL ON UPDATE CASCADE,
    spare int DEFAULT 1 REFERENCES boss ON DELETE SET DEFAULT ON UPDATE SET NULL, v int);
CREATE TABLE kin (id int PRIMARY KEY, up int REFERENCES kin ON DELETE CASCADE ON UPDATE CASCADE, v int);
CREATE TABLE booked (id int PRIMARY KEY, a int, b int, UNIQUE (a, b) DEFERRABLE INITIALLY IMMEDIATE,
    EXCLUDE (a WITH =) WHERE (b = 0));
CREATE TABLE spread (id int, k int, code int, v int, PRIMARY KEY (id, k), UNIQUE (code, k)) PARTITION BY LIST (k);
CREATE TABLE spread_0 PARTITION OF spread FOR VALUES IN (0);
CREATE TABLE spread_1 (v int, code int, k int NOT NULL, id int NOT NULL);
ALTER TABLE spread ATTACH PARTITION spread_1 FOR VALUES IN (1);
CREATE UNIQUE INDEX spread_1_v ON spread_1 (v);
CREATE TABLE gone_parent (id int PRIMARY KEY, v int);
CREATE TABLE gone_child (id int PRIMARY KEY, parent int REFERENCES gone_parent);
"""
CITEXT_SCHEMA = """
CREATE TABLE shout (k citext PRIMARY KEY, v int);
"""


class OddTables:
    """The work on them; `self.random` and `self.one` are the history's."""

    def odd_work(self):
        return [
            self.of_many, self.of_many, self.move_between, self.move_between, self.of_maybe, self.of_flt, self.of_pad,
            self.of_folded, self.firm, self.firm, self.of_kin, self.book_in, self.spread_out, self.gone, self.bulk,
        ]

    def of_many(self):
        id_, a, b, c, d = self.one(10), self.one(10), f"b{self.one(8)}", self.one(3), self.one(3)
        yield self.random.choice((
            ("INSERT INTO many VALUES (%s, %s, %s, %s, %s, 0)", (id_, a, b, self.random.choice((c, None)), d)),
            ("UPDATE many SET a = %s WHERE id = %s", (self.random.choice((a, None)), id_)),
            ("UPDATE many SET b = %s WHERE id = %s", (self.random.choice((b, None)), id_)),
            ("UPDATE many SET c = %s, d = %s WHERE id = %s", (c, d, id_)),
            ("UPDATE many SET n = n + 1 WHERE a = %s", (a,)),
            ("UPDATE many SET id = %s WHERE b = %s", (id_, b)),
            ("DELETE FROM many WHERE id = %s", (id_,)),
        ))

    def move_between(self):
        """Values that one row gives up and another takes, in one transaction or in the next."""
        one, other, value = self.one(10), self.one(10), self.one(10)
        which = self.random.randrange(4)
        if which == 0:
            yield "UPDATE many SET a = NULL, b = NULL WHERE a = %s OR b = %s", (value, f"b{value}")
        if which in (0, 1):
            yield "UPDATE many SET a = %s WHERE id = %s", (value, one)
        elif which == 2:
            yield "DELETE FROM many WHERE a = %s", (value,)
            yield "INSERT INTO many VALUES (%s, %s, NULL, NULL, NULL, 1)", (one, value)
        else:
            yield "UPDATE many SET n = a, a = NULL WHERE id IN (%s, %s)", (one, other)
            yield ("UPDATE many m SET a = o.n FROM many o WHERE m.id <> o.id AND m.id IN (%s, %s)"
                   " AND o.id IN (%s, %s)", (one, other, one, other))

    def of_maybe(self):
        a, b = self.random.choice((1, 2, None)), self.random.choice((1, 2, None))
        some = "ctid = (SELECT min(ctid) FROM maybe WHERE a IS NOT DISTINCT FROM %s)"
        yield self.random.choice((
            ("INSERT INTO maybe VALUES (%s, %s, %s)", (a, b, self.one(2))),
            (f"UPDATE maybe SET b = %s WHERE {some}", (b, a)),
            (f"UPDATE maybe SET a = NULL WHERE {some}", (a,)),
            (f"UPDATE maybe SET v = v + 1 WHERE {some}", (a,)),
            (f"DELETE FROM maybe WHERE {some}", (a,)),
        ))

    def of_flt(self):
        keys = ("0", "-0", "NaN", "Infinity", "0.1", "1e300", "1", "2")
        key, other = self.random.choice(keys), self.random.choice(keys)
        yield self.random.choice((
            ("INSERT INTO flt VALUES (%s::float8, 0)", (key,)),
            ("UPDATE flt SET v = v + 1 WHERE k = %s::float8", (key,)),
            ("UPDATE flt SET k = -k WHERE k = %s::float8", (key,)),
            ("UPDATE flt SET k = %s::float8 WHERE k = %s::float8", (other, key)),
            ("DELETE FROM flt WHERE k = %s::float8", (key,)),
        ))

    def of_pad(self):
        keys = ("", "a", "a ", "ab  ", "ab", "é", "A")
        key, other = self.random.choice(keys), self.random.choice(keys)
        yield self.random.choice((
            ("INSERT INTO pad VALUES (%s, 0)", (key,)),
            ("UPDATE pad SET v = v + 1 WHERE k = %s", (key,)),
            ("UPDATE pad SET k = %s WHERE k = %s", (other, key)),
            ("DELETE FROM pad WHERE k = %s", (key,)),
        ))

    def of_folded(self):
        keys = ("a", "A", "b", "B", "é", "É")
        key, other = self.random.choice(keys), self.random.choice(keys)
        yield self.random.choice((
            ("INSERT INTO folded VALUES (%s, %s, 0)", (key, self.random.choice((other, None)))),
            ("UPDATE folded SET v = v + 1 WHERE k = %s", (key,)),
            ("UPDATE folded SET k = %s WHERE k = %s", (other, key)),
            ("UPDATE folded SET code = %s WHERE k = %s", (other, key)),
            ("UPDATE folded SET code = upper(code) WHERE k = %s", (key,)),
            ("DELETE FROM folded WHERE k = %s", (key,)),
        ))

    def shout(self):
        keys = ("a", "A", "b", "B", "bB", "")
        key, other = self.random.choice(keys), self.random.choice(keys)
        yield self.random.choice((
            ("INSERT INTO shout VALUES (%s, 0)", (key,)),
            ("UPDATE shout SET v = v + 1 WHERE k = %s", (key,)),
            ("UPDATE shout SET k = %s WHERE k = %s", (other, key)),
            ("DELETE FROM shout WHERE k = %s", (key,)),
        ))

    def firm(self):
        boss, staff, task = self.one(5), self.one(10), self.one(15)
        yield self.random.choice((
            ("INSERT INTO boss VALUES (%s, 0)", (boss,)),
            ("INSERT INTO boss VALUES (1, 0)", ()),
            ("UPDATE boss SET v = v + 1 WHERE id = %s", (boss,)),
            ("UPDATE boss SET id = %s WHERE id = %s", (self.one(5), boss)),
            ("DELETE FROM boss WHERE id = %s", (boss,)),
            ("INSERT INTO staff VALUES (%s, %s, NULL, 0)", (staff, boss)),
            ("INSERT INTO staff VALUES (%s, %s, %s, 0)", (staff, boss, self.one(10))),
            ("UPDATE staff SET v = v + 1, boss = %s WHERE id = %s", (boss, staff)),
            ("UPDATE staff SET mentor = %s WHERE id = %s", (self.one(10), staff)),
            ("UPDATE staff SET id = %s WHERE id = %s", (self.one(10), staff)),
            ("DELETE FROM staff WHERE id = %s", (staff,)),
            ("INSERT INTO task VALUES (%s, %s, %s, 0)", (task, staff, boss)),
            ("INSERT INTO task (id, staff, v) VALUES (%s, %s, 0)", (task, staff)),
            ("UPDATE task SET v = v + 1 WHERE id = %s", (task,)),
            ("UPDATE task SET staff = %s, spare = %s WHERE id = %s", (staff, boss, task)),
            ("DELETE FROM task WHERE id = %s", (task,)),
        ))

    def of_kin(self):
        id_, up = self.one(10), self.one(10)
        yield self.random.choice((
            ("INSERT INTO kin VALUES (%s, %s, 0)", (id_, self.random.choice((None, id_, up)))),
            ("UPDATE kin SET up = %s WHERE id = %s", (up, id_)),
            ("UPDATE kin SET v = v + 1 WHERE id = %s", (id_,)),
            ("UPDATE kin SET id = %s WHERE id = %s", (up, id_)),
            ("DELETE FROM kin WHERE id = %s", (id_,)),
        ))

    def book_in(self):
        id_, a, b = self.one(8), self.one(4), self.one(3) - 1
        yield self.random.choice((
            ("INSERT INTO booked VALUES (%s, %s, %s)", (id_, a, b)),
            ("UPDATE booked SET b = (b + 1) %% 3 WHERE a = %s", (a,)),
            ("UPDATE booked SET a = %s WHERE id = %s", (a, id_)),
            ("DELETE FROM booked WHERE id = %s", (id_,)),
        ))

    def spread_out(self):
        id_, k, code, v = self.one(8), self.one(2) - 1, self.random.choice((None, self.one(6))), self.one(12)
        yield self.random.choice((
            ("INSERT INTO spread VALUES (%s, %s, %s, %s)", (id_, k, code, v)),
            ("UPDATE spread SET k = 1 - k WHERE id = %s", (id_,)),
            ("UPDATE spread SET code = %s WHERE id = %s AND k = %s", (code, id_, k)),
            ("UPDATE spread SET v = %s WHERE id = %s", (v, id_)),
            ("UPDATE spread SET id = %s WHERE id = %s", (self.one(8), id_)),
            ("DELETE FROM spread WHERE code = %s", (code,)),
            ("DELETE FROM spread WHERE id = %s", (id_,)),
        ))

    def gone(self):
        parent = self.one(10)
        yield "INSERT INTO gone_parent VALUES (%s, 0) ON CONFLICT (id) DO UPDATE SET v = gone_parent.v + 1", (parent,)
        yield ("INSERT INTO gone_child VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET parent = excluded.parent",
               (self.one(20), parent))

    def bulk(self):
        """Many rows in one statement: with little memory at the source it is streamed while in progress."""
        a = self.one(2)
        if self.random.random() < 0.4:
            yield "INSERT INTO bag (a, b) SELECT %s, repeat('z', i %% 3 * 200) FROM generate_series(1, 60) i", (a,)
            yield "UPDATE bag SET b = left(b, 1) WHERE a = %s AND length(b) > 300", (a,)
        elif self.random.random() < 0.5:
            yield "DELETE FROM bag WHERE a = %s", (a,)
        else:
            yield "UPDATE acct SET note = repeat(note, 2) WHERE length(note) BETWEEN 1 AND 3", ()
