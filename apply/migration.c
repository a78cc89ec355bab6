#include "apply/migration.h"

#include "apply/claim.h"
#include "apply/session.h"
#include "apply/source.h"
#include "apply/status.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_names[] = {[PEN_PHASE_CHECK] = "check",
                                          [PEN_PHASE_SCHEMA] = "schema",
                                          [PEN_PHASE_SLOT] = "slot",
                                          [PEN_PHASE_COPY] = "copy",
                                          [PEN_PHASE_UNIQUE] = "unique indexes",
                                          [PEN_PHASE_STREAM] = "stream",
                                          [PEN_PHASE_READY] = "ready",
                                          [PEN_PHASE_CUTOVER] = "cutover",
                                          [PEN_PHASE_DONE] = "done"};

/* What is said when a phase begins. */
static const char *const phase_words[] = {
    [PEN_PHASE_CHECK] = "looking for what would make the migration fail",
    [PEN_PHASE_SCHEMA] = "making the source's schema on the target, without indexes",
    [PEN_PHASE_SLOT] = "making publication, slot and snapshot on the source",
    [PEN_PHASE_COPY] = "copying the tables",
    [PEN_PHASE_UNIQUE] = "building primary keys and unique indexes",
    [PEN_PHASE_STREAM] = "streaming the changes since the snapshot; other indexes are built beside",
    [PEN_PHASE_READY] = "ready for cutover: everything is there, and the stream keeps it so",
    [PEN_PHASE_CUTOVER] = "cutting over",
    [PEN_PHASE_DONE] = "the migration is done"};

static const char *const tables_sql =
    "CREATE TABLE IF NOT EXISTS penstock.migration (name text PRIMARY KEY, phase text NOT NULL,"
    " began_at timestamptz NOT NULL DEFAULT now(), changed_at timestamptz NOT NULL DEFAULT now());"
    "CREATE TABLE IF NOT EXISTS penstock.schema_item (name text, n int, step int NOT NULL,"
    " kind text NOT NULL, object text NOT NULL, bytes bigint NOT NULL, sql text NOT NULL,"
    " done boolean NOT NULL DEFAULT false, PRIMARY KEY (name, n));"
    "CREATE TABLE IF NOT EXISTS penstock.copied_table (name text, source_oid oid,"
    " stream_oid oid NOT NULL, quoted text NOT NULL, round int NOT NULL,"
    " done boolean NOT NULL DEFAULT false, rows bigint NOT NULL DEFAULT 0,"
    " fence_snapshot text, fence_end pg_lsn, PRIMARY KEY (name, source_oid));"
    "CREATE TABLE IF NOT EXISTS penstock.copied_chunk (name text, source_oid oid, round int,"
    " first_page bigint, rows bigint NOT NULL, PRIMARY KEY (name, source_oid, round, first_page))";

const char *pen_phase_name(pen_phase phase)
{
    return phase_names[phase];
}

static bool open_session(pen_migration *migration, uint64_t owner, pen_error *err)
{
    char name[64];
    snprintf(name, sizeof(name), "penstock %s control", migration->options->name);
    const pen_session_options session = {.conninfo = migration->options->target,
                                         .application_name = name,
                                         .owner = owner,
                                         .plans = PEN_SESSION_FOR_QUERIES,
                                         .durable = true,
                                         .names_only = true};
    return pen_session_open(&session, &migration->target, err);
}

static bool open_target(pen_migration *migration, pen_error *err)
{
    return open_session(migration, migration->resume.owner, err);
}

static bool claim(pen_migration *migration, pen_error *err)
{
    return pen_resume_claim(&migration->resume, migration->options, migration->source,
                            migration->target, &migration->streams, err);
}

bool pen_migration_reconnect_target(pen_migration *migration, pen_error *err)
{
    pen_pgconn_close(migration->target);
    migration->target = NULL;
    return open_target(migration, err) && claim(migration, err);
}

bool pen_migration_reconnect_source(pen_migration *migration, pen_error *err)
{
    pen_pgconn_close(migration->source);
    migration->source = NULL;
    return pen_source_open_session(migration->options, "control", &migration->source, err);
}

/* Only where they are not there: an event trigger would see the attempt, too. */
static bool make_tables(pen_pgconn *target, pen_error *err)
{
    bool has = false;
    return pen_session_has_table(target, "penstock.copied_chunk", &has, err) &&
           (has ||
            pen_pgconn_exec(target, "make the migration's tables", tables_sql, 0, NULL, NULL, err));
}

static bool read_phase(pen_migration *migration, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "read the migration's phase",
                         "SELECT phase FROM penstock.migration WHERE name = $1", 1, values, &res,
                         err)) {
        return false;
    }
    migration->phase = PEN_PHASE_CHECK;
    bool found = pen_pgresult_rows(res) == 0;
    for (size_t i = 0; !found && i < PEN_COUNTOF(phase_names); i++) {
        found = strcmp(phase_names[i], pen_pgresult_value(res, 0, 0)) == 0;
        migration->phase = found ? (pen_phase)i : migration->phase;
    }
    if (!found) {
        pen_error_set(err, PEN_ERROR_FATAL,
                      "target: the migration \"%s\" is in a phase that this penstock does not "
                      "know (%s); go on with the version that began it",
                      migration->options->name, pen_pgresult_value(res, 0, 0));
    }
    pen_pgresult_clear(res);
    return found;
}

static bool open_parts(pen_migration *migration, pen_error *err)
{
    const pen_options *options = migration->options;
    char name[64];
    char mark[PEN_CLAIM_MARK_SIZE];
    migration->resume.owner = pen_statedir_id(migration->statedir);
    if (!pen_source_open_session(options, "control", &migration->source, err) ||
        !open_target(migration, err)) {
        return false;
    }
    snprintf(name, sizeof(name), "penstock %s slot", options->name);
    pen_claim_format_mark(migration->resume.owner, mark);
    const pen_replication_options replication = {
        .conninfo = options->source,
        .application_name = name,
        .slot = options->slot,
        .publication = options->publication,
        .client_encoding = pen_pgconn_parameter(migration->target, "server_encoding"),
        .setup = mark,
    };
    return pen_replication_open(&replication, &migration->rep, &migration->resume.identity, err) &&
           claim(migration, err) && make_tables(migration->target, err) &&
           read_phase(migration, err);
}

bool pen_migration_look(const pen_options *options, pen_migration **migration, pen_error *err)
{
    pen_migration *made = pen_calloc(1, sizeof(*made));
    bool has = false;
    made->options = options;
    made->phase = PEN_PHASE_CHECK;
    if (!open_session(made, 0, err) ||
        !pen_session_has_table(made->target, "penstock.migration", &has, err) ||
        (has && !read_phase(made, err))) {
        pen_migration_close(made);
        return false;
    }
    *migration = made;
    return true;
}

bool pen_migration_open(const pen_options *options, pen_statedir *dir, pen_migration **migration,
                        pen_error *err)
{
    pen_migration *made = pen_calloc(1, sizeof(*made));
    made->options = options;
    made->statedir = dir;
    if (!open_parts(made, err)) {
        pen_migration_close(made);
        return false;
    }
    PEN_KILL_POINT("migration-open");
    *migration = made;
    return true;
}

void pen_migration_close(pen_migration *migration)
{
    if (migration != NULL) {
        pen_replication_close(migration->rep);
        pen_pgconn_close(migration->source);
        pen_pgconn_close(migration->target);
        free(migration);
    }
}

bool pen_migration_record(pen_pgconn *target, const char *name, pen_phase phase, pen_error *err)
{
    const char *const values[] = {name, phase_names[phase]};
    return pen_pgconn_exec(target, "record the migration's phase",
                           "INSERT INTO penstock.migration AS m (name, phase) VALUES ($1, $2)"
                           " ON CONFLICT (name) DO UPDATE SET phase = $2,"
                           " changed_at = CASE m.phase WHEN $2 THEN m.changed_at ELSE now() END",
                           2, values, NULL, err);
}

bool pen_migration_enter(pen_migration *migration, pen_phase phase, pen_error *err)
{
    if (!pen_migration_record(migration->target, migration->options->name, phase, err)) {
        return false;
    }
    migration->phase = phase;
    pen_status_phase(migration->options->status, phase_names[phase]);
    const pen_log_field fields[] = {{"phase", PEN_FIELD_TEXT, .text = phase_names[phase]}};
    pen_log_fields(PEN_LOG_INFO, phase_words[phase], fields, PEN_COUNTOF(fields));
    PEN_KILL_POINT("phase-entered");
    return true;
}

bool pen_migration_may_stream(pen_pgconn *target, const char *name, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    bool has = false;
    if (!pen_session_has_table(target, "penstock.migration", &has, err)) {
        return false;
    }
    if (!has) {
        return true;
    }
    if (!pen_pgconn_exec(target, "read the migration's phase",
                         "SELECT phase, phase IN ('cutover', 'done') FROM penstock.migration"
                         " WHERE name = $1 AND phase IN ('check', 'schema', 'slot', 'copy',"
                         "  'unique indexes', 'cutover', 'done')",
                         1, values, &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_rows(res) == 0;
    if (!ok && pen_pgresult_value(res, 0, 1)[0] == 't') {
        pen_error_set(err, PEN_ERROR_CONFIG,
                      "target: the cutover of \"%s\" has begun or is done (phase: %s): what the "
                      "source has written since is not applied any more",
                      name, pen_pgresult_value(res, 0, 0));
    } else if (!ok) {
        pen_error_set(err, PEN_ERROR_CONFIG,
                      "target: the migration \"%s\" has not copied all tables yet (phase: %s), so "
                      "its changes cannot be applied; go on with \"penstock migrate\", or begin "
                      "another stream under another --name",
                      name, pen_pgresult_value(res, 0, 0));
    }
    pen_pgresult_clear(res);
    return ok;
}

/* What the copy knew of, as an array's text; none where there was no copy. *copied is given. */
static bool list_copied(pen_pgconn *target, const char *name, char **copied, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    bool any = false;
    *copied = NULL;
    if (!pen_session_has_table(target, "penstock.copied_table", &any, err)) {
        return false;
    }
    if (!any) {
        return true;
    }
    bool ok = pen_pgconn_exec(target, "list the copied tables",
                              "SELECT pg_catalog.array_agg(source_oid) || pg_catalog.array_agg("
                              "stream_oid) FROM penstock.copied_table WHERE name = $1",
                              1, values, &res, err);
    const char *text = ok ? pen_pgresult_value(res, 0, 0) : NULL;
    *copied = text == NULL ? NULL : pen_strdup(text);
    pen_pgresult_clear(res);
    return ok;
}

/* Tables that were put into the publication since, and partitions that were attached since; one
 * that was made as a partition has had all its rows published. $1 the publication, $2 what the copy
 * knew of. */
static const char *const late_sql =
    "SELECT pg_catalog.string_agg(name, ', ') FILTER (WHERE NOT attached),"
    " pg_catalog.string_agg(name, ', ') FILTER (WHERE attached) FROM ("
    " SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, l.relid <> top AS attached"
    " FROM (SELECT l.relid, l.isleaf, r.prrelid AS top, pg_catalog.bool_or(l.relid = ANY "
    "($2::oid[]))"
    "   OVER (PARTITION BY r.prrelid) AS known FROM pg_catalog.pg_publication p"
    "   JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid"
    "   CROSS JOIN LATERAL (SELECT relid::oid, isleaf FROM pg_catalog.pg_partition_tree(r.prrelid)"
    "    UNION SELECT r.prrelid, true WHERE NOT EXISTS (SELECT 1 FROM"
    "     pg_catalog.pg_partition_tree(r.prrelid))) l WHERE p.pubname = $1) l"
    " JOIN pg_catalog.pg_class c ON c.oid = l.relid"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE l.isleaf AND c.relkind = 'r' AND NOT (l.relid = ANY ($2::oid[]))"
    " AND (NOT known OR EXISTS (SELECT 1 FROM pg_catalog.pg_partition_ancestors(l.relid) a"
    "  JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.relid"
    "  JOIN pg_catalog.pg_type t ON t.typrelid = a.relid AND t.xmin <> i.xmin))) o";

bool pen_migration_warn_of_late(const pen_options *options, pen_pgconn *source, pen_pgconn *target,
                                pen_error *err)
{
    static const char *const words[] = {
        "these tables were published when the copy had begun, so only their changes since then "
        "come, and the rows that they had before do not",
        "these partitions were attached when the copy had begun, so that the rows which they had "
        "before do not come"};
    char *copied = NULL;
    pen_pgresult *res = NULL;
    if (!list_copied(target, options->name, &copied, err)) {
        return false;
    }
    if (copied == NULL) {
        return true;
    }
    const char *const values[] = {options->publication, copied};
    bool ok = pen_pgconn_exec(source, "look for tables that were published late", late_sql, 2,
                              values, &res, err);
    for (int i = 0; ok && i < (int)PEN_COUNTOF(words); i++) {
        const char *names = pen_pgresult_value(res, 0, i);
        if (names != NULL) {
            pen_log(PEN_LOG_WARN,
                    "source: %s: %.600s; copy those yourself, or begin anew under another --name",
                    words[i], names);
        }
    }
    pen_pgresult_clear(res);
    free(copied);
    return ok;
}
