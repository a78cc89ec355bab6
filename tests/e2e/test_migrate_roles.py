"""Owners, grants and policies, on a target whose role is not the source's and has no rights but on its own database."""

import pytest

from lib.everything import phase
from lib.migration import cutover, migrate, wait_phase
from lib.program import DONE, FAILED

OBJECTS = """
CREATE SCHEMA shop AUTHORIZATION {seller};
CREATE TABLE shop.item (id serial PRIMARY KEY, v text); CREATE VIEW shop.items AS SELECT id FROM shop.item;
CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE shop.kind AS ENUM ('a');
ALTER TABLE shop.item OWNER TO {seller}; ALTER VIEW shop.items OWNER TO {seller}; ALTER FUNCTION shop.f() OWNER TO {seller};
ALTER TYPE shop.kind OWNER TO {seller};
CREATE TABLE plain (id int PRIMARY KEY); ALTER TABLE plain OWNER TO owner;
GRANT USAGE ON SCHEMA shop TO {reader}; GRANT SELECT ON shop.item TO {reader} WITH GRANT OPTION;
GRANT SELECT (id) ON plain TO {reader}; GRANT EXECUTE ON FUNCTION shop.f() TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {seller} IN SCHEMA shop GRANT SELECT ON TABLES TO {reader};
INSERT INTO shop.item (v) SELECT 'x' FROM generate_series(1, 100); INSERT INTO plain SELECT generate_series(1, 10)
"""
OWNERS = """SELECT c.relname, r.rolname FROM pg_class c JOIN pg_roles r ON r.oid = relowner JOIN pg_namespace n
    ON n.oid = relnamespace WHERE nspname IN ('shop', 'public') AND relkind IN ('r', 'v', 'S') ORDER BY 1"""


class Roles:
    """The source's, and the target's `mover`, who owns the database there. Names are of this test alone."""

    def __init__(self, pair):
        self.pair = pair
        self.seller, self.reader, self.mover = (f"{pair.name}_{name}" for name in ("seller", "reader", "mover"))
        for name in (self.seller, self.reader):
            pair.source_cluster.sql(f"CREATE ROLE {name}")
        pair.source_cluster.sql(f"GRANT {self.seller} TO owner")
        pair.source_cluster.sql(self.fill(OBJECTS), dbname=pair.name)
        pair.target_cluster.sql(f"CREATE ROLE {self.mover} LOGIN")
        pair.target_cluster.sql(f"ALTER DATABASE {pair.name} OWNER TO {self.mover}")
        pair.penstock.target = pair.target_cluster.socket_uri(pair.name, self.mover)

    def fill(self, text):
        return text.format(seller=self.seller, reader=self.reader)

    def make_there(self, *names, member=False):
        for name in names:
            self.pair.target_cluster.sql(f"CREATE ROLE {name}")
            if member:
                self.pair.target_cluster.sql(f"GRANT {name} TO {self.mover}")

    def there(self, query):
        return self.pair.target_cluster.sql(query, dbname=self.pair.name)

    def equal(self):
        for table in ("shop.item", "plain"):
            query = f"SELECT * FROM {table} ORDER BY 1"
            assert self.there(query) == self.pair.source_cluster.sql(query, dbname=self.pair.name)


@pytest.fixture(name="roles")
def fixture_roles(pair):
    return Roles(pair)


def warnings(run, about):
    return [e["message"] for e in run.events() if e["level"] == "warn" and about in e["message"]]


def before_anything(run, message):
    messages = [e["message"] for e in run.events()]
    return messages.index(message) < next(i for i, m in enumerate(messages) if m.startswith("making the source's schema"))


def test_neither_owners_nor_grantees_are_there(roles, pair):
    run = migrate(pair)
    wait_phase(pair, "ready", run)
    (owners,) = warnings(run, "all objects will belong to")
    (grants,) = warnings(run, "grants are left out")
    assert roles.seller in owners and "owner" in owners and roles.reader in grants
    assert before_anything(run, owners) and before_anything(run, grants)
    pair.source_cluster.sql("INSERT INTO plain VALUES (1000)", dbname=pair.name)
    cutover(pair)
    assert {owner for _, owner in roles.there(OWNERS)} == {roles.mover}
    roles.equal()


def test_grants_are_kept_where_the_grantees_are_there(roles, pair):
    roles.make_there(roles.reader)
    run = migrate(pair, "--no-owner", "--stop-when-caught-up")
    run.wait(60, DONE)
    assert not warnings(run, "all objects will belong to") and not warnings(run, "grants are left out")
    # What is for the source's seller cannot be: it is named, and nothing else.
    left = warnings(run, "left out")
    assert all("DEFAULT ACL" in message or "shop" in message for message in left) and len(left) == 1, left
    cutover(pair)
    assert roles.there(f"SELECT has_table_privilege('{roles.reader}', 'shop.item', 'SELECT WITH GRANT OPTION'),"
                       f" has_column_privilege('{roles.reader}', 'plain', 'id', 'SELECT'),"
                       f" has_function_privilege('{roles.reader}', 'shop.f()', 'EXECUTE')") == [(True, True, True)]
    roles.equal()


def test_owners_are_kept_where_the_role_is_a_member_of_them(roles, pair):
    roles.make_there(roles.reader)
    roles.make_there(roles.seller, member=True)
    pair.target_cluster.sql(f"GRANT owner TO {roles.mover}")
    pair.target_cluster.sql(f"GRANT CREATE ON DATABASE {pair.name} TO {roles.seller}")
    pair.target_cluster.sql("GRANT CREATE ON SCHEMA public TO owner", dbname=pair.name)
    run = migrate(pair)
    wait_phase(pair, "ready", run)
    assert not warnings(run, "left out") and not warnings(run, "all objects will belong to")
    pair.source_cluster.sql("UPDATE shop.item SET v = 'y' WHERE id < 50; DELETE FROM plain WHERE id = 1", dbname=pair.name)
    cutover(pair)
    assert dict(roles.there(OWNERS)) == {"item": roles.seller, "item_id_seq": roles.seller, "items": roles.seller,
                                         "plain": "owner"}
    roles.equal()


def test_policies_for_roles_that_are_not_there(roles, pair):
    pair.source_cluster.sql(roles.fill("ALTER TABLE plain ENABLE ROW LEVEL SECURITY; CREATE POLICY \"seen by all\" ON plain"
                                       " USING (id > 0); CREATE POLICY \"of one\" ON plain FOR SELECT TO {reader} USING (true)"),
                            dbname=pair.name)
    run = migrate(pair)
    wait_phase(pair, "ready", run)
    (named,) = warnings(run, "policies")
    assert '"of one" on public.plain' in named and before_anything(run, named)
    done = cutover(pair)
    assert len(warnings(done, "of one")) == 1
    assert roles.there("SELECT polname FROM pg_policy") == [("seen by all",)]
    roles.equal()


def test_a_policy_whose_loss_would_open_something_is_refused(roles, pair):
    pair.source_cluster.sql(roles.fill("ALTER TABLE plain ENABLE ROW LEVEL SECURITY; CREATE POLICY narrow ON plain"
                                       " AS RESTRICTIVE TO {reader}, owner USING (id > 5)"), dbname=pair.name)
    run = migrate(pair)
    run.wait(60, FAILED)
    assert "narrow on public.plain" in run.the_error() and "CREATE ROLE" in run.the_error()
    assert phase(pair) in (None, "check")


def test_event_triggers_are_named_before(roles, pair):
    pair.source_cluster.sql("CREATE FUNCTION noticed() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
                            "CREATE EVENT TRIGGER \"on ddl\" ON ddl_command_end EXECUTE FUNCTION noticed()", dbname=pair.name)
    run = migrate(pair, "--stop-when-caught-up")
    run.wait(60, DONE)
    (named,) = warnings(run, "event triggers")
    assert '"on ddl"' in named and before_anything(run, named)
    done = cutover(pair)
    assert len(warnings(done, "on ddl")) == 1
    roles.equal()


def test_roles_that_come_to_the_target_later_are_no_change_of_the_schema(roles, pair):
    migrate(pair, "--stop-when-caught-up").wait(60, DONE)
    roles.make_there(roles.reader)
    roles.make_there(roles.seller, member=True)
    pair.target_cluster.sql(f"GRANT owner TO {roles.mover}")
    assert "schema has changed" not in cutover(pair).stderr
