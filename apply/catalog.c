#include "apply/catalog.h"

#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Type OIDs of pg_type.dat that key extraction must know. */
enum {
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    FIRST_NORMAL_OID = 16384
};

/* $1 schema, $2 table, $3 the trigger states that fire in the workers' sessions ("OA" or "RA").
 * A FK is enforced here when its triggers fire. Tables tied by enforced FKs or by inheritance are
 * one group: a change in one can touch rows of another (cascades, routing). */
static const char *const table_sql =
    "WITH RECURSIVE t AS ("
    "  SELECT c.oid, c.relkind FROM pg_catalog.pg_class c"
    "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    "  WHERE n.nspname = $1 AND c.relname = $2),"
    " fk AS ("
    "  SELECT k.conrelid, k.confrelid, k.confdeltype FROM pg_catalog.pg_constraint k"
    "  WHERE k.contype = 'f'"
    "  AND EXISTS (SELECT 1 FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid"
    "              AND pg_catalog.strpos($3, g.tgenabled::text) > 0)),"
    " edge(a, b) AS ("
    "  SELECT conrelid, confrelid FROM fk UNION SELECT confrelid, conrelid FROM fk"
    "  UNION SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits"
    "  UNION SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits),"
    " tied(oid) AS (SELECT oid FROM t UNION SELECT edge.b FROM tied JOIN edge ON edge.a = "
    "tied.oid),"
    " tree(oid) AS (SELECT oid FROM t UNION"
    "  SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)"
    " SELECT t.oid, t.relkind, (SELECT pg_catalog.min(oid) FROM tied) AS group_oid,"
    "  EXISTS (SELECT 1 FROM fk, tree WHERE tree.oid IN (fk.conrelid, fk.confrelid)) AS has_fk,"
    "  EXISTS (SELECT 1 FROM pg_catalog.pg_constraint k, tree WHERE k.condeferrable"
    "   AND tree.oid IN (k.conrelid, k.confrelid)) AS deferrable,"
    "  EXISTS (SELECT 1 FROM fk, tree WHERE fk.confrelid = tree.oid AND fk.confdeltype = 'c')"
    "   AS cascades_from,"
    "  EXISTS (SELECT 1 FROM fk, tree WHERE fk.confrelid = tree.oid"
    "   AND fk.confdeltype IN ('c', 'n', 'd')) AS delete_acts,"
    "  EXISTS (SELECT 1 FROM fk, tree WHERE fk.conrelid = tree.oid AND fk.confdeltype = 'c')"
    "   AS cascades_to,"
    "  (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = t.oid"
    "   AND (i.indisunique OR i.indisexclusion)) AS unique_count,"
    "  (SELECT g.tgname FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid"
    "   WHERE g.tgrelid IN (SELECT oid FROM tree) AND NOT g.tgisinternal AND p.provolatile <> 'i'"
    "   AND pg_catalog.strpos($3, g.tgenabled::text) > 0 LIMIT 1) AS trigger,"
    "  (SELECT r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = t.oid AND r.ev_type <> "
    "'1'"
    "   AND pg_catalog.strpos($3, r.ev_enabled::text) > 0 LIMIT 1) AS rule,"
    "  (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
    "   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN tree ON tree.oid = c.oid"
    "   WHERE c.relkind = 'r' AND c.relpersistence <> 'p' LIMIT 1) AS unlogged,"
    "  (SELECT pg_catalog.string_agg(p, ', ') FROM pg_catalog.unnest("
    "    ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p"
    "   WHERE NOT pg_catalog.has_table_privilege(t.oid, p)) AS denied,"
    "  pg_catalog.format('%I.%I', $1::text, $2::text) AS quoted,"
    "  pg_catalog.quote_ident(current_user) AS this_user"
    " FROM t";

/* $1 table OID. */
static const char *const columns_sql =
    "SELECT a.attname, pg_catalog.quote_ident(a.attname) AS quoted, a.atttypid,"
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
    " (WITH RECURSIVE step(oid) AS (SELECT a.atttypid UNION ALL"
    "   SELECT t.typbasetype FROM step JOIN pg_catalog.pg_type t ON t.oid = step.oid"
    "   WHERE t.typtype = 'd')"
    "  SELECT t.oid FROM step JOIN pg_catalog.pg_type t ON t.oid = step.oid"
    "  WHERE t.typtype <> 'd') AS base_type,"
    " pg_catalog.format_type(a.atttypid, -1) AS type_name"
    " FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0"
    " AND NOT a.attisdropped";

/* $1 table OID. The unique indexes by which a row can be found, a row for each key column. */
static const char *const indexes_sql =
    "SELECT i.indexrelid, i.indisprimary, i.indimmediate, i.indnkeyatts, a.attname, a.atttypid,"
    " pg_catalog.format('OPERATOR(%I.%s)', n.nspname, op.oprname) AS equals,"
    " o.opcintype <> 'pg_catalog.interval'::pg_catalog.regtype AND EXISTS ("
    "  SELECT 1 FROM pg_catalog.pg_amproc p"
    "  LEFT JOIN pg_catalog.pg_collation c ON c.oid = k.coll"
    "  WHERE p.amprocfamily = o.opcfamily AND p.amprocnum = 4"
    "   AND p.amproclefttype = o.opcintype AND p.amprocrighttype = o.opcintype"
    "   AND (p.amproc::pg_catalog.oid = "
    "'pg_catalog.btequalimage'::pg_catalog.regproc::pg_catalog.oid"
    "        OR c.collisdeterministic)) AS bytes_equal"
    " FROM pg_catalog.pg_index i"
    " CROSS JOIN LATERAL unnest(i.indkey::pg_catalog.int2[], "
    "i.indclass::pg_catalog.oid[],"
    "  i.indcollation::pg_catalog.oid[]) WITH ORDINALITY AS k(attnum, opc, coll, n)"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum"
    " JOIN pg_catalog.pg_opclass o ON o.oid = k.opc"
    " JOIN pg_catalog.pg_amop ao ON ao.amopfamily = o.opcfamily AND ao.amopstrategy = 3"
    "  AND ao.amoplefttype = o.opcintype AND ao.amoprighttype = o.opcintype"
    /* A key WITHOUT OVERLAPS is of GiST, where strategy 3 need not be equality. */
    " LEFT JOIN pg_catalog.pg_constraint x ON x.conindid = i.indexrelid AND x.contype IN ('p', 'u')"
    " JOIN pg_catalog.pg_operator op ON op.oid = COALESCE(x.conexclop[k.n], ao.amopopr)"
    " JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace"
    " WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid"
    "  AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts"
    " ORDER BY i.indisprimary DESC, i.indexrelid, k.n";

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

static bool read_table(pen_pgconn *conn, pen_target *target, bool replica_role,
                       pen_pgresult **table, pen_resolve_result *result, pen_error *err)
{
    const pen_relation *rel = target->rel;
    const char *schema = (const char *)rel->schema.data;
    const char *name = (const char *)rel->table.data;
    const char *const params[] = {schema, name, replica_role ? "RA" : "OA"};
    *result = PEN_RESOLVE_FAILED;
    if (!pen_pgconn_exec(conn, "read the catalog", table_sql, 3, params, table, err)) {
        return false;
    }
    if (pen_pgresult_rows(*table) == 0) {
        *result = PEN_RESOLVE_MISSING;
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: the table %s.%s is missing; create it there as it is on the "
                             "source and start again, nothing is lost",
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

/* In a binary stream: what the column's values are told to the target as. A column that appeared or
 * changed since the format was decided may not allow it. */
static bool set_binary_type(pen_target *target, int column, const pen_format *format,
                            const pen_pgresult *res, int row, pen_error *err)
{
    const pen_relation *rel = target->rel;
    uint32_t base = to_oid(pen_pgresult_named(res, row, "base_type"));
    uint32_t type = pen_format_binary_type(format, rel->columns[column].type_oid, base);
    target->columns[column].binary_type = type;
    return type != 0 ||
           pen_error_set(
               err, PEN_ERROR_FATAL,
               "the stream comes in binary, and column \"%s\" of %s.%s, of type %s on the "
               "target, must come as text; start again with --format auto, which "
               "decides anew, or with --format text should it stop here again; nothing is lost",
               (const char *)rel->columns[column].name.data, (const char *)rel->schema.data,
               (const char *)rel->table.data, pen_pgresult_named(res, row, "type_name"));
}

static bool read_columns(pen_pgconn *conn, pen_target *target, uint32_t *types,
                         const pen_format *format, pen_resolve_result *result, pen_error *err)
{
    const pen_relation *rel = target->rel;
    char oid[16];
    snprintf(oid, sizeof(oid), "%u", target->oid);
    const char *const params[] = {oid};
    pen_text extra = {0};
    pen_pgresult *res = NULL;
    *result = PEN_RESOLVE_FAILED;
    if (!pen_pgconn_exec(conn, "read the catalog", columns_sql, 1, params, &res, err)) {
        return false;
    }
    bool ok = true;
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
        types[i] = to_oid(pen_pgresult_named(res, row, "atttypid"));
        ok = ok && (!format->binary || set_binary_type(target, i, format, res, row, err));
    }
    pen_pgresult_clear(res);
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

/* True when a value of the source's type, as text, compares by its bytes as the target's type does.
 */
static bool same_text(uint32_t source, uint32_t target)
{
    bool source_int = source == OID_INT2 || source == OID_INT4 || source == OID_INT8;
    bool target_int = target == OID_INT2 || target == OID_INT4 || target == OID_INT8;
    bool source_text = source == OID_TEXT || source == OID_VARCHAR || source == OID_BPCHAR;
    bool target_text = target == OID_TEXT || target == OID_VARCHAR || target == OID_BPCHAR;
    return (source == target && target < FIRST_NORMAL_OID) || (source_int && target_int) ||
           (source_text && target_text);
}

static void widen_scope(pen_target *target, pen_scope scope, const char *reason)
{
    if (scope > target->scope) {
        target->scope = scope;
        target->scope_reason = reason;
    }
}

static void mark_key(pen_target *target, int index, const char *equals)
{
    target->columns[index].is_key = true;
    target->columns[index].equals = pen_strdup(equals);
}

/* Tries the index whose columns begin at `row`: with `full` any whose columns are all published
 * will do, else it must have exactly the columns of the source's identity. */
static bool use_index(pen_target *target, const pen_pgresult *res, int row, int columns, bool full,
                      const uint32_t *types)
{
    const pen_relation *rel = target->rel;
    int identity = 0;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        identity += rel->columns[i].is_key;
    }
    if (!full && identity != columns) {
        return false;
    }
    for (int c = 0; c < columns; c++) {
        int i = find_column(rel, pen_pgresult_named(res, row + c, "attname"));
        if (i < 0 || (!full && !rel->columns[i].is_key) || target->columns[i].generated) {
            return false;
        }
    }
    for (int c = 0; c < columns; c++) {
        int i = find_column(rel, pen_pgresult_named(res, row + c, "attname"));
        mark_key(target, i, pen_pgresult_named(res, row + c, "equals"));
        if (!is_true(pen_pgresult_named(res, row + c, "bytes_equal")) ||
            !same_text(rel->columns[i].type_oid, types[i])) {
            widen_scope(target, PEN_SCOPE_TABLE, "equal keys need not have the same text");
        }
    }
    if (!is_true(pen_pgresult_named(res, row, "indimmediate"))) {
        widen_scope(target, PEN_SCOPE_TABLE, "its identity is deferrable");
    }
    return true;
}

static bool find_identity(pen_pgconn *conn, pen_target *target, const uint32_t *types,
                          pen_error *err)
{
    const pen_relation *rel = target->rel;
    bool full = rel->replica_identity == 'f';
    char oid[16];
    snprintf(oid, sizeof(oid), "%u", target->oid);
    const char *const params[] = {oid};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, "read the catalog", indexes_sql, 1, params, &res, err)) {
        return false;
    }
    bool found = false;
    for (int row = 0; row < pen_pgresult_rows(res) && !found;) {
        int columns = atoi(pen_pgresult_named(res, row, "indnkeyatts"));
        /* Under FULL only a primary key will do: a NULL in another unique index finds nothing. */
        found = (!full || is_true(pen_pgresult_named(res, row, "indisprimary"))) &&
                use_index(target, res, row, columns, full, types);
        row += columns;
    }
    pen_pgresult_clear(res);
    if (found) {
        return true;
    }
    widen_scope(target, PEN_SCOPE_TABLE, "it has no unique index on the source's identity");
    target->whole_row = full;
    for (uint16_t i = 0; i < rel->column_count && !full; i++) {
        if (rel->columns[i].is_key) {
            mark_key(target, i, "=");
        }
    }
    return true;
}

static void collect_key(pen_target *target, const uint32_t *types)
{
    const pen_relation *rel = target->rel;
    target->key = pen_calloc((size_t)rel->column_count + 1, sizeof(*target->key));
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (target->columns[i].is_key) {
            target->key[target->key_count++] = (pen_key_column){
                .index = i, .form = types[i] == OID_BPCHAR ? PEN_KEY_TRIM_BLANKS : PEN_KEY_BYTES};
        }
    }
}

static void find_scope(pen_target *target, const pen_pgresult *table)
{
    if (target->partitioned) {
        widen_scope(target, PEN_SCOPE_TABLE, "it is partitioned");
    }
    if (is_true(pen_pgresult_named(table, 0, "has_fk"))) {
        widen_scope(target, PEN_SCOPE_TABLE, "a foreign key is enforced");
    }
    if (atoi(pen_pgresult_named(table, 0, "unique_count")) > 1) {
        widen_scope(target, PEN_SCOPE_TABLE, "it has other unique indexes");
    }
    if (pen_pgresult_named(table, 0, "trigger") != NULL) {
        widen_scope(target, PEN_SCOPE_ALL, "a trigger fires that may read anything");
    }
    target->inserts_free = !target->partitioned && target->scope != PEN_SCOPE_ALL &&
                           !is_true(pen_pgresult_named(table, 0, "has_fk")) &&
                           atoi(pen_pgresult_named(table, 0, "unique_count")) == 0;
    target->deferrable = is_true(pen_pgresult_named(table, 0, "deferrable"));
    target->cascades_from = is_true(pen_pgresult_named(table, 0, "cascades_from"));
    target->delete_acts = is_true(pen_pgresult_named(table, 0, "delete_acts"));
    target->cascades_to = is_true(pen_pgresult_named(table, 0, "cascades_to"));
    target->row_seed = target->oid;
    target->group_hash = pen_keyhash_table(to_oid(pen_pgresult_named(table, 0, "group_oid")));
}

pen_resolve_result pen_catalog_resolve(pen_pgconn *conn, const pen_relation *rel, bool replica_role,
                                       const pen_format *format, pen_target **target,
                                       pen_error *err)
{
    pen_resolve_result result = PEN_RESOLVE_FAILED;
    pen_pgresult *table = NULL;
    pen_target *made = pen_calloc(1, sizeof(*made));
    uint32_t *types = pen_calloc((size_t)rel->column_count + 1, sizeof(*types));
    char *schema = NULL;
    char *name = NULL;
    made->rel = rel;
    made->fresh = true;
    made->columns = pen_calloc((size_t)rel->column_count + 1, sizeof(*made->columns));
    if (!pen_pgconn_quote_identifier(conn, (const char *)rel->schema.data, &schema, err) ||
        !pen_pgconn_quote_identifier(conn, (const char *)rel->table.data, &name, err) ||
        !read_table(conn, made, replica_role, &table, &result, err) ||
        !read_columns(conn, made, types, format, &result, err) ||
        !find_identity(conn, made, types, err)) {
        goto done;
    }
    size_t size = strlen(schema) + strlen(name) + 2;
    made->name = pen_malloc(size);
    snprintf(made->name, size, "%s.%s", schema, name);
    collect_key(made, types);
    find_scope(made, table);
    *target = made;
    made = NULL;
    result = PEN_RESOLVED;
done:
    pen_pgresult_clear(table);
    free(schema);
    free(name);
    free(types);
    pen_target_destroy(made);
    return result;
}
