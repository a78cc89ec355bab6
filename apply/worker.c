#include "apply/worker.h"

#include "core/feed.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A batch whose turn has come and that has at most so many changes goes out in one flight, all of
 * it guarding itself: one round trip. Above, the guards' own cost is more than the trip. */
#define ONE_FLIGHT_CHANGES 64

/* Prepared statements that a session may have when it begins a batch. Each takes some 20 kB of the
 * target's memory in each worker's backend; there is one for each table, kind of change and set of
 * columns that came unchanged. */
#define MAX_STATEMENTS 2000

/* Statements that every worker needs; their names cannot meet those of pen_statements. */
static const char *const begin_sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
static const char *const commit_sql = "COMMIT";
/* A constraint that the source checked at the end of a statement, or of the transaction, would be
 * checked here after each row, because here each row is a statement. */
static const char *const defer_sql = "SET CONSTRAINTS ALL DEFERRED";
/* Guarded by the value that the row must have and by the run: a second penstock, or an old one that
 * wakes up, changes no row here and so divides by zero. */
static const char *const progress_sql =
    "WITH w AS (UPDATE penstock.progress SET commit_lsn = $1, end_lsn = $2 WHERE name = $3"
    " AND run_id = $4 AND commit_lsn = $5 RETURNING 1)"
    " SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM w";

/* What the progress statement is about, told apart from changes when it fails. */
static const char progress_subject;

static bool prepare_own(pen_worker *worker, pen_error *err)
{
    return pen_pipeline_prepare(worker->pipeline, "begin", begin_sql, NULL, err) &&
           pen_pipeline_prepare(worker->pipeline, "commit", commit_sql, NULL, err) &&
           pen_pipeline_prepare(worker->pipeline, "defer", defer_sql, NULL, err) &&
           pen_pipeline_prepare(worker->pipeline, "progress", progress_sql, NULL, err);
}

bool pen_worker_init(pen_worker *worker, pen_stream *stream, unsigned number, pen_pgconn *conn,
                     pen_error *err)
{
    memset(worker, 0, sizeof(*worker));
    worker->stream = stream;
    worker->number = number;
    pen_histogram_init(&worker->lag);
    worker->parker.event_fd = -1;
    if (!pen_parker_init(&worker->parker, err)) {
        pen_pgconn_close(conn);
        return false;
    }
    if (!pen_pipeline_open(conn, &worker->parker, &stream->stop, PEN_STOP_ABORT, &worker->pipeline,
                           err)) {
        return false;
    }
    worker->statements = pen_statements_create();
    return prepare_own(worker, err) && pen_pipeline_drain(worker->pipeline, true, err);
}

void pen_worker_deinit(pen_worker *worker)
{
    pen_pipeline_close(worker->pipeline);
    pen_statements_destroy(worker->statements);
    pen_parker_deinit(&worker->parker);
    free(worker->values);
    free(worker->lengths);
    free(worker->formats);
}

static bool send_plain(pen_worker *worker, const char *name, pen_error *err)
{
    return pen_pipeline_execute(worker->pipeline, name, 0, NULL, NULL, NULL, PEN_ROWS_ANY, NULL,
                                err);
}

/* Sends one change; with `guarded` it checks its own row count on the server. */
static bool send_change(pen_worker *worker, const pen_change *chg, bool guarded, pen_error *err)
{
    pen_pipeline *pipeline = worker->pipeline;
    if (chg->kind == PEN_CHANGE_TRUNCATE) {
        char *sql = pen_statement_truncate(chg);
        bool ok = pen_pipeline_prepare(pipeline, "", sql, chg, err) &&
                  pen_pipeline_execute(pipeline, "", 0, NULL, NULL, NULL, PEN_ROWS_ANY, chg, err);
        free(sql);
        return ok;
    }
    const pen_target *target = chg->rel->target;
    if (target->deferrable && !worker->deferred) {
        worker->deferred = true;
        if (!send_plain(worker, "defer", err)) {
            return false;
        }
    }
    pen_statement *st = pen_statements_for(worker->statements, chg, guarded);
    if (!st->prepared) {
        if (!pen_pipeline_prepare_typed(pipeline, st->name, st->sql, st->param_count,
                                        st->param_types, chg, err)) {
            return false;
        }
        /* Any failure ends this session, so what was sent for preparation is prepared. */
        st->prepared = true;
    }
    if (st->param_count > worker->capacity) {
        worker->capacity = st->param_count;
        worker->values = pen_realloc(worker->values, worker->capacity * sizeof(*worker->values));
        worker->lengths = pen_realloc(worker->lengths, worker->capacity * sizeof(int));
        worker->formats = pen_realloc(worker->formats, worker->capacity * sizeof(int));
    }
    return pen_statement_bind(st, chg, worker->values, worker->lengths, worker->formats, err) &&
           pen_pipeline_execute(pipeline, st->name, (int)st->param_count, worker->values,
                                worker->lengths, worker->formats, st->guarded ? PEN_ROWS_ANY : 1,
                                chg, err);
}

typedef enum wave { WAVE_FREE, WAVE_BOUND } wave;

/* Sends the changes of one wave in source order: the free ones are those bound to nothing later
 * than `threshold`, the same one for the whole batch, so that no two changes of one key change
 * places. */
static bool send_wave(pen_worker *worker, const pen_batch *batch, wave which, uint64_t threshold,
                      bool guarded, pen_error *err)
{
    for (const pen_txn *txn = batch->first; txn != NULL; txn = txn->next) {
        for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
            for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
                bool is_free = chg->bound <= threshold;
                if (is_free == (which == WAVE_FREE) && !send_change(worker, chg, guarded, err)) {
                    return false;
                }
            }
        }
    }
    return true;
}

static bool send_progress(pen_worker *worker, const pen_batch *batch, pen_error *err)
{
    const pen_stream *stream = worker->stream;
    char commit_lsn[PEN_LSN_TEXT_SIZE];
    char end_lsn[PEN_LSN_TEXT_SIZE];
    char previous[PEN_LSN_TEXT_SIZE];
    const char *values[] = {pen_lsn_format(batch->last->commit_lsn, commit_lsn),
                            pen_lsn_format(batch->last->end_lsn, end_lsn), stream->options->name,
                            stream->resume.run_id,
                            pen_lsn_format(batch->previous_commit_lsn, previous)};
    int lengths[PEN_COUNTOF(values)];
    int formats[PEN_COUNTOF(values)] = {0};
    for (size_t i = 0; i < PEN_COUNTOF(values); i++) {
        lengths[i] = (int)strlen(values[i]);
    }
    return pen_pipeline_execute(worker->pipeline, "progress", PEN_COUNTOF(values), values, lengths,
                                formats, PEN_ROWS_ANY, &progress_subject, err);
}

static bool wait_for_turn(pen_worker *worker, uint64_t number, pen_error *err)
{
    return pen_handover_wait_for_turn(&worker->stream->handover, worker->number, number) ||
           pen_error_set(err, PEN_ERROR_NONE, "stopped");
}

/* Sends what remains and commits: changes not sent yet, the progress row, COMMIT, in one flight. */
static bool send_tail(pen_worker *worker, const pen_batch *batch, wave which, uint64_t threshold,
                      pen_error *err)
{
    return send_wave(worker, batch, which, threshold, true, err) &&
           send_progress(worker, batch, err) && send_plain(worker, "commit", err) &&
           pen_pipeline_drain(worker->pipeline, true, err);
}

static bool send_segment(pen_worker *worker, const pen_segment *seg, pen_error *err)
{
    for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
        if (!send_change(worker, chg, false, err)) {
            return false;
        }
    }
    return true;
}

/* The next segment of a large transaction, or NULL: none is there now (*state is PEN_FEED_OPEN), or
 * it ended. With `wait` it sleeps for one. */
static pen_segment *next_segment(pen_worker *worker, pen_feed *feed, bool wait,
                                 pen_feed_state *state)
{
    for (;;) {
        /* [FEED-3] release and acquire in one exchange: the dispatcher lowers the flag after it
         * pushed, so either it finds the flag and wakes us, or we find the segment below. */
        pen_cell_publish(&feed->worker, worker->number + 1);
        pen_flag_raise(&feed->wants_segment);
        pen_parker_prepare(&worker->parker);
        /* [FEED-2] acquire: read before the ring is looked at for the last time; pairs with the
         * release in the dispatcher. */
        *state = (pen_feed_state)pen_cell_read(&feed->out_state);
        pen_segment *seg = pen_ring_pop(&feed->out);
        if (seg != NULL && pen_flag_lower(&feed->wants_room)) {
            pen_parker_wake(&worker->stream->dispatcher_parker);
        }
        if (seg != NULL || !wait || *state != PEN_FEED_OPEN ||
            pen_stream_stopping(worker->stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&worker->parker);
            return seg;
        }
        (void)pen_parker_park(&worker->parker, -1, 0, PEN_PARK_FOREVER);
    }
}

static void release_sent(pen_worker *worker)
{
    while (worker->sent_count > 0) {
        pen_block_release(worker->sent[--worker->sent_count]->block);
    }
}

/* Results of all segments sent so far are waited for; then their memory is given back. */
static bool settle_sent(pen_worker *worker, pen_feed *feed, pen_error *err)
{
    if (!pen_pipeline_drain(worker->pipeline, false, err)) {
        return false;
    }
    /* [FEED-5] release: pairs with the acquire in the reader. */
    pen_cell_publish(&feed->done, pen_cell_read(&feed->done) + worker->sent_count);
    release_sent(worker);
    pen_parker_wake(&worker->stream->reader_parker);
    return true;
}

/* Applies what comes by the feed, until the transaction's Commit. */
static bool apply_feed(pen_worker *worker, pen_feed *feed, pen_error *err)
{
    for (;;) {
        pen_feed_state state = PEN_FEED_OPEN;
        pen_segment *seg = next_segment(worker, feed, worker->sent_count == 0, &state);
        if (seg != NULL) {
            worker->sent[worker->sent_count++] = seg;
            if (!send_segment(worker, seg, err)) {
                return false;
            }
        }
        bool settle = seg == NULL || worker->sent_count == PEN_FED_AT_ONCE;
        if (settle && worker->sent_count > 0 && !settle_sent(worker, feed, err)) {
            return false;
        }
        if (seg == NULL && state == PEN_FEED_COMPLETE) {
            return true;
        }
        if (seg == NULL && (state == PEN_FEED_DISCARDED ||
                            pen_stream_stopping(worker->stream) == PEN_STOP_ABORT)) {
            /* The stream ends before the transaction: closing the session rolls it back. */
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
    }
}

/* A large transaction is applied at its turn, in the order in which it comes, while it comes. */
static bool apply_large(pen_worker *worker, pen_batch *batch, pen_error *err)
{
    pen_feed *feed = batch->feed;
    pen_txn *txn = batch->first;
    if (!wait_for_turn(worker, batch->number, err) || !send_plain(worker, "begin", err)) {
        return false;
    }
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        if (!send_segment(worker, seg, err)) {
            return false;
        }
    }
    if (!pen_pipeline_drain(worker->pipeline, false, err)) {
        return false;
    }
    pen_cell_publish(&feed->done, 1);
    if (!apply_feed(worker, feed, err)) {
        return false;
    }
    txn->end_lsn = feed->end_lsn;
    txn->commit_time = feed->commit_time;
    batch->change_count = feed->change_count;
    batch->bytes = feed->bytes;
    return send_progress(worker, batch, err) && send_plain(worker, "commit", err) &&
           pen_pipeline_drain(worker->pipeline, true, err);
}

/* Between two batches: which statements will be needed again is not known, and to prepare those
 * anew costs little against having prepared so many. */
static bool forget_statements(pen_worker *worker, pen_error *err)
{
    pen_log(PEN_LOG_DEBUG, "forgetting %zu prepared statements",
            pen_statements_count(worker->statements));
    pen_statements_destroy(worker->statements);
    worker->statements = pen_statements_create();
    return pen_pipeline_prepare(worker->pipeline, "", "DEALLOCATE ALL", NULL, err) &&
           send_plain(worker, "", err) && prepare_own(worker, err);
}

static bool apply_batch(pen_worker *worker, pen_batch *batch, pen_error *err)
{
    if (pen_statements_count(worker->statements) > MAX_STATEMENTS &&
        !forget_statements(worker, err)) {
        return false;
    }
    uint64_t committed = pen_handover_committed(&worker->stream->handover);
    bool turn = committed == batch->number - 1;
    worker->deferred = false;
    if (batch->feed != NULL) {
        return apply_large(worker, batch, err);
    }
    if (!send_plain(worker, "begin", err)) {
        return false;
    }
    if (turn && batch->change_count <= ONE_FLIGHT_CHANGES) {
        return send_tail(worker, batch, WAVE_FREE, committed, err);
    }
    /* The tags of the free changes are looked at before the tail goes out. */
    return send_wave(worker, batch, WAVE_FREE, committed, false, err) &&
           pen_pipeline_drain(worker->pipeline, false, err) &&
           wait_for_turn(worker, batch->number, err) &&
           send_tail(worker, batch, WAVE_BOUND, committed, err);
}

/* After the commit: the next one's turn comes first, bookkeeping after. */
static void finish_batch(pen_worker *worker, pen_batch *batch)
{
    pen_stream *stream = worker->stream;
    /* [APPLIED-1] release: pairs with the acquire in the reader and the progress thread. */
    pen_cell_publish(&stream->applied_lsn, batch->last->end_lsn);
    pen_handover_commit(&stream->handover, batch->number);
    pen_pgtime now = pen_pgtime_now();
    for (const pen_txn *txn = batch->first; txn != NULL; txn = txn->next) {
        pen_histogram_record(&worker->lag, now - txn->commit_time);
    }
    pen_counter_add(&stream->txns_applied, batch->txn_count);
    pen_counter_add(&stream->changes_applied, batch->change_count);
    pen_counter_add(&stream->batches_applied, 1);
    pen_batch_destroy(batch);
}

/* The commit LSN of the transaction that `chg` belongs to. */
static pen_lsn find_commit_lsn(const pen_batch *batch, const pen_change *wanted)
{
    for (const pen_txn *txn = batch->first; txn != NULL; txn = txn->next) {
        for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
            for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
                if (chg == wanted) {
                    return txn->commit_lsn;
                }
            }
        }
    }
    PEN_ASSERT(batch->first != NULL);
    return batch->first->commit_lsn; /* it came by the feed */
}

static bool has_identity(const pen_relation *rel)
{
    const pen_target *target = rel->target;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (target->columns[i].identity_always) {
            return true;
        }
    }
    return false;
}

/* What may help where the source could do what the target cannot follow. */
static const char *find_hint(const pen_change *chg, const pen_error *err)
{
    if (strcmp(err->sqlstate, "23503") == 0) {
        return "; if the source had it within one statement, let the target check it at the end: "
               "ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE there";
    }
    if (chg->kind == PEN_CHANGE_UPDATE && has_identity(chg->rel) &&
        ((const pen_target *)chg->rel->target)->delete_acts) {
        return ". Or else the source changed an identity column, which cannot be followed here "
               "without acting on rows that reference this one: ALTER TABLE … ALTER COLUMN … SET "
               "GENERATED BY DEFAULT on the target";
    }
    return "";
}

/* The failure of one change: which one of which transaction, why, and what to do. `guard`: it ran
 * and did not change exactly one row. */
static void explain_change(const pen_batch *batch, const pen_change *chg, bool guard,
                           pen_error *err)
{
    char what[512];
    pen_change_describe(chg, what, sizeof(what));
    pen_lsn lsn = find_commit_lsn(batch, chg);
    const char *hint = find_hint(chg, err);
    if (guard && chg->kind == PEN_CHANGE_INSERT) {
        pen_error_set(
            err, PEN_ERROR_CONFLICT,
            "target: the %s, in the transaction committed at " PEN_LSN_FMT
            ", put in no row; nothing of it was applied. A trigger there left the row out, "
            "or a CHECK, default or trigger divided by zero: mend that and start again",
            what, PEN_LSN_ARGS(lsn));
    } else if (guard) {
        pen_error_set(
            err, PEN_ERROR_CONFLICT,
            "target: the %s found no such row or more than one, in the transaction committed "
            "at " PEN_LSN_FMT
            "; nothing of it was applied. The target's row was changed or removed by somebody "
            "else: put it back as it is on the source and start again%s",
            what, PEN_LSN_ARGS(lsn), hint);
    } else {
        pen_error_context(err,
                          "target: the %s, in the transaction committed at " PEN_LSN_FMT
                          ", failed; nothing of it was applied%s",
                          what, PEN_LSN_ARGS(lsn), hint);
    }
    err->lsn = lsn;
}

/* Turns a failure into words: which change of which transaction, why, and what to do. */
static void explain(pen_worker *worker, const pen_batch *batch, pen_error *err)
{
    const void *subject = pen_pipeline_failed(worker->pipeline);
    if (err->kind == PEN_ERROR_NONE || subject == NULL) {
        if (err->kind == PEN_ERROR_RETRY) {
            pen_error_context(err, "target: batch %" PRIu64, batch->number);
        } else if (err->kind != PEN_ERROR_NONE) {
            /* A constraint that was checked at COMMIT. */
            pen_error_context(err,
                              "target: the transactions committed at " PEN_LSN_FMT
                              " to " PEN_LSN_FMT ", of which nothing was applied",
                              PEN_LSN_ARGS(batch->first->commit_lsn),
                              PEN_LSN_ARGS(batch->last->commit_lsn));
        }
        return;
    }
    bool guard = pen_pipeline_failed_count(worker->pipeline) || strcmp(err->sqlstate, "22012") == 0;
    if (subject == &progress_subject) {
        if (guard) {
            pen_error_set(
                err, PEN_ERROR_FATAL,
                "target: the progress row of \"%s\" is not what this run left there, so "
                "another penstock has taken the stream over, or the target was put back to "
                "an older state; this run has stopped without writing. Make sure that only "
                "one penstock runs, and start again",
                worker->stream->options->name);
        } else {
            pen_error_context(err, "target: the progress row was not written");
        }
        return;
    }
    explain_change(batch, subject, guard, err);
}

void pen_worker_run(void *arg)
{
    pen_worker *worker = arg;
    pen_stream *stream = worker->stream;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_WORKER);
    for (;;) {
        pen_batch *batch = pen_handover_take(&stream->handover, worker->number);
        if (batch == NULL) {
            break;
        }
        pen_error err;
        if (!apply_batch(worker, batch, &err)) {
            explain(worker, batch, &err);
            pen_stream_fail(stream, &err);
            release_sent(worker);
            pen_batch_destroy(batch);
            break;
        }
        finish_batch(worker, batch);
    }
    pen_stream_worker_done(stream);
}
