#include "apply/cutover.h"

#include "apply/check_roles.h"
#include "apply/migration.h"
#include "apply/schema.h"
#include "apply/sequences.h"
#include "apply/source.h"
#include "apply/status.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sql_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* For a "penstock migrate" that finishes what is in flight. */
#define HAND_OVER_MS (10 * 60 * 1000)

/* What the report tells. */
typedef struct tally {
    uint64_t sequences;
    uint64_t objects;
    uint64_t foreign_keys;
    uint64_t views;
} tally;

static bool exec(pen_pgconn *conn, const char *what, const char *sql, pen_error *err)
{
    return pen_pgconn_exec(conn, what, sql, 0, NULL, NULL, err);
}

static bool count_unbuilt(pen_migration *migration, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "look for indexes that are not built",
                         "SELECT count(*), min(object) FROM penstock.schema_item"
                         " WHERE name = $1 AND step < 3 AND NOT done HAVING count(*) > 0",
                         1, values, &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_rows(res) == 0 ||
              pen_error_set(err, PEN_ERROR_CONFIG,
                            "target: %s objects are not made yet, %s first: go on with \"penstock "
                            "migrate\" until it says that it is ready for the cutover",
                            pen_pgresult_value(res, 0, 0), pen_pgresult_value(res, 0, 1));
    pen_pgresult_clear(res);
    return ok;
}

/* A table that was made anew under the name of one that was copied (a load that swaps tables does
 * that) is not published, or its old rows stay on the target. */
static bool check_same_tables(pen_migration *migration, pen_error *err)
{
    const char *const name[] = {migration->options->name};
    pen_pgresult *copied = NULL;
    pen_pgresult *res = NULL;
    bool ok = pen_pgconn_exec(migration->target, "list the copied tables",
                              "SELECT COALESCE(array_agg(quoted), '{}'),"
                              " COALESCE(array_agg(stream_oid), '{}') FROM penstock.copied_table"
                              " WHERE name = $1",
                              1, name, &copied, err);
    if (ok) {
        const char *const values[] = {pen_pgresult_value(copied, 0, 0),
                                      pen_pgresult_value(copied, 0, 1)};
        ok = pen_pgconn_exec(migration->source, "look for tables that were made anew",
                             "SELECT pg_catalog.string_agg(DISTINCT w.t, ', ')"
                             " FROM unnest($1::text[], $2::oid[]) w(t, o)"
                             " WHERE pg_catalog.to_regclass(w.t)::oid <> w.o",
                             2, values, &res, err);
    }
    const char *other = ok ? pen_pgresult_value(res, 0, 0) : NULL;
    if (other != NULL) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: these tables were made anew since they were copied, and what is in them now "
            "is "
            "not on the target: %.600s; begin the migration anew under another --name, or bring "
            "their rows over yourself, take them out of penstock.copied_table on the target, and "
            "run the cutover again",
            other);
    }
    pen_pgresult_clear(copied);
    pen_pgresult_clear(res);
    return ok;
}

static bool look_at_start(pen_migration *migration, pen_error *err)
{
    if (migration->phase < PEN_PHASE_STREAM) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "there is no migration \"%s\" that could be cut over: its phase is "
                             "\"%s\"; run \"penstock migrate\" until it is ready",
                             migration->options->name, pen_phase_name(migration->phase));
    }
    if (migration->phase == PEN_PHASE_DONE) {
        return pen_error_set(err, PEN_ERROR_CONFIG, "the cutover of \"%s\" is done already",
                             migration->options->name);
    }
    return count_unbuilt(migration, err);
}

/* What the cutover makes and rows must not meet that are applied then: what fires would do on the
 * target what it has done on the source already, and row security keeps rows from a table's owner.
 * Event triggers come first, because they would see the rest. Foreign keys may stay: the stream
 * keeps their order. Names are as pg_restore prints them, on one line. */
static const char *const firing_sql =
    "SELECT i.n, f.undo FROM penstock.schema_item i, (SELECT 'EVENT TRIGGER' AS kind,"
    "  evtname::text AS name, pg_catalog.format('DROP EVENT TRIGGER %I', evtname) AS undo FROM "
    "pg_catalog.pg_event_trigger"
    " UNION ALL SELECT f.kind, n.nspname || '.' || c.relname || f.behind,"
    "  pg_catalog.format(f.undo, n.nspname, c.relname, f.name) FROM (SELECT 'TRIGGER' AS kind,"
    "   tgrelid AS relid, ' ' || tgname AS behind, tgname AS name, 'DROP TRIGGER %3$I ON %1$I.%2$I'"
    "    AS undo FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgparentid = 0"
    "   UNION ALL SELECT 'RULE', ev_class, ' ' || rulename, rulename, 'DROP RULE %3$I ON %1$I.%2$I'"
    "    FROM pg_catalog.pg_rewrite UNION ALL SELECT 'ROW SECURITY', oid, '', '',"
    "    'ALTER TABLE %1$I.%2$I DISABLE ROW LEVEL SECURITY' FROM pg_catalog.pg_class"
    "    WHERE relrowsecurity) f"
    "  JOIN pg_catalog.pg_class c ON c.oid = f.relid"
    "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')) f"
    " WHERE i.name = $1 AND i.done AND i.step >= 3 AND i.kind = f.kind"
    " AND i.object = f.kind || ' ' || pg_catalog.translate(f.name, E'\\n\\r', '  ')"
    " ORDER BY i.kind <> 'EVENT TRIGGER'";

static bool drop_firing(pen_migration *migration, const pen_pgresult *firing, pen_error *err)
{
    pen_pgconn *target = migration->target;
    bool ok = exec(target, "begin", "BEGIN", err);
    for (int row = 0; ok && row < pen_pgresult_rows(firing); row++) {
        const char *const values[] = {migration->options->name, pen_pgresult_value(firing, row, 0)};
        ok = exec(target, "drop what would fire", pen_pgresult_value(firing, row, 1), err) &&
             pen_pgconn_exec(target, "record what is dropped",
                             "UPDATE penstock.schema_item SET done = false WHERE name = $1"
                             " AND n = $2::int",
                             2, values, NULL, err);
    }
    /* What is said of them is gone with them. */
    const char *const name[] = {migration->options->name};
    ok = ok &&
         pen_pgconn_exec(target, "record what is dropped",
                         "UPDATE penstock.schema_item SET done = false WHERE name = $1"
                         " AND step >= 3 AND kind IN ('COMMENT', 'SECURITY LABEL')",
                         1, name, NULL, err) &&
         pen_migration_record(target, migration->options->name, PEN_PHASE_READY, err) &&
         exec(target, "commit", "COMMIT", err);
    if (!ok) {
        pen_error ignored;
        (void)!exec(target, "roll back", "ROLLBACK", &ignored);
    }
    return ok;
}

/* An earlier run of the cutover was interrupted: the source may have been written to since. So it
 * begins anew, from where its first change was: the state that a stream may be applied to. */
static bool begin_anew(pen_migration *migration, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *firing = NULL;
    if (!exec(migration->target, "set up the session", "SET lock_timeout = 0", err) ||
        !pen_pgconn_exec(migration->target, "look for what would fire", firing_sql, 1, values,
                         &firing, err)) {
        return false;
    }
    pen_log(
        PEN_LOG_INFO,
        "an earlier cutover was interrupted: what the source has written since is applied "
        "first; %d triggers, rules and the like that it has made are dropped, and made again then",
        pen_pgresult_rows(firing));
    bool ok = drop_firing(migration, firing, err);
    pen_pgresult_clear(firing);
    PEN_KILL_POINT("cutover-anew");
    return ok;
}

/* What they commit comes too late. Of other users' sessions not everybody may see that. */
static bool warn_of_open_transactions(pen_migration *migration, pen_error *err)
{
    char *open = NULL;
    if (!pen_check_ask(
            migration->source, "look for open transactions",
            "SELECT pg_catalog.string_agg(w, '; ') FROM (SELECT 'process ' || pid || ' ('"
            "  || COALESCE(usename::text, '') || ', since ' || xact_start || ')' AS w"
            "  FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL"
            "  AND datname = pg_catalog.current_database() AND backend_type ="
            "  'client backend' AND pid <> pg_catalog.pg_backend_pid()"
            " UNION ALL SELECT 'prepared transaction ' || pg_catalog.quote_literal(gid)"
            "  || ' (since ' || prepared || ')' FROM pg_catalog.pg_prepared_xacts"
            "  WHERE database = pg_catalog.current_database() LIMIT 10) o",
            NULL, &open, err)) {
        return false;
    }
    if (open != NULL) {
        pen_log(PEN_LOG_WARN,
                "source: these transactions have written something and are open still; if they "
                "commit now, that may be lost: %s",
                open);
    }
    free(open);
    return true;
}

/* While a migration is not that far, whoever is at work on it is to go on. */
static bool look_before(const pen_options *options, pen_error *err)
{
    pen_migration *seen = NULL;
    bool ok = pen_migration_look(options, &seen, err) && look_at_start(seen, err) &&
              pen_source_open_session(options, "control", &seen->source, err) &&
              check_same_tables(seen, err);
    pen_migration_close(seen);
    return ok;
}

/* Everything that the source has committed by now goes to the target. */
static bool drain(const pen_options *options, pen_statedir *dir, pen_stop_reason *reason,
                  pen_error *err)
{
    pen_migration *migration = NULL;
    pen_options until_now = *options;
    if (!pen_migration_open(options, dir, &migration, err)) {
        return false;
    }
    bool ok = look_at_start(migration, err) && check_same_tables(migration, err) &&
              (migration->phase != PEN_PHASE_CUTOVER || begin_anew(migration, err)) &&
              pen_schema_warn_of_changes(migration, err) &&
              warn_of_open_transactions(migration, err);
    pen_migration_close(migration);
    if (!ok) {
        return false;
    }
    pen_log(PEN_LOG_WARN, "no fence: nothing keeps writers away from the source; what they commit "
                          "from now on is lost");
    until_now.stop_when_caught_up = true;
    until_now.stop_at = PEN_LSN_NONE;
    ok = pen_stream_run_in(&until_now, dir, reason, err);
    pen_run_stop_early_on_signals();
    return ok;
}

/* A foreign key is made without a look at the rows, which is quick; that look comes at the end. */
static bool make_foreign_key(pen_migration *migration, const pen_schema_item *item, pen_error *err)
{
    char *not_valid = NULL;
    char *validate = NULL;
    char what[300];
    if (!pen_sql_read_foreign_key(item->sql, &not_valid, &validate)) {
        return pen_schema_make_one(migration->target, migration->options->name, item, err);
    }
    snprintf(what, sizeof(what), "make %.280s", item->object);
    bool ok = exec(migration->target, what, not_valid != NULL ? not_valid : item->sql, err) ||
              strcmp(err->sqlstate, "42710") == 0; /* by an earlier run */
    /* Partitioned tables take none before version 18 that is not valid. */
    bool whole =
        !ok && (strcmp(err->sqlstate, "0A000") == 0 || strcmp(err->sqlstate, "42809") == 0);
    if (whole) {
        ok = pen_schema_make_one(migration->target, migration->options->name, item, err);
    } else if (ok && not_valid == NULL) {
        ok = pen_schema_done(migration->target, migration->options->name, item, err);
    }
    free(not_valid);
    free(validate);
    return ok;
}

static bool is_foreign_key(const pen_schema_item *item)
{
    return strcmp(item->kind, "FK CONSTRAINT") == 0;
}

static bool make_waiting(pen_migration *migration, tally *made, pen_error *err)
{
    pen_schema_items items;
    bool ok = exec(migration->target, "set up the session",
                   "SET check_function_bodies = off; SET lock_timeout = 0", err) &&
              pen_schema_list(migration->target, migration->options->name, PEN_STEP_CUTOVER, false,
                              &items, err);
    if (!ok) {
        return false;
    }
    for (size_t i = 0; ok && i < items.count; i++) {
        const pen_schema_item *item = &items.items[i];
        ok = is_foreign_key(item)
                 ? make_foreign_key(migration, item, err)
                 : pen_schema_make_one(migration->target, migration->options->name, item, err);
        made->objects++;
        PEN_KILL_POINT("cutover-item");
    }
    pen_schema_items_deinit(&items);
    return ok;
}

static bool validate_one(pen_migration *migration, const pen_schema_item *item, pen_error *err)
{
    char *not_valid = NULL;
    char *validate = NULL;
    char what[300];
    snprintf(what, sizeof(what), "validate %.280s", item->object);
    bool ok = !pen_sql_read_foreign_key(item->sql, &not_valid, &validate) ||
              exec(migration->target, what, validate, err);
    free(not_valid);
    free(validate);
    return ok && pen_schema_done(migration->target, migration->options->name, item, err);
}

static bool validate_foreign_keys(pen_migration *migration, tally *made, pen_error *err)
{
    pen_schema_items items;
    if (!pen_schema_list(migration->target, migration->options->name, PEN_STEP_CUTOVER, false,
                         &items, err)) {
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < items.count; i++) {
        ok = validate_one(migration, &items.items[i], err);
        made->foreign_keys++;
    }
    pen_schema_items_deinit(&items);
    return ok;
}

/* $1 the views that the source has filled. */
static const char *const views_sql =
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'm' AND (NOT c.relispopulated OR EXISTS (SELECT 1"
    "  FROM penstock.schema_item i WHERE i.name = $2 AND i.kind = 'MATERIALIZED VIEW'"
    "  AND i.object = i.kind || ' ' || pg_catalog.translate(n.nspname || '.' || c.relname,"
    "   E'\\n\\r', '  ')))"
    " AND pg_catalog.format('%I.%I', n.nspname, c.relname) = ANY ($1::text[]) ORDER BY c.oid";

/* Those that the source has filled, in the order in which they were made: one that reads another
 * comes behind it. Those of the migration also when an interrupted cutover has filled them. */
static bool fill_views(pen_migration *migration, tally *made, pen_error *err)
{
    pen_pgresult *names = NULL;
    pen_pgresult *views = NULL;
    if (!pen_pgconn_exec(migration->source, "list the materialised views",
                         "SELECT COALESCE(pg_catalog.array_agg(pg_catalog.format('%I.%I',"
                         " n.nspname, c.relname)), '{}') FROM pg_catalog.pg_class c"
                         " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                         " WHERE c.relkind = 'm' AND c.relispopulated",
                         0, NULL, &names, err)) {
        return false;
    }
    const char *const values[] = {pen_pgresult_value(names, 0, 0), migration->options->name};
    bool ok = exec(migration->target, "set up the session", "SET row_security = on", err) &&
              pen_pgconn_exec(migration->target, "list the materialised views", views_sql, 2,
                              values, &views, err);
    for (int row = 0; ok && row < pen_pgresult_rows(views); row++) {
        char sql[400];
        snprintf(sql, sizeof(sql), "REFRESH MATERIALIZED VIEW %s",
                 pen_pgresult_value(views, row, 0));
        ok = exec(migration->target, "fill a materialised view", sql, err) ||
             pen_error_context(err, "%s", pen_pgresult_value(views, row, 0));
        made->views++;
        PEN_KILL_POINT("cutover-view");
    }
    pen_pgresult_clear(names);
    pen_pgresult_clear(views);
    return ok;
}

static void report(const tally *made, int64_t began_us, int64_t drained_us)
{
    int64_t now_us = pen_now_us();
    const pen_log_field fields[] = {
        {"sequences", PEN_FIELD_U64, .u64 = made->sequences},
        {"objects", PEN_FIELD_U64, .u64 = made->objects},
        {"foreign_keys_validated", PEN_FIELD_U64, .u64 = made->foreign_keys},
        {"materialised_views", PEN_FIELD_U64, .u64 = made->views},
        {"seconds_to_drain", PEN_FIELD_DOUBLE, .real = (double)(drained_us - began_us) / 1e6},
        {"seconds", PEN_FIELD_DOUBLE, .real = (double)(now_us - began_us) / 1e6},
    };
    pen_log_fields(PEN_LOG_INFO, "cutover finished", fields, PEN_COUNTOF(fields));
}

/* What is left of one step. */
static bool make_step(pen_migration *migration, pen_schema_step step, tally *made, pen_error *err)
{
    pen_schema_items items;
    if (!pen_schema_list(migration->target, migration->options->name, step, false, &items, err)) {
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < items.count; i++) {
        ok = pen_schema_make_one(migration->target, migration->options->name, &items.items[i], err);
        made->objects++;
        PEN_KILL_POINT("cutover-item");
    }
    pen_schema_items_deinit(&items);
    return ok;
}

/* Foreign keys are validated before there is row security, because the check sees all rows, or is
 * refused; views are filled under it, as they are on the source. Event triggers would see what is
 * made behind them, which nobody does on the source. */
static bool finish(pen_migration *migration, tally *made, pen_error *err)
{
    if (!pen_migration_enter(migration, PEN_PHASE_CUTOVER, err) ||
        !pen_sequences_set(migration, &made->sequences, err) ||
        !make_waiting(migration, made, err) || !validate_foreign_keys(migration, made, err) ||
        !make_step(migration, PEN_STEP_SECURITY, made, err) || !fill_views(migration, made, err) ||
        !make_step(migration, PEN_STEP_LAST, made, err) ||
        !pen_migration_enter(migration, PEN_PHASE_DONE, err)) {
        return false;
    }
    if (migration->options->schema_from == PEN_SCHEMA_NONE) {
        pen_log(PEN_LOG_WARN,
                "the tables were made by somebody else: foreign keys and triggers that "
                "were dropped or disabled for the copy are to be restored by hand");
    }
    pen_log(PEN_LOG_INFO,
            "the target may take writes. The slot \"%s\" still keeps the source's WAL: drop it "
            "there when it is not needed any more: SELECT pg_drop_replication_slot('%s')",
            migration->options->slot, migration->options->slot);
    return true;
}

static bool cut_over(const pen_options *options, pen_statedir *dir, int64_t began_us,
                     pen_stop_reason *reason, pen_error *err)
{
    pen_migration *migration = NULL;
    tally made = {0};
    if (!drain(options, dir, reason, err)) {
        return false;
    }
    if (*reason != PEN_REASON_CAUGHT_UP) {
        return true; /* a signal: nothing is cut over */
    }
    int64_t drained_us = pen_now_us();
    bool ok = pen_migration_open(options, dir, &migration, err) && finish(migration, &made, err);
    pen_migration_close(migration);
    if (ok) {
        report(&made, began_us, drained_us);
    }
    return ok || pen_error_advise(err, "mend that and run the same command again: it goes on where "
                                       "it was");
}

bool pen_cutover_run(const pen_options *options, pen_stop_reason *reason, pen_error *err)
{
    pen_statedir *dir = NULL;
    int64_t began_us = pen_now_us();
    memset(err, 0, sizeof(*err));
    *reason = PEN_REASON_FAILED;
    pen_run_stop_early_on_signals();
    if (!look_before(options, err) ||
        !pen_statedir_take_over(options->dir, HAND_OVER_MS, &dir, err)) {
        return false;
    }
    pen_status_has_dir(options->status);
    bool ok = cut_over(options, dir, began_us, reason, err);
    pen_run_let_go(dir);
    return ok;
}
