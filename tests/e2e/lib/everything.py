"""A schema with everything in it that a migration meets, clients that write to it, and the comparison of two
databases by their rows and by what their catalogs define."""

import random
import threading

import psycopg2

SCHEMA = '''
CREATE SCHEMA "Sales ""dept""";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy ''n'' "quoted"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair_of AS (a int, b text);
CREATE FUNCTION next_code() RETURNS int LANGUAGE sql AS $$ SELECT 7; -- TOC entry 1 (class 1259 OID 1)
$$;
CREATE SEQUENCE lone_seq INCREMENT -5 MAXVALUE 1000 START 1000;
CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, feeling mood DEFAULT 'ok', age positive,
    code int DEFAULT next_code(), balance numeric(12,2) NOT NULL DEFAULT 0, both_ pair_of, tags text[],
    at timestamptz DEFAULT '2026-01-01 12:00+01', span interval, j jsonb, raw bytea);
CREATE TABLE "Sales ""dept"""."Order; Line" ("Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "Customer Id" int REFERENCES customer ON DELETE CASCADE, "select" text, amount int,
    doubled int GENERATED ALWAYS AS (amount * 2) STORED, UNIQUE ("Customer Id", "select"));
CREATE INDEX "Line; idx" ON "Sales ""dept"""."Order; Line" ("select" text_pattern_ops) WHERE amount > 0;
CREATE INDEX lower_name ON customer (lower(name || ';'));
CREATE UNIQUE INDEX customer_code ON customer (id, code);
ALTER TABLE customer CLUSTER ON customer_code;
CREATE TABLE journal (who int, what text);
ALTER TABLE journal REPLICA IDENTITY FULL;
CREATE INDEX ON journal (who);
CREATE TABLE part (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2) PARTITION BY RANGE (id);
CREATE TABLE "part 2 low" PARTITION OF part_2 FOR VALUES FROM (MINVALUE) TO (500);
CREATE TABLE part_2_high PARTITION OF part_2 FOR VALUES FROM (500) TO (MAXVALUE);
CREATE INDEX part_v ON part (v);
CREATE TABLE ancestor (id int PRIMARY KEY, a text);
CREATE TABLE descendant (d int, PRIMARY KEY (id)) INHERITS (ancestor);
CREATE TABLE big_text (id int PRIMARY KEY, doc text);
ALTER TABLE big_text ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE nothing_in_it ();
ALTER TABLE nothing_in_it REPLICA IDENTITY FULL;
CREATE TABLE no_rows (id int PRIMARY KEY);
CREATE TABLE stamped (id int PRIMARY KEY, v text, touched int NOT NULL DEFAULT 0);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER "Touch it" BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE near (id int PRIMARY KEY, p point, EXCLUDE USING gist (p WITH ~=));
CREATE TABLE later_checked (id int PRIMARY KEY, n int);
INSERT INTO later_checked VALUES (1, -1);
ALTER TABLE later_checked ADD CONSTRAINT not_yet CHECK (n > 0) NOT VALID;
CREATE VIEW happy AS SELECT id, name FROM customer WHERE feeling <> 'sad';
CREATE VIEW grouped AS SELECT id, name, count(*) FROM customer GROUP BY id;
CREATE MATERIALIZED VIEW totals AS SELECT "Customer Id" AS c, sum(amount) AS s
    FROM "Sales ""dept"""."Order; Line" GROUP BY 1;
CREATE MATERIALIZED VIEW over_totals AS SELECT count(*) AS n FROM totals;
CREATE UNIQUE INDEX ON totals (c);
CREATE STATISTICS lines_stat ON "Customer Id", amount FROM "Sales ""dept"""."Order; Line";
COMMENT ON TABLE customer IS 'two
lines; -- and more';
COMMENT ON INDEX part_v IS 'of all parts';
COMMENT ON CONSTRAINT not_yet ON later_checked IS 'one day';
ALTER TABLE customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY all_of_it ON customer USING (true);
GRANT SELECT ON happy TO PUBLIC;
CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
'''

FILL = '''
INSERT INTO customer (name, feeling, age, balance, both_, tags, span, j, raw)
    SELECT 'n' || i, CASE i % 3 WHEN 0 THEN 'sad'::mood WHEN 1 THEN 'happy ''n'' "quoted"' END, i, i * 1.5,
        ROW(i, E'x,"\\\\\\n' || i)::pair_of, ARRAY['a' || i, NULL, E'tab\\t'], i * interval '1 hour',
        jsonb_build_object('i', i), decode(lpad(to_hex(i), 8, '0'), 'hex') FROM generate_series(1, 2000) i;
INSERT INTO "Sales ""dept"""."Order; Line" ("Customer Id", "select", amount)
    SELECT 1 + i % 2000, E'l\\t\\\\' || i, i % 100 - 10 FROM generate_series(1, 5000) i;
INSERT INTO journal SELECT i % 7, CASE WHEN i % 2 = 0 THEN repeat('j', i % 50) END FROM generate_series(1, 3000) i;
INSERT INTO part SELECT i, i % 3, 'p' || i FROM generate_series(1, 1500) i;
INSERT INTO ancestor SELECT i, 'a' FROM generate_series(1, 100) i;
INSERT INTO descendant SELECT i, 'd', i FROM generate_series(101, 200) i;
INSERT INTO big_text SELECT i, repeat(md5(i::text), 400) FROM generate_series(1, 150) i;
INSERT INTO nothing_in_it SELECT FROM generate_series(1, 3);
INSERT INTO stamped SELECT i, 'v' FROM generate_series(1, 300) i;
INSERT INTO tree SELECT i, i / 2 FROM generate_series(2, 300) i UNION ALL SELECT 1, NULL UNION ALL SELECT 0, NULL;
INSERT INTO near SELECT i, point(i, -i) FROM generate_series(1, 200) i;
SELECT nextval('lone_seq'), nextval('lone_seq');
REFRESH MATERIALIZED VIEW totals;
REFRESH MATERIALIZED VIEW over_totals;
'''

NOT_REPLICATED = {"scratch"}

TRIED_AGAIN = {"40P01", "40001", "23505", "23503"}  # deadlock, serialization, somebody else's key, or parent


class Writers:
    """Clients that change everything all the time, until stopped; each commit is a whole."""

    def __init__(self, pair, count=3, seed=None, pause=0.0):
        self.pair = pair
        self.stopping = threading.Event()
        self.failure = None
        self.committed = 0
        self.pause = pause
        seeds = random.Random(seed)
        self.threads = [threading.Thread(target=self._run, args=(n, random.Random(seeds.random())))
                        for n in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.failure:
            raise self.failure

    def statements(self, worker, chance):
        line = '"Sales ""dept"""."Order; Line"'
        number = chance.randint(1, 4000)
        yield f"UPDATE customer SET balance = balance + 1, tags = tags[1:2] || 'w{worker}'::text WHERE id = {number}"
        yield f"INSERT INTO journal VALUES ({worker}, '{number}')"
        what = chance.randrange(10)
        if what == 0:
            yield (f"INSERT INTO customer (name, j) VALUES ('new {worker}', '{{}}')")
        elif what == 1:
            yield f"DELETE FROM customer WHERE id = {number}"
        elif what == 2:
            yield f'INSERT INTO {line} ("Customer Id", "select", amount) SELECT id, md5(random()::text), 5 FROM ' \
                  f"customer WHERE id > {number} LIMIT 3"
        elif what == 3:
            yield f'UPDATE {line} SET amount = amount + 1 WHERE "Id" BETWEEN {number} AND {number + 5}'
        elif what == 4:
            yield f"UPDATE part SET k = (k + 1) % 3, v = v || 'x' WHERE id = {number % 1500}"
            yield f"DELETE FROM journal WHERE ctid = (SELECT ctid FROM journal WHERE who = {worker} LIMIT 1)"
        elif what == 5:
            yield f"UPDATE big_text SET doc = repeat('z{number}', 1000) WHERE id = {number % 150}"
            yield f"UPDATE stamped SET v = '{number}' WHERE id = {number % 300}"
        elif what == 6:
            yield f"UPDATE ancestor SET a = a || '+' WHERE id = {number % 250}"
            yield f"UPDATE near SET p = point(id, {number}) WHERE id = {number % 200}"
        elif what == 7:
            yield f"UPDATE tree SET up = {number % 300} WHERE id = {chance.randint(1, 299)}"
            yield "SELECT nextval('lone_seq')" if number % 20 == 0 else "SELECT 1"
        elif what == 8:
            yield f"INSERT INTO no_rows VALUES ({number}) ON CONFLICT DO NOTHING"
            yield f"DELETE FROM no_rows WHERE id = {number - 1}"

    def _run(self, worker, chance):
        try:
            connection = None
            while not self.stopping.wait(self.pause):
                try:
                    if connection is None:
                        connection = self.pair.source_cluster.connect(self.pair.name, "owner")
                        connection.autocommit = False
                    with connection.cursor() as cursor:
                        for statement in self.statements(worker, chance):
                            cursor.execute(statement)
                    if chance.random() < 0.05:
                        connection.rollback()
                    else:
                        connection.commit()
                        self.committed += 1
                except psycopg2.Error as error:
                    # How a lost connection shows depends on what it was lost in: not always as an OperationalError.
                    if connection is None or connection.closed or (error.pgcode or "57")[:2] == "57":
                        connection = None  # the server restarts
                        self.stopping.wait(0.1)
                    elif error.pgcode in TRIED_AGAIN:
                        connection.rollback()
                    else:
                        raise
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error


def definitions(pair, connection):
    """What the catalogs define, as text; none of it depends on OIDs."""
    del pair
    queries = {
        "index": """SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid, indisclustered
            FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE %s""",
        "constraint": """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(k.oid), convalidated
            FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid WHERE contype <> 'n' AND %s""",
        "trigger": """SELECT tgrelid::regclass::text, pg_get_triggerdef(t.oid), tgenabled FROM pg_trigger t
            JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT tgisinternal AND %s""",
        "column": """SELECT attrelid::regclass::text, attnum, attname, format_type(atttypid, atttypmod), attnotnull,
            attidentity, attgenerated, attstorage FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm') AND %s""",
        "class": "SELECT c.oid::regclass::text, relkind, relpersistence, relreplident, relrowsecurity, relispopulated,"
                 " obj_description(c.oid, 'pg_class') FROM pg_class c WHERE %s",
        "policy": "SELECT polname, polrelid::regclass::text FROM pg_policy p JOIN pg_class c ON c.oid = polrelid WHERE %s",
        "inherits": "SELECT inhrelid::regclass::text, inhparent::regclass::text FROM pg_inherits i"
                    " JOIN pg_class c ON c.oid = inhrelid WHERE %s",
        "statistics": "SELECT pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s JOIN pg_class c"
                      " ON c.oid = s.stxrelid WHERE %s",
        "function": "SELECT proname, prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace"
                    " WHERE nspname = 'public'",
        "enum": "SELECT enumtypid::regtype::text, enumlabel, enumsortorder FROM pg_enum",
    }
    ours = ("c.relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^pg_' OR nspname IN"
            " ('information_schema', 'penstock'))")
    found = {}
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = ''")
        for kind, query in queries.items():
            cursor.execute(query.replace("%s", ours))
            found[kind] = sorted(map(str, cursor.fetchall()))
        cursor.execute("RESET search_path")
    return found


def same_definitions(pair, kinds=None):
    source, target = definitions(pair, pair.source), definitions(pair, pair.target)
    for kind in kinds or source:
        missing = [d for d in source[kind] if d not in target[kind]]
        extra = [d for d in target[kind] if d not in source[kind]]
        assert (missing, extra) == ([], []), f"{kind}: missing {missing[:5]}, too many {extra[:5]}"


def same_rows(pair):
    return pair.same([t for t in pair.tables() if t[1] not in NOT_REPLICATED])


def sequences(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT schemaname, sequencename, increment_by, last_value FROM pg_sequences"
                       " WHERE schemaname <> 'penstock'")
        return {row[:2]: row[2:] for row in cursor.fetchall()}


def sequences_are_beyond(pair, margin):
    source, target = sequences(pair.source), sequences(pair.target)
    assert source.keys() == target.keys()
    for name, (step, value) in source.items():
        if value is not None:
            assert (target[name][1] - value) * (1 if step > 0 else -1) >= abs(step) * min(margin, 150), name


def about(pair, query, params=None):
    """Asks the target's schema penstock, which belongs to whoever penstock came as."""
    return pair.target_cluster.sql(query, params, dbname=pair.name)


def phase(pair):
    if not about(pair, "SELECT to_regclass('penstock.migration') IS NOT NULL")[0][0]:
        return None
    rows = about(pair, "SELECT phase FROM penstock.migration WHERE name = %s", (pair.name,))
    return rows[0][0] if rows else None


def chunks(pair):
    """How many are there."""
    return about(pair, "SELECT count(*) FROM penstock.copied_chunk")[0][0]


def fences(pair):
    return about(pair, "SELECT count(*) FROM penstock.copied_table WHERE fence_snapshot IS NOT NULL")[0][0]
