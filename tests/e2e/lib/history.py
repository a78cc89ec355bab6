"""Random histories of the source: several sessions at once, driven by one thread and one seed.

A session's transaction is a generator that yields between its statements; the driver picks by the seed
which session goes on. Whoever would have to wait for a lock fails at once (lock_timeout) and takes that
statement back, so the order of everything, commits included, follows from the seed alone.

The last thing before each COMMIT is a tick of `clock`. The driver notes a digest of the source after it,
so that any snapshot of the target can be held against the one state that the source had at that tick.
"""

import random

import psycopg2

from . import odd

# Every snapshot of the target must show these as the source had them at some commit. (TRUNCATE is not
# MVCC-safe, and a changed row type changes the digest, so those tables are compared at the end only.)
DIGESTED = {
    "acct": "id, balance, note", "ledger": "acct, amount", "hot": "id, n", "hits": "hot, remark",
    "comp": "a, b, v", "txt": "k, v", "num": "k, v", "bag": "a, b, f, j, n, c, w", "byidx": "id, code, n",
    "uniq": "id, code, n", "places": "id, place", "parent": "id, v", "child": "id, parent, v",
    "ward": "id, parent, later", "tree": "id, up", "ident": "id, v, twice",
    "numbered": "k, n, x", "numbered_bag": "a, n, x", "wide": "id, n, x, y, z",
    "wide_full": "id, n, x, y", "part": "id, k, v", "stamped": "id, v, loud",
}

SCHEMA = """
CREATE TABLE clock (one int PRIMARY KEY, tick bigint NOT NULL);
CREATE TABLE acct (id int PRIMARY KEY, balance bigint NOT NULL, note text);
CREATE TABLE ledger (acct int, amount bigint);
ALTER TABLE ledger REPLICA IDENTITY FULL;
CREATE TABLE hot (id int PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE hits (hot int, remark text);
ALTER TABLE hits REPLICA IDENTITY FULL;
CREATE TABLE comp (a int, b text, v int, PRIMARY KEY (a, b));
CREATE TABLE txt (k text PRIMARY KEY, v int);
ALTER TABLE txt ALTER k SET STORAGE EXTERNAL;
CREATE TABLE num (k numeric PRIMARY KEY, v int);
CREATE TABLE bag (a int, b text, f float8, j json, n numeric, c char(4), w text[]);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE byidx (id int PRIMARY KEY, code text NOT NULL, n int);
CREATE UNIQUE INDEX byidx_code ON byidx (code);
ALTER TABLE byidx REPLICA IDENTITY USING INDEX byidx_code;
CREATE TABLE uniq (id int PRIMARY KEY, code int UNIQUE, n int);
CREATE TABLE places (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, v int);
CREATE TABLE ward (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE,
    later int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree);
CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,
    twice int GENERATED ALWAYS AS (v * 2) STORED);
CREATE TABLE numbered (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, x text);
ALTER TABLE numbered ALTER x SET STORAGE EXTERNAL;
CREATE TABLE numbered_bag (a int, n int GENERATED ALWAYS AS IDENTITY (MAXVALUE 3 CYCLE), x text);
ALTER TABLE numbered_bag ALTER x SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE wide (id int PRIMARY KEY, n int, x text, y text, z bytea);
ALTER TABLE wide ALTER x SET STORAGE EXTERNAL, ALTER y SET STORAGE EXTERNAL, ALTER z SET STORAGE EXTERNAL;
CREATE TABLE wide_full (id int, n int, x text, y text);
ALTER TABLE wide_full REPLICA IDENTITY FULL;
ALTER TABLE wide_full ALTER x SET STORAGE EXTERNAL, ALTER y SET STORAGE EXTERNAL;
CREATE TABLE part (id int, k int, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2) PARTITION BY RANGE (id);
CREATE TABLE part_2_low PARTITION OF part_2 FOR VALUES FROM (MINVALUE) TO (20);
CREATE TABLE part_2_high PARTITION OF part_2 FOR VALUES FROM (20) TO (MAXVALUE);
CREATE TABLE stamped (id int PRIMARY KEY, v text, loud text);
CREATE TABLE emptied (id int PRIMARY KEY, v int);
CREATE TABLE emptied_bag (v int);
ALTER TABLE emptied_bag REPLICA IDENTITY FULL;
CREATE TABLE grown (id int PRIMARY KEY, v int);
CREATE TABLE padding (id int PRIMARY KEY, a text);
"""
# On the target, where each row then takes so long that a batch is brought there in several waves.
SLOW = """
CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_sleep(0.005); RETURN NULL; END $$;
DO $$ DECLARE it regclass; BEGIN
    FOR it IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('CREATE TRIGGER take_long AFTER INSERT OR UPDATE OR DELETE ON %s'
                       ' FOR EACH ROW EXECUTE FUNCTION take_long()', it);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER take_long', it);
    END LOOP;
END $$;
"""

# A trigger that is not declared immutable: behind it everything is serialised. What it does twice is
# the same as once.
TRIGGER = """
CREATE FUNCTION make_loud() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.loud := upper(NEW.v); RETURN NEW; END $$;
CREATE TRIGGER make_loud BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION make_loud();
"""
# A target that is not laid out as the source: other order, a column more, wider types.
OTHER_LAYOUT = """
ALTER TABLE acct DROP COLUMN balance, ADD COLUMN extra int DEFAULT 7, ADD COLUMN balance bigint NOT NULL,
    ALTER id TYPE bigint;
ALTER TABLE hits DROP COLUMN hot, ADD COLUMN hot bigint;
ALTER TABLE comp DROP COLUMN v, ADD COLUMN extra text NOT NULL DEFAULT 'x', ADD COLUMN v int, ALTER b TYPE varchar(90);
ALTER TABLE bag DROP COLUMN a, DROP COLUMN c, ADD COLUMN extra timestamptz DEFAULT now(), ADD COLUMN c char(4),
    ADD COLUMN a bigint;
ALTER TABLE uniq DROP COLUMN n, ADD COLUMN extra serial, ADD COLUMN n bigint;
ALTER TABLE wide DROP COLUMN x, ADD COLUMN x text;
ALTER TABLE wide_full DROP COLUMN n, ADD COLUMN n int;
ALTER TABLE part ADD COLUMN extra int DEFAULT 1;
ALTER TABLE ident DROP COLUMN twice, ADD COLUMN twice int GENERATED ALWAYS AS (v + v) STORED;
"""
INVARIANTS = """SELECT (SELECT coalesce(sum(balance), 0) FROM acct), (SELECT coalesce(sum(amount), 0) FROM ledger),
    (SELECT coalesce(sum(n), 0) FROM hot) - (SELECT count(*) FROM hits)"""
TICK = "SELECT coalesce(max(tick), 0) FROM clock"

# Unique, foreign key, exclusion, lock not available, deadlock, NULL, the division by zero with which a piece of
# work refuses itself, and a key too long for its index.
PASSING = ("23505", "23503", "23P01", "55P03", "40P01", "23502", "22012", "54000")


class History(odd.OddTables):
    """What one seed writes. `trigger`: a table has one; `layout`: the target's tables differ from the source's; `slow`:
    each row of them takes a while there; `padded`: most transactions are so large that a source that streams early sends
    them while they are in progress, with little of them rolled back;
    `citext`: with a table whose key is of that extension's type, which does not come in binary."""

    def __init__(self, pair, seed, transactions=250, sessions=5, trigger=False, layout=False, citext=False,
                 slow=False, padded=False):
        self.padded = padded
        self.padding = 0
        self.pair = pair
        self.random = random.Random(seed)
        self.transactions = transactions // 2 if padded else transactions
        self.sessions = sessions
        self.tick = 0
        self.columns_added = 0
        self.committed = 0
        self.refused = 0
        self.state = {}  # tick -> the digest
        self.position = {}  # tick -> where the source's WAL was then
        self.work = [
            self.transfer, self.transfer, self.open_account, self.move_account, self.book, self.hit, self.hit,
            self.composite, self.text_key, self.numeric_key, self.put_in_bag, self.take_from_bag,
            self.by_index, self.unique, self.swap, self.rotate, self.family, self.family, self.climb,
            self.identity, self.number, self.number, self.widen, self.widen_full, self.partition, self.stamp, self.fill, self.again,
            self.chain, self.grow, *self.odd_work(),
        ]
        pair.schema(SCHEMA + odd.SCHEMA + (TRIGGER if trigger else ""))
        if slow:
            pair.on_target(SLOW)
        digested = DIGESTED | odd.DIGESTED
        if citext and make_citext(pair):
            pair.schema(odd.CITEXT_SCHEMA)
            digested |= odd.CITEXT_DIGESTED
            self.work.append(self.shout)
        self.digest = digest_of(digested)
        if layout:
            pair.on_target(OTHER_LAYOUT)

    def make_slot(self, by_root):
        """Partitions are published as what they are, or as their root."""
        if not by_root:
            self.pair.make_slot()
            return
        names = [name for _, name in self.pair.tables() if not name.startswith(("part_", "spread_"))]
        names += ["part", "spread"]
        self.pair.on_source(f"CREATE PUBLICATION {self.pair.name} FOR TABLE {', '.join(names)}"
                            " WITH (publish_via_partition_root = true)")
        self.pair.on_source("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self.pair.name,))

    def begin(self):
        """The first rows, once the slot is there."""
        self.pair.on_source("INSERT INTO clock VALUES (1, 0)")
        self.pair.on_source("INSERT INTO acct SELECT i, 0, '' FROM generate_series(1, 20) i")
        self.pair.on_source("INSERT INTO hot SELECT i, 0 FROM generate_series(1, 2) i")
        self.note()

    def note(self):
        """Nobody else commits: this is the state at the tick."""
        self.state[self.tick] = self.pair.on_source(self.digest)[0]
        self.position[self.tick] = self.pair.wal_lsn()

    def run(self):
        """To the end, or to the first thing that is not as it should be."""
        connections = [self.pair.source_cluster.connect(self.pair.name, "owner") for _ in range(self.sessions)]
        try:
            for connection in connections:
                with connection.cursor() as cursor:
                    cursor.execute("SET lock_timeout = '1ms'")
                connection.autocommit = False
            open_ = [None] * self.sessions
            while self.committed < self.transactions:
                one = self.random.randrange(self.sessions)
                if open_[one] is None:
                    if self.random.random() < 0.02:
                        self.without_others(connections, open_)
                    open_[one] = self.transaction(connections[one])
                if next(open_[one], "over") == "over":
                    open_[one] = None
        finally:
            for connection in connections:
                connection.close()

    def transaction(self, connection):
        chance = self.random
        with connection.cursor() as cursor:
            for _ in range(chance.choice((1, 1, 2, 3, 5, 12))):
                yield
                if self.padded and chance.random() < 0.5:
                    cursor.execute("INSERT INTO padding SELECT i, repeat('x', 400) FROM generate_series(%s, %s) i",
                                   (self.padding + 1, self.padding + 200))
                    self.padding += 200
                    yield
                cursor.execute("SAVEPOINT work")
                try:
                    for statement in chance.choice(self.work)():
                        cursor.execute(*statement)
                except psycopg2.Error as error:
                    if error.pgcode not in PASSING:
                        raise
                    self.refused += 1
                    cursor.execute("ROLLBACK TO work")
                    continue
                if chance.random() < (0.02 if self.padded else 0.1):
                    cursor.execute("ROLLBACK TO work")
                elif chance.random() < 0.5:
                    cursor.execute("RELEASE work")
            yield
            try:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                cursor.execute("UPDATE clock SET tick = %s", (self.tick + 1,))
            except psycopg2.Error as error:
                if error.pgcode not in PASSING:
                    raise
                connection.rollback()
                return
        if chance.random() < 0.1:
            connection.rollback()
            return
        # before the commit: the target may show it before we are asked again
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = " + chance.choice(("on", "off")))
        connection.commit()
        self.committed += 1
        self.tick += 1
        self.note()

    def without_others(self, connections, open_):
        """What needs the tables for itself: TRUNCATE, a new column, target first."""
        for one, connection in enumerate(connections):
            connection.rollback()
            open_[one] = None
        if self.random.random() < 0.5:
            self.pair.on_source(self.random.choice((
                "TRUNCATE emptied", "TRUNCATE emptied_bag", "TRUNCATE emptied, emptied_bag RESTART IDENTITY",
                "TRUNCATE gone_parent, gone_child, emptied", "TRUNCATE gone_parent CASCADE")))
            return
        column = f"c{self.columns_added + 1}"
        alter = f"ALTER TABLE grown ADD COLUMN {column} int DEFAULT {self.random.randrange(5)}"
        if not patiently(self.pair, alter):
            return
        self.pair.on_source(alter)
        self.columns_added += 1

    # one piece of work each: the statements of it; each keeps the invariants

    def one(self, most):
        return self.random.randint(1, most)

    def transfer(self):
        amount = self.random.randint(-1000, 1000)
        for id_, more in ((self.one(25), amount), (self.one(25), -amount)):
            # a missing account must not take the money with it
            yield "SELECT 1 / count(*)::int FROM acct WHERE id = %s", (id_,)
            yield "UPDATE acct SET balance = balance + %s, note = %s WHERE id = %s", (more, str(amount), id_)

    def open_account(self):
        id_ = self.one(25)
        if self.random.random() < 0.5:
            yield "INSERT INTO acct VALUES (%s, 0, 'new')", (id_,)
        else:
            yield "DELETE FROM acct WHERE id = %s AND balance = 0", (id_,)

    def move_account(self):
        yield "UPDATE acct SET id = %s WHERE id = %s", (self.one(25), self.one(25))

    def book(self):
        amount = self.random.randint(0, 3)
        if self.random.random() < 0.6:
            yield "INSERT INTO ledger VALUES (%s, %s), (%s, %s)", (self.one(4), amount, self.one(4), -amount)
        else:
            for each in (amount, -amount):
                yield ("""WITH gone AS (DELETE FROM ledger WHERE ctid = (SELECT ctid FROM ledger WHERE amount = %s
                    ORDER BY acct LIMIT 1) RETURNING 1) SELECT 1 / count(*)::int FROM gone""", (each,))

    def hit(self):
        id_ = self.one(2)
        yield "UPDATE hot SET n = n + 1 WHERE id = %s", (id_,)
        yield "INSERT INTO hits VALUES (%s, %s)", (id_, self.random.choice((None, "", "same")))
        if self.random.random() < 0.2:
            yield "UPDATE hits SET remark = 'seen' WHERE ctid = (SELECT max(ctid) FROM hits WHERE remark = 'same')", ()

    def composite(self):
        a, b, v = self.one(6), "b" * self.one(3), self.one(1000)
        yield self.random.choice((
            ("INSERT INTO comp VALUES (%s, %s, %s)", (a, b, v)),
            ("UPDATE comp SET v = %s WHERE b = %s", (v, b)),
            ("UPDATE comp SET a = %s WHERE a = %s AND b = %s", (self.one(6), a, b)),
            ("UPDATE comp SET b = b || %s WHERE a = %s", ("b", a)),
            ("DELETE FROM comp WHERE a = %s AND b = %s", (a, b)),
        ))

    def text_key(self):
        # the longest are kept outside the row
        key = self.random.choice("abcdeé ") * self.random.choice((0, 1, 2, 300, 1250, 2500))
        yield self.random.choice((
            ("INSERT INTO txt VALUES (%s, %s)", (key, self.one(100))),
            ("UPDATE txt SET v = v + 1 WHERE k = %s", (key,)),
            ("UPDATE txt SET k = k || 'x' WHERE k = %s", (key,)),
            ("UPDATE txt SET k = rtrim(k, 'x') WHERE v %% 5 = %s", (self.one(4),)),
            ("DELETE FROM txt WHERE k = %s", (key,)),
        ))

    def numeric_key(self):
        key = self.random.choice(("1", "1.0", "1.00", "2", "2.5", "2.50", "-3e2", "NaN", "Infinity", "0", "0.000"))
        yield self.random.choice((
            ("INSERT INTO num VALUES (%s::numeric, %s)", (key, self.one(100))),
            ("UPDATE num SET k = %s::numeric WHERE k = %s::numeric", (key, key)),
            ("UPDATE num SET k = 2 WHERE k = %s::numeric", (key,)),
            ("UPDATE num SET v = v + 1 WHERE k = %s::numeric", (key,)),
            ("DELETE FROM num WHERE k = %s::numeric", (key,)),
        ))

    def row_of_bag(self):
        return (self.random.choice((1, 2, None)), self.random.choice(("x", "NULL", "", None)),
                self.random.choice((0.0, -0.0, float("nan"), 0.1)), self.random.choice(('{"a": 1}', '{"a":1}', None)),
                self.random.choice(("1", "1.0", None)), self.random.choice(("", "ab", None)),
                self.random.choice(("{}", '{NULL,"NULL"}', None)))

    def put_in_bag(self):
        for _ in range(self.one(3)):
            yield "INSERT INTO bag VALUES (%s, %s, %s, %s, %s, %s, %s)", self.row_of_bag()

    def take_from_bag(self):
        a = self.random.choice((1, 2, None))
        some = "ctid = (SELECT min(ctid) FROM bag WHERE a IS NOT DISTINCT FROM %s)"
        yield self.random.choice((
            (f"DELETE FROM bag WHERE {some}", (a,)),
            (f"UPDATE bag SET n = CASE WHEN n::text = '1' THEN 1.0 ELSE 1 END WHERE {some}", (a,)),
            (f"UPDATE bag SET b = %s, c = %s WHERE {some}", ("y", "ab", a)),
            ("UPDATE bag SET f = -f WHERE a = %s", (a,)),
        )) if self.random.random() < 0.9 else ("DELETE FROM bag WHERE a IS NOT DISTINCT FROM %s", (a,))

    def by_index(self):
        id_, code = self.one(30), f"c{self.one(12)}"
        yield self.random.choice((
            ("INSERT INTO byidx VALUES (%s, %s, 0)", (id_, code)),
            ("UPDATE byidx SET n = n + 1 WHERE id = %s", (id_,)),
            ("UPDATE byidx SET id = id + 100 WHERE id = %s", (id_,)),
            ("UPDATE byidx SET code = %s WHERE code = %s", (f"c{self.one(12)}", code)),
            ("DELETE FROM byidx WHERE code = %s", (code,)),
        ))

    def unique(self):
        id_, code = self.one(12), self.random.choice((None, self.one(12)))
        yield self.random.choice((
            ("INSERT INTO uniq VALUES (%s, %s, 0)", (id_, code)),
            ("UPDATE uniq SET code = %s WHERE id = %s", (code, id_)),
            ("UPDATE uniq SET id = %s WHERE code = %s", (id_, code)),
            ("UPDATE uniq SET n = n + 1 WHERE id = %s", (id_,)),
            ("DELETE FROM uniq WHERE id = %s", (id_,)),
        ))

    def swap(self):
        """The values of two rows change places, by way of NULL."""
        one, other = self.one(12), self.one(12)
        yield "UPDATE uniq SET n = code, code = NULL WHERE id IN (%s, %s)", (one, other)
        yield ("UPDATE uniq u SET code = o.n FROM uniq o WHERE u.id <> o.id AND u.id IN (%s, %s)"
               " AND o.id IN (%s, %s)", (one, other, one, other))

    def rotate(self):
        id_ = self.one(9)
        yield self.random.choice((
            ("INSERT INTO places VALUES (%s, %s)", (id_, id_ + 100 * self.one(3))),
            ("UPDATE places SET place = place + 1", ()),
            ("UPDATE places SET place = (SELECT min(place) + max(place) FROM places) - place", ()),
            ("DELETE FROM places WHERE id = %s", (id_,)),
        ))

    def family(self):
        id_, parent = self.one(15), self.one(6)
        which = self.random.randrange(9)
        if which == 0:
            yield "INSERT INTO parent VALUES (%s, 0)", (parent,)
            yield "INSERT INTO child VALUES (%s, %s, 0)", (id_, parent)
        elif which == 1:
            yield "INSERT INTO child VALUES (%s, %s, 0)", (id_, parent)
        elif which == 2:
            yield "UPDATE child SET parent = %s WHERE id = %s", (self.random.choice((None, parent)), id_)
        elif which == 3:
            yield "DELETE FROM child WHERE id = %s", (id_,)
        elif which == 4:
            yield "UPDATE parent SET v = v + 1 WHERE id = %s", (parent,)
        elif which == 5:
            yield "INSERT INTO ward VALUES (%s, %s, %s)", (id_, parent, self.random.choice((None, self.one(6))))
        elif which == 6:
            # the later parent comes after the ward
            yield "INSERT INTO ward VALUES (%s, NULL, %s)", (id_, parent + 20)
            yield "INSERT INTO parent VALUES (%s, 0)", (parent + 20,)
        elif which == 7:
            yield "UPDATE child SET parent = NULL WHERE parent = %s", (parent,)
            yield "DELETE FROM parent WHERE id = %s", (parent,)
        else:
            yield "UPDATE parent SET id = %s WHERE id = %s", (self.one(6), parent)

    def climb(self):
        id_, up = self.one(10), self.one(10)
        yield self.random.choice((
            ("INSERT INTO tree VALUES (%s, NULL)", (id_,)),
            ("INSERT INTO tree VALUES (%s, %s)", (id_, up)),
            ("INSERT INTO tree VALUES (%s, %s)", (id_, id_)),
            ("UPDATE tree SET up = %s WHERE id = %s", (self.random.choice((None, up)), id_)),
            ("DELETE FROM tree WHERE id = %s", (id_,)),
        ))

    def identity(self):
        yield self.random.choice((
            ("INSERT INTO ident (v) VALUES (%s)", (self.one(100),)),
            ("UPDATE ident SET v = v + 1 WHERE id %% 7 = %s", (self.one(6),)),
            ("UPDATE ident SET id = DEFAULT, v = -v WHERE id %% 11 = %s", (self.one(10),)),
            ("DELETE FROM ident WHERE id %% 13 = %s", (self.one(12),)),
        ))

    def number(self):
        k = self.one(6)
        some = "ctid = (SELECT min(ctid) FROM numbered_bag WHERE a = %s)"
        yield self.random.choice((
            ("INSERT INTO numbered (k, x) VALUES (%s, %s)", (k, self.big())),
            ("UPDATE numbered SET n = DEFAULT WHERE k = %s", (k,)),
            ("UPDATE numbered SET n = DEFAULT, k = %s WHERE k = %s", (self.one(6), k)),
            ("UPDATE numbered SET x = %s WHERE k = %s", (self.big(), k)),
            ("DELETE FROM numbered WHERE k = %s", (k,)),
            ("INSERT INTO numbered_bag (a, x) VALUES (%s, %s)", (k % 2, self.big())),
            (f"UPDATE numbered_bag SET n = DEFAULT WHERE {some}", (k % 2,)),
            (f"UPDATE numbered_bag SET a = 1 - a WHERE {some}", (k % 2,)),
            (f"DELETE FROM numbered_bag WHERE {some}", (k % 2,)),
        ))

    def big(self):
        return self.random.choice("pqr") * self.random.choice((1, 3000, 3000, 9000))

    def widen(self):
        id_ = self.one(8)
        yield self.random.choice((
            ("INSERT INTO wide VALUES (%s, 0, %s, %s, NULL)", (id_, self.big(), self.big())),
            ("UPDATE wide SET n = n + 1 WHERE id = %s", (id_,)),
            ("UPDATE wide SET x = %s WHERE id = %s", (self.big(), id_)),
            ("UPDATE wide SET y = NULL, z = repeat('ab', 3000)::bytea WHERE id = %s", (id_,)),
            ("UPDATE wide SET y = x, id = %s WHERE id = %s", (self.one(8), id_)),
            ("DELETE FROM wide WHERE id = %s", (id_,)),
        ))

    def widen_full(self):
        id_ = self.one(3)
        some = "ctid = (SELECT min(ctid) FROM wide_full WHERE id = %s)"
        yield self.random.choice((
            ("INSERT INTO wide_full VALUES (%s, 0, %s, %s)", (id_, self.big(), self.big())),
            (f"UPDATE wide_full SET n = n + 1 WHERE {some}", (id_,)),
            (f"UPDATE wide_full SET x = %s WHERE {some}", (self.big(), id_)),
            (f"UPDATE wide_full SET y = NULL WHERE {some}", (id_,)),
            (f"DELETE FROM wide_full WHERE {some}", (id_,)),
        ))

    def partition(self):
        id_, k = self.one(40), self.one(3) - 1
        yield self.random.choice((
            ("INSERT INTO part VALUES (%s, %s, 0)", (id_, k)),
            ("UPDATE part SET v = v + 1 WHERE id = %s", (id_,)),
            ("UPDATE part SET k = %s WHERE id = %s", (k, id_)),
            ("UPDATE part SET id = %s WHERE k = %s AND id = %s", (self.one(40), k, id_)),
            ("DELETE FROM part WHERE id = %s", (id_,)),
        ))

    def stamp(self):
        id_ = self.one(8)
        yield self.random.choice((
            ("INSERT INTO stamped (id, v) VALUES (%s, %s)", (id_, f"v{id_}")),
            ("UPDATE stamped SET v = v || %s WHERE id = %s", ("x", id_)),
            ("DELETE FROM stamped WHERE id = %s", (id_,)),
        ))

    def fill(self):
        yield "INSERT INTO emptied VALUES (%s, 0) ON CONFLICT (id) DO UPDATE SET v = emptied.v + 1", (self.one(20),)
        yield "INSERT INTO emptied_bag VALUES (%s)", (self.one(3),)
        if self.random.random() < 0.3:
            yield "DELETE FROM emptied_bag WHERE ctid = (SELECT min(ctid) FROM emptied_bag)", ()

    def again(self):
        """The same key goes and comes back, once more than once."""
        id_ = self.one(20)
        for _ in range(self.one(3)):
            yield "DELETE FROM comp WHERE a = %s AND b = 'again'", (id_,)
            yield "INSERT INTO comp VALUES (%s, 'again', %s)", (id_, self.one(100))

    def chain(self):
        """Each row takes the key of the next one."""
        low = self.one(6)
        yield "DELETE FROM comp WHERE a = %s AND b = 'chain'", (low,)
        for a in range(low, low + 4):
            yield "UPDATE comp SET a = %s WHERE a = %s AND b = 'chain'", (a, a + 1)
        yield "INSERT INTO comp VALUES (%s, 'chain', %s)", (low + 4, self.one(100))

    def grow(self):
        id_ = self.one(20)
        column = f"c{self.one(self.columns_added)}" if self.columns_added else "v"
        yield self.random.choice((
            (f"INSERT INTO grown (id, {column}) VALUES (%s, %s)", (id_, self.one(9))),
            (f"UPDATE grown SET {column} = %s WHERE id = %s", (self.one(9), id_)),
            ("UPDATE grown SET id = %s WHERE id = %s", (self.one(20), id_)),
            ("DELETE FROM grown WHERE id = %s", (id_,)),
        ))


def digest_of(tables):
    """A query with a number for each of the tables, which rows that differ change."""
    return "SELECT " + ", ".join(
        f"(SELECT coalesce(sum(hashtext(ROW({columns})::text)::bigint), 0) FROM {table})"
        for table, columns in tables.items())


def make_citext(pair):
    """False where a server was installed without that extension."""
    available = "SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"
    if not pair.on_source(available) or not pair.on_target(available):
        return False
    for cluster in (pair.source_cluster, pair.target_cluster):
        cluster.sql("CREATE EXTENSION citext", dbname=pair.name)
    return True


def patiently(pair, statement, tries=200):
    """DDL on the target beside the stream: a long wait for its lock would make batches queue behind it
    while a later batch of the same stream holds what it waits for."""
    for _ in range(tries):
        try:
            pair.on_target("SET lock_timeout = '20ms'")
            pair.on_target(statement)
            return True
        except psycopg2.errors.LockNotAvailable:
            pass
        finally:
            pair.on_target("RESET lock_timeout")
    return False
