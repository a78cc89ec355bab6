#include "apply/copy_plan.h"

#include "apply/format.h"
#include "apply/large_objects.h"
#include "apply/preflight.h"
#include "apply/publication.h"
#include "core/log.h"
#include "core/pgtype.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How wide a row can be is asked where a table has so many bytes of TOAST: less holds no wide
 * value, unless it is one that compresses very well. */
#define WIDE_FROM_TOAST "1048576"

/* $1 publication, $2 the unlogged tables, which no publication has; %s are the row filter and the
 * list of columns, which servers before 15 do not have. A partitioned table that is published as
 * itself is copied leaf by leaf. The lengths of text and bytea are had without reading them. */
#define TABLES_FORMAT                                                                              \
    "WITH published AS (SELECT c.oid, c.relkind, n.nspname, c.relname, %s AS filter,"              \
    "   %s AS attnames FROM pg_catalog.pg_publication_tables p"                                    \
    "  JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname"                                 \
    "  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename"           \
    "  WHERE p.pubname = $1 UNION ALL SELECT c.oid, c.relkind, n.nspname, c.relname, NULL, NULL"   \
    "  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"        \
    "  WHERE c.relkind = 'r' AND c.oid = ANY ($2::pg_catalog.oid[])),"                             \
    " leaf AS (SELECT oid, oid AS stream_oid FROM published WHERE relkind = 'r' UNION"             \
    "  SELECT l.relid::pg_catalog.oid, published.oid FROM published,"                              \
    "   pg_catalog.pg_partition_tree(published.oid) l WHERE relkind = 'p' AND l.isleaf)"           \
    " SELECT c.oid, leaf.stream_oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS "       \
    "source_name,"                                                                                 \
    "  p.nspname AS s, p.relname AS t, p.filter, pg_catalog.pg_relation_filenode(c.oid) AS node,"  \
    "  COALESCE(am.amname = 'heap', false) AS heap, c.oid = ANY ($2::pg_catalog.oid[]) AS "        \
    "unlogged,"                                                                                    \
    "  pg_catalog.pg_relation_size(c.oid)"                                                         \
    "   / pg_catalog.current_setting('block_size')::pg_catalog.int8 AS pages,"                     \
    "  pg_catalog.pg_table_size(c.oid) AS bytes,"                                                  \
    "  CASE WHEN pg_catalog.pg_relation_size(c.reltoastrelid) >= " WIDE_FROM_TOAST                 \
    "   THEN (SELECT pg_catalog.string_agg(pg_catalog.format(CASE b.base"                          \
    "      WHEN 17 THEN 'COALESCE(pg_catalog.octet_length(%%I)::pg_catalog.int8 * $1::int8, 0)'"   \
    "      ELSE CASE WHEN b.base IN (25, 1042, 1043) THEN 'COALESCE(pg_catalog.octet_length(%%I)," \
    " 0)::pg_catalog.int8' ELSE 'COALESCE(pg_catalog.pg_column_size(%%I), 0)::pg_catalog.int8' "   \
    "END"                                                                                          \
    "      END, a.attname), ' + ') FROM pg_catalog.pg_attribute a"                                 \
    "     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid, LATERAL (SELECT"                        \
    "      COALESCE(NULLIF(t.typbasetype, 0), t.oid) AS base) b WHERE a.attrelid = c.oid"          \
    "     AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1 AND a.attgenerated = ''"       \
    "     AND (p.attnames IS NULL OR a.attname = ANY (p.attnames))) END AS width"                  \
    " FROM leaf JOIN pg_catalog.pg_class c ON c.oid = leaf.oid AND c.relkind = 'r'"                \
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"                                    \
    " JOIN published p ON p.oid = leaf.stream_oid LEFT JOIN pg_catalog.pg_am am ON am.oid = "      \
    "c.relam"                                                                                      \
    " ORDER BY bytes DESC NULLS LAST, c.oid"

/* All columns to copy as arrays, with the type that their values have. */
#define COLUMNS_FORMAT                                                                             \
    "WITH RECURSIVE step(oid, base) AS ("                                                          \
    "  SELECT t.oid, t.oid FROM pg_catalog.pg_type t"                                              \
    "  UNION ALL SELECT s.oid, t.typbasetype FROM step s"                                          \
    "   JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype = 'd'),"                       \
    " plain(oid, base) AS (SELECT s.oid, s.base FROM step s"                                       \
    "  JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype <> 'd')"                        \
    " SELECT COALESCE(pg_catalog.array_agg(n.nspname::text), '{}'),"                               \
    "  COALESCE(pg_catalog.array_agg(c.relname::text), '{}'),"                                     \
    "  COALESCE(pg_catalog.array_agg(a.attname::text), '{}'),"                                     \
    "  COALESCE(pg_catalog.array_agg(plain.base), '{}'),"                                          \
    "  COALESCE(pg_catalog.array_agg(a.attnum), '{}')"                                             \
    " FROM (SELECT c.oid, %s AS attnames FROM pg_catalog.pg_publication_tables p"                  \
    "   JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname"                                \
    "   JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename"          \
    "   WHERE p.pubname = $1 UNION ALL"                                                            \
    "  SELECT oid, NULL FROM pg_catalog.unnest($2::pg_catalog.oid[]) u(oid)) p"                    \
    " JOIN pg_catalog.pg_class c ON c.oid = p.oid"                                                 \
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"                                    \
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"                       \
    "  AND NOT a.attisdropped"                                                                     \
    " JOIN plain ON plain.oid = a.atttypid"                                                        \
    " WHERE CASE WHEN p.attnames IS NULL THEN a.attgenerated = ''"                                 \
    "  ELSE a.attname = ANY (p.attnames) END"

/* $1 to $5 those arrays, $6 and $7 the tables' schemas and names: a row for each table, in that
 * order. Generated columns the target computes itself. */
static const char *const target_sql =
    "WITH RECURSIVE step(oid, base) AS ("
    "  SELECT t.oid, t.oid FROM pg_catalog.pg_type t"
    "  UNION ALL SELECT s.oid, t.typbasetype FROM step s"
    "   JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype = 'd'),"
    " plain(oid, base) AS (SELECT s.oid, s.base FROM step s"
    "  JOIN pg_catalog.pg_type t ON t.oid = s.base WHERE t.typtype <> 'd'),"
    " found AS (SELECT w.s, w.t, w.c, w.base AS source_base, w.n, plain.base AS target_base"
    "  FROM unnest($1::text[], $2::text[], $3::text[], $4::oid[], $5::int[]) w(s, t, c, base, n)"
    "  JOIN pg_catalog.pg_namespace n ON n.nspname = w.s"
    "  JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = w.t"
    "  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attname = w.c"
    "   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
    "  JOIN plain ON plain.oid = a.atttypid),"
    " lists AS (SELECT s, t, pg_catalog.string_agg(pg_catalog.quote_ident(c), ', ' ORDER BY n)"
    "   AS columns, pg_catalog.string_agg(DISTINCT source_base || ':' || target_base, ' ') AS pairs"
    "  FROM found GROUP BY s, t)"
    " SELECT pg_catalog.format('%I.%I', x.s, x.t) AS target_name, COALESCE(columns, '') AS columns,"
    "  COALESCE(pairs, '') AS pairs, r.relkind = 'p' AS has_parts"
    " FROM unnest($6::text[], $7::text[]) WITH ORDINALITY x(s, t, k)"
    " LEFT JOIN lists ON lists.s = x.s AND lists.t = x.t"
    " LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = x.s"
    " LEFT JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = x.t"
    " ORDER BY x.k";

/* COPY's binary form is read by the target column's own type: it must be the same one, or text by
 * another name. */
static bool may_be_binary(const char *pairs, bool intervals)
{
    for (char *at = (char *)(uintptr_t)pairs; *at != '\0'; at += *at == ' ') {
        uint32_t source = (uint32_t)strtoul(at, &at, 10);
        uint32_t target = (uint32_t)strtoul(at + 1, &at, 10);
        bool same = source == target ||
                    (pen_pgtype_widens(source, target) && pen_pgtype_widens(target, source));
        if (!same || !pen_pgtype_portable(source) ||
            (!intervals && pen_pgtype_is_interval(source))) {
            return false;
        }
    }
    return true;
}

static bool has_chars(const char *pairs)
{
    for (char *at = (char *)(uintptr_t)pairs; *at != '\0'; at += *at == ' ') {
        if (pen_pgtype_is_char((uint32_t)strtoul(at, &at, 10))) {
            return true;
        }
        (void)strtoul(at + 1, &at, 10);
    }
    return false;
}

/* Appends one element of an array's text. */
static void add_element(pen_text *array, const char *value)
{
    pen_text_append(array, array->len == 0 ? "{\"" : ",\"");
    for (; *value != '\0'; value++) {
        pen_text_appendf(array, "%s%c", *value == '"' || *value == '\\' ? "\\" : "", *value);
    }
    pen_text_append(array, "\"");
}

static char *array_of(const pen_pgresult *res, const char *column)
{
    pen_text array = {0};
    for (int row = 0; row < pen_pgresult_rows(res); row++) {
        add_element(&array, pen_pgresult_named(res, row, column));
    }
    pen_text_append(&array, array.len == 0 ? "{}" : "}");
    return pen_text_take(&array);
}

static uint64_t number_of(const pen_pgresult *res, int row, const char *column)
{
    const char *text = pen_pgresult_named(res, row, column);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

static char *copy_of(const pen_pgresult *res, int row, const char *column)
{
    const char *text = pen_pgresult_named(res, row, column);
    return text == NULL ? NULL : pen_strdup(text);
}

static void fill(pen_migration *migration, const pen_pgresult *source, const pen_pgresult *target,
                 pen_copy_plan *plan)
{
    bool text = migration->options->format == PEN_FORMAT_TEXT;
    int source_version = pen_pgconn_server_version(migration->source);
    int target_version = pen_pgconn_server_version(migration->target);
    bool intervals = pen_format_has_intervals(source_version, target_version);
    bool misread = pen_format_misreads_chars(source_version, target_version);
    int rows = pen_pgresult_rows(source);
    plan->tables = pen_calloc((size_t)rows + 2, sizeof(*plan->tables)); /* and large objects */
    for (int row = 0; row < rows; row++) {
        const char *has_parts = pen_pgresult_named(target, row, "has_parts");
        if (has_parts == NULL && pen_pgresult_named(source, row, "unlogged")[0] == 't') {
            continue; /* it was made on the source after the schema was dumped */
        }
        pen_copy_table *table = &plan->tables[plan->count++];
        table->oid = (uint32_t)number_of(source, row, "oid");
        table->stream_oid = (uint32_t)number_of(source, row, "stream_oid");
        table->source_name = copy_of(source, row, "source_name");
        table->target_name = copy_of(target, row, "target_name");
        table->columns = copy_of(target, row, "columns");
        table->row_filter = copy_of(source, row, "filter");
        table->width_sql = copy_of(source, row, "width");
        table->filenode = copy_of(source, row, "node");
        table->by_ctid = pen_pgresult_named(source, row, "heap")[0] == 't';
        table->pages = number_of(source, row, "pages");
        table->bytes = number_of(source, row, "bytes");
        const char *pairs = pen_pgresult_named(target, row, "pairs");
        table->binary = !text && table->columns[0] != '\0' && may_be_binary(pairs, intervals);
        table->misread = !table->binary && misread && has_chars(pairs);
        table->has_parts = has_parts != NULL && has_parts[0] == 't';
    }
}

/* The OIDs of unlogged tables as an array's text. Those that are there already on the target are
 * for whoever made them. */
static bool list_unlogged(pen_migration *migration, char **array, pen_error *err)
{
    uint32_t *oids = NULL;
    size_t count = 0;
    pen_text text = {0};
    if (migration->options->schema_from == PEN_SCHEMA_DUMP &&
        !pen_publication_list(migration->source, migration->options, PEN_TABLES_UNLOGGED, &oids,
                              &count, err)) {
        return false;
    }
    pen_text_append(&text, "{");
    for (size_t i = 0; i < count; i++) {
        pen_text_appendf(&text, "%s%" PRIu32, i == 0 ? "" : ",", oids[i]);
    }
    pen_text_append(&text, "}");
    *array = pen_text_take(&text);
    free(oids);
    return true;
}

static bool read_tables(pen_migration *migration, pen_copy_plan *plan, pen_error *err)
{
    bool lists = pen_pgconn_server_version(migration->source) >= 150000;
    char *unlogged = NULL;
    if (!list_unlogged(migration, &unlogged, err)) {
        return false;
    }
    const char *const wanted[] = {migration->options->publication, unlogged};
    char query[8192];
    pen_pgresult *tables = NULL;
    pen_pgresult *columns = NULL;
    pen_pgresult *target = NULL;
    const char *attnames = lists ? "p.attnames" : "NULL::pg_catalog.name[]";
    snprintf(query, sizeof(query), TABLES_FORMAT, lists ? "p.rowfilter" : "NULL::text", attnames);
    bool ok = pen_pgconn_exec(migration->source, "list the tables to copy", query, 2, wanted,
                              &tables, err);
    snprintf(query, sizeof(query), COLUMNS_FORMAT, attnames);
    ok = ok && pen_pgconn_exec(migration->source, "list the columns to copy", query, 2, wanted,
                               &columns, err);
    if (ok) {
        char *schemas = array_of(tables, "s");
        char *names = array_of(tables, "t");
        const char *values[7] = {0};
        for (int i = 0; i < 5; i++) {
            values[i] = pen_pgresult_value(columns, 0, i);
        }
        values[5] = schemas;
        values[6] = names;
        ok = pen_pgconn_exec(migration->target, "list the columns to copy into", target_sql, 7,
                             values, &target, err);
        free(schemas);
        free(names);
    }
    if (ok) {
        fill(migration, tables, target, plan);
    }
    pen_pgresult_clear(tables);
    pen_pgresult_clear(columns);
    pen_pgresult_clear(target);
    free(unlogged);
    return ok;
}

static int compare_oids(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Tables whose changes come under one OID have one fence, so they are copied in one round. */
static void undo_torn_roots(pen_copy_plan *plan)
{
    uint32_t *torn = pen_calloc(plan->count + 1, sizeof(*torn));
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        if (!plan->tables[i].done && plan->tables[i].stream_oid != plan->tables[i].oid) {
            torn[count++] = plan->tables[i].stream_oid;
        }
    }
    qsort(torn, count, sizeof(*torn), compare_oids);
    for (size_t i = 0; i < plan->count; i++) {
        pen_copy_table *table = &plan->tables[i];
        table->done &= count == 0 || bsearch(&table->stream_oid, torn, count, sizeof(*torn),
                                             compare_oids) == NULL;
    }
    free(torn);
}

static bool read_done(pen_migration *migration, pen_copy_plan *plan, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "read what is copied already",
                         "SELECT source_oid FROM penstock.copied_table WHERE name = $1 AND done"
                         " ORDER BY source_oid",
                         1, values, &res, err)) {
        return false;
    }
    size_t count = (size_t)pen_pgresult_rows(res);
    uint32_t *oids = pen_calloc(count + 1, sizeof(*oids));
    for (size_t i = 0; i < count; i++) {
        oids[i] = (uint32_t)strtoul(pen_pgresult_value(res, (int)i, 0), NULL, 10);
    }
    pen_pgresult_clear(res);
    for (size_t i = 0; i < plan->count; i++) {
        plan->tables[i].done =
            bsearch(&plan->tables[i].oid, oids, count, sizeof(*oids), compare_oids) != NULL;
    }
    free(oids);
    undo_torn_roots(plan);
    plan->unfinished = 0;
    plan->unfinished_bytes = 0;
    for (size_t i = 0; i < plan->count; i++) {
        plan->unfinished += !plan->tables[i].done;
        plan->unfinished_bytes += plan->tables[i].done ? 0 : plan->tables[i].bytes;
    }
    return true;
}

/* Where their size puts them. */
static bool add_large_objects(pen_migration *migration, pen_copy_plan *plan, pen_error *err)
{
    pen_copy_table objects;
    bool any = false;
    if (!pen_large_objects_plan(migration, &objects, &any, err)) {
        return false;
    }
    if (!any) {
        return true;
    }
    size_t at = 0;
    while (at < plan->count && plan->tables[at].bytes > objects.bytes) {
        at++;
    }
    memmove(&plan->tables[at + 1], &plan->tables[at], (plan->count - at) * sizeof(objects));
    plan->tables[at] = objects;
    plan->count++;
    return true;
}

bool pen_copy_plan_read(pen_migration *migration, pen_copy_plan *plan, pen_error *err)
{
    memset(plan, 0, sizeof(*plan));
    return pen_preflight_tables(migration->options->publication, migration->source,
                                migration->target, err) &&
           read_tables(migration, plan, err) && add_large_objects(migration, plan, err) &&
           read_done(migration, plan, err);
}

void pen_copy_plan_deinit(pen_copy_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        pen_copy_table *table = &plan->tables[i];
        free(table->source_name);
        free(table->target_name);
        free(table->columns);
        free(table->row_filter);
        free(table->width_sql);
        free(table->filenode);
    }
    free(plan->tables);
    memset(plan, 0, sizeof(*plan));
}

uint64_t pen_copy_plan_chunk_pages(const pen_copy_table *table, uint64_t chunk_bytes)
{
    if (!table->by_ctid || table->bytes <= chunk_bytes || table->pages <= 1) {
        return UINT64_MAX;
    }
    uint64_t chunks = (table->bytes + chunk_bytes - 1) / chunk_bytes;
    uint64_t pages = (table->pages + chunks - 1) / chunks;
    return pages == 0 ? 1 : pages;
}
