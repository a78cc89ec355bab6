"""Migrations between databases that store text, and names, in different encodings."""

import pytest

from lib.migration import cutover, equal_after_cutover, migrate, wait_phase
from lib.program import FAILED

SCHEMA = """
CREATE SCHEMA "Größe";
CREATE TYPE "Größe"."Art" AS ENUM ('süß', 'bitter');
CREATE TABLE "Größe"."Äpfel" ("Nr." int PRIMARY KEY, "Süße" text DEFAULT 'für', art "Größe"."Art", k char(10), j jsonb,
    v varchar(12)[], CHECK ("Süße" <> 'ß'));
CREATE INDEX "Äpfel_süß" ON "Größe"."Äpfel" ("Süße") WHERE "Süße" > 'ä';
CREATE FUNCTION "zähle"() RETURNS text LANGUAGE sql AS $$ SELECT 'Äpfel: ' || count(*) FROM "Größe"."Äpfel" $$;
COMMENT ON TABLE "Größe"."Äpfel" IS 'alle Früchte';
CREATE MATERIALIZED VIEW "Übersicht" AS SELECT "Süße" || '«»' AS s FROM "Größe"."Äpfel";
CREATE TABLE "naïve" (a text); ALTER TABLE "naïve" REPLICA IDENTITY FULL;
"""
FILL = """
INSERT INTO "Größe"."Äpfel" SELECT i, 'ÄÖÜ éèñ ' || i, 'süß', 'ÿ' || i, jsonb_build_object('ä', 'ö' || i), ARRAY['þ', NULL, 'x']
    FROM generate_series(1, 500) i;
INSERT INTO "naïve" VALUES ('çà'), (E'back\\\\slash\\té'), (NULL)
"""
CHANGES = """
UPDATE "Größe"."Äpfel" SET "Süße" = 'später: ½', art = 'bitter', k = 'Ø' WHERE "Nr." % 3 = 0;
INSERT INTO "Größe"."Äpfel" VALUES (1000, 'neu: ©'); DELETE FROM "naïve" WHERE a = 'çà'
"""


@pytest.fixture(name="between")
def fixture_between(pair, request):
    """The pair with databases in two encodings."""
    pair.recreate(request.param)
    for connection, encoding in zip((pair.source, pair.target), request.param):
        # Names are compared as bytes where nobody knows what they mean.
        connection.set_client_encoding("UTF8" if encoding != "SQL_ASCII" else "SQL_ASCII")
    return pair


@pytest.mark.parametrize("between, form", [
    (("LATIN1", "UTF8"), "auto"), (("LATIN1", "UTF8"), "text"), (("UTF8", "LATIN1"), "auto"), (("LATIN1", "LATIN1"), "auto")],
    indirect=["between"])
def test_there_and_equal(between, form):
    between.on_source(SCHEMA)
    between.on_source(FILL)
    run = migrate(between, format=form)
    wait_phase(between, "ready", run)
    between.on_source(CHANGES)
    cutover(between)
    assert equal_after_cutover(between) == 503
    between.on_source('REFRESH MATERIALIZED VIEW "Übersicht"')
    for query in ('TABLE "Übersicht" ORDER BY 1', 'SELECT "zähle"()',
                  "SELECT obj_description('\"Größe\".\"Äpfel\"'::regclass)"):
        assert between.on_target(query) == between.on_source(query)


@pytest.mark.parametrize("between", [("SQL_ASCII", "SQL_ASCII")], indirect=True)
def test_bytes_that_nobody_knows_the_meaning_of(between):
    between.on_source("CREATE TABLE t (id int PRIMARY KEY, v text);"
                      "INSERT INTO t VALUES (1, E'\\xe4\\xff'), (2, E'\\xc3\\xa4')")
    run = migrate(between)
    wait_phase(between, "ready", run)
    between.on_source("INSERT INTO t VALUES (3, E'\\xfe\\x01')")
    cutover(between)
    query = "SELECT id, encode(v::bytea, 'hex') FROM t ORDER BY 1"
    assert between.on_target("SELECT id, octet_length(v) FROM t ORDER BY 1") == [(1, 2), (2, 2), (3, 2)]
    assert between.on_target(query) == between.on_source(query)


@pytest.mark.parametrize("between", [("UTF8", "LATIN1"), ("SQL_ASCII", "UTF8")], indirect=True)
def test_what_the_target_cannot_store_is_named(between):
    """And nothing of it is there."""
    between.on_source("CREATE TABLE t (id int PRIMARY KEY, v text)")
    utf8 = between.on_source("SHOW server_encoding") == [("UTF8",)]
    between.on_source("INSERT INTO t VALUES (1, '€')" if utf8 else "INSERT INTO t VALUES (1, E'\\xff')")
    run = migrate(between)
    run.wait(60, FAILED)
    assert "public.t cannot be copied" in run.the_error()
    assert "LATIN1" in run.the_error() if utf8 else "UTF8" in run.the_error()
    assert between.on_target("SELECT count(*) FROM t") == [(0,)]
