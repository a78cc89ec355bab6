#include "apply/large_objects.h"

#include "core/log.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A piece as it is read and written. */
#define PIECE_BYTES "1048576"
/* Removed in one transaction: each holds a lock, of which a server has some thousands. */
#define REMOVED_AT_ONCE "1000"

/* Which of them this user may read. */
#define READABLE                                                                                   \
    "((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"                     \
    " OR pg_catalog.pg_has_role(m.lomowner, 'USAGE')"                                              \
    " OR EXISTS (SELECT 1 FROM pg_catalog.aclexplode(m.lomacl) a WHERE a.privilege_type = "        \
    "'SELECT'"                                                                                     \
    "  AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE'))))"

static bool number(pen_pgconn *conn, const char *what, const char *sql, uint64_t *found,
                   pen_error *err)
{
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, what, sql, 0, NULL, &res, err)) {
        return false;
    }
    *found = strtoull(pen_pgresult_value(res, 0, 0), NULL, 10);
    pen_pgresult_clear(res);
    return true;
}

/* With tables or schemas named, as for pg_dump, large objects are not meant. */
static bool are_meant(const pen_options *options)
{
    return options->table.count + options->schema.count == 0;
}

static bool count_readable(pen_migration *migration, uint64_t *found, pen_error *err)
{
    return number(migration->source, "count the large objects",
                  "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata m WHERE " READABLE,
                  found, err);
}

/* Whether the target takes any: some managed services do not. */
static bool target_takes_them(pen_migration *migration, bool *takes, pen_error *err)
{
    pen_pgconn *target = migration->target;
    if (!pen_pgconn_exec(target, "begin", "BEGIN", 0, NULL, NULL, err)) {
        return false;
    }
    *takes = pen_large_objects_ready(target, err) &&
             pen_pgconn_exec(target, "try to make a large object",
                             "SELECT pg_catalog.lo_from_bytea(0, '\\x00')", 0, NULL, NULL, err);
    if (!*takes && err->kind == PEN_ERROR_RETRY) {
        return false;
    }
    if (!*takes) {
        pen_log(PEN_LOG_WARN, "check: large objects are not copied: %s", err->text);
    }
    return pen_pgconn_exec(target, "roll back", "ROLLBACK", 0, NULL, NULL, err);
}

bool pen_large_objects_check(pen_migration *migration, pen_error *err)
{
    uint64_t all = 0;
    uint64_t readable = 0;
    uint64_t there = 0;
    bool takes = false;
    if (!number(migration->source, "count the large objects",
                "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata", &all, err)) {
        return false;
    }
    if (all == 0) {
        return true;
    }
    if (!are_meant(migration->options)) {
        pen_log(PEN_LOG_WARN,
                "check: the %" PRIu64 " large objects of the source are not copied, because tables "
                "or schemas were named",
                all);
        return true;
    }
    if (!count_readable(migration, &readable, err) ||
        !number(migration->target, "count the large objects",
                "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata", &there, err)) {
        return false;
    }
    if (there > 0) {
        pen_log(PEN_LOG_WARN,
                "check: the %" PRIu64 " large objects of the source are not copied, because the "
                "target has %" PRIu64 " of its own, with which they could be mixed up",
                all, there);
        return true;
    }
    if (readable < all) {
        pen_log(PEN_LOG_WARN,
                "check: %" PRIu64 " of %" PRIu64 " large objects are not copied, because this user "
                "may not read them on the source; GRANT SELECT ON LARGE OBJECT … there, or come as "
                "their owner",
                all - readable, all);
    }
    if (readable > 0 && !target_takes_them(migration, &takes, err)) {
        return false;
    }
    if (takes) {
        pen_log(PEN_LOG_WARN,
                "check: %" PRIu64 " large objects are copied as they are at the snapshot; they "
                "will belong to the target's user, without grants. No stream has their changes: "
                "what is written to them later, or made or removed, does not come",
                readable);
    }
    return true;
}

/* Begun before, or the target has none and takes some. */
static bool are_to_be_copied(pen_migration *migration, bool *are, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    bool takes = false;
    if (!pen_pgconn_exec(migration->target, "look for large objects",
                         "SELECT EXISTS (SELECT 1 FROM penstock.copied_table WHERE name = $1"
                         " AND source_oid = 2613), EXISTS (SELECT 1 FROM"
                         " pg_catalog.pg_largeobject_metadata)",
                         1, values, &res, err)) {
        return false;
    }
    bool begun = pen_pgresult_value(res, 0, 0)[0] == 't';
    bool some = pen_pgresult_value(res, 0, 1)[0] == 't';
    pen_pgresult_clear(res);
    if (!begun && !some && !target_takes_them(migration, &takes, err)) {
        return false;
    }
    *are = begun || takes;
    return true;
}

bool pen_large_objects_plan(pen_migration *migration, pen_copy_table *table, bool *any,
                            pen_error *err)
{
    uint64_t readable = 0;
    pen_pgresult *res = NULL;
    *any = false;
    if (!are_meant(migration->options)) {
        return true;
    }
    if (!count_readable(migration, &readable, err) ||
        (readable > 0 && !are_to_be_copied(migration, any, err))) {
        return false;
    }
    if (!*any) {
        return true;
    }
    /* Its pages are the OIDs: each chunk has an equal share of them. */
    if (!pen_pgconn_exec(migration->source, "measure the large objects",
                         "SELECT (SELECT pg_catalog.max(oid)::pg_catalog.int8 + 1"
                         "  FROM pg_catalog.pg_largeobject_metadata),"
                         " pg_catalog.pg_relation_size('pg_catalog.pg_largeobject'),"
                         " pg_catalog.pg_relation_filenode('pg_catalog.pg_largeobject')",
                         0, NULL, &res, err)) {
        return false;
    }
    const char *filenode = pen_pgresult_value(res, 0, 2);
    memset(table, 0, sizeof(*table));
    table->oid = PEN_LARGE_OBJECTS_OID;
    table->stream_oid = PEN_LARGE_OBJECTS_OID;
    table->large_objects = true;
    table->source_name = pen_strdup("pg_catalog.pg_largeobject");
    table->target_name = pen_strdup("pg_catalog.pg_largeobject");
    table->columns = pen_strdup("");
    table->filenode = filenode == NULL ? NULL : pen_strdup(filenode);
    table->binary = true;
    table->by_ctid = true;
    table->pages = strtoull(pen_pgresult_value(res, 0, 0), NULL, 10);
    table->bytes = strtoull(pen_pgresult_value(res, 0, 1), NULL, 10);
    pen_pgresult_clear(res);
    return true;
}

bool pen_large_objects_empty(pen_pgconn *target, pen_error *err)
{
    uint64_t removed = 1;
    while (removed > 0) {
        if (!number(target, "remove large objects of an earlier round",
                    "SELECT count(pg_catalog.lo_unlink(oid)) FROM (SELECT oid"
                    " FROM pg_catalog.pg_largeobject_metadata LIMIT " REMOVED_AT_ONCE ") o",
                    &removed, err)) {
            return false;
        }
    }
    return true;
}

char *pen_large_objects_read_sql(uint64_t first, uint64_t end)
{
    pen_text sql = {0};
    char below[48] = "";
    if (end != UINT64_MAX) {
        snprintf(below, sizeof(below), " AND m.oid < '%" PRIu64 "'", end);
    }
    /* The first piece of each, even of an empty one; another as long as they are full. */
    pen_text_appendf(
        &sql,
        "COPY (WITH RECURSIVE piece(oid, at, data) AS (SELECT m.oid, 0::pg_catalog.int8,"
        " pg_catalog.lo_get(m.oid, 0, " PIECE_BYTES ")"
        " FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid >= '%" PRIu64 "'%s AND " READABLE
        " UNION ALL SELECT oid, at + " PIECE_BYTES ","
        "  pg_catalog.lo_get(oid, at + " PIECE_BYTES ", " PIECE_BYTES ") FROM piece"
        "  WHERE pg_catalog.octet_length(data) = " PIECE_BYTES ")"
        " SELECT oid, at, data FROM piece) TO STDOUT (FORMAT binary)",
        first, below);
    return pen_text_take(&sql);
}

bool pen_large_objects_ready(pen_pgconn *target, pen_error *err)
{
    return pen_pgconn_exec(target, "make room for large objects",
                           "CREATE TEMPORARY TABLE IF NOT EXISTS penstock_piece"
                           " (oid oid NOT NULL, at bigint NOT NULL, data bytea NOT NULL)"
                           " ON COMMIT DELETE ROWS",
                           0, NULL, NULL, err);
}

char *pen_large_objects_write_sql(void)
{
    return pen_strdup("COPY pg_temp.penstock_piece FROM STDIN (FORMAT binary)");
}

bool pen_large_objects_store(pen_pgconn *target, int64_t *count, pen_error *err)
{
    uint64_t made = 0;
    uint64_t more = 0;
    if (!number(target, "make the large objects",
                "SELECT count(pg_catalog.lo_from_bytea(oid, data)) FROM pg_temp.penstock_piece"
                " WHERE at = 0",
                &made, err) ||
        !number(target, "fill the large objects",
                "SELECT count(pg_catalog.lo_put(oid, at, data)) FROM pg_temp.penstock_piece"
                " WHERE at > 0",
                &more, err)) {
        return false;
    }
    *count = (int64_t)made;
    return true;
}
