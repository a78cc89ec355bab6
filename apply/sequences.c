#include "apply/sequences.h"

#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* All of the database's own; last_value is NULL for one that has given none yet. $1 the margin. The
 * sum may leave bigint's range, numeric's it does not. */
static const char *const source_sql =
    "SELECT COALESCE(pg_catalog.array_agg(s), '{}'), COALESCE(pg_catalog.array_agg(n), '{}'),"
    " COALESCE(pg_catalog.array_agg(v), '{}'), COALESCE(pg_catalog.array_agg(up), '{}'),"
    " pg_catalog.string_agg(CASE WHEN hidden THEN pg_catalog.format('%I.%I', s, n) END, ', '),"
    " pg_catalog.string_agg(CASE WHEN at_end THEN pg_catalog.format('%I.%I', s, n) END, ', ')"
    " FROM (SELECT q.schemaname::text AS s, q.sequencename::text AS n, q.increment_by > 0 AS up,"
    "  LEAST(GREATEST(q.last_value + q.increment_by::numeric * $1::numeric, q.min_value),"
    "   q.max_value)::bigint AS v,"
    "  NOT pg_catalog.has_sequence_privilege(pg_catalog.format('%I.%I', q.schemaname,"
    "   q.sequencename), 'SELECT') AS hidden,"
    "  q.last_value + q.increment_by::numeric * $1::numeric NOT BETWEEN q.min_value AND q.max_value"
    "   AND NOT q.cycle AS at_end"
    "  FROM pg_catalog.pg_sequences q"
    "  WHERE q.schemaname NOT IN ('pg_catalog', 'information_schema', 'penstock')"
    "  AND q.schemaname !~ '^pg_(toast|temp)'"
    "  AND (q.last_value IS NOT NULL OR NOT pg_catalog.has_sequence_privilege("
    "   pg_catalog.format('%I.%I', q.schemaname, q.sequencename), 'SELECT'))) q";

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
            "their last value: %.800s",
            at_end);
    }
    return true;
}

bool pen_sequences_set(pen_migration *migration, uint64_t *count, pen_error *err)
{
    char margin[24];
    const char *const margins[] = {margin};
    pen_pgresult *source = NULL;
    pen_pgresult *target = NULL;
    snprintf(margin, sizeof(margin), "%" PRIu64, migration->options->sequence_margin);
    bool ok = pen_pgconn_exec(migration->source, "read the sequences", source_sql, 1, margins,
                              &source, err) &&
              judge_source(source, err);
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
