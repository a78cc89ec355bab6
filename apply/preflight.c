#include "apply/preflight.h"

#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* $1 publication, $2 and $3 a schema and table or NULL for all. Published columns as arrays, which
 * the target is then asked about in one query, whatever the number of tables; each with the words
 * that add it there. The default of a column that was added to a table with rows is in
 * attmissingval: rows of the target that are not touched again need it. A default that is not
 * there, or a NOT NULL without one, may mean that the source computed a value for each row when the
 * column was added: that rewrote the table, of which the stream tells nothing. */
#define WANTED_FORMAT                                                                              \
    "SELECT pg_catalog.array_agg(n.nspname::pg_catalog.text),"                                     \
    " pg_catalog.array_agg(c.relname::pg_catalog.text),"                                           \
    " pg_catalog.array_agg(a.attname::pg_catalog.text),"                                           \
    " pg_catalog.array_agg(pg_catalog.format('ALTER TABLE %%I.%%I ADD COLUMN %%I %%s%%s', "        \
    "n.nspname,"                                                                                   \
    "  c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),"                     \
    "  CASE WHEN a.atthasmissing THEN pg_catalog.format(' DEFAULT %%L',"                           \
    "   (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1])"                                 \
    "   || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END"                                    \
    "  WHEN a.attgenerated <> '' THEN pg_catalog.format(' GENERATED ALWAYS AS (%%s) STORED',"      \
    "   (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d"           \
    "    WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum)) ELSE '' END)),"                     \
    " pg_catalog.array_agg((a.attnotnull OR a.atthasdef) AND NOT a.atthasmissing"                  \
    "  AND a.attgenerated = '')"                                                                   \
    " FROM pg_catalog.pg_publication_tables p"                                                     \
    " JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname"                                  \
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename"            \
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT "              \
    "a.attisdropped"                                                                               \
    " WHERE p.pubname = $1 AND %s"                                                                 \
    " AND ($2::pg_catalog.text IS NULL OR (n.nspname = $2 AND c.relname = $3))"

/* What of it is missing, the first table's first column first. */
static const char *const missing_sql =
    "SELECT w.s, w.t, w.c, w.alter_sql, w.computed, c.oid IS NULL AS no_table"
    " FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[],"
    "  $4::pg_catalog.text[], $5::pg_catalog.bool[])"
    "  WITH ORDINALITY AS w(s, t, c, alter_sql, computed, n)"
    " LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    " LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.t"
    "  AND c.relkind IN ('r', 'p')"
    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.c"
    "  AND a.attnum > 0 AND NOT a.attisdropped"
    " WHERE a.attnum IS NULL ORDER BY no_table DESC, w.n";

static bool describe_missing(const pen_pgresult *res, pen_error *err)
{
    const char *schema = pen_pgresult_named(res, 0, "s");
    const char *table = pen_pgresult_named(res, 0, "t");
    if (pen_pgresult_named(res, 0, "no_table")[0] == 't') {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: the table %s.%s is missing; create it there as it is on the "
                             "source (or, if the source renamed a table, rename it there: an empty "
                             "one would lack its rows) and start again, nothing is lost",
                             schema, table);
    }
    bool computed = pen_pgresult_named(res, 0, "computed")[0] == 't';
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "target: the table %s.%s lacks the column \"%s\"; run there: %s; (or, if the source "
        "renamed a column, rename it there)%s and start again, nothing is lost",
        schema, table, pen_pgresult_named(res, 0, "c"), pen_pgresult_named(res, 0, "alter_sql"),
        computed ? ", copy what the source has in it for rows that were there before, which the "
                   "stream does not bring,"
                 : "");
}

/* *missing_any: false for another reason than that something is. */
static bool check(const char *publication, const char *schema, const char *table,
                  pen_pgconn *source, pen_pgconn *target, bool *missing_any, pen_error *err)
{
    /* From PostgreSQL 15 on the view lists the columns; before, all but generated ones are
     * published. */
    bool lists = pen_pgconn_server_version(source) >= 150000;
    char query[2048];
    pen_pgresult *wanted = NULL;
    pen_pgresult *missing = NULL;
    const char *const params[] = {publication, schema, table};
    *missing_any = false;
    snprintf(query, sizeof(query), WANTED_FORMAT,
             lists ? "a.attname = ANY (p.attnames)" : "a.attgenerated = ''");
    if (!pen_pgconn_exec(source, "list the published columns", query, 3, params, &wanted, err)) {
        return false;
    }
    const char *arrays[5];
    for (int i = 0; i < (int)PEN_COUNTOF(arrays); i++) {
        arrays[i] = pen_pgresult_value(wanted, 0, i);
    }
    bool ok = pen_pgconn_exec(target, "look for the published columns", missing_sql,
                              PEN_COUNTOF(arrays), arrays, &missing, err);
    *missing_any = ok && pen_pgresult_rows(missing) > 0;
    if (*missing_any) {
        ok = describe_missing(missing, err);
    }
    pen_pgresult_clear(wanted);
    pen_pgresult_clear(missing);
    return ok;
}

bool pen_preflight_tables(const char *publication, pen_pgconn *source, pen_pgconn *target,
                          pen_error *err)
{
    bool missing = false;
    return check(publication, NULL, NULL, source, target, &missing, err);
}

bool pen_preflight_resumed(const char *publication, pen_pgconn *source, pen_pgconn *target,
                           pen_error *err)
{
    bool missing = false;
    bool ok = check(publication, NULL, NULL, source, target, &missing, err);
    if (missing) {
        pen_log(
            PEN_LOG_WARN,
            "%s. Changes from before that are applied first: the stream ends where the first one "
            "needs it",
            err->text);
    }
    return ok || missing;
}

bool pen_preflight_table(const pen_options *options, pen_pgconn *target, const pen_relation *rel,
                         pen_error *err)
{
    /* Both sessions must speak the encoding that the relation's names came in. */
    char setup[128];
    snprintf(setup, sizeof(setup), "SET search_path = ''; SET client_encoding = '%s'",
             pen_pgconn_parameter(target, "client_encoding"));
    const pen_pgconn_options connect = {.conninfo = options->source,
                                        .side = "source",
                                        .application_name = "penstock preflight",
                                        .setup = setup};
    pen_pgconn *source = NULL;
    if (!pen_pgconn_open(&connect, &source, err)) {
        return false;
    }
    bool missing = false;
    bool ok = check(options->publication, (const char *)rel->schema.data,
                    (const char *)rel->table.data, source, target, &missing, err);
    pen_pgconn_close(source);
    return ok;
}

/* Columns of one side, as arrays, and which of them the other side has otherwise. */

#define COLUMN_ARRAYS                                                                              \
    "SELECT pg_catalog.array_agg(n.nspname::pg_catalog.text),"                                     \
    " pg_catalog.array_agg(c.relname::pg_catalog.text),"                                           \
    " pg_catalog.array_agg(a.attname::pg_catalog.text)"

/* $1 publication. Computed on the source, and not published, as none is before PostgreSQL 18. */
#define COMPUTED_THERE_FORMAT                                                                      \
    COLUMN_ARRAYS                                                                                  \
    " FROM pg_catalog.pg_publication_tables p"                                                     \
    " JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname"                                  \
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename"            \
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"                       \
    "  AND NOT a.attisdropped AND a.attgenerated <> ''"                                            \
    " WHERE p.pubname = $1%s"

/* $1 to $3 columns. */
static const char *const ordinary_here_sql =
    "SELECT pg_catalog.format('%I.%I.%I', w.s, w.t, w.c)"
    " FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[]) w(s, t, c)"
    " JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.t"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.c"
    "  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY 1";

/* Those of the target that are computed: all have an expression. */
static const char *const computed_here_sql =
    COLUMN_ARRAYS " FROM pg_catalog.pg_attrdef d"
                  " JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum"
                  "  AND a.attgenerated <> ''"
                  " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
                  " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/* $1 to $3 columns, $4 publication. A column that is not computed is published, but for a column
 * list that leaves it out. */
static const char *const ordinary_there_sql =
    "SELECT pg_catalog.format('%I.%I.%I', w.s, w.t, w.c)"
    " FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[]) w(s, t, c)"
    " JOIN pg_catalog.pg_publication_tables p"
    "  ON p.pubname = $4 AND p.schemaname = w.s AND p.tablename = w.t"
    " JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.t"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.c"
    "  AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
    " WHERE COALESCE(pg_catalog.to_jsonb(p) -> 'attnames' ? w.c, true) ORDER BY 1";

/* Asks `one` for columns, `other` which of them it has otherwise, and tells of these with `words`.
 */
static bool compare(pen_pgconn *one, const char *columns_sql, pen_pgconn *other,
                    const char *other_sql, const char *publication, bool source_first,
                    const char *words, pen_error *err)
{
    const char *const name[] = {publication};
    pen_pgresult *columns = NULL;
    pen_pgresult *found = NULL;
    bool ok = pen_pgconn_exec(one, "list the generated columns", columns_sql, source_first ? 1 : 0,
                              name, &columns, err);
    if (ok && pen_pgresult_value(columns, 0, 0) != NULL) {
        const char *const values[] = {pen_pgresult_value(columns, 0, 0),
                                      pen_pgresult_value(columns, 0, 1),
                                      pen_pgresult_value(columns, 0, 2), publication};
        ok = pen_pgconn_exec(other, "look for the generated columns", other_sql,
                             source_first ? 3 : 4, values, &found, err);
        if (ok && pen_pgresult_rows(found) > 0) {
            pen_log(PEN_LOG_WARN, "%d columns, %s first, %s", pen_pgresult_rows(found),
                    pen_pgresult_value(found, 0, 0), words);
        }
    }
    pen_pgresult_clear(columns);
    pen_pgresult_clear(found);
    return ok;
}

bool pen_preflight_generated(const char *publication, pen_pgconn *source, pen_pgconn *target,
                             pen_error *err)
{
    char computed_there[1024];
    bool may_publish = pen_pgconn_server_version(source) >= 180000;
    snprintf(computed_there, sizeof(computed_there), COMPUTED_THERE_FORMAT,
             may_publish ? " AND a.attname <> ALL (p.attnames)" : "");
    return compare(source, computed_there, target, ordinary_here_sql, publication, true,
                   "are generated on the source, which does not publish them, and ordinary ones on "
                   "the target: nothing comes for them. Generate them there too",
                   err) &&
           compare(target, computed_here_sql, source, ordinary_there_sql, publication, false,
                   "are generated on the target and ordinary ones on the source: the target "
                   "computes its own values, and takes none from the source. Make them ordinary "
                   "there: ALTER TABLE … ALTER COLUMN … DROP EXPRESSION",
                   err);
}
