#include "apply/rows.h"

#include "apply/replay.h"

#include <stdio.h>
#include <string.h>

/* Sends one statement for `subject`, inside the row's savepoint, and waits for its count. */
static bool try_change(pen_worker *worker, const pen_change *chg, const pen_change *subject,
                       pen_error *err)
{
    if (pen_sender_change(&worker->sender, chg, subject, false, err) &&
        pen_sender_drain(&worker->sender, false, err)) {
        return true;
    }
    worker->failure = pen_sender_failure(&worker->sender);
    return false;
}

static bool back_to_row(pen_worker *worker, pen_error *err)
{
    return pen_sender_back_to(&worker->sender, PEN_OWN_BACK_TO_ROW, err);
}

static bool is_taken(const pen_error *err)
{
    return strcmp(err->sqlstate, "23505") == 0 || strcmp(err->sqlstate, "23P01") == 0;
}

/* True when the new tuple says every column. */
static bool is_whole(const pen_change *chg)
{
    for (uint16_t i = 0; i < chg->rel->column_count; i++) {
        if (chg->new_tuple.values[i].kind == PEN_VALUE_UNCHANGED) {
            return false;
        }
    }
    return true;
}

/* True when the update moves its row to another key. Keys that are equal though their bytes differ
 * count as moved; what that leads to finds no row, and is refused. */
static bool moves_key(const pen_change *chg)
{
    const pen_target *target = chg->rel->target;
    if (chg->old_tuple.values == NULL || target->key_count == 0) {
        return false;
    }
    for (uint16_t i = 0; i < target->key_count; i++) {
        const pen_value *old = &chg->old_tuple.values[target->key[i].index];
        const pen_value *now = &chg->new_tuple.values[target->key[i].index];
        if (now->kind == PEN_VALUE_UNCHANGED) {
            continue;
        }
        if (old->kind != now->kind || old->len != now->len ||
            (old->len > 0 && memcmp(old->data, now->data, old->len) != 0)) {
            return true;
        }
    }
    return false;
}

/* The row with the new tuple's identity gets all of its columns. Only by the identity: a conflict
 * in another unique index finds no such row here. */
static bool replace_row(pen_worker *worker, const pen_change *chg, pen_error *err)
{
    pen_change update = *chg;
    update.kind = PEN_CHANGE_UPDATE;
    update.old_kind = 0;
    update.old_tuple.values = NULL;
    update.may_be_missing = false;
    return ((const pen_target *)chg->rel->target)->key_count > 0 && is_whole(chg) &&
           try_change(worker, &update, chg, err);
}

static bool insert_row(pen_worker *worker, const pen_change *chg, pen_error *err)
{
    pen_change insert = *chg;
    insert.kind = PEN_CHANGE_INSERT;
    insert.old_kind = 0;
    insert.old_tuple.values = NULL;
    insert.may_be_missing = false;
    return try_change(worker, &insert, chg, err);
}

/* The row that has the key which the update moves its own to goes. */
static bool move_row(pen_worker *worker, const pen_change *chg, pen_error *err)
{
    const pen_target *target = chg->rel->target;
    pen_change taken = *chg;
    taken.kind = PEN_CHANGE_DELETE;
    taken.old_kind = 'K';
    taken.old_tuple = chg->new_tuple;
    taken.new_tuple.values = NULL;
    taken.may_be_missing = false;
    for (uint16_t i = 0; i < target->key_count; i++) {
        if (chg->new_tuple.values[target->key[i].index].kind == PEN_VALUE_UNCHANGED) {
            return false;
        }
    }
    return !target->delete_acts && try_change(worker, &taken, chg, err) &&
           try_change(worker, chg, chg, err);
}

/* Makes the row what it is on the source, in the row's savepoint, after `rows` and `taken` told
 * what `chg` had met. False without an attempt: nothing can be done. */
static bool overwrite(pen_worker *worker, const pen_change *chg, int64_t rows, bool taken,
                      pen_error *err)
{
    bool missing = rows == 0;
    switch ((pen_change_kind)chg->kind) {
    case PEN_CHANGE_INSERT:
        return taken && replace_row(worker, chg, err);
    case PEN_CHANGE_UPDATE:
        if (taken && moves_key(chg)) {
            return move_row(worker, chg, err);
        }
        if (!missing || !is_whole(chg)) {
            return false;
        }
        if (insert_row(worker, chg, err)) {
            return true;
        }
        return worker->failure.answered && is_taken(err) && back_to_row(worker, err) &&
               replace_row(worker, chg, err);
    case PEN_CHANGE_DELETE:
        return missing;
    case PEN_CHANGE_TRUNCATE:
        break;
    }
    return false;
}

/* Notes what was done about a conflict; it counts once the transaction has committed. */
static void note(pen_worker *worker, const pen_change *chg, bool skipped, const pen_error *why)
{
    char what[512];
    char text[sizeof(what) + sizeof(why->text) + 256];
    pen_change_describe(chg, what, sizeof(what));
    snprintf(text, sizeof(text),
             "--on-conflict=%s: the %s, in the transaction committed at " PEN_LSN_FMT ", %s: %s",
             skipped ? "skip" : "overwrite", what, PEN_LSN_ARGS(worker->next_txn->commit_lsn),
             skipped ? "was left out" : "was made what it is on the source", why->text);
    const pen_relation *rel = chg->kind == PEN_CHANGE_TRUNCATE ? chg->truncated[0] : chg->rel;
    pen_conflict_list_add(&worker->conflicts, rel, skipped, text);
}

/* `chg` met a conflict, *err, and its savepoint is rolled back to. */
static bool settle(pen_worker *worker, const pen_change *chg, pen_error *err)
{
    if (worker->stream->options->on_conflict == PEN_CONFLICT_SKIP) {
        note(worker, chg, true, err);
        return true;
    }
    pen_failure met = worker->failure;
    pen_error later = *err;
    worker->failure.own = PEN_OWN_NONE;
    if (overwrite(worker, chg, met.rows, is_taken(err), &later)) {
        note(worker, chg, false, err);
        return true;
    }
    pen_outcome outcome = pen_replay_judge(&worker->failure, &later);
    if (outcome == PEN_OUTCOME_AGAIN || outcome == PEN_OUTCOME_ENDED) {
        *err = later;
        return false;
    }
    worker->failure = met;
    return pen_error_advise(err, "--on-conflict overwrite goes by the identity alone, and cannot "
                                 "put this right");
}

static bool apply_row(pen_worker *worker, const pen_change *chg, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    if (!pen_sender_own(sender, PEN_OWN_SAVE_ROW, err)) {
        worker->failure = pen_sender_failure(sender);
        return false;
    }
    if (!try_change(worker, chg, chg, err)) {
        if (pen_replay_judge(&worker->failure, err) != PEN_OUTCOME_CONFLICT) {
            return false;
        }
        pen_error later;
        if (!back_to_row(worker, &later)) {
            *err = later;
            worker->failure = pen_sender_failure(sender);
            return false;
        }
        if (!settle(worker, chg, err)) {
            return false;
        }
    }
    if (!pen_sender_own(sender, PEN_OWN_RELEASE_ROW, err)) {
        worker->failure = pen_sender_failure(sender);
        return false;
    }
    return true;
}

bool pen_rows_apply(pen_worker *worker, const pen_segment *first, pen_error *err)
{
    for (const pen_segment *seg = first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            if (!apply_row(worker, chg, err)) {
                return false;
            }
        }
    }
    return true;
}
