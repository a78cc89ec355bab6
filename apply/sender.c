#include "apply/sender.h"

#include "apply/statement_set.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sqlstate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Prepared statements that a session may have when it begins a batch. Each takes some 20 kB of the
 * target's memory in each worker's backend; there is one for each table, kind of change and set of
 * columns that came unchanged. */
#define MAX_STATEMENTS 2000

/* How often a ROLLBACK is tried again that was itself cancelled. */
#define ROLLBACK_TRIES 20

static const struct own_statement {
    const char *name; /* the generation comes behind it */
    const char *sql;
} own_statements[PEN_OWN_COUNT] = {
    [PEN_OWN_BEGIN] = {"begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
    [PEN_OWN_COMMIT] = {"commit", "COMMIT"},
    [PEN_OWN_ROLLBACK] = {"rollback", "ROLLBACK"},
    /* A constraint that the source checked at the end of a statement, or of the transaction, would
     * be checked here after each row, because here each row is a statement. */
    [PEN_OWN_DEFER] = {"defer", "SET CONSTRAINTS ALL DEFERRED"},
    /* Guarded by the value that the row must have and by the run: a second penstock, or an old one
     * that wakes up, changes no row here and so divides by zero. */
    [PEN_OWN_PROGRESS] = {"progress",
                          "WITH w AS (UPDATE penstock.progress SET commit_lsn = $1, end_lsn = $2"
                          " WHERE name = $3 AND run_id = $4 AND commit_lsn = $5 RETURNING 1)"
                          " SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM w"},
    [PEN_OWN_APPLIED] = {"applied", "SELECT 1 FROM penstock.progress WHERE commit_lsn = $1"
                                    " AND name = $2 AND run_id = $3"},
    [PEN_OWN_SAVE_PART] = {"save_part", "SAVEPOINT part"},
    [PEN_OWN_RELEASE_PART] = {"release_part", "RELEASE part"},
    [PEN_OWN_BACK_TO_PART] = {"back_to_part", "ROLLBACK TO part"},
    [PEN_OWN_SAVE_ROW] = {"save_row", "SAVEPOINT one_row"},
    [PEN_OWN_RELEASE_ROW] = {"release_row", "RELEASE one_row"},
    [PEN_OWN_BACK_TO_ROW] = {"back_to_row", "ROLLBACK TO one_row"},
};

static void own_name(const pen_sender *sender, pen_own which, char name[32])
{
    snprintf(name, 32, "%s_%u", own_statements[which].name, sender->generation);
}

static bool prepare_own(pen_sender *sender, pen_own which, pen_error *err)
{
    if (sender->own[which] != PEN_PREPARED_NO) {
        return true;
    }
    char name[32];
    own_name(sender, which, name);
    return pen_pipeline_prepare(sender->pipeline, name, own_statements[which].sql,
                                &own_statements[which], &sender->own[which], err);
}

bool pen_sender_init(pen_sender *sender, pen_pgconn *conn, const pen_pipeline_owner *owner,
                     const char *stream_name, const char *run_id, pen_error *err)
{
    *sender = (pen_sender){.stream_name = stream_name, .run_id = run_id};
    if (!pen_pipeline_open(conn, owner, &sender->pipeline, err)) {
        return false;
    }
    sender->statements = pen_statements_create(sender->generation);
    /* What every batch needs, so that the first one finds it. */
    return prepare_own(sender, PEN_OWN_BEGIN, err) && prepare_own(sender, PEN_OWN_COMMIT, err) &&
           prepare_own(sender, PEN_OWN_PROGRESS, err) && pen_sender_drain(sender, true, err);
}

void pen_sender_deinit(pen_sender *sender)
{
    pen_pipeline_close(sender->pipeline);
    pen_statements_destroy(sender->statements);
    free(sender->values);
    free(sender->lengths);
    free(sender->formats);
    pen_arrays_deinit(&sender->arrays);
}

/* Which statements will be needed again is not known, and to prepare those anew costs little
 * against having prepared so many. New names, because a DEALLOCATE that fails leaves some. */
bool pen_sender_tidy(pen_sender *sender, pen_error *err)
{
    size_t count = pen_statements_count(sender->statements);
    if (count <= MAX_STATEMENTS) {
        return true;
    }
    pen_log(PEN_LOG_DEBUG, "forgetting %zu prepared statements", count);
    sender->generation++;
    pen_statements_destroy(sender->statements);
    sender->statements = pen_statements_create(sender->generation);
    memset(sender->own, 0, sizeof(sender->own));
    return pen_pipeline_prepare(sender->pipeline, "", "DEALLOCATE ALL", NULL, NULL, err) &&
           pen_pipeline_execute(sender->pipeline, "", 0, NULL, NULL, NULL, PEN_ROWS_ANY, NULL, err);
}

static bool execute_own(pen_sender *sender, pen_own which, int value_count,
                        const char *const *values, int64_t expected_rows, pen_error *err)
{
    int lengths[8];
    int formats[8] = {0};
    char name[32];
    PEN_ASSERT((size_t)value_count <= PEN_COUNTOF(lengths));
    for (int i = 0; i < value_count; i++) {
        lengths[i] = (int)strlen(values[i]);
    }
    own_name(sender, which, name);
    return prepare_own(sender, which, err) &&
           pen_pipeline_execute(sender->pipeline, name, value_count, values, lengths, formats,
                                expected_rows, &own_statements[which], err);
}

bool pen_sender_own(pen_sender *sender, pen_own which, pen_error *err)
{
    int64_t expected_rows = which == PEN_OWN_COMMIT ? PEN_ROWS_COMMIT : PEN_ROWS_ANY;
    return execute_own(sender, which, 0, NULL, expected_rows, err);
}

bool pen_sender_begin(pen_sender *sender, pen_error *err)
{
    sender->deferred = false;
    return pen_sender_own(sender, PEN_OWN_BEGIN, err);
}

static bool send_truncate(pen_sender *sender, const pen_change *chg, const pen_change *subject,
                          pen_error *err)
{
    char *sql = pen_statement_truncate(chg);
    bool ok =
        pen_pipeline_prepare(sender->pipeline, "", sql, subject, NULL, err) &&
        pen_pipeline_execute(sender->pipeline, "", 0, NULL, NULL, NULL, PEN_ROWS_ANY, subject, err);
    free(sql);
    return ok;
}

static void make_room(pen_sender *sender, size_t count)
{
    if (count > sender->capacity) {
        sender->capacity = count;
        sender->values = pen_realloc(sender->values, count * sizeof(*sender->values));
        sender->lengths = pen_realloc(sender->lengths, count * sizeof(int));
        sender->formats = pen_realloc(sender->formats, count * sizeof(int));
    }
}

/* Readies the session for `st`, and the sender for its parameters. */
static bool prepare(pen_sender *sender, pen_statement *st, const pen_change *subject,
                    pen_error *err)
{
    make_room(sender, st->param_count);
    return st->prepared != PEN_PREPARED_NO ||
           pen_pipeline_prepare_typed(sender->pipeline, st->name, st->sql, st->param_count,
                                      st->param_types, subject, &st->prepared, err);
}

/* Under publish_via_partition_root the partitions may have keys that their root has not: the source
 * lets the change through, and tells nothing that the row could be found by. */
static bool can_find_row(const pen_change *chg, pen_error *err)
{
    const pen_target *target = chg->rel->target;
    return chg->kind == PEN_CHANGE_INSERT || target->whole_row || target->key_count > 0 ||
           pen_error_set(err, PEN_ERROR_FATAL,
                         "the source did not tell which columns of %s.%s are its replica identity, "
                         "so the row of an UPDATE or DELETE cannot be found; if it is partitioned "
                         "and published by its root, give the root the primary key that the "
                         "partitions have. What was written before cannot be followed: copy the "
                         "data again and start again under another --name",
                         (const char *)chg->rel->schema.data, (const char *)chg->rel->table.data);
}

bool pen_sender_change(pen_sender *sender, const pen_change *chg, const pen_change *subject,
                       bool guarded, pen_error *err)
{
    if (chg->kind == PEN_CHANGE_TRUNCATE) {
        return send_truncate(sender, chg, subject, err);
    }
    if (!can_find_row(chg, err)) {
        return false;
    }
    const pen_target *target = chg->rel->target;
    if (target->deferrable && !sender->deferred) {
        sender->deferred = true;
        if (!pen_sender_own(sender, PEN_OWN_DEFER, err)) {
            return false;
        }
    }
    pen_statement *st = pen_statements_for(sender->statements, chg, guarded);
    return prepare(sender, st, subject, err) &&
           pen_statement_bind(st, chg, sender->values, sender->lengths, sender->formats, err) &&
           pen_pipeline_execute(sender->pipeline, st->name, (int)st->param_count, sender->values,
                                sender->lengths, sender->formats, st->expected_rows, subject, err);
}

static bool send_set(pen_sender *sender, const pen_step *step, bool guarded, pen_error *err)
{
    pen_statement *st = pen_statements_for_set(sender->statements, step->changes[0], guarded);
    if (!prepare(sender, st, step->subject, err)) {
        return false;
    }
    pen_statement_bind_set(st, step->changes, step->count, &sender->arrays, sender->values,
                           sender->lengths, sender->formats);
    return pen_pipeline_execute(sender->pipeline, st->name, (int)st->param_count, sender->values,
                                sender->lengths, sender->formats,
                                guarded ? PEN_ROWS_ANY : (int64_t)step->count, step->subject, err);
}

bool pen_sender_steps(pen_sender *sender, const pen_step *steps, size_t count, bool guarded,
                      pen_error *err)
{
    for (const pen_step *step = steps; step < steps + count; step++) {
        bool ok = step->count > 1
                      ? send_set(sender, step, guarded, err)
                      : pen_sender_change(sender, step->changes[0], step->subject, guarded, err);
        if (!ok) {
            return false;
        }
    }
    return true;
}

bool pen_sender_segments(pen_sender *sender, const pen_segment *first, pen_error *err)
{
    for (const pen_segment *seg = first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            if (!pen_sender_change(sender, chg, chg, false, err)) {
                return false;
            }
        }
    }
    return true;
}

bool pen_sender_progress(pen_sender *sender, const pen_txn *txn, pen_lsn previous_commit_lsn,
                         pen_error *err)
{
    char commit_lsn[PEN_LSN_TEXT_SIZE];
    char end_lsn[PEN_LSN_TEXT_SIZE];
    char previous[PEN_LSN_TEXT_SIZE];
    const char *const values[] = {pen_lsn_format(txn->commit_lsn, commit_lsn),
                                  pen_lsn_format(txn->end_lsn, end_lsn), sender->stream_name,
                                  sender->run_id, pen_lsn_format(previous_commit_lsn, previous)};
    return execute_own(sender, PEN_OWN_PROGRESS, PEN_COUNTOF(values), values, PEN_ROWS_ANY, err);
}

bool pen_sender_commit(pen_sender *sender, pen_error *err)
{
    PEN_KILL_POINT_AFTER("progress-sent", pen_pipeline_push(sender->pipeline, false));
    if (!pen_sender_own(sender, PEN_OWN_COMMIT, err)) {
        return false;
    }
    PEN_KILL_POINT_AFTER("commit-sent", pen_pipeline_push(sender->pipeline, true));
    return pen_sender_drain(sender, true, err);
}

bool pen_sender_drain(pen_sender *sender, bool sync, pen_error *err)
{
    return pen_pipeline_drain(sender->pipeline, sync, err);
}

pen_failure pen_sender_failure(const pen_sender *sender)
{
    pen_failure failure = {.answered = pen_pipeline_can_reset(sender->pipeline),
                           .own = PEN_OWN_NONE,
                           .rows = pen_pipeline_failed_rows(sender->pipeline)};
    const void *subject = pen_pipeline_failed(sender->pipeline);
    for (unsigned which = 0; which < PEN_OWN_COUNT; which++) {
        if (subject == &own_statements[which]) {
            failure.own = (pen_own)which;
        }
    }
    failure.chg = failure.own == PEN_OWN_NONE ? subject : NULL;
    return failure;
}

/* Runs one statement that ends something, after a failure or without; again when it was cancelled
 * itself. What a savepoint had deferred is not deferred any more, or is once more: so it is said
 * again. */
static bool go_back(pen_sender *sender, pen_own which, pen_error *err)
{
    sender->deferred = false;
    for (int tries = 0;; tries++) {
        if (pen_pipeline_can_reset(sender->pipeline) &&
            !pen_pipeline_reset(sender->pipeline, err)) {
            return false;
        }
        if (pen_sender_own(sender, which, err) && pen_sender_drain(sender, true, err)) {
            return true;
        }
        if (!pen_pipeline_can_reset(sender->pipeline) || !pen_sqlstate_passes(err->sqlstate) ||
            tries == ROLLBACK_TRIES) {
            return false;
        }
    }
}

bool pen_sender_roll_back(pen_sender *sender, pen_error *err)
{
    return go_back(sender, PEN_OWN_ROLLBACK, err);
}

bool pen_sender_back_to(pen_sender *sender, pen_own which, pen_error *err)
{
    return go_back(sender, which, err);
}

bool pen_sender_is_applied(pen_sender *sender, const pen_txn *txn, bool *applied, pen_error *err)
{
    char commit_lsn[PEN_LSN_TEXT_SIZE];
    const char *const values[] = {pen_lsn_format(txn->commit_lsn, commit_lsn), sender->stream_name,
                                  sender->run_id};
    for (int tries = 0;; tries++) {
        *applied = execute_own(sender, PEN_OWN_APPLIED, PEN_COUNTOF(values), values, 1, err) &&
                   pen_sender_drain(sender, true, err);
        if (*applied) {
            return true;
        }
        bool none = pen_pipeline_failed_rows(sender->pipeline) == 0;
        bool again = pen_sqlstate_passes(err->sqlstate) && tries < ROLLBACK_TRIES;
        if (!pen_pipeline_can_reset(sender->pipeline) || !(none || again) ||
            !pen_pipeline_reset(sender->pipeline, err)) {
            return false;
        }
        if (none) {
            return true;
        }
    }
}
