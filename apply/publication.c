#include "apply/publication.h"

#include "core/log.h"
#include "core/pattern.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

/* One word for a boolean or a name that a query of one row and one column gives; NULL for no row.
 * The result is given in *result and must be cleared. */
static bool query_one(pen_pgconn *source, const char *what, const char *sql, int count,
                      const char *const *values, pen_pgresult **result, const char **word,
                      pen_error *err)
{
    if (!pen_pgconn_exec(source, what, sql, count, values, result, err)) {
        return false;
    }
    *word = pen_pgresult_rows(*result) == 0 ? NULL : pen_pgresult_value(*result, 0, 0);
    return true;
}

bool pen_publication_exists(pen_pgconn *source, const char *publication, bool *exists,
                            pen_error *err)
{
    const char *const values[] = {publication};
    pen_pgresult *res = NULL;
    const char *word = NULL;
    if (!query_one(source, "look for the publication",
                   "SELECT true FROM pg_catalog.pg_publication WHERE pubname = $1", 1, values, &res,
                   &word, err)) {
        return false;
    }
    *exists = word != NULL;
    pen_pgresult_clear(res);
    return true;
}

/* Appends the condition that one pattern stands for. */
static bool add_pattern(pen_pgconn *source, pen_text *sql, const char *pattern, bool is_schema,
                        pen_error *err)
{
    char *schema = NULL;
    char *name = NULL;
    char *schema_literal = NULL;
    char *name_literal = NULL;
    bool ok =
        pen_pattern_parse(pattern, &schema, &name, err) &&
        (schema == NULL || !is_schema ||
         pen_error_set(err, PEN_ERROR_CONFIG, "\"%s\" is not the pattern of a schema", pattern)) &&
        (schema == NULL || pen_pgconn_quote_literal(source, schema, &schema_literal, err)) &&
        pen_pgconn_quote_literal(source, name, &name_literal, err);
    if (ok) {
        pen_text_appendf(sql, "(%s::pg_catalog.text OPERATOR(pg_catalog.~) %s",
                         is_schema ? "n.nspname" : "c.relname", name_literal);
        if (schema_literal != NULL) {
            pen_text_appendf(sql, " AND n.nspname::pg_catalog.text OPERATOR(pg_catalog.~) %s",
                             schema_literal);
        }
        pen_text_append(sql, ")");
    }
    free(schema);
    free(name);
    free(schema_literal);
    free(name_literal);
    return ok;
}

static bool add_patterns(pen_pgconn *source, pen_text *sql, const char *joint,
                         const pen_option_list *patterns, bool is_schema, const char **prefix,
                         pen_error *err)
{
    for (size_t i = 0; i < patterns->count; i++) {
        pen_text_append(sql, *prefix);
        *prefix = joint;
        if (!add_pattern(source, sql, patterns->items[i], is_schema, err)) {
            return false;
        }
    }
    return true;
}

static const char *const candidates_sql =
    "SELECT c.oid, c.relkind, n.nspname, c.relname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND c.relpersistence IN ('p', 'u') AND NOT c.relispartition"
    " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'penstock')"
    " AND n.nspname !~ '^pg_(toast|temp)'"
    " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'"
    "  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid)";

/* Appends the query of the tables of that persistence ("'p'", or several) that the filters choose:
 * those that some --table or --schema names (all, when none is given), less those that some
 * --exclude names. Partitions come with their root. */
static bool add_chosen(pen_pgconn *source, const pen_options *options, const char *persistence,
                       pen_text *sql, pen_error *err)
{
    const char *prefix = " AND (";
    pen_text_append(sql, candidates_sql);
    if (!add_patterns(source, sql, " OR ", &options->table, false, &prefix, err) ||
        !add_patterns(source, sql, " OR ", &options->schema, true, &prefix, err)) {
        return false;
    }
    pen_text_append(sql, prefix[1] == 'O' ? ")" : "");
    prefix = " AND NOT (";
    if (!add_patterns(source, sql, " OR ", &options->exclude_table, false, &prefix, err) ||
        !add_patterns(source, sql, " OR ", &options->exclude_schema, true, &prefix, err)) {
        return false;
    }
    pen_text_append(sql, prefix[1] == 'O' ? ")" : "");
    pen_text_appendf(sql, " AND c.relpersistence IN (%s)", persistence);
    return true;
}

/* A pattern that matches nothing is a typing error, and would leave a table behind. */
static bool check_pattern_matches(pen_pgconn *source, const char *pattern, bool is_schema,
                                  pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    const char *word = NULL;
    pen_text_append(&sql, candidates_sql);
    pen_text_append(&sql, " AND ");
    bool ok = add_pattern(source, &sql, pattern, is_schema, err);
    char *query = pen_text_take(&sql);
    ok = ok && query_one(source, "look for tables", query, 0, NULL, &res, &word, err);
    if (ok && word == NULL) {
        ok = pen_error_set(err, PEN_ERROR_CONFIG,
                           "--%s \"%s\" matches no table of the source; partitions are chosen by "
                           "their partitioned table",
                           is_schema ? "schema" : "table", pattern);
    }
    pen_pgresult_clear(res);
    free(query);
    return ok;
}

static bool check_patterns_match(pen_pgconn *source, const pen_options *options, pen_error *err)
{
    for (size_t i = 0; i < options->table.count; i++) {
        if (!check_pattern_matches(source, options->table.items[i], false, err)) {
            return false;
        }
    }
    for (size_t i = 0; i < options->schema.count; i++) {
        if (!check_pattern_matches(source, options->schema.items[i], true, err)) {
            return false;
        }
    }
    return true;
}

/* $0 is the chosen query. The ordinary tables among them and among their partitions that an UPDATE
 * or DELETE could not be replicated for. */
#define NO_IDENTITY_FORMAT                                                                         \
    "WITH chosen AS (%s), leaf AS ("                                                               \
    " SELECT oid FROM chosen WHERE relkind = 'r' UNION"                                            \
    " SELECT p.relid FROM chosen, pg_catalog.pg_partition_tree(chosen.oid) p"                      \
    "  WHERE chosen.relkind = 'p' AND p.isleaf)"                                                   \
    " SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), pg_catalog.count(*) OVER ()"      \
    " FROM leaf JOIN pg_catalog.pg_class c USING (oid)"                                            \
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"                                    \
    " WHERE c.relkind = 'r' AND (c.relreplident = 'n'"                                             \
    "  OR (c.relreplident = 'd' AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index i"               \
    "      WHERE i.indrelid = c.oid AND i.indisprimary))"                                          \
    "  OR (c.relreplident = 'i' AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index i"               \
    "      WHERE i.indrelid = c.oid AND i.indisreplident)))"                                       \
    " ORDER BY 1 LIMIT 1"

static bool check_identities(pen_pgconn *source, const char *chosen, pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    const char *table = NULL;
    pen_text_appendf(&sql, NO_IDENTITY_FORMAT, chosen);
    char *query = pen_text_take(&sql);
    bool ok = query_one(source, "check replica identities", query, 0, NULL, &res, &table, err);
    if (ok && table != NULL) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: %s tables have no replica identity, %s first, so their updates and "
            "deletes cannot be replicated (publishing them would make these fail on the "
            "source). Run there: ALTER TABLE %s REPLICA IDENTITY FULL; or give it a "
            "primary key, or leave it out by --exclude-table; nothing was changed",
            pen_pgresult_value(res, 0, 1), table, table);
    }
    pen_pgresult_clear(res);
    free(query);
    return ok;
}

/* Tables whose replica identity has a generated column, the worst one first, and how it is
 * generated. From PostgreSQL 18 on their updates and deletes fail on the source unless the column
 * is published, which a virtual one never is. Before, none is, and a row could only be found by all
 * of its other values. */
#define GENERATED_IDENTITY_FORMAT                                                                  \
    "WITH chosen AS (%s), leaf AS ("                                                               \
    " SELECT oid FROM chosen WHERE relkind = 'r' UNION"                                            \
    " SELECT p.relid FROM chosen, pg_catalog.pg_partition_tree(chosen.oid) p"                      \
    "  WHERE chosen.relkind = 'p' AND p.isleaf)"                                                   \
    " SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname), a.attgenerated"                   \
    " FROM leaf JOIN pg_catalog.pg_class c USING (oid)"                                            \
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"                                    \
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attgenerated <> ''"               \
    "  AND NOT a.attisdropped"                                                                     \
    " WHERE (c.relreplident = 'f' AND %s) OR EXISTS (SELECT 1 FROM pg_catalog.pg_index i"          \
    "  WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)"                                     \
    "  AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary END)"   \
    " ORDER BY a.attgenerated = 'v' DESC, 1 LIMIT 1"

/* *must_publish: the publication must carry generated columns. */
static bool check_generated(pen_pgconn *source, const char *chosen, bool *must_publish,
                            pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    const char *table = NULL;
    bool can_publish = pen_pgconn_server_version(source) >= 180000;
    pen_text_appendf(&sql, GENERATED_IDENTITY_FORMAT, chosen, can_publish ? "true" : "false");
    char *query = pen_text_take(&sql);
    bool ok = query_one(source, "look for generated columns in replica identities", query, 0, NULL,
                        &res, &table, err);
    *must_publish = ok && table != NULL;
    if (ok && table != NULL && !can_publish) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the replica identity of %s has a generated column, which PostgreSQL publishes "
            "only from version 18 on, so its updates and deletes cannot be replicated. Run there: "
            "ALTER TABLE %s REPLICA IDENTITY FULL; or leave it out by --exclude-table; nothing was "
            "changed",
            table, table);
    } else if (ok && table != NULL && pen_pgresult_value(res, 0, 1)[0] == 'v') {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: %s has REPLICA IDENTITY FULL and a virtual generated column, which PostgreSQL "
            "does not publish, so publishing the table would make its updates and deletes fail on "
            "the source. Give it a primary key and run there: ALTER TABLE %s REPLICA IDENTITY "
            "DEFAULT; or leave it out by --exclude-table; nothing was changed",
            table, table);
    }
    pen_pgresult_clear(res);
    free(query);
    return ok;
}

/* ONLY, because those that inherit from a table are chosen for themselves. Partitions always come
 * with their root. */
static bool create_for(pen_pgconn *source, const char *publication, const char *chosen,
                       bool publish_generated, pen_error *err)
{
    pen_text sql = {0};
    pen_pgresult *res = NULL;
    const char *tables = NULL;
    char *name = NULL;
    pen_text_appendf(
        &sql,
        "SELECT pg_catalog.string_agg(pg_catalog.format('ONLY %%I.%%I', nspname, relname), ', '"
        " ORDER BY nspname, relname) FROM (%s) chosen",
        chosen);
    char *query = pen_text_take(&sql);
    char *create = NULL;
    bool ok = query_one(source, "list the tables", query, 0, NULL, &res, &tables, err) &&
              pen_pgconn_quote_identifier(source, publication, &name, err);
    if (ok && tables == NULL) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: there is no table to replicate; check the database in --source and "
            "the filters");
    }
    if (ok) {
        pen_text_appendf(&sql, "CREATE PUBLICATION %s FOR TABLE %s%s", name, tables,
                         publish_generated ? " WITH (publish_generated_columns = stored)" : "");
        create = pen_text_take(&sql);
        ok = pen_pgconn_exec(source, "create the publication", create, 0, NULL, NULL, err);
        if (!ok && strcmp(err->sqlstate, "42501") == 0) {
            pen_error_set(
                err, PEN_ERROR_FATAL,
                "source: this user may not create the publication: it must own every table "
                "in it and have CREATE on the database; have the owner run: %.900s",
                create);
        }
    }
    pen_pgresult_clear(res);
    free(query);
    free(create);
    free(name);
    return ok;
}

bool pen_publication_create(pen_pgconn *source, const pen_options *options, pen_error *err)
{
    pen_text sql = {0};
    bool ok =
        check_patterns_match(source, options, err) && add_chosen(source, options, "'p'", &sql, err);
    char *chosen = pen_text_take(&sql);
    bool publish_generated = false;
    ok = ok && check_identities(source, chosen, err) &&
         check_generated(source, chosen, &publish_generated, err) &&
         create_for(source, options->publication, chosen, publish_generated, err);
    free(chosen);
    return ok;
}

/* $0 the chosen query, and the one of all that could be chosen. */
#define LIST_FORMAT                                                                                \
    "WITH chosen AS (%s), candidate AS (%s), tree(oid) AS ("                                       \
    " SELECT oid FROM chosen UNION SELECT p.relid::pg_catalog.oid FROM chosen,"                    \
    "  pg_catalog.pg_partition_tree(chosen.oid) p WHERE chosen.relkind = 'p'),"                    \
    " whole(oid) AS ("                                                                             \
    " SELECT oid FROM candidate UNION SELECT p.relid::pg_catalog.oid FROM candidate,"              \
    "  pg_catalog.pg_partition_tree(candidate.oid) p WHERE candidate.relkind = 'p')"               \
    " SELECT oid FROM %s ORDER BY oid"

bool pen_publication_list(pen_pgconn *source, const pen_options *options, pen_table_list which,
                          uint32_t **oids, size_t *count, pen_error *err)
{
    pen_text text = {0};
    pen_pgresult *res = NULL;
    const char *persistence = which == PEN_TABLES_UNLOGGED ? "'u'" : "'p', 'u'";
    bool ok = add_chosen(source, options, persistence, &text, err);
    char *chosen = pen_text_take(&text);
    pen_text_appendf(&text, LIST_FORMAT, chosen, candidates_sql,
                     which == PEN_TABLES_LEFT_OUT
                         ? "(SELECT oid FROM whole EXCEPT SELECT oid FROM tree) o"
                         : "tree");
    char *query = pen_text_take(&text);
    ok = ok && pen_pgconn_exec(source, "list the tables", query, 0, NULL, &res, err);
    if (ok) {
        *count = (size_t)pen_pgresult_rows(res);
        *oids = pen_calloc(*count + 1, sizeof(**oids));
        for (size_t i = 0; i < *count; i++) {
            (*oids)[i] = (uint32_t)strtoul(pen_pgresult_value(res, (int)i, 0), NULL, 10);
        }
    }
    pen_pgresult_clear(res);
    free(chosen);
    free(query);
    return ok;
}

/* Chosen and published tables that do not match: a row each, the first ones. Published ones are
 * counted as pg_publication_tables does: by root under publish_via_partition_root, by leaf else. */
#define DIFFERENCE_FORMAT                                                                          \
    "WITH chosen AS (%s), wanted(s, t) AS ("                                                       \
    " SELECT nspname, relname FROM chosen, pg_catalog.pg_publication p WHERE p.pubname = $1"       \
    "  AND (relkind = 'r' OR p.pubviaroot) UNION"                                                  \
    " SELECT n.nspname, c.relname FROM pg_catalog.pg_publication p, chosen,"                       \
    "  pg_catalog.pg_partition_tree(chosen.oid) l"                                                 \
    "  JOIN pg_catalog.pg_class c ON c.oid = l.relid"                                              \
    "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"                                   \
    "  WHERE p.pubname = $1 AND chosen.relkind = 'p' AND NOT p.pubviaroot AND l.isleaf),"          \
    " given(s, t) AS (SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables"          \
    "  WHERE pubname = $1)"                                                                        \
    " SELECT pg_catalog.format('%%I.%%I', s, t), 'missing' AS what FROM"                           \
    "  (SELECT * FROM wanted EXCEPT SELECT * FROM given) m"                                        \
    " UNION ALL SELECT pg_catalog.format('%%I.%%I', s, t), 'extra' FROM"                           \
    "  (SELECT * FROM given EXCEPT SELECT * FROM wanted) e ORDER BY 2 DESC, 1"

/* Publishes it every kind of change? A warning when not: it may be meant. */
static bool warn_of_kinds(pen_pgconn *source, const char *publication, pen_error *err)
{
    const char *const values[] = {publication};
    pen_pgresult *res = NULL;
    const char *all = NULL;
    if (!query_one(source, "read the publication",
                   "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate"
                   " FROM pg_catalog.pg_publication WHERE pubname = $1",
                   1, values, &res, &all, err)) {
        return false;
    }
    if (all != NULL && all[0] == 'f') {
        pen_log(PEN_LOG_WARN,
                "publication \"%s\" does not publish every kind of change (see its \"publish\" "
                "option); what it leaves out is not replicated",
                publication);
    }
    pen_pgresult_clear(res);
    return true;
}

/* The stream does not tell of a partition that is emptied by its own name when it goes by the
 * root's: CREATE PUBLICATION in PostgreSQL's documentation. Some do that instead of a DELETE. */
static bool warn_of_roots(pen_pgconn *source, const char *publication, pen_error *err)
{
    const char *const values[] = {publication};
    pen_pgresult *res = NULL;
    const char *root = NULL;
    if (!query_one(source, "look for partitioned tables in the publication",
                   "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)"
                   " FROM pg_catalog.pg_publication p"
                   " JOIN pg_catalog.pg_publication_tables t USING (pubname)"
                   " JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname"
                   " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid"
                   "  AND c.relname = t.tablename"
                   " WHERE p.pubname = $1 AND p.pubviaroot AND p.pubtruncate AND c.relkind = 'p'"
                   " ORDER BY 1 LIMIT 1",
                   1, values, &res, &root, err)) {
        return false;
    }
    if (root != NULL) {
        pen_log(
            PEN_LOG_WARN,
            "publication \"%s\" publishes partitions by the name of their root, %s for one, and "
            "then no TRUNCATE of a single partition: what is emptied so on the source stays on "
            "the target. ALTER PUBLICATION … SET (publish_via_partition_root = false), or "
            "TRUNCATE it there too",
            publication, root);
    }
    pen_pgresult_clear(res);
    return true;
}

static bool judge_differences(const pen_options *options, const pen_pgresult *res, pen_error *err)
{
    bool filtered = options->table.count + options->schema.count + options->exclude_table.count +
                        options->exclude_schema.count >
                    0;
    int rows = pen_pgresult_rows(res);
    if (filtered && rows > 0) {
        bool extra = strcmp(pen_pgresult_value(res, 0, 1), "extra") == 0;
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "publication \"%s\" is there already and %s %s, which the filters %s; "
                             "change the filters, or run ALTER PUBLICATION on the source%s",
                             options->publication, extra ? "publishes" : "does not publish",
                             pen_pgresult_value(res, 0, 0), extra ? "leave out" : "choose",
                             extra ? "" : ", which brings none of the rows that are there already");
    }
    int missing = 0;
    while (missing < rows && strcmp(pen_pgresult_value(res, missing, 1), "missing") == 0) {
        missing++;
    }
    if (missing > 0) {
        pen_log(PEN_LOG_WARN,
                "publication \"%s\" leaves out %d tables of the source, %s first; they are not "
                "replicated",
                options->publication, missing, pen_pgresult_value(res, 0, 0));
    }
    return true;
}

bool pen_publication_check(pen_pgconn *source, const pen_options *options, pen_error *err)
{
    const char *const values[] = {options->publication};
    pen_text sql = {0};
    pen_text difference = {0};
    pen_pgresult *res = NULL;
    bool ok = add_chosen(source, options, "'p'", &sql, err);
    char *chosen = pen_text_take(&sql);
    pen_text_appendf(&difference, DIFFERENCE_FORMAT, chosen);
    char *query = pen_text_take(&difference);
    ok = ok && warn_of_kinds(source, options->publication, err) &&
         warn_of_roots(source, options->publication, err) &&
         pen_pgconn_exec(source, "compare the publication with the tables", query, 1, values, &res,
                         err) &&
         judge_differences(options, res, err);
    pen_pgresult_clear(res);
    free(chosen);
    free(query);
    return ok;
}
