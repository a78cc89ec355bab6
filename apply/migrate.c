#include "apply/migrate.h"

#include "apply/ahead.h"
#include "apply/checks.h"
#include "apply/copy.h"
#include "apply/indexes.h"
#include "apply/migration.h"
#include "apply/reached.h"
#include "apply/schema.h"
#include "apply/status.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <string.h>
#include <unistd.h>

/* Between two attempts while a server is away. */
#define RETRY_FIRST_MS 500
#define RETRY_MOST_MS  10000

/* What an earlier run has left must be ours to go on with. */
static bool look_at_start(const pen_migration *migration, pen_error *err)
{
    const char *name = migration->options->name;
    if (migration->phase == PEN_PHASE_CHECK && migration->streams) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "target: the stream \"%s\" is there already, and no migration has "
                             "begun it: go on with \"penstock stream\", or take another --name",
                             name);
    }
    if (migration->phase == PEN_PHASE_CUTOVER) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "the cutover of \"%s\" is under way; go on with \"penstock cutover\"",
                             name);
    }
    if (migration->phase == PEN_PHASE_DONE) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "the migration \"%s\" is done already: its cutover has ended. Another "
                             "one needs another --name",
                             name);
    }
    if (migration->phase > PEN_PHASE_CHECK) {
        pen_log(PEN_LOG_INFO, "going on with the migration \"%s\" in its phase: %s", name,
                pen_phase_name(migration->phase));
    }
    return true;
}

static bool check(pen_migration *migration, pen_error *err)
{
    pen_log(PEN_LOG_INFO, "looking for what would make the migration fail");
    return pen_checks_run(migration, err) &&
           pen_migration_enter(migration,
                               migration->options->schema_from == PEN_SCHEMA_DUMP ? PEN_PHASE_SCHEMA
                                                                                  : PEN_PHASE_SLOT,
                               err);
}

static bool make_schema(pen_migration *migration, pen_error *err)
{
    return pen_schema_record(migration, err) &&
           pen_schema_make(migration->target, migration->options->name, PEN_STEP_TABLES, err) &&
           pen_migration_enter(migration, PEN_PHASE_SLOT, err);
}

/* Slot and copy belong together: the first copy has the slot's own snapshot. */
static bool copy(pen_migration *migration, pen_ahead **ahead, pen_error *err)
{
    pen_copy_plan plan = {0};
    pen_snapshot snapshot = {0};
    bool ok =
        (migration->phase != PEN_PHASE_SLOT || pen_copy_begin(migration, &plan, &snapshot, err)) &&
        pen_migration_enter(migration, PEN_PHASE_COPY, err) &&
        pen_ahead_begin(migration, ahead, err) && pen_copy_run(migration, &plan, &snapshot, err) &&
        pen_migration_enter(migration, PEN_PHASE_UNIQUE, err);
    pen_snapshot_release(&snapshot);
    pen_copy_plan_deinit(&plan);
    return ok;
}

/* All that comes before the stream; from wherever it stands. */
static bool prepare_beside(pen_migration *migration, pen_ahead **ahead, pen_error *err)
{
    return look_at_start(migration, err) &&
           (migration->phase > PEN_PHASE_CHECK || check(migration, err)) &&
           (migration->phase > PEN_PHASE_SCHEMA || make_schema(migration, err)) &&
           (migration->phase > PEN_PHASE_UNIQUE || pen_ahead_check(migration, err)) &&
           (migration->phase > PEN_PHASE_COPY || copy(migration, ahead, err)) &&
           (migration->phase > PEN_PHASE_UNIQUE ||
            (pen_ahead_begin(migration, ahead, err) && pen_index_unique(migration, err) &&
             pen_migration_enter(migration, PEN_PHASE_STREAM, err)));
}

/* The same, and ends what receives beside the copy and the indexes. */
static bool prepare(pen_migration *migration, pen_error *err)
{
    pen_ahead *ahead = NULL;
    pen_error why;
    bool ok = prepare_beside(migration, &ahead, err);
    if (!pen_ahead_end(ahead, &why) && ok) {
        *err = why;
        ok = false;
    }
    return ok;
}

/* Servers come and go; a lock table that is too small for so many tables stays. */
static bool may_pass(pen_error *err)
{
    if (strcmp(err->sqlstate, "53200") == 0) {
        err->kind = PEN_ERROR_FATAL;
        pen_error_advise(err, "where the server speaks of max_locks_per_transaction, raise that on "
                              "it, to as many as there are tables, say, and restart it; the same "
                              "command goes on");
    }
    return err->kind == PEN_ERROR_RETRY;
}

/* The same again and again while servers come and go; each attempt begins as a new start would. */
static bool prepare_patiently(const pen_options *options, pen_statedir *dir, pen_error *err)
{
    int64_t retry_ms = RETRY_FIRST_MS;
    bool began = false;
    for (;;) {
        pen_migration *migration = NULL;
        int64_t since_us = pen_now_us();
        bool ok = pen_migration_open(options, dir, &migration, err);
        if (ok) {
            began = true;
            pen_reached_note(options);
            pen_status_phase(options->status, pen_phase_name(migration->phase));
            ok = prepare(migration, err);
            pen_migration_close(migration);
        }
        if (ok || !may_pass(err) || !(began || pen_reached_may_wait(options, err))) {
            return ok;
        }
        retry_ms = pen_now_us() - since_us > 60 * 1000000 ? RETRY_FIRST_MS : retry_ms;
        pen_log(PEN_LOG_WARN, "%s; trying again, nothing is lost", err->text);
        pen_status_recover(options->status, began, err->text);
        usleep((useconds_t)(retry_ms * 1000));
        retry_ms = retry_ms * 2 < RETRY_MOST_MS ? retry_ms * 2 : RETRY_MOST_MS;
    }
}

/* A cutover that asked takes over from here. */
static bool hand_over(pen_index_beside *beside, pen_stop_reason *reason)
{
    pen_error ignored;
    pen_log(PEN_LOG_INFO, "handed over to the cutover");
    (void)!pen_index_beside_join(beside, true, &ignored);
    *reason = PEN_REASON_CAUGHT_UP;
    return true;
}

static bool migrate(const pen_options *options, pen_statedir *dir, pen_stop_reason *reason,
                    pen_error *err)
{
    pen_index_beside *beside = NULL;
    pen_error why;
    if (!prepare_patiently(options, dir, err) ||
        !pen_index_beside_start(options, pen_statedir_id(dir), &beside, err)) {
        return false;
    }
    PEN_KILL_POINT("prepared");
    bool ok = pen_stream_run_in(options, dir, reason, err);
    PEN_KILL_POINT("stream-ended");
    pen_run_stop_early_on_signals();
    if (ok && *reason == PEN_REASON_SIGNAL && access(pen_statedir_asked(dir), F_OK) == 0) {
        return hand_over(beside, reason);
    }
    /* An end that was asked for waits for the indexes; a signal does not. */
    bool built = pen_index_beside_join(beside, !ok || *reason == PEN_REASON_SIGNAL, &why);
    if (ok && !built && *reason != PEN_REASON_SIGNAL) {
        *err = why;
        return false;
    }
    return ok;
}

bool pen_migrate_run(const pen_options *options, pen_stop_reason *reason, pen_error *err)
{
    pen_statedir *dir = NULL;
    memset(err, 0, sizeof(*err));
    *reason = PEN_REASON_FAILED;
    pen_run_stop_early_on_signals();
    if (!pen_run_hold(options, true, &dir, err)) {
        return false;
    }
    bool ok = migrate(options, dir, reason, err);
    pen_run_let_go(dir);
    return ok;
}

bool pen_copy_alone_run(const pen_options *options, pen_stop_reason *reason, pen_error *err)
{
    pen_statedir *dir = NULL;
    pen_index_beside *beside = NULL;
    memset(err, 0, sizeof(*err));
    *reason = PEN_REASON_FAILED;
    pen_run_stop_early_on_signals();
    if (!pen_run_hold(options, false, &dir, err)) {
        return false;
    }
    bool ok = prepare_patiently(options, dir, err) &&
              pen_index_beside_start(options, pen_statedir_id(dir), &beside, err) &&
              pen_index_beside_join(beside, false, err);
    pen_run_let_go(dir);
    if (!ok) {
        return false;
    }
    *reason = PEN_REASON_CAUGHT_UP;
    pen_log(PEN_LOG_INFO,
            "the copy is done. The slot \"%s\" keeps the source's WAL from now on: go on with "
            "\"penstock migrate\" or \"penstock stream\", or drop it there: SELECT "
            "pg_drop_replication_slot('%s')",
            options->slot, options->slot);
    return true;
}
