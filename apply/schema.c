#include "apply/schema.h"

#include "apply/check_roles.h"
#include "apply/publication.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Objects made in one transaction: each holds locks, of which a server has some thousands. */
#define MADE_AT_ONCE 200
/* Bytes of items that are sent in one piece. */
#define PIECE_BYTES (256 * 1024)

/* Recording */

typedef struct index_size {
    uint32_t oid; /* of the index, or of its constraint */
    uint64_t bytes;
} index_size;

static int compare_sizes(const void *a, const void *b)
{
    uint32_t x = ((const index_size *)a)->oid;
    uint32_t y = ((const index_size *)b)->oid;
    return x < y ? -1 : x > y;
}

static bool read_index_sizes(pen_pgconn *source, index_size **sizes, size_t *count, pen_error *err)
{
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(source, "read the sizes of indexes",
                         "SELECT i.indexrelid, pg_catalog.pg_relation_size(i.indexrelid), k.oid"
                         " FROM pg_catalog.pg_index i LEFT JOIN pg_catalog.pg_constraint k"
                         " ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')"
                         " WHERE i.indrelid >= 16384",
                         0, NULL, &res, err)) {
        return false;
    }
    int rows = pen_pgresult_rows(res);
    *sizes = pen_calloc((size_t)rows + 1, sizeof(**sizes));
    for (int row = 0; row < rows; row++) {
        const char *constraint = pen_pgresult_value(res, row, 2);
        const char *bytes = pen_pgresult_value(res, row, 1);
        const char *oid = constraint != NULL ? constraint : pen_pgresult_value(res, row, 0);
        (*sizes)[row].oid = (uint32_t)strtoul(oid, NULL, 10);
        (*sizes)[row].bytes = bytes == NULL ? 0 : strtoull(bytes, NULL, 10);
    }
    *count = (size_t)rows;
    qsort(*sizes, *count, sizeof(**sizes), compare_sizes);
    pen_pgresult_clear(res);
    return true;
}

static uint64_t size_of(const index_size *sizes, size_t count, uint32_t oid)
{
    const index_size key = {.oid = oid};
    const index_size *found =
        oid == 0 ? NULL : bsearch(&key, sizes, count, sizeof(*sizes), compare_sizes);
    return found == NULL ? 0 : found->bytes;
}

/* Appends one column of COPY's text form. */
static void add_column(pen_text *row, const char *value, const char *behind)
{
    while (*value != '\0') {
        size_t plain = strcspn(value, "\\\n\r\t");
        pen_text_appendf(row, "%.*s", (int)plain, value);
        value += plain;
        if (*value != '\0') {
            const char *escaped = *value == '\\'   ? "\\\\"
                                  : *value == '\n' ? "\\n"
                                  : *value == '\r' ? "\\r"
                                                   : "\\t";
            pen_text_append(row, escaped);
            value++;
        }
    }
    pen_text_append(row, behind);
}

static void add_item(pen_text *rows, const char *name, size_t n, const pen_dump_entry *entry,
                     uint64_t bytes)
{
    pen_text_appendf(rows, "%s\t%zu\t%d\t", name, n, entry->step);
    add_column(rows, entry->kind, "\t");
    add_column(rows, entry->label, "\t");
    pen_text_appendf(rows, "%" PRIu64 "\t", bytes);
    add_column(rows, entry->sql, "\n");
}

/* Sends what has gathered. */
static bool send_piece(pen_pgconn *target, pen_text *rows, pen_error *err)
{
    bool ok = pen_pgconn_copy_put(target, (const uint8_t *)rows->data, rows->len, err);
    pen_text_deinit(rows);
    return ok;
}

static bool send_items(pen_migration *migration, const pen_dump *dump, const index_size *sizes,
                       size_t size_count, pen_error *err)
{
    pen_pgconn *target = migration->target;
    const char *name = migration->options->name;
    int64_t count = 0;
    pen_text rows = {0};
    bool ok = pen_pgconn_exec(target, "record the schema",
                              "COPY penstock.schema_item (name, n, step, kind, object, bytes, sql)"
                              " FROM STDIN",
                              0, NULL, NULL, err);
    if (!ok) {
        return false;
    }
    for (size_t i = 0; ok && i < dump->count; i++) {
        const pen_dump_entry *entry = &dump->entries[i];
        if (!entry->wanted || entry->sql == NULL || *entry->sql == '\0') {
            continue;
        }
        add_item(&rows, name, i, entry, size_of(sizes, size_count, entry->oid));
        ok = rows.len < PIECE_BYTES || send_piece(target, &rows, err);
    }
    ok = ok && (rows.len == 0 || send_piece(target, &rows, err));
    pen_text_deinit(&rows);
    return ok && pen_pgconn_copy_end(target, err) &&
           pen_pgconn_copy_finish(target, "record the schema", &count, err);
}

/* Names what the filters take along unseen: foreign keys, views and functions over such tables. */
static void warn_of_missed(const pen_dump *dump)
{
    pen_text names = {0};
    size_t count = 0;
    for (size_t i = 0; i < dump->count; i++) {
        if (dump->entries[i].missed) {
            pen_text_appendf(&names, "%s%s", count++ == 0 ? "" : ", ", dump->entries[i].label);
        }
    }
    char *list = pen_text_take(&names);
    if (count > 0) {
        pen_log(PEN_LOG_WARN,
                "%zu objects are not made on the target, because they need tables that the filters "
                "leave out: %.800s",
                count, list);
    }
    free(list);
}

/* Marks what the filters choose. */
static bool choose(pen_migration *migration, pen_dump *dump, pen_error *err)
{
    const pen_options *options = migration->options;
    uint32_t *chosen = NULL;
    uint32_t *left_out = NULL;
    size_t chosen_count = 0;
    size_t left_out_count = 0;
    bool ok = pen_publication_list(migration->source, options, PEN_TABLES_CHOSEN, &chosen,
                                   &chosen_count, err) &&
              pen_publication_list(migration->source, options, PEN_TABLES_LEFT_OUT, &left_out,
                                   &left_out_count, err);
    if (ok) {
        pen_dump_choose(dump, options->table.count + options->schema.count > 0, chosen,
                        chosen_count, left_out, left_out_count);
    }
    free(chosen);
    free(left_out);
    return ok;
}

static bool is_recorded(pen_migration *migration, bool *recorded, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "look for the recorded schema",
                         "SELECT EXISTS (SELECT 1 FROM penstock.schema_item WHERE name = $1)", 1,
                         values, &res, err)) {
        return false;
    }
    *recorded = pen_pgresult_value(res, 0, 0)[0] == 't';
    pen_pgresult_clear(res);
    return true;
}

bool pen_schema_record(pen_migration *migration, pen_error *err)
{
    pen_dump dump = {0};
    pen_dump_programs programs;
    index_size *sizes = NULL;
    size_t size_count = 0;
    bool recorded = false;
    bool owners = false;
    bool grants = false;
    pen_text path = {0};
    if (!is_recorded(migration, &recorded, err) || recorded) {
        return recorded;
    }
    pen_text_appendf(&path, "%s/schema.dump", migration->options->dir);
    char *file = pen_text_take(&path);
    bool ok = pen_dump_find(migration->options, pen_pgconn_server_version(migration->source),
                            &programs, err) &&
              pen_check_roles(migration, false, &owners, &grants, err) &&
              pen_dump_schema(migration->options, &programs, file, owners, grants, &dump, err) &&
              choose(migration, &dump, err) &&
              read_index_sizes(migration->source, &sizes, &size_count, err);
    if (ok) {
        warn_of_missed(&dump);
    }
    ok = ok && send_items(migration, &dump, sizes, size_count, err);
    pen_dump_deinit(&dump);
    free(sizes);
    free(file);
    return ok;
}

/* Comparing */

/* An object by its words. */
typedef struct object {
    const char *label;
    const char *sql;
} object;

static int compare_objects(const void *a, const void *b)
{
    const object *x = a;
    const object *y = b;
    int order = strcmp(x->label, y->label);
    return order != 0 ? order : strcmp(x->sql, y->sql);
}

/* What has become of objects since they were recorded, in words for each kind of change. */
typedef struct changes {
    pen_text names;
    size_t count;
} changes;

static void add_change(changes *into, const char *what, const char *label)
{
    pen_text_appendf(&into->names, "%s%s%s", into->count++ == 0 ? "" : ", ", what, label);
}

/* Both lists are sorted. */
static void find_changes(const object *then, size_t then_count, const object *now, size_t now_count,
                         changes *found)
{
    size_t i = 0;
    size_t k = 0;
    while (i < then_count || k < now_count) {
        int label = i == then_count ? 1 : k == now_count ? -1 : strcmp(then[i].label, now[k].label);
        if (label == 0) {
            if (strcmp(then[i].sql, now[k].sql) != 0) {
                add_change(found, "", then[i].label);
            }
            i++;
            k++;
        } else if (label < 0) {
            add_change(found, "no more ", then[i++].label);
        } else {
            add_change(found, "new ", now[k++].label);
        }
    }
}

static bool dump_as_then(pen_migration *migration, bool owners, bool grants, pen_dump *dump,
                         pen_error *err)
{
    pen_dump_programs programs;
    pen_text path = {0};
    pen_text_appendf(&path, "%s/schema.dump", migration->options->dir);
    char *file = pen_text_take(&path);
    bool ok = pen_dump_find(migration->options, pen_pgconn_server_version(migration->source),
                            &programs, err) &&
              pen_dump_schema(migration->options, &programs, file, owners, grants, dump, err) &&
              choose(migration, dump, err);
    free(file);
    return ok;
}

static void tell_changes(const pen_pgresult *then, const pen_dump *dump)
{
    size_t then_count = (size_t)pen_pgresult_rows(then);
    size_t now_count = 0;
    object *recorded = pen_calloc(then_count + 1, sizeof(*recorded));
    object *now = pen_calloc(dump->count + 1, sizeof(*now));
    changes found = {0};
    for (size_t i = 0; i < then_count; i++) {
        recorded[i] =
            (object){pen_pgresult_value(then, (int)i, 0), pen_pgresult_value(then, (int)i, 1)};
    }
    for (size_t i = 0; i < dump->count; i++) {
        const pen_dump_entry *entry = &dump->entries[i];
        if (entry->wanted && entry->sql != NULL && *entry->sql != '\0') {
            now[now_count++] = (object){entry->label, entry->sql};
        }
    }
    qsort(recorded, then_count, sizeof(*recorded), compare_objects);
    qsort(now, now_count, sizeof(*now), compare_objects);
    find_changes(recorded, then_count, now, now_count, &found);
    char *names = pen_text_take(&found.names);
    if (found.count > 0) {
        pen_log(PEN_LOG_WARN,
                "the source's schema has changed since it was made on the target, in %zu objects, "
                "which are as they were there, unless you have seen to it: %.1200s",
                found.count, names);
    }
    free(names);
    free(recorded);
    free(now);
}

bool pen_schema_warn_of_changes(pen_migration *migration, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *then = NULL;
    pen_dump dump = {0};
    pen_error why;
    if (!pen_pgconn_exec(migration->target, "read the recorded schema",
                         "SELECT object, sql, bool_or(sql ~ ' OWNER TO ') OVER (),"
                         " bool_or(kind = 'ACL') OVER () FROM penstock.schema_item WHERE name = $1",
                         1, values, &then, err)) {
        return false;
    }
    bool any = pen_pgresult_rows(then) > 0;
    bool owners = any && pen_pgresult_value(then, 0, 2)[0] == 't';
    bool grants = any && pen_pgresult_value(then, 0, 3)[0] == 't';
    if (any && dump_as_then(migration, owners, grants, &dump, &why)) {
        tell_changes(then, &dump);
    } else if (any) {
        pen_log(PEN_LOG_WARN, "whether the source's schema has changed cannot be said: %s",
                why.text);
    }
    pen_dump_deinit(&dump);
    pen_pgresult_clear(then);
    return true;
}

/* Making */

bool pen_schema_list(pen_pgconn *target, const char *name, pen_schema_step step, bool by_size,
                     pen_schema_items *items, pen_error *err)
{
    char number[12];
    char query[256];
    const char *const values[] = {name, number};
    pen_pgresult *res = NULL;
    snprintf(number, sizeof(number), "%d", (int)step);
    snprintf(query, sizeof(query),
             "SELECT n, kind, object, sql, bytes FROM penstock.schema_item WHERE name = $1"
             " AND step = $2::int AND NOT done ORDER BY %sn",
             by_size ? "bytes DESC, " : "");
    items->items = NULL;
    items->count = 0;
    if (!pen_pgconn_exec(target, "read what is to be made", query, 2, values, &res, err)) {
        return false;
    }
    items->count = (size_t)pen_pgresult_rows(res);
    items->items = pen_calloc(items->count + 1, sizeof(*items->items));
    for (size_t i = 0; i < items->count; i++) {
        int row = (int)i;
        items->items[i] =
            (pen_schema_item){.n = atoi(pen_pgresult_value(res, row, 0)),
                              .kind = pen_strdup(pen_pgresult_value(res, row, 1)),
                              .object = pen_strdup(pen_pgresult_value(res, row, 2)),
                              .sql = pen_strdup(pen_pgresult_value(res, row, 3)),
                              .bytes = strtoull(pen_pgresult_value(res, row, 4), NULL, 10)};
    }
    pen_pgresult_clear(res);
    return true;
}

void pen_schema_items_deinit(pen_schema_items *items)
{
    for (size_t i = 0; i < items->count; i++) {
        free(items->items[i].kind);
        free(items->items[i].object);
        free(items->items[i].sql);
    }
    free(items->items);
    items->items = NULL;
    items->count = 0;
}

/* True where the target may refuse an object and nothing is lost but what is named then. */
static bool may_be_refused(const pen_schema_item *item)
{
    static const char *const kinds[] = {"COMMENT",       "ACL",    "DEFAULT ACL", "SECURITY LABEL",
                                        "EVENT TRIGGER", "SCHEMA", "POLICY"};
    for (size_t i = 0; i < PEN_COUNTOF(kinds); i++) {
        if (strcmp(item->kind, kinds[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool run_item(pen_pgconn *target, const pen_schema_item *item, pen_error *err)
{
    char what[300];
    snprintf(what, sizeof(what), "make %.280s", item->object);
    if (!may_be_refused(item)) {
        return pen_pgconn_exec(target, what, item->sql, 0, NULL, NULL, err);
    }
    if (!pen_pgconn_exec(target, what, "SAVEPOINT one", 0, NULL, NULL, err)) {
        return false;
    }
    if (pen_pgconn_exec(target, what, item->sql, 0, NULL, NULL, err)) {
        return pen_pgconn_exec(target, what, "RELEASE one", 0, NULL, NULL, err);
    }
    /* A policy may lack the roles that it is for, and nothing else. */
    bool policy = strcmp(item->kind, "POLICY") == 0;
    if (err->kind == PEN_ERROR_RETRY || (policy && strcmp(err->sqlstate, "42704") != 0)) {
        return false;
    }
    bool is_there = strcmp(err->sqlstate, "42P06") == 0 || strcmp(err->sqlstate, "42710") == 0;
    if (!is_there) {
        pen_log(PEN_LOG_WARN, "%s; left out", err->text);
    }
    return pen_pgconn_exec(target, what, "ROLLBACK TO one", 0, NULL, NULL, err);
}

bool pen_schema_done(pen_pgconn *target, const char *name, const pen_schema_item *item,
                     pen_error *err)
{
    char n[12];
    const char *const values[] = {name, n};
    snprintf(n, sizeof(n), "%d", item->n);
    return pen_pgconn_exec(target, "record what is made",
                           "UPDATE penstock.schema_item SET done = true WHERE name = $1"
                           " AND n = $2::int",
                           2, values, NULL, err);
}

/* The first error is what counts. */
static void roll_back(pen_pgconn *target)
{
    pen_error ignored;
    (void)!pen_pgconn_exec(target, "roll back", "ROLLBACK", 0, NULL, NULL, &ignored);
}

bool pen_schema_make_one(pen_pgconn *target, const char *name, const pen_schema_item *item,
                         pen_error *err)
{
    if (!pen_pgconn_exec(target, "begin", "BEGIN", 0, NULL, NULL, err)) {
        return false;
    }
    if (run_item(target, item, err) && pen_schema_done(target, name, item, err) &&
        pen_pgconn_exec(target, "commit", "COMMIT", 0, NULL, NULL, err)) {
        return true;
    }
    roll_back(target);
    return false;
}

static bool make_some(pen_pgconn *target, const char *name, const pen_schema_item *items,
                      size_t count, pen_error *err)
{
    bool ok = pen_pgconn_exec(target, "begin", "BEGIN", 0, NULL, NULL, err);
    for (size_t i = 0; ok && i < count; i++) {
        ok = run_item(target, &items[i], err) && pen_schema_done(target, name, &items[i], err);
    }
    ok = ok && pen_pgconn_exec(target, "commit", "COMMIT", 0, NULL, NULL, err);
    if (!ok) {
        roll_back(target);
    }
    PEN_KILL_POINT("schema-some");
    return ok;
}

bool pen_schema_make(pen_pgconn *target, const char *name, pen_schema_step step, pen_error *err)
{
    pen_schema_items items;
    if (!pen_pgconn_exec(target, "set up the session",
                         "SET check_function_bodies = off; SET lock_timeout = 0", 0, NULL, NULL,
                         err) ||
        !pen_schema_list(target, name, step, false, &items, err)) {
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < items.count; i += MADE_AT_ONCE) {
        size_t count = items.count - i < MADE_AT_ONCE ? items.count - i : MADE_AT_ONCE;
        ok = make_some(target, name, &items.items[i], count, err);
    }
    if (ok && items.count > 0) {
        pen_log(PEN_LOG_INFO, "%zu objects of the schema are made", items.count);
    }
    pen_schema_items_deinit(&items);
    return ok;
}
