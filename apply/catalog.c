#include "apply/catalog.h"

#include "apply/catalog_keys.h"
#include "core/log.h"
#include "core/pgtype.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROOT(oid) "COALESCE(pg_catalog.pg_partition_root(" oid ")::pg_catalog.oid, " oid ")"

/* The queries below run once for each table of the stream, of which there may be ten thousand: they
 * are prepared (to plan them takes longer than to run them), and read nothing from end to end that
 * grows with the number of tables but pg_inherits and pg_trigger. OFFSET 0 keeps the planner from
 * doing so.
 *
 * $1 schema, $2 table, $3 the trigger states that fire in the workers' sessions ("OA" or "RA").
 * A FK is enforced here when its triggers fire. Tables tied by enforced FKs or by inheritance are
 * one group. `cascades`: the tables whose rows the target may change by itself after a DELETE or an
 * UPDATE of this one, by the OIDs of their partition trees' roots. */
/* clang-format off */
static const char *const table_sql =
    "WITH RECURSIVE t AS ("
    " SELECT c.oid, c.relkind FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = $1 AND c.relname = $2),"
    " fk AS ("
    " SELECT k.conrelid, k.confrelid, k.confdeltype, k.confupdtype FROM ("
    "  SELECT DISTINCT g.tgconstraint AS oid FROM pg_catalog.pg_trigger g"
    "  WHERE g.tgconstraint <> 0 AND pg_catalog.strpos($3, g.tgenabled::text) > 0) fires"
    " JOIN pg_catalog.pg_constraint k ON k.oid = fires.oid AND k.contype = 'f'),"
    /* Of ordinary inheritance; a partition stands for its root, of which there may be very many. */
    " heir(child, parent) AS ("
    " SELECT i.inhrelid, i.inhparent FROM (SELECT DISTINCT inhparent AS oid"
    "  FROM pg_catalog.pg_inherits) p"
    " JOIN pg_catalog.pg_class c ON c.oid = p.oid AND c.relkind IN ('r', 'f')"
    " JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid),"
    " fk_root(a, b) AS (SELECT DISTINCT " ROOT("conrelid") ", " ROOT("confrelid") " FROM fk),"
    " edge(a, b) AS ("
    " SELECT a, b FROM fk_root UNION SELECT b, a FROM fk_root"
    " UNION SELECT child, parent FROM heir UNION SELECT parent, child FROM heir),"
    " tied(oid) AS (SELECT " ROOT("t.oid") " FROM t UNION SELECT edge.b FROM tied JOIN edge "
    "   ON edge.a = tied.oid),"
    " tree(oid) AS (SELECT oid FROM t UNION"
    " SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid),"
    " act(a, b) AS (SELECT DISTINCT " ROOT("confrelid") ", " ROOT("conrelid") " FROM fk"
    " WHERE confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')),"
    " hit(oid) AS (SELECT act.b FROM act JOIN t ON act.a = " ROOT("t.oid")
    " UNION SELECT act.b FROM hit JOIN act ON act.a = hit.oid)"
    " SELECT t.oid, t.relkind, (SELECT pg_catalog.min(oid) FROM tied) AS group_oid,"
    " " ROOT("t.oid") " AS root,"
    " (SELECT pg_catalog.string_agg(oid::pg_catalog.text, ' ') FROM hit) AS cascades,"
    /* A foreign key to the table has triggers on it; there is no index on confrelid. */
    " EXISTS (SELECT 1 FROM tree CROSS JOIN LATERAL (SELECT k.condeferrable"
    "  FROM pg_catalog.pg_constraint k WHERE k.conrelid = tree.oid OFFSET 0) k"
    "  WHERE k.condeferrable) OR"
    " EXISTS (SELECT 1 FROM tree CROSS JOIN LATERAL (SELECT k.condeferrable"
    "  FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint"
    "  WHERE g.tgrelid = tree.oid OFFSET 0) k WHERE k.condeferrable)"
    " AS deferrable,"
    " EXISTS (SELECT 1 FROM fk, tree WHERE fk.confrelid = tree.oid AND fk.confdeltype = 'c')"
    " AS cascades_from,"
    " EXISTS (SELECT 1 FROM fk, tree WHERE fk.confrelid = tree.oid"
    " AND fk.confdeltype IN ('c', 'n', 'd')) AS delete_acts,"
    " EXISTS (SELECT 1 FROM fk, tree WHERE fk.conrelid = tree.oid AND fk.confdeltype = 'c')"
    " AS cascades_to,"
    " EXISTS (SELECT 1 FROM fk, tree WHERE fk.confrelid = tree.oid"
    " AND (fk.confupdtype IN ('c', 'n', 'd') OR fk.confdeltype IN ('n', 'd'))) AS moves_from,"
    " EXISTS (SELECT 1 FROM fk, tree WHERE fk.conrelid = tree.oid"
    " AND (fk.confupdtype IN ('c', 'n', 'd') OR fk.confdeltype IN ('n', 'd'))) AS moves_to,"
    " EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g, tree WHERE g.tgrelid = tree.oid"
    " AND NOT g.tgisinternal AND (g.tgtype & 3) = 3"
    " AND pg_catalog.strpos($3, g.tgenabled::text) > 0) AS trigger_before,"
    " (SELECT g.tgname FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid"
    " WHERE (g.tgrelid IN (SELECT oid FROM tree) OR " ROOT("g.tgrelid") " IN (SELECT oid FROM hit))"
    " AND NOT g.tgisinternal AND p.provolatile <> 'i'"
    " AND pg_catalog.strpos($3, g.tgenabled::text) > 0 LIMIT 1) AS trigger,"
    " (SELECT r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = t.oid AND r.ev_type <> '1'"
    " AND pg_catalog.strpos($3, r.ev_enabled::text) > 0 LIMIT 1) AS rule,"
    " (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM tree CROSS JOIN LATERAL ("
    "  SELECT * FROM pg_catalog.pg_class c WHERE c.oid = tree.oid OFFSET 0) c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND c.relpersistence <> 'p' LIMIT 1) AS unlogged,"
    " (SELECT pg_catalog.string_agg(p, ', ') FROM pg_catalog.unnest("
    " ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p"
    " WHERE NOT pg_catalog.has_table_privilege(t.oid, p)) AS denied,"
    " pg_catalog.format('%I.%I', $1::text, $2::text) AS quoted,"
    " pg_catalog.quote_ident(current_user) AS this_user FROM t";
/* clang-format on */

/* $1 table OID. */
static const char *const columns_sql =
    "SELECT a.attname, pg_catalog.quote_ident(a.attname) AS quoted, a.atttypid, a.atttypmod,"
    " (SELECT t.typtype = 'e' FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid) AS is_enum,"
    " pg_catalog.format_type(a.atttypid, a.atttypmod) AS whole_type,"
    " a.attgenerated <> '' AS generated, a.attidentity = 'a' AS identity_always,"
    /* Built-in types alone: the `=` of an extension's is not found with an empty search_path. */
    " a.atttypid < 16384 AND a.atttypid <> 'pg_catalog.interval'::pg_catalog.regtype"
    /* bpchar without a length keeps blanks that its = does not see, whatever its opclass says. */
    " AND (a.atttypid <> 'pg_catalog.bpchar'::pg_catalog.regtype OR a.atttypmod >= 0)"
    " AND EXISTS ("
    "  SELECT 1 FROM pg_catalog.pg_opclass o"
    "  JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'"
    "  JOIN pg_catalog.pg_amproc p ON p.amprocfamily = o.opcfamily AND p.amprocnum = 4"
    "   AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype"
    "  LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation"
    "  WHERE o.opcdefault AND o.opcintype = CASE a.atttypid WHEN 1043 THEN 25 ELSE a.atttypid END"
    "   AND (p.amproc::pg_catalog.oid = "
    "'pg_catalog.btequalimage'::pg_catalog.regproc::pg_catalog.oid"
    "        OR c.collisdeterministic)) AS bytes_equal,"
    " b.oid AS base_type, pg_catalog.format_type(a.atttypid, -1) AS type_name,"
    /* Arrays and composites would be taken apart by unnest: they are elements as text. A cast from
     * text that somebody made need not be what reads the type's text. */
    " CASE WHEN b.typtype IN ('b', 'e', 'r', 'm') AND b.typcategory <> 'A' THEN b.typarray"
    "  WHEN (b.typtype = 'c' OR b.typcategory = 'A') AND NOT EXISTS (SELECT 1"
    "   FROM pg_catalog.pg_cast k WHERE k.castsource = 25 AND k.casttarget = b.oid) THEN 1009"
    "  ELSE 0 END AS array_type,"
    " CASE WHEN b.typtype = 'c' OR b.typcategory = 'A' THEN ',' ELSE b.typdelim END"
    "  AS array_delimiter,"
    " CASE WHEN b.typtype = 'c' OR b.typcategory = 'A' THEN pg_catalog.format_type(b.oid, -1) END"
    "  AS array_cast"
    " FROM pg_catalog.pg_attribute a, LATERAL ("
    "  WITH RECURSIVE step(oid) AS (SELECT a.atttypid UNION ALL"
    "   SELECT t.typbasetype FROM step JOIN pg_catalog.pg_type t ON t.oid = step.oid"
    "   WHERE t.typtype = 'd')"
    "  SELECT t.oid, t.typtype, t.typcategory, t.typarray, t.typdelim FROM step"
    "  JOIN pg_catalog.pg_type t ON t.oid = step.oid WHERE t.typtype <> 'd') b"
    " WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped";

static bool is_true(const char *value)
{
    return value != NULL && value[0] == 't';
}

static uint32_t to_oid(const char *value)
{
    return value == NULL ? 0 : (uint32_t)strtoul(value, NULL, 10);
}

/* Index of the source's column of that name, or -1. */
static int find_column(const pen_relation *rel, const char *name)
{
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (pen_slice_equal(rel->columns[i].name, pen_slice_of(name))) {
            return i;
        }
    }
    return -1;
}

static bool read_table(pen_pgconn *conn, pen_target *target, const char *firing,
                       pen_pgresult **table, pen_resolve_result *result, pen_error *err)
{
    const pen_relation *rel = target->rel;
    const char *schema = (const char *)rel->schema.data;
    const char *name = (const char *)rel->table.data;
    const char *const params[] = {schema, name, firing};
    *result = PEN_RESOLVE_FAILED;
    const pen_pgquery query = {.sql = table_sql, .value_count = 3, .values = params};
    if (!pen_pgconn_exec_again(conn, "read the catalog", &query, 1, table, err)) {
        return false;
    }
    if (pen_pgresult_rows(*table) == 0) {
        *result = PEN_RESOLVE_MISSING;
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: the table %s.%s is missing; create it there as it is on the "
                             "source (or, if the source renamed a table, rename it there: an empty "
                             "one would lack its rows) and start again, nothing is lost",
                             schema, name);
    }
    char kind = pen_pgresult_named(*table, 0, "relkind")[0];
    if (kind != 'r' && kind != 'p') {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: %s.%s is not a table; rename what is there, create the table as "
            "it is on the source and start again, nothing is lost",
            schema, name);
    }
    const char *rule = pen_pgresult_named(*table, 0, "rule");
    if (rule != NULL) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: the rule %s on %s.%s rewrites changes, so they could not be "
            "checked; ALTER TABLE … DISABLE RULE or drop it and start again, nothing "
            "is lost",
            rule, schema, name);
    }
    const char *unlogged = pen_pgresult_named(*table, 0, "unlogged");
    if (unlogged != NULL) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: %s is UNLOGGED, so a crash there would empty it after the source has "
            "forgotten "
            "the changes; run there: ALTER TABLE %s SET LOGGED; and start again, nothing is lost",
            unlogged, unlogged);
    }
    const char *denied = pen_pgresult_named(*table, 0, "denied");
    if (denied != NULL) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: this user may not do all that is needed on %s.%s; have its owner run: GRANT "
            "%s ON %s TO %s; and start again, nothing is lost",
            schema, name, denied, pen_pgresult_named(*table, 0, "quoted"),
            pen_pgresult_named(*table, 0, "this_user"));
    }
    target->oid = to_oid(pen_pgresult_named(*table, 0, "oid"));
    target->partitioned = kind == 'p';
    return true;
}

/* What an array of the column's values is, as text. */
static void read_array_type(pen_target_column *column, const pen_pgresult *res, int row)
{
    const char *cast = pen_pgresult_named(res, row, "array_cast");
    column->array_type = to_oid(pen_pgresult_named(res, row, "array_type"));
    column->array_delimiter = pen_pgresult_named(res, row, "array_delimiter")[0];
    column->array_cast = cast == NULL ? NULL : pen_strdup(cast);
}

/* In a binary stream: what the column's values are told to the target as. A column that appeared or
 * changed since the format was decided may not allow it. */
static bool set_binary_type(pen_target *target, int column, const pen_format *format,
                            const pen_pgresult *res, int row, pen_error *err)
{
    const pen_relation *rel = target->rel;
    uint32_t base = to_oid(pen_pgresult_named(res, row, "base_type"));
    uint32_t type = pen_format_binary_type(format, rel->columns[column].type_oid, base);
    target->columns[column].binary_type = type;
    target->columns[column].array_type = pen_pgtype_array(type);
    return type != 0 ||
           pen_error_set(
               err, PEN_ERROR_FATAL,
               "the stream comes in binary, and column \"%s\" of %s.%s, of type %s on the "
               "target, must come as text; start again with --format auto, which "
               "decides anew, or with --format text should it stop here again; nothing is lost",
               (const char *)rel->columns[column].name.data, (const char *)rel->schema.data,
               (const char *)rel->table.data, pen_pgresult_named(res, row, "type_name"));
}

/* Types of pg_type.dat between which PostgreSQL rounds or cuts without an error. */
enum {
    OID_INT8 = 20,
    OID_INT4 = 23,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_DATE = 1082,
    OID_TIME = 1083,
    OID_TIMESTAMP = 1114,
    OID_TIMESTAMPTZ = 1184,
    OID_INTERVAL = 1186,
    OID_TIMETZ = 1266,
    OID_NUMERIC = 1700
};

/* Digits behind the point that numeric's modifier allows (numeric.c). */
static int scale_of(int32_t modifier)
{
    return (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
}

static bool is_time(uint32_t oid)
{
    return oid == OID_TIME || oid == OID_TIMETZ || oid == OID_TIMESTAMP || oid == OID_TIMESTAMPTZ;
}

/* True when the source's column can have values that become others in a column of the target's
 * type, and no error tells. */
static bool may_round(const pen_rel_column *source, uint32_t oid, int32_t modifier)
{
    uint32_t from = source->type_oid;
    int32_t had = source->type_modifier;
    bool is_float = from == OID_FLOAT4 || from == OID_FLOAT8;
    switch (oid) {
    case OID_NUMERIC:
        return modifier >= 0 && (is_float || (from == OID_NUMERIC &&
                                              (had < 0 || scale_of(had) > scale_of(modifier))));
    case OID_FLOAT4:
        return from == OID_FLOAT8 || from == OID_NUMERIC || from == OID_INT4 || from == OID_INT8;
    case OID_FLOAT8:
        return from == OID_NUMERIC || from == OID_INT8;
    case OID_DATE:
        return from == OID_TIMESTAMP || from == OID_TIMESTAMPTZ;
    case OID_INTERVAL:
        return from == OID_INTERVAL && modifier >= 0 && had != modifier;
    default: /* six digits of a second are all that there are */
        return is_time(oid) && is_time(from) && modifier >= 0 && modifier < 6 &&
               (had < 0 || had > modifier);
    }
}

/* It may be meant so, and values that fit stay what they are. */
static void tell_of_rounding(const pen_target *target, int column, const pen_pgresult *res, int row)
{
    const pen_relation *rel = target->rel;
    if (may_round(&rel->columns[column], to_oid(pen_pgresult_named(res, row, "atttypid")),
                  atoi(pen_pgresult_named(res, row, "atttypmod")))) {
        pen_log(PEN_LOG_WARN,
                "target: column \"%s\" of %s.%s is of type %s, and the source's column can have "
                "values that this rounds or cuts without an error: such rows differ on the two "
                "sides; give it the type that it has on the source",
                (const char *)rel->columns[column].name.data, (const char *)rel->schema.data,
                (const char *)rel->table.data, pen_pgresult_named(res, row, "whole_type"));
    }
}

/* The same of what an older target misreads. */
static void tell_of_chars(const pen_target *target, int column, const pen_format *format,
                          const pen_pgresult *res, int row)
{
    const pen_relation *rel = target->rel;
    if (!format->binary && format->misreads_chars &&
        pen_pgtype_is_char(to_oid(pen_pgresult_named(res, row, "base_type")))) {
        pen_log(PEN_LOG_WARN,
                "target: column \"%s\" of %s.%s is of type \"char\", and the stream comes as "
                "text: a value beyond ASCII is another one on this older target, and no error "
                "tells; give it another type on both sides, or leave such values out",
                (const char *)rel->columns[column].name.data, (const char *)rel->schema.data,
                (const char *)rel->table.data);
    }
}

static bool read_columns(pen_target *target, const pen_format *format, const pen_pgresult *res,
                         pen_resolve_result *result, pen_error *err)
{
    const pen_relation *rel = target->rel;
    pen_text extra = {0};
    bool ok = true;
    *result = PEN_RESOLVE_FAILED;
    for (int row = 0; row < pen_pgresult_rows(res); row++) {
        int i = find_column(rel, pen_pgresult_named(res, row, "attname"));
        if (i < 0) {
            /* An extra column of the target gets its default, and keeps what it has. */
            if (!is_true(pen_pgresult_named(res, row, "generated"))) {
                pen_text_appendf(&extra, ", %s", pen_pgresult_named(res, row, "quoted"));
            }
            continue;
        }
        pen_target_column *column = &target->columns[i];
        column->name = pen_strdup(pen_pgresult_named(res, row, "quoted"));
        column->generated = is_true(pen_pgresult_named(res, row, "generated"));
        column->identity_always = is_true(pen_pgresult_named(res, row, "identity_always"));
        column->bytes_equal = is_true(pen_pgresult_named(res, row, "bytes_equal"));
        column->hashable =
            pen_catalog_key_form(&rel->columns[i], to_oid(pen_pgresult_named(res, row, "atttypid")),
                                 atoi(pen_pgresult_named(res, row, "atttypmod")),
                                 is_true(pen_pgresult_named(res, row, "is_enum")), &column->form);
        read_array_type(column, res, row);
        tell_of_rounding(target, i, res, row);
        tell_of_chars(target, i, format, res, row);
        ok = ok && (!format->binary || set_binary_type(target, i, format, res, row, err));
    }
    target->extra_columns = pen_text_take(&extra);
    if (!ok) {
        return false;
    }
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (target->columns[i].name == NULL) {
            *result = PEN_RESOLVE_MISSING;
            return pen_error_set(
                err, PEN_ERROR_FATAL,
                "target: the table %s.%s lacks the column \"%s\"; add it and start "
                "again, nothing is lost",
                (const char *)rel->schema.data, (const char *)rel->table.data,
                (const char *)rel->columns[i].name.data);
        }
    }
    return true;
}

static void read_cascades(pen_target *target, const char *oids)
{
    const char *each = oids == NULL ? "" : oids;
    target->cascades = pen_calloc(strlen(each) / 2 + 1, sizeof(*target->cascades));
    while (*each != '\0') {
        char *end = NULL;
        uint32_t oid = (uint32_t)strtoul(each, &end, 10);
        target->cascades[target->cascade_count++] = pen_keyhash_table(oid);
        each = *end == ' ' ? end + 1 : end;
    }
}

static void find_scope(pen_target *target, const pen_pgresult *table)
{
    if (is_true(pen_pgresult_named(table, 0, "trigger_before"))) {
        pen_catalog_widen(target, PEN_SCOPE_TABLE, "a trigger may change what is put in");
    }
    if (pen_pgresult_named(table, 0, "trigger") != NULL) {
        pen_catalog_widen(target, PEN_SCOPE_ALL, "a trigger fires that may read anything");
    }
    target->deferrable = is_true(pen_pgresult_named(table, 0, "deferrable"));
    target->cascades_from = is_true(pen_pgresult_named(table, 0, "cascades_from"));
    target->delete_acts = is_true(pen_pgresult_named(table, 0, "delete_acts"));
    target->cascades_to = is_true(pen_pgresult_named(table, 0, "cascades_to"));
    target->moves_from = is_true(pen_pgresult_named(table, 0, "moves_from"));
    target->moves_to = is_true(pen_pgresult_named(table, 0, "moves_to"));
    target->table_hash = pen_keyhash_table(to_oid(pen_pgresult_named(table, 0, "root")));
    target->group_hash = pen_keyhash_table(to_oid(pen_pgresult_named(table, 0, "group_oid")));
    read_cascades(target, pen_pgresult_named(table, 0, "cascades"));
}

/* All that is to be known of a table whose OID is. */
static bool read_rest(pen_pgconn *conn, pen_target *target, const char *firing,
                      const pen_format *format, pen_resolve_result *result, pen_error *err)
{
    enum { COLUMNS, UNIQUES, REFERENCES, QUERIES };
    char oid[16];
    snprintf(oid, sizeof(oid), "%u", target->oid);
    const char *const params[] = {oid, firing};
    const pen_pgquery queries[QUERIES] = {
        [COLUMNS] = {.sql = columns_sql, .value_count = 1, .values = params},
        [UNIQUES] = {.sql = pen_catalog_uniques_sql, .value_count = 1, .values = params},
        [REFERENCES] = {.sql = pen_catalog_references_sql, .value_count = 2, .values = params}};
    pen_pgresult *answers[QUERIES];
    *result = PEN_RESOLVE_FAILED;
    if (!pen_pgconn_exec_again(conn, "read the catalog", queries, QUERIES, answers, err)) {
        return false;
    }
    bool ok = read_columns(target, format, answers[COLUMNS], result, err);
    if (ok) {
        pen_catalog_read_uniques(target, answers[UNIQUES]);
        pen_catalog_read_references(target, answers[REFERENCES]);
    }
    for (int i = 0; i < QUERIES; i++) {
        pen_pgresult_clear(answers[i]);
    }
    return ok;
}

pen_resolve_result pen_catalog_resolve(pen_pgconn *conn, const pen_relation *rel, bool replica_role,
                                       const pen_format *format, pen_target **target,
                                       pen_error *err)
{
    pen_resolve_result result = PEN_RESOLVE_FAILED;
    pen_pgresult *table = NULL;
    pen_target *made = pen_calloc(1, sizeof(*made));
    const char *firing = replica_role ? "RA" : "OA";
    char *schema = NULL;
    char *name = NULL;
    made->rel = rel;
    made->fresh = true;
    made->columns = pen_calloc((size_t)rel->column_count + 1, sizeof(*made->columns));
    if (!pen_pgconn_quote_identifier(conn, (const char *)rel->schema.data, &schema, err) ||
        !pen_pgconn_quote_identifier(conn, (const char *)rel->table.data, &name, err) ||
        !read_table(conn, made, firing, &table, &result, err) ||
        !read_rest(conn, made, firing, format, &result, err)) {
        goto done;
    }
    size_t size = strlen(schema) + strlen(name) + 2;
    made->name = pen_malloc(size);
    snprintf(made->name, size, "%s.%s", schema, name);
    find_scope(made, table);
    *target = made;
    made = NULL;
    result = PEN_RESOLVED;
done:
    pen_pgresult_clear(table);
    free(schema);
    free(name);
    pen_target_destroy(made);
    return result;
}
