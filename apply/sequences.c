#include "apply/sequences.h"

#include "core/log.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Sequences that are asked in one query. */
#define ASKED_AT_ONCE 200

/* Those of the database whose last_value is not told, because none was given yet: setval with
 * is_called = false and ALTER SEQUENCE RESTART leave them so, too, at another value than START. */
static const char *const silent_sql =
    "SELECT pg_catalog.format('%I.%I', q.schemaname, q.sequencename)"
    " FROM pg_catalog.pg_sequences q WHERE q.last_value IS NULL"
    " AND q.schemaname NOT IN ('pg_catalog', 'information_schema', 'penstock')"
    " AND q.schemaname !~ '^pg_(toast|temp)' AND pg_catalog.has_schema_privilege(q.schemaname,"
    "  'USAGE') AND pg_catalog.has_sequence_privilege(pg_catalog.format('%I.%I', q.schemaname,"
    "  q.sequencename), 'SELECT')";

/* All of the database's own; last_value is NULL for one that has given none yet, and then the value
 * before the one that it will give counts, unless that is its START, as on the target. Without a
 * margin where that does not fit: what is left is more worth than a distance. $1 the margin, $2 and
 * $3 what such sequences are called and will give. The sum may leave bigint's range, numeric's it
 * does not. */
static const char *const source_sql =
    "SELECT COALESCE(pg_catalog.array_agg(s), '{}'), COALESCE(pg_catalog.array_agg(n), '{}'),"
    " COALESCE(pg_catalog.array_agg(v), '{}'), COALESCE(pg_catalog.array_agg(up), '{}'),"
    " pg_catalog.string_agg(CASE WHEN hidden THEN pg_catalog.format('%I.%I', s, n) END, ', '),"
    " pg_catalog.string_agg(CASE WHEN at_end THEN pg_catalog.format('%I.%I', s, n) END, ', ')"
    " FROM (SELECT s, n, up, hidden, at_end, LEAST(GREATEST(CASE WHEN at_end THEN v ELSE beyond "
    "END,"
    "   min_value), max_value)::bigint AS v"
    "  FROM (SELECT *, beyond NOT BETWEEN min_value AND max_value AND NOT cycle AS at_end"
    "  FROM (SELECT *, v + step::numeric * $1::numeric AS beyond"
    "  FROM (SELECT q.schemaname::text AS s, q.sequencename::text AS n, q.increment_by > 0 AS up,"
    "   q.increment_by AS step, q.min_value, q.max_value, q.cycle, q.last_value, w.next,"
    "   COALESCE(q.last_value, w.next::numeric - q.increment_by) AS v,"
    "   NOT pg_catalog.has_sequence_privilege(pg_catalog.format('%I.%I', q.schemaname,"
    "    q.sequencename), 'SELECT') AS hidden"
    "   FROM pg_catalog.pg_sequences q LEFT JOIN unnest($2::text[], $3::bigint[]) w(name, next)"
    "    ON w.name = pg_catalog.format('%I.%I', q.schemaname, q.sequencename)"
    "    AND w.next <> q.start_value"
    "   WHERE q.schemaname NOT IN ('pg_catalog', 'information_schema', 'penstock')"
    "   AND q.schemaname !~ '^pg_(toast|temp)') q) q) q"
    "  WHERE last_value IS NOT NULL OR next IS NOT NULL OR hidden) q";

/* Never back: after a restart of the cutover the target may have given some already. */
static const char *const target_sql =
    "SELECT count(*) FILTER (WHERE c.oid IS NOT NULL AND pg_catalog.setval(c.oid::regclass,"
    "  CASE WHEN w.up THEN GREATEST(w.v, q.last_value) ELSE LEAST(w.v, q.last_value) END) IS NOT "
    "NULL),"
    " pg_catalog.string_agg(CASE WHEN c.oid IS NULL THEN pg_catalog.format('%I.%I', w.s, w.n) END,"
    "  ', ')"
    " FROM unnest($1::text[], $2::text[], $3::bigint[], $4::boolean[]) w(s, n, v, up)"
    " LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    " LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.n"
    "  AND c.relkind = 'S'"
    " LEFT JOIN pg_catalog.pg_sequences q ON q.schemaname = w.s AND q.sequencename = w.n";

static bool judge_source(const pen_pgresult *source, pen_error *err)
{
    const char *hidden = pen_pgresult_value(source, 0, 4);
    const char *at_end = pen_pgresult_value(source, 0, 5);
    if (hidden != NULL) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: this user may not read these sequences: %.800s; run there: "
                             "GRANT SELECT ON ALL SEQUENCES IN SCHEMA … TO …",
                             hidden);
    }
    if (at_end != NULL) {
        pen_log(
            PEN_LOG_WARN,
            "these sequences are so near their end that the margin does not fit: they are set to "
            "where they are on the source, without one: %.800s",
            at_end);
    }
    return true;
}

/* Appends names and values of some of the silent sequences, each as an array's elements. */
static bool read_some(pen_pgconn *source, const pen_pgresult *silent, int from, int to,
                      pen_text *names, pen_text *values, pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    for (int row = from; row < to; row++) {
        pen_text_appendf(&sql, "%sSELECT %d, last_value FROM %s", row == from ? "" : " UNION ALL ",
                         row, pen_pgresult_value(silent, row, 0));
    }
    char *query = pen_text_take(&sql);
    bool ok = pen_pgconn_exec(source, "read the sequences", query, 0, NULL, &res, err);
    for (int row = 0; ok && row < pen_pgresult_rows(res); row++) {
        int n = atoi(pen_pgresult_value(res, row, 0));
        pen_text_append(names, names->len == 1 ? "\"" : ",\"");
        for (const char *c = pen_pgresult_value(silent, n, 0); *c != '\0'; c++) {
            pen_text_appendf(names, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
        }
        pen_text_append(names, "\"");
        pen_text_appendf(values, "%s%s", values->len == 1 ? "" : ",",
                         pen_pgresult_value(res, row, 1));
    }
    pen_pgresult_clear(res);
    free(query);
    return ok;
}

/* What the sequences will give that have given nothing yet, as two arrays' texts, which are given.
 */
static bool read_silent(pen_pgconn *source, char **names, char **values, pen_error *err)
{
    pen_text name = {0};
    pen_text value = {0};
    pen_pgresult *silent = NULL;
    bool ok = pen_pgconn_exec(source, "list the sequences", silent_sql, 0, NULL, &silent, err);
    int rows = ok ? pen_pgresult_rows(silent) : 0;
    pen_text_append(&name, "{");
    pen_text_append(&value, "{");
    for (int from = 0; ok && from < rows; from += ASKED_AT_ONCE) {
        int to = from + ASKED_AT_ONCE < rows ? from + ASKED_AT_ONCE : rows;
        ok = read_some(source, silent, from, to, &name, &value, err);
    }
    pen_text_append(&name, "}");
    pen_text_append(&value, "}");
    *names = pen_text_take(&name);
    *values = pen_text_take(&value);
    pen_pgresult_clear(silent);
    return ok;
}

static bool read_source(pen_migration *migration, pen_pgresult **found, pen_error *err)
{
    char margin[24];
    char *names = NULL;
    char *next = NULL;
    snprintf(margin, sizeof(margin), "%" PRIu64, migration->options->sequence_margin);
    bool ok = read_silent(migration->source, &names, &next, err);
    const char *const values[] = {margin, names, next};
    ok = ok && pen_pgconn_exec(migration->source, "read the sequences", source_sql, 3, values,
                               found, err);
    free(names);
    free(next);
    return ok && judge_source(*found, err);
}

bool pen_sequences_set(pen_migration *migration, uint64_t *count, pen_error *err)
{
    pen_pgresult *source = NULL;
    pen_pgresult *target = NULL;
    bool ok = read_source(migration, &source, err);
    if (ok) {
        const char *values[4];
        for (int i = 0; i < 4; i++) {
            values[i] = pen_pgresult_value(source, 0, i);
        }
        ok = pen_pgconn_exec(migration->target, "set the sequences", target_sql, 4, values, &target,
                             err);
    }
    if (ok) {
        const char *missing = pen_pgresult_value(target, 0, 1);
        *count = strtoull(pen_pgresult_value(target, 0, 0), NULL, 10);
        if (missing != NULL) {
            pen_log(PEN_LOG_WARN, "the target does not have these sequences of the source: %.800s",
                    missing);
        }
    }
    pen_pgresult_clear(source);
    pen_pgresult_clear(target);
    return ok;
}
