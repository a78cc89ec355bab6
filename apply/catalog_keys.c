#include "apply/catalog_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Type OIDs of pg_type.dat that key extraction must know. */
enum {
    OID_INT8 = 20,
    OID_INT2 = 21,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_FLOAT4 = 700,
    OID_FLOAT8 = 701,
    OID_BPCHAR = 1042,
    OID_VARCHAR = 1043,
    OID_NUMERIC = 1700,
    FIRST_NORMAL_OID = 16384
};

/* Keys of one kind beyond which a table is treated as a whole: as many would be hashed for each
 * row. */
enum { MOST_KEYS = 32 };

/* A constraint's own index and those of its partitions are one by the name of the topmost. */
#define TOPMOST(oid) "COALESCE(pg_catalog.pg_partition_root(" oid ")::pg_catalog.oid, " oid ")"

/* The partitions below $1, with itself. */
#define DOWN                                                                                       \
    " down(oid) AS (SELECT $1::pg_catalog.oid"                                                     \
    "  UNION SELECT h.inhrelid FROM down JOIN pg_catalog.pg_inherits h ON h.inhparent = down.oid"  \
    "  JOIN pg_catalog.pg_class hc ON hc.oid = h.inhrelid AND hc.relispartition)"

/* Whether values that are equal to the index's column `a` (opclass o, collation k.coll, type t)
 * hash alike once they are normalised. The index compares by its own collation, an UPDATE's WHERE
 * by the column's. bpchar without a length is left out, and interval, of which older catalogs say
 * the wrong thing. numeric and float have no equalimage: what else is equal to a value of theirs is
 * known here. A type that is only binary-coercible to the opclass's own may print in another way,
 * but for three. */
#define HASHABLE                                                                                   \
    " (m.amname = 'btree'"                                                                         \
    "  AND (o.opcintype = a.atttypid OR (a.atttypid, o.opcintype) IN ((1043, 25), (650, 869))"     \
    "       OR (t.typtype = 'e' AND o.opcintype = 3500))"                                          \
    "  AND o.opcintype <> 1186 AND (a.atttypid <> 1042 OR a.atttypmod >= 0)"                       \
    "  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_collation c"                                    \
    "       WHERE c.oid IN (k.coll, a.attcollation) AND NOT c.collisdeterministic)"                \
    "  AND ((o.opcfamily < 16384 AND o.opcintype IN (700, 701, 1700))"                             \
    "       OR EXISTS (SELECT 1 FROM pg_catalog.pg_amproc p WHERE p.amprocfamily = o.opcfamily"    \
    "        AND p.amprocnum = 4 AND p.amproclefttype = o.opcintype"                               \
    "        AND p.amprocrighttype = o.opcintype AND p.amproc::pg_catalog.oid IN ("                \
    "         'pg_catalog.btequalimage'::pg_catalog.regproc::pg_catalog.oid,"                      \
    "         'pg_catalog.btvarstrequalimage'::pg_catalog.regproc::pg_catalog.oid))))"

#define KEY_COLUMNS                                                                                \
    " CROSS JOIN LATERAL unnest(i.indkey::pg_catalog.int2[],"                                      \
    "  i.indclass::pg_catalog.oid[], i.indcollation::pg_catalog.oid[])"                            \
    "  WITH ORDINALITY AS k(attnum, opc, coll, n)"                                                 \
    " JOIN pg_catalog.pg_opclass o ON o.oid = k.opc"                                               \
    " JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod"

/* $1 table OID. A row for each key column of each index that can refuse a row: the table's own and
 * its partitions'. One that is being built counts too. */
const char *const pen_catalog_uniques_sql = "WITH RECURSIVE" DOWN " SELECT i.indexrelid, " TOPMOST(
    "i.indexrelid") " AS topmost,"
                    " i.indnkeyatts, i.indimmediate, i.indrelid = $1::pg_catalog.oid AS own, "
                    "i.indisprimary,"
                    " i.indpred IS NOT NULL OR i.indexprs IS NOT NULL OR i.indisexclusion AS "
                    "is_special,"
                    " i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND "
                    "i.indpred IS NULL"
                    "  AND i.indexprs IS NULL AS finds_rows,"
                    /* since PostgreSQL 15 */
                    " COALESCE((pg_catalog.to_jsonb(i) ->> "
                    "'indnullsnotdistinct')::pg_catalog.bool, false)"
                    "  AS nulls_equal,"
                    " a.attname, COALESCE(" HASHABLE ", false) AS hashable,"
                    /* An exclusion constraint's type may have none. */
                    " CASE WHEN op.oid IS NOT NULL"
                    "  THEN pg_catalog.format('OPERATOR(%I.%s)', n.nspname, op.oprname) END AS "
                    "equals"
                    " FROM down JOIN pg_catalog.pg_index i ON i.indrelid = down.oid" KEY_COLUMNS
                    " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum "
                    "= k.attnum"
                    " LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
                    " LEFT JOIN pg_catalog.pg_amop ao ON ao.amopfamily = o.opcfamily AND "
                    "ao.amopstrategy = 3"
                    "  AND ao.amoplefttype = o.opcintype AND ao.amoprighttype = o.opcintype"
                    /* A key WITHOUT OVERLAPS is of GiST, where strategy 3 need not be equality. */
                    " LEFT JOIN pg_catalog.pg_constraint x ON x.conrelid = i.indrelid AND "
                    "x.conindid = i.indexrelid AND x.contype IN ('p', 'u')"
                    " LEFT JOIN pg_catalog.pg_operator op ON op.oid = COALESCE(x.conexclop[k.n], "
                    "ao.amopopr)"
                    " LEFT JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace"
                    " WHERE (i.indisunique OR i.indisexclusion) AND i.indislive AND k.n <= "
                    "i.indnkeyatts"
                    " ORDER BY i.indrelid = $1::pg_catalog.oid DESC, i.indisprimary DESC, "
                    "i.indexrelid, k.n";

/* $1 table OID, $2 trigger states. A row for each column of each enforced foreign key from or to
 * the table, its partitions or what it is a partition of, in the order of the referenced index.
 * Columns are told by name, because partitions number theirs as they like. Whether two columns hash
 * alike is decided by what both sides see: their types here. */
const char *const pen_catalog_references_sql =
    "WITH RECURSIVE" DOWN ","
    " up(oid) AS (SELECT $1::pg_catalog.oid"
    "  UNION SELECT h.inhparent FROM up JOIN pg_catalog.pg_class hc ON hc.oid = up.oid"
    "   AND hc.relispartition JOIN pg_catalog.pg_inherits h ON h.inhrelid = up.oid),"
    " kin(oid) AS (SELECT oid FROM down UNION SELECT oid FROM up)"
    " SELECT f.oid, i.indnkeyatts, f.conrelid IN (SELECT oid FROM kin) AS refers,"
    " f.confrelid IN (SELECT oid FROM kin) AS is_referenced, " TOPMOST(
        "f.conindid") " AS topmost,"
                      " " TOPMOST(
                          "f.confrelid") " AS referenced_table,"
                                         " child.attname AS child_column, a.attname AS "
                                         "parent_column,"
                                         " COALESCE(" HASHABLE ", false)"
                                         " AND (child.atttypid = a.atttypid"
                                         "  OR (child.atttypid IN (20, 21, 23) AND a.atttypid IN "
                                         "(20, 21, 23))"
                                         "  OR (child.atttypid IN (25, 1043) AND a.atttypid IN "
                                         "(25, 1043)))"
                                         " AND (child.atttypid <> 1042 OR child.atttypmod >= 0)"
                                         " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_collation c "
                                         "WHERE c.oid = child.attcollation"
                                         "      AND NOT c.collisdeterministic) AS hashable"
                                         " FROM (SELECT DISTINCT g.tgconstraint AS oid"
                                         "  FROM pg_catalog.pg_trigger g WHERE g.tgconstraint <> 0"
                                         "  AND pg_catalog.strpos($2, "
                                         "g.tgenabled::pg_catalog.text) > 0) fires"
                                         " JOIN pg_catalog.pg_constraint f ON f.oid = fires.oid"
                                         " JOIN pg_catalog.pg_index i ON i.indexrelid = "
                                         "f.conindid" KEY_COLUMNS
                                         " JOIN pg_catalog.pg_attribute a ON a.attrelid = "
                                         "i.indrelid AND a.attnum = k.attnum"
                                         " JOIN pg_catalog.pg_attribute child ON child.attrelid = "
                                         "f.conrelid"
                                         "  AND child.attnum = "
                                         "f.conkey[pg_catalog.array_position(f.confkey, k.attnum)]"
                                         " JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
                                         " WHERE f.contype = 'f' AND k.n <= i.indnkeyatts"
                                         "  AND (f.conrelid IN (SELECT oid FROM kin) OR "
                                         "f.confrelid IN (SELECT oid FROM kin))"
                                         " ORDER BY f.oid, k.n";

/* What a hash is of, besides the index that names it. */
typedef enum purpose { FOR_UNIQUE = 1, FOR_REFERENCE = 2 } purpose;

static uint64_t seed_of(uint32_t index, purpose what)
{
    return (uint64_t)what << 32 | index;
}

static bool is_true(const char *value)
{
    return value != NULL && value[0] == 't';
}

static uint32_t to_oid(const char *value)
{
    return value == NULL ? 0 : (uint32_t)strtoul(value, NULL, 10);
}

static bool is_int(uint32_t oid)
{
    return oid == OID_INT2 || oid == OID_INT4 || oid == OID_INT8;
}

/* Unequal values of the source could become equal, or equal ones be refused, by a modifier that
 * cuts or rounds: only none at all, or the source's own, does neither. */
static bool keeps_values(const pen_rel_column *source, uint32_t oid, int32_t modifier)
{
    if (modifier < 0 || (source->type_oid == oid && source->type_modifier == modifier)) {
        return true;
    }
    /* A longer varchar cuts no blanks off. */
    return oid == OID_VARCHAR &&
           (source->type_oid == OID_VARCHAR || source->type_oid == OID_BPCHAR) &&
           source->type_modifier >= 0 && source->type_modifier <= modifier;
}

bool pen_catalog_key_form(const pen_rel_column *source, uint32_t type_oid, int32_t type_modifier,
                          bool is_enum, pen_key_form *form)
{
    uint32_t from = source->type_oid;
    bool from_text = from == OID_TEXT || from == OID_VARCHAR || from == OID_BPCHAR;
    *form = PEN_KEY_BYTES;
    if (is_enum) {
        return true; /* whatever it was, here it is one of the labels, byte by byte */
    }
    if (is_int(type_oid)) {
        *form = PEN_KEY_INT;
        return is_int(from); /* out of range is an error */
    }
    if (type_oid == OID_BPCHAR) {
        *form = PEN_KEY_TRIM_BLANKS; /* and blanks are all that can be cut off without an error */
        return from_text;
    }
    if (type_oid == OID_TEXT || type_oid == OID_VARCHAR) {
        return from_text && keeps_values(source, type_oid, type_modifier);
    }
    if (type_oid == OID_NUMERIC) {
        *form = PEN_KEY_NUMERIC;
    } else if (type_oid == OID_FLOAT4 || type_oid == OID_FLOAT8) {
        *form = PEN_KEY_FLOAT;
    }
    return from == type_oid && type_oid < FIRST_NORMAL_OID &&
           keeps_values(source, type_oid, type_modifier);
}

void pen_catalog_widen(pen_target *target, pen_scope scope, const char *reason)
{
    if (scope > target->scope) {
        target->scope = scope;
        target->scope_reason = reason;
    }
}

/* Index of the stream's column of that name that the target takes as it comes, or -1. */
static int find_column(const pen_target *target, const char *name)
{
    const pen_relation *rel = target->rel;
    for (uint16_t i = 0; name != NULL && i < rel->column_count; i++) {
        if (pen_slice_equal(rel->columns[i].name, pen_slice_of(name))) {
            return target->columns[i].generated ? -1 : i;
        }
    }
    return -1;
}

/* Makes a key of the columns that `field` names in `count` rows of a result, one a row. False when
 * it is not hashable here; *key is then empty. */
static bool make_key(const pen_target *target, const pen_pgresult *res, int row, int count,
                     const char *field, uint64_t seed, pen_target_key *key)
{
    const pen_relation *rel = target->rel;
    *key = (pen_target_key){.in_identity = true};
    pen_key_column *columns = pen_calloc((size_t)count, sizeof(*columns));
    for (int c = 0; c < count; c++) {
        int i = find_column(target, pen_pgresult_named(res, row + c, field));
        if (i < 0 || !target->columns[i].hashable ||
            !is_true(pen_pgresult_named(res, row + c, "hashable"))) {
            free(columns);
            *key = (pen_target_key){0};
            return false;
        }
        columns[c] = (pen_key_column){.index = (uint16_t)i, .form = target->columns[i].form};
        key->in_identity &= rel->columns[i].is_key;
    }
    key->spec = (pen_key_spec){.seed = seed, .columns = columns, .column_count = (uint16_t)count};
    return true;
}

static bool has_seed(const pen_target_key *keys, uint16_t count, uint64_t seed)
{
    for (uint16_t i = 0; i < count; i++) {
        if (keys[i].spec.seed == seed) {
            return true;
        }
    }
    return false;
}

/* False when one more in an array of MOST_KEYS is too many. */
static bool has_room(pen_target *target, uint16_t count)
{
    if (count < MOST_KEYS) {
        return true;
    }
    pen_catalog_widen(target, PEN_SCOPE_TABLE, "it has too many unique indexes");
    return false;
}

/* ---- unique indexes */

/* Tries the index whose columns begin at `row` as what finds the rows: with `full` any whose
 * columns are all published will do, else it must have exactly the columns of the source's
 * identity. Under FULL a primary key that is deferrable does not: within a statement of the source
 * two rows may have the same. It leads to the row nevertheless, among all other columns. */
static bool find_rows_by(pen_target *target, const pen_pgresult *res, int row, int count, bool full)
{
    const pen_relation *rel = target->rel;
    int identity = 0;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        identity += rel->columns[i].is_key;
    }
    if (!is_true(pen_pgresult_named(res, row, "finds_rows")) || (!full && identity != count) ||
        /* Under FULL only a primary key will do: a NULL in another unique index finds nothing. */
        (full && !is_true(pen_pgresult_named(res, row, "indisprimary")))) {
        return false;
    }
    bool alone = !full || is_true(pen_pgresult_named(res, row, "indimmediate"));
    for (int c = 0; c < count; c++) {
        int i = find_column(target, pen_pgresult_named(res, row + c, "attname"));
        if (i < 0 || (!full && !rel->columns[i].is_key) ||
            pen_pgresult_named(res, row + c, "equals") == NULL) {
            return false;
        }
    }
    for (int c = 0; c < count; c++) {
        int i = find_column(target, pen_pgresult_named(res, row + c, "attname"));
        target->columns[i].is_key = alone;
        target->columns[i].equals = pen_strdup(pen_pgresult_named(res, row + c, "equals"));
    }
    return alone;
}

static void add_unique(pen_target *target, const pen_pgresult *res, int row, int count,
                       bool is_identity)
{
    uint64_t seed = seed_of(to_oid(pen_pgresult_named(res, row, "topmost")), FOR_UNIQUE);
    pen_target_key key;
    if (!is_true(pen_pgresult_named(res, row, "indimmediate"))) {
        pen_catalog_widen(target, PEN_SCOPE_TABLE, "a unique key of it is deferrable");
        return;
    }
    if (is_true(pen_pgresult_named(res, row, "is_special"))) {
        pen_catalog_widen(target, PEN_SCOPE_TABLE,
                          "it has a partial unique index, one on an expression or an exclusion "
                          "constraint");
        return;
    }
    if (!make_key(target, res, row, count, "attname", seed, &key)) {
        pen_catalog_widen(target, PEN_SCOPE_TABLE,
                          "equal values of a unique key need not have the same text");
        return;
    }
    /* A leaf's index whose root was seen already, or too many. */
    if (has_seed(target->uniques, target->unique_count, seed) ||
        !has_room(target, target->unique_count)) {
        free((pen_key_column *)(uintptr_t)key.spec.columns);
        return;
    }
    key.spec.nulls_equal = is_true(pen_pgresult_named(res, row, "nulls_equal"));
    key.is_identity = is_identity;
    target->uniques[target->unique_count++] = key;
}

/* The columns of the identity, for the statements. */
static void collect_identity(pen_target *target)
{
    const pen_relation *rel = target->rel;
    target->key = pen_calloc((size_t)rel->column_count + 1, sizeof(*target->key));
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (target->columns[i].is_key) {
            target->key[target->key_count++] =
                (pen_key_column){.index = i, .form = target->columns[i].form};
        }
        target->remakes_rows |= target->columns[i].identity_always && !target->columns[i].is_key;
    }
}

void pen_catalog_read_uniques(pen_target *target, const pen_pgresult *res)
{
    const pen_relation *rel = target->rel;
    bool full = rel->replica_identity == 'f';
    bool found = false;
    target->uniques = pen_calloc(MOST_KEYS, sizeof(*target->uniques));
    for (int row = 0; row < pen_pgresult_rows(res);) {
        int count = atoi(pen_pgresult_named(res, row, "indnkeyatts"));
        bool is_identity = !found && find_rows_by(target, res, row, count, full);
        found |= is_identity;
        add_unique(target, res, row, count, is_identity);
        row += count;
    }
    if (!found) {
        pen_catalog_widen(target, PEN_SCOPE_APPEND,
                          "it has no unique index on the source's identity");
        target->whole_row = full;
        for (uint16_t i = 0; i < rel->column_count && !full; i++) {
            if (rel->columns[i].is_key) {
                target->columns[i].is_key = true;
                target->columns[i].equals = pen_strdup("=");
            }
        }
    }
    collect_identity(target);
}

/* ---- foreign keys */

/* True for one foreign key as it stands for several partitions of the referenced table. */
static bool same_reference(const pen_target_reference *a, const pen_target_reference *b)
{
    const pen_key_spec *left = &a->key.spec;
    const pen_key_spec *right = &b->key.spec;
    if (a->table_hash != b->table_hash || a->whole_table != b->whole_table ||
        left->seed != right->seed || left->column_count != right->column_count) {
        return false;
    }
    for (uint16_t i = 0; i < left->column_count; i++) {
        if (left->columns[i].index != right->columns[i].index) {
            return false;
        }
    }
    return true;
}

/* The table is the child. */
static void add_reference(pen_target *target, const pen_pgresult *res, int row, int count,
                          bool hashable)
{
    uint64_t seed = seed_of(to_oid(pen_pgresult_named(res, row, "topmost")), FOR_REFERENCE);
    pen_target_reference ref = {0};
    ref.table_hash = pen_keyhash_table(to_oid(pen_pgresult_named(res, row, "referenced_table")));
    /* When only this side cannot hash it, the other does not know. */
    ref.whole_table =
        hashable && !make_key(target, res, row, count, "child_column", seed, &ref.key);
    for (uint16_t i = 0; i < target->reference_count; i++) {
        if (same_reference(&target->references[i], &ref)) {
            free((pen_key_column *)(uintptr_t)ref.key.spec.columns);
            return;
        }
    }
    target->references[target->reference_count++] = ref;
}

/* The table is the parent. */
static void add_referenced(pen_target *target, const pen_pgresult *res, int row, int count,
                           bool hashable)
{
    uint64_t seed = seed_of(to_oid(pen_pgresult_named(res, row, "topmost")), FOR_REFERENCE);
    pen_target_key key;
    if (!hashable || !make_key(target, res, row, count, "parent_column", seed, &key)) {
        pen_catalog_widen(target, PEN_SCOPE_TABLE,
                          "a foreign key to it compares values that need not have the same text");
        return;
    }
    if (has_seed(target->referenced, target->referenced_count, seed) ||
        !has_room(target, target->referenced_count)) {
        free((pen_key_column *)(uintptr_t)key.spec.columns);
        return;
    }
    target->referenced[target->referenced_count++] = key;
}

void pen_catalog_read_references(pen_target *target, const pen_pgresult *res)
{
    target->references =
        pen_calloc((size_t)pen_pgresult_rows(res) + 1, sizeof(*target->references));
    target->referenced = pen_calloc(MOST_KEYS, sizeof(*target->referenced));
    for (int row = 0; row < pen_pgresult_rows(res);) {
        int count = atoi(pen_pgresult_named(res, row, "indnkeyatts"));
        bool hashable = true;
        for (int c = 0; c < count; c++) {
            hashable &= is_true(pen_pgresult_named(res, row + c, "hashable"));
        }
        if (is_true(pen_pgresult_named(res, row, "refers"))) {
            add_reference(target, res, row, count, hashable);
        }
        if (is_true(pen_pgresult_named(res, row, "is_referenced"))) {
            add_referenced(target, res, row, count, hashable);
        }
        row += count;
    }
}
