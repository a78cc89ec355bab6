#include "apply/checks.h"

#include "apply/check_roles.h"
#include "apply/dump.h"
#include "apply/large_objects.h"
#include "apply/preflight.h"
#include "apply/publication.h"
#include "core/log.h"
#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Tables whose emptiness is asked for in one query. */
#define ASKED_AT_ONCE 200

/* What is wrong so far. */
typedef struct findings {
    unsigned count;
    pen_error first;
} findings;

static void PEN_PRINTF(2, 3) fail(findings *found, const char *fmt, ...)
{
    char words[1500];
    va_list args;
    va_start(args, fmt);
    vsnprintf(words, sizeof(words), fmt, args);
    va_end(args);
    pen_log(PEN_LOG_WARN, "check: %s", words);
    if (found->count++ == 0) {
        pen_error_set(&found->first, PEN_ERROR_FATAL, "%s", words);
    }
}

/* The source */

static bool check_slots(pen_migration *migration, findings *found, pen_error *err)
{
    const char *const values[] = {migration->options->slot};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(
            migration->source, "look for room for a slot",
            "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots) AS used,"
            " pg_catalog.current_setting('max_replication_slots') AS slots,"
            " EXISTS (SELECT 1 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1) AS there,"
            " (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles"
            "  WHERE rolname = current_user) OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles"
            "  WHERE rolname = 'rds_replication' AND pg_catalog.pg_has_role(oid, 'USAGE')) AS may",
            1, values, &res, err)) {
        return false;
    }
    if (pen_pgresult_named(res, 0, "there")[0] == 't') {
        fail(found,
             "source: there is a replication slot \"%s\" already, whose snapshot cannot be had any "
             "more: name another one by --slot or --name, or drop it: SELECT "
             "pg_drop_replication_slot('%s')",
             values[0], values[0]);
    } else if (atoi(pen_pgresult_named(res, 0, "used")) >=
               atoi(pen_pgresult_named(res, 0, "slots"))) {
        fail(found,
             "source: all %s replication slots are in use; drop one that nobody needs, or raise "
             "max_replication_slots and restart the server",
             pen_pgresult_named(res, 0, "slots"));
    }
    if (pen_pgresult_named(res, 0, "may")[0] != 't') {
        fail(found, "source: this user lacks the right to replicate; run ALTER ROLE … REPLICATION "
                    "there (on RDS: GRANT rds_replication)");
    }
    pen_pgresult_clear(res);
    return true;
}

static bool check_publication(pen_migration *migration, findings *found, bool *created,
                              pen_error *err)
{
    bool exists = false;
    pen_error why;
    if (!pen_publication_exists(migration->source, migration->options->publication, &exists, err)) {
        return false;
    }
    bool ok = exists ? pen_publication_check(migration->source, migration->options, &why)
                     : pen_publication_create(migration->source, migration->options, &why);
    if (!ok && why.kind == PEN_ERROR_RETRY) {
        *err = why;
        return false;
    }
    *created = ok && !exists;
    if (!ok) {
        fail(found, "%s", why.text);
        found->first.kind = found->count == 1 ? why.kind : found->first.kind;
    }
    return true;
}

static bool drop_publication(pen_migration *migration, pen_error *err)
{
    char *name = NULL;
    pen_text sql = {0};
    if (!pen_pgconn_quote_identifier(migration->source, migration->options->publication, &name,
                                     err)) {
        return false;
    }
    pen_text_appendf(&sql, "DROP PUBLICATION %s", name);
    char *query = pen_text_take(&sql);
    bool ok = pen_pgconn_exec(migration->source, "drop the publication that was made for nothing",
                              query, 0, NULL, NULL, err);
    free(query);
    free(name);
    return ok;
}

/* What makes the creation of a slot wait. */
static bool warn_of_old_transactions(pen_migration *migration, pen_error *err)
{
    char *oldest = NULL;
    if (!pen_check_ask(
            migration->source, "look for old transactions",
            "SELECT pg_catalog.string_agg(w, '; ') FROM ("
            " SELECT 'process ' || pid || ' (' || COALESCE(usename::text, '') || ', since '"
            "  || xact_start || ')' AS w FROM pg_catalog.pg_stat_activity"
            "  WHERE backend_xid IS NOT NULL AND xact_start < now() - interval '1 min'"
            " UNION ALL SELECT 'prepared transaction ' || pg_catalog.quote_literal(gid)"
            "  || ' (since ' || prepared || ')' FROM pg_catalog.pg_prepared_xacts"
            "  WHERE database = pg_catalog.current_database() LIMIT 10) o",
            NULL, &oldest, err)) {
        return false;
    }
    if (oldest != NULL) {
        pen_log(PEN_LOG_WARN,
                "check: source: the slot can only be made when these open transactions have ended: "
                "%s",
                oldest);
    }
    free(oldest);
    return true;
}

/* What logical replication, or the schema's dump, leaves out. */
static bool name_left_out(pen_migration *migration, pen_error *err)
{
    static const struct {
        const char *sql; /* $1 the publication, where it is needed */
        const char *words;
        bool asks_publication;
    } kinds[] = {
        {"SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
         " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
         " WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND " PEN_USER_SCHEMA("n.nspname"),
         "unlogged tables are copied as they are at the snapshot, but no stream has their changes, "
         "and "
         "a crash of the target empties them there",
         false},
        {"SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
         " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
         " WHERE c.relkind = 'f' AND " PEN_USER_SCHEMA("n.nspname"),
         "foreign tables are made on the target, with the servers that they name; user mappings "
         "come with them only where this user may see them",
         false},
        {"SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
         " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
         " WHERE c.relkind = 'm' AND " PEN_USER_SCHEMA("n.nspname"),
         "materialised views are made empty on the target and filled at the cutover", false},
        {"SELECT pg_catalog.string_agg(w, ', ') FROM (SELECT 'publication '"
         " || pg_catalog.quote_ident(pubname) AS w FROM pg_catalog.pg_publication WHERE pubname <> "
         "$1"
         " UNION ALL SELECT 'subscription ' || pg_catalog.quote_ident(subname)"
         " FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid"
         " WHERE d.datname = pg_catalog.current_database()) o",
         "publications and subscriptions are not made on the target", true},
        {"SELECT pg_catalog.string_agg(COALESCE('role ' || pg_catalog.quote_ident(r.rolname) || ': "
         "',"
         " '') || pg_catalog.split_part(c, '=', 1), ', ') FROM pg_catalog.pg_db_role_setting s"
         " JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase"
         " CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c"
         " LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole"
         " WHERE d.datname = pg_catalog.current_database()",
         "settings of the database (ALTER DATABASE … SET, ALTER ROLE … IN DATABASE … SET) are not "
         "made "
         "on the target",
         false},
        {"SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
         " FROM pg_catalog.pg_extension e CROSS JOIN LATERAL pg_catalog.unnest(e.extconfig) t(oid)"
         " JOIN pg_catalog.pg_class c ON c.oid = t.oid AND c.relkind IN ('r', 'p')"
         " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace",
         "tables that extensions keep their configuration in are made by CREATE EXTENSION; rows "
         "that "
         "were added since are neither copied nor streamed",
         false},
    };
    for (size_t i = 0; i < PEN_COUNTOF(kinds); i++) {
        char *names = NULL;
        const char *value = kinds[i].asks_publication ? migration->options->publication : NULL;
        if (!pen_check_ask(migration->source, "look for what is not replicated", kinds[i].sql,
                           value, &names, err)) {
            return false;
        }
        if (names != NULL) {
            pen_log(PEN_LOG_WARN, "check: %s: %.800s", kinds[i].words, names);
        }
        free(names);
    }
    return true;
}

/* The target */

static bool check_extensions(pen_migration *migration, findings *found, pen_error *err)
{
    char *names = NULL;
    char *missing = NULL;
    bool ok =
        pen_check_ask(migration->source, "list the extensions",
                      "SELECT pg_catalog.array_agg(extname::text) FROM pg_catalog.pg_extension",
                      NULL, &names, err) &&
        (names == NULL ||
         pen_check_ask(migration->target, "look for the extensions",
                       "SELECT pg_catalog.string_agg(w, ', ') FROM unnest($1::text[]) w"
                       " WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_available_extensions e"
                       "  WHERE e.name = w)",
                       names, &missing, err));
    if (ok && missing != NULL) {
        fail(found,
             "target: the source has extensions that are not to be had there: %s; install them on "
             "the target's server, or drop them on the source",
             missing);
    }
    free(names);
    free(missing);
    return ok;
}

/* The published tables as two arrays, for the target to be asked about. */
static bool list_published(pen_migration *migration, pen_pgresult **tables, pen_error *err)
{
    const char *const values[] = {migration->options->publication};
    return pen_pgconn_exec(migration->source, "list the published tables",
                           "SELECT COALESCE(pg_catalog.array_agg(schemaname::text), '{}'),"
                           " COALESCE(pg_catalog.array_agg(tablename::text), '{}')"
                           " FROM pg_catalog.pg_publication_tables WHERE pubname = $1",
                           1, values, tables, err);
}

static bool check_absent(pen_migration *migration, const pen_pgresult *tables, findings *found,
                         pen_error *err)
{
    const char *const values[] = {pen_pgresult_value(tables, 0, 0),
                                  pen_pgresult_value(tables, 0, 1)};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(
            migration->target, "look for tables that are there already",
            "SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', w.s, w.t), ', '),"
            " NOT pg_catalog.has_schema_privilege('public', 'CREATE') AND 'public' = "
            "ANY($1::text[])"
            "  AS closed, pg_catalog.quote_ident(current_user)"
            " FROM unnest($1::text[], $2::text[]) w(s, t)"
            " WHERE pg_catalog.to_regclass(pg_catalog.format('%I.%I', w.s, w.t)) IS NOT NULL",
            2, values, &res, err)) {
        return false;
    }
    const char *there = pen_pgresult_value(res, 0, 0);
    const char *user = pen_pgresult_value(res, 0, 2);
    if (there != NULL) {
        fail(found,
             "target: these tables are there already: %.600s; drop them, or empty them and use "
             "--schema-from none",
             there);
    }
    if (pen_pgresult_value(res, 0, 1)[0] == 't') {
        fail(
            found,
            "target: this user may not create tables in the schema public; run there: GRANT CREATE "
            "ON SCHEMA public TO %s",
            user);
    }
    pen_pgresult_clear(res);
    return true;
}

/* Names the first rows' tables. */
static bool check_empty_some(pen_migration *migration, const pen_pgresult *quoted, int from, int to,
                             findings *found, pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    for (int row = from; row < to; row++) {
        pen_text_appendf(&sql, "%sSELECT %d WHERE EXISTS (SELECT 1 FROM %s%s)",
                         row == from ? "" : " UNION ALL ", row,
                         pen_pgresult_value(quoted, row, 1)[0] == 't' ? "" : "ONLY ",
                         pen_pgresult_value(quoted, row, 0));
    }
    char *query = pen_text_take(&sql);
    bool ok = pen_pgconn_exec(migration->target, "look for rows there", query, 0, NULL, &res, err);
    if (ok && pen_pgresult_rows(res) > 0) {
        fail(found,
             "target: the table %s is not empty; the copy needs empty tables: run there: TRUNCATE "
             "%s",
             pen_pgresult_value(quoted, atoi(pen_pgresult_value(res, 0, 0)), 0),
             pen_pgresult_value(quoted, atoi(pen_pgresult_value(res, 0, 0)), 0));
    }
    pen_pgresult_clear(res);
    free(query);
    return ok;
}

static bool check_empty(pen_migration *migration, const pen_pgresult *tables, findings *found,
                        pen_error *err)
{
    const char *const values[] = {pen_pgresult_value(tables, 0, 0),
                                  pen_pgresult_value(tables, 0, 1)};
    pen_pgresult *quoted = NULL;
    if (!pen_pgconn_exec(migration->target, "list the tables there",
                         "SELECT pg_catalog.format('%I.%I', w.s, w.t), c.relkind = 'p'"
                         " FROM unnest($1::text[], $2::text[]) w(s, t) JOIN pg_catalog.pg_class c"
                         " ON c.oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', w.s, w.t))",
                         2, values, &quoted, err)) {
        return false;
    }
    int rows = pen_pgresult_rows(quoted);
    bool ok = true;
    for (int from = 0; ok && from < rows; from += ASKED_AT_ONCE) {
        int to = from + ASKED_AT_ONCE < rows ? from + ASKED_AT_ONCE : rows;
        ok = check_empty_some(migration, quoted, from, to, found, err);
    }
    pen_pgresult_clear(quoted);
    return ok;
}

/* Rows are copied in parallel and in any order: nothing may look from one to the other. */
static bool check_asleep(pen_migration *migration, const pen_pgresult *tables, findings *found,
                         pen_error *err)
{
    const char *const values[] = {pen_pgresult_value(tables, 0, 0),
                                  pen_pgresult_value(tables, 0, 1),
                                  migration->resume.replica_role ? "RA" : "OA"};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(
            migration->target, "look for triggers",
            "SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('%I.%I (%s)', w.s, w.t,"
            "  COALESCE(k.conname, g.tgname)), ', ')"
            " FROM unnest($1::text[], $2::text[]) w(s, t)"
            " CROSS JOIN LATERAL (SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', w.s,"
            "   w.t))::oid UNION SELECT l.relid::oid FROM pg_catalog.pg_partition_tree("
            "   pg_catalog.to_regclass(pg_catalog.format('%I.%I', w.s, w.t))) l) part(relid)"
            " JOIN pg_catalog.pg_trigger g ON g.tgrelid = part.relid"
            " LEFT JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint"
            " WHERE pg_catalog.strpos($3, g.tgenabled::text) > 0",
            3, values, &res, err)) {
        return false;
    }
    const char *awake = pen_pgresult_value(res, 0, 0);
    if (awake != NULL) {
        fail(found,
             "target: foreign keys or triggers of these tables would be at work during the copy: "
             "%.600s; drop the foreign keys (cutover does not make them anew with --schema-from "
             "none) and run ALTER TABLE … DISABLE TRIGGER USER",
             awake);
    }
    pen_pgresult_clear(res);
    return true;
}

static bool check_tables(pen_migration *migration, findings *found, pen_error *err)
{
    pen_pgresult *tables = NULL;
    pen_error why;
    if (!list_published(migration, &tables, err)) {
        return false;
    }
    bool ok = true;
    if (migration->options->schema_from == PEN_SCHEMA_DUMP) {
        ok = check_absent(migration, tables, found, err);
    } else if (!pen_preflight_tables(migration->options->publication, migration->source,
                                     migration->target, &why)) {
        ok = why.kind != PEN_ERROR_RETRY;
        *err = why;
        fail(found, "%s", why.text);
    } else {
        ok = check_empty(migration, tables, found, err) &&
             check_asleep(migration, tables, found, err);
    }
    pen_pgresult_clear(tables);
    return ok;
}

static bool check_programs(pen_migration *migration, findings *found)
{
    pen_dump_programs programs;
    pen_error why;
    if (migration->options->schema_from != PEN_SCHEMA_DUMP) {
        return true;
    }
    if (!pen_dump_find(migration->options, pen_pgconn_server_version(migration->source), &programs,
                       &why)) {
        fail(found, "%s", why.text);
        found->first.kind = found->count == 1 ? why.kind : found->first.kind;
        return true;
    }
    pen_log(PEN_LOG_INFO, "the schema is dumped by %s, version %d", programs.dump, programs.major);
    return true;
}

static bool check_policies(pen_migration *migration, findings *found, pen_error *err)
{
    char *narrowing = NULL;
    if (!pen_check_policies(migration, &narrowing, err)) {
        return false;
    }
    if (narrowing != NULL) {
        fail(found,
             "target: it does not have roles that restrictive policies are for, which are for "
             "others, too, and without which these would see more than on the source: %.600s; "
             "CREATE ROLE these there",
             narrowing);
    }
    free(narrowing);
    return true;
}

/* What the dump brings besides tables. */
static bool check_objects(pen_migration *migration, findings *found, pen_error *err)
{
    bool owners = false;
    bool grants = false;
    return check_extensions(migration, found, err) && check_policies(migration, found, err) &&
           pen_check_event_triggers(migration, err) &&
           pen_check_roles(migration, true, &owners, &grants, err);
}

bool pen_checks_run(pen_migration *migration, pen_error *err)
{
    findings found = {0};
    bool dumps = migration->options->schema_from == PEN_SCHEMA_DUMP;
    if (!check_slots(migration, &found, err) || !check_programs(migration, &found) ||
        (dumps && !check_objects(migration, &found, err)) ||
        !warn_of_old_transactions(migration, err) || !name_left_out(migration, err) ||
        !pen_large_objects_check(migration, err)) {
        return false;
    }
    /* The publication is the one thing that is made here: when nothing else is wrong, and not to
     * stay when it is for nothing. */
    bool created = false;
    if (found.count == 0 && (!check_publication(migration, &found, &created, err) ||
                             (found.count == 0 && !check_tables(migration, &found, err)) ||
                             (found.count > 0 && created && !drop_publication(migration, err)))) {
        return false;
    }
    if (found.count > 0) {
        *err = found.first;
        return found.count == 1
                   ? false
                   : pen_error_context(err, "%u checks failed; the first", found.count);
    }
    return true;
}
