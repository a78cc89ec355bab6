#include "apply/format.h"

#include "core/log.h"
#include "core/pgtype.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* $1 publication. One row: all published columns as arrays, which the target is then asked about in
 * one query, and the domains as "oid base oid base …". */
#define COLUMNS_FORMAT                                                                             \
    "WITH RECURSIVE step(oid, base) AS ("                                                          \
    "  SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.typtype = 'd'"                \
    "  UNION ALL SELECT s.oid, t.typbasetype FROM step s"                                          \
    "   JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype = 'd'),"                       \
    " domain(oid, base) AS (SELECT s.oid, s.base FROM step s"                                      \
    "  JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype <> 'd')"                        \
    " SELECT pg_catalog.array_agg(c.s), pg_catalog.array_agg(c.t), pg_catalog.array_agg(c.c),"     \
    "  pg_catalog.array_agg(c.atttypid),"                                                          \
    "  pg_catalog.array_agg(pg_catalog.format_type(c.atttypid, -1)),"                              \
    "  (SELECT pg_catalog.string_agg(oid || ' ' || base, ' ') FROM domain) AS domains"             \
    " FROM (SELECT n.nspname::pg_catalog.text AS s, r.relname::pg_catalog.text AS t,"              \
    "   a.attname::pg_catalog.text AS c, a.atttypid"                                               \
    "  FROM pg_catalog.pg_publication_tables p"                                                    \
    "  JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname"                                 \
    "  JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = p.tablename"           \
    "  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0"                      \
    "   AND NOT a.attisdropped"                                                                    \
    "  WHERE p.pubname = $1 AND %s ORDER BY n.nspname, r.relname, a.attnum) c"

/* The pairs of types that occur, each with the first column of it. */
static const char *const pairs_sql =
    "WITH RECURSIVE step(oid, base) AS ("
    "  SELECT t.oid, t.oid FROM pg_catalog.pg_type t"
    "  UNION ALL SELECT s.oid, t.typbasetype FROM step s"
    "   JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype = 'd'),"
    " plain(oid, base) AS (SELECT s.oid, s.base FROM step s"
    "  JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype <> 'd'),"
    " one AS (SELECT w.*, a.atttypid"
    "  FROM unnest($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[],"
    "   $4::pg_catalog.oid[], $5::pg_catalog.text[])"
    "   WITH ORDINALITY AS w(s, t, c, source_type, source_name, n)"
    "  JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    "  JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = w.t"
    "  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attname = w.c"
    "   AND a.attnum > 0 AND NOT a.attisdropped),"
    " pair AS (SELECT source_type, atttypid, pg_catalog.min(n) AS n FROM one GROUP BY 1, 2)"
    " SELECT one.s || '.' || one.t || '.' || one.c AS place, one.source_type, one.source_name,"
    "  plain.base AS target_base, pg_catalog.format_type(one.atttypid, -1) AS target_name"
    " FROM pair JOIN one ON one.n = pair.n JOIN plain ON plain.oid = one.atttypid ORDER BY one.n";

bool pen_format_has_intervals(int source_version, int target_version)
{
    return source_version < 170000 || target_version >= 170000;
}

bool pen_format_misreads_chars(int source_version, int target_version)
{
    return source_version >= 160000 && target_version < 160000;
}

static uint32_t base_of(const pen_format *format, uint32_t type)
{
    for (size_t i = 0; i < format->domain_count; i++) {
        if (format->domains[i].oid == type) {
            return format->domains[i].base;
        }
    }
    return type;
}

uint32_t pen_format_binary_type(const pen_format *format, uint32_t source_type,
                                uint32_t target_base)
{
    uint32_t type = base_of(format, source_type);
    bool fits = pen_pgtype_portable(type) && pen_pgtype_widens(type, target_base) &&
                (format->intervals || !pen_pgtype_is_interval(type));
    return fits ? type : 0;
}

static void read_domains(pen_format *format, const char *pairs)
{
    size_t count = 0;
    for (const char *at = pairs; at != NULL && (at = strchr(at, ' ')) != NULL; at++) {
        count++;
    }
    format->domains = pen_calloc(count + 1, sizeof(*format->domains));
    char *next = (char *)(uintptr_t)pairs;
    while (next != NULL && *next != '\0') {
        pen_domain *domain = &format->domains[format->domain_count++];
        domain->oid = (uint32_t)strtoul(next, &next, 10);
        domain->base = (uint32_t)strtoul(next, &next, 10);
    }
}

/* Why a pair of types cannot be binary, in words. */
static char *describe(const pen_pgresult *res, int row, uint32_t base)
{
    const char *place = pen_pgresult_named(res, row, "place");
    const char *source = pen_pgresult_named(res, row, "source_name");
    const char *target = pen_pgresult_named(res, row, "target_name");
    pen_text text = {0};
    pen_text_appendf(&text, "column %s is of type %s", place, source);
    if (pen_pgtype_portable(base) && pen_pgtype_is_interval(base) && strcmp(source, target) == 0) {
        pen_text_append(&text, ", which has no infinite values on the older target");
    } else if (strcmp(source, target) != 0) {
        pen_text_appendf(&text, " on the source and %s on the target", target);
    }
    return pen_text_take(&text);
}

/* Gives the first reason against binary, or NULL when there is none. */
static char *find_obstacle(const pen_format *format, const pen_pgresult *pairs)
{
    for (int row = 0; row < pen_pgresult_rows(pairs); row++) {
        uint32_t type = (uint32_t)strtoul(pen_pgresult_named(pairs, row, "source_type"), NULL, 10);
        uint32_t base = (uint32_t)strtoul(pen_pgresult_named(pairs, row, "target_base"), NULL, 10);
        if (pen_format_binary_type(format, type, base) == 0) {
            return describe(pairs, row, base_of(format, type));
        }
    }
    return NULL;
}

/* Asks both servers; *obstacle (free() it) is why not in binary, or NULL. */
static bool compare(pen_format *format, const char *publication, pen_pgconn *source,
                    pen_pgconn *target, char **obstacle, pen_error *err)
{
    /* From PostgreSQL 15 on the view lists the columns; before, all but generated ones are
     * published. */
    bool lists = pen_pgconn_server_version(source) >= 150000;
    char query[2048];
    pen_pgresult *columns = NULL;
    pen_pgresult *pairs = NULL;
    snprintf(query, sizeof(query), COLUMNS_FORMAT,
             lists ? "a.attname = ANY (p.attnames)" : "a.attgenerated = ''");
    const char *const params[] = {publication};
    bool ok = pen_pgconn_exec(source, "list the types of the published columns", query, 1, params,
                              &columns, err);
    if (ok) {
        const char *arrays[5];
        for (int i = 0; i < (int)PEN_COUNTOF(arrays); i++) {
            arrays[i] = pen_pgresult_value(columns, 0, i);
        }
        read_domains(format, pen_pgresult_named(columns, 0, "domains"));
        ok = pen_pgconn_exec(target, "compare the types of the published columns", pairs_sql,
                             PEN_COUNTOF(arrays), arrays, &pairs, err);
    }
    if (ok) {
        *obstacle = find_obstacle(format, pairs);
    }
    pen_pgresult_clear(columns);
    pen_pgresult_clear(pairs);
    return ok;
}

bool pen_format_decide(pen_format *format, const pen_options *options, pen_pgconn *source,
                       pen_pgconn *target, pen_error *err)
{
    char *obstacle = NULL;
    pen_format_deinit(format);
    format->binary = false;
    int source_version = pen_pgconn_server_version(source);
    int target_version = pen_pgconn_server_version(target);
    format->intervals = pen_format_has_intervals(source_version, target_version);
    format->misreads_chars = pen_format_misreads_chars(source_version, target_version);
    if (options->format == PEN_FORMAT_TEXT) {
        pen_log(PEN_LOG_INFO, "the stream comes as text, as --format asks");
        return true;
    }
    if (options->format == PEN_FORMAT_AUTO && options->ack == PEN_ACK_SPOOLED) {
        /* What is in the spool is applied after a restart too, by which auto might think anew. */
        pen_log(PEN_LOG_INFO, "the stream comes as text, because --ack is spooled");
        return true;
    }
    if (!compare(format, options->publication, source, target, &obstacle, err)) {
        return false;
    }
    bool ok = obstacle == NULL || options->format == PEN_FORMAT_AUTO;
    format->binary = obstacle == NULL;
    if (!ok) {
        pen_error_set(err, PEN_ERROR_CONFIG,
                      "--format binary is not possible: %s; take --format auto or text, or leave "
                      "that table or column out of publication \"%s\"",
                      obstacle, options->publication);
    } else if (obstacle != NULL) {
        pen_log(PEN_LOG_INFO, "the stream comes as text: %s", obstacle);
    } else {
        pen_log(PEN_LOG_INFO, "the stream comes in binary");
    }
    free(obstacle);
    return ok;
}

void pen_format_deinit(pen_format *format)
{
    free(format->domains);
    format->domains = NULL;
    format->domain_count = 0;
}
