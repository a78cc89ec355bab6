#include "apply/dealing.h"

#include "core/metrics.h"

bool pen_dealing_init(pen_dealing *dealing, unsigned count, size_t capacity, pen_parker *reader,
                      const pen_cell *stop, uint64_t stop_at, pen_error *err)
{
    PEN_ASSERT(count >= 1 && count <= PEN_DISPATCHERS_MAX);
    dealing->reader = reader;
    dealing->stop = stop;
    dealing->stop_at = stop_at;
    pen_dealing_reset(dealing);
    for (unsigned i = 0; i < count; i++) {
        if (!pen_parker_init(&dealing->parkers[i], err)) {
            pen_dealing_deinit(dealing);
            return false;
        }
        pen_ring_init(&dealing->rings[i], capacity);
        dealing->count++;
    }
    return true;
}

void pen_dealing_deinit(pen_dealing *dealing)
{
    for (unsigned i = 0; i < dealing->count; i++) {
        pen_ring_deinit(&dealing->rings[i]);
        pen_parker_deinit(&dealing->parkers[i]);
    }
    dealing->count = 0;
}

pen_txn *pen_dealing_leftover(pen_dealing *dealing)
{
    pen_txn *txn = NULL;
    for (unsigned i = 0; txn == NULL && i < dealing->count; i++) {
        txn = pen_ring_pop(&dealing->rings[i]);
    }
    return txn;
}

void pen_dealing_reset(pen_dealing *dealing)
{
    dealing->dealt = 0;
    pen_cell_init(&dealing->ended, 0);
    pen_flag_init(&dealing->wants_room);
    pen_cell_init(&dealing->turn, 0);
    dealing->tells_dry = false;
}

void pen_dealing_wake(pen_dealing *dealing)
{
    for (unsigned i = 0; i < dealing->count; i++) {
        pen_parker_wake(&dealing->parkers[i]);
    }
}

/* The dispatcher that run `run` belongs to. */
static unsigned owner(const pen_dealing *dealing, uint64_t run)
{
    return (unsigned)(run % dealing->count);
}

bool pen_dealing_deal(pen_dealing *dealing, pen_txn *txn)
{
    unsigned to = owner(dealing, dealing->dealt / PEN_RUN);
    if (!pen_ring_push(&dealing->rings[to], txn)) {
        /* Raised, and looked at once more: see pen_flag. */
        pen_flag_raise(&dealing->wants_room);
        if (!pen_ring_push(&dealing->rings[to], txn)) {
            return false;
        }
    }
    dealing->dealt++;
    pen_parker_wake(&dealing->parkers[to]);
    return true;
}

void pen_dealing_end(pen_dealing *dealing)
{
    if (pen_cell_read(&dealing->ended)) {
        return;
    }
    /* [INPUT-1] release: everything dealt before is in the rings; pairs with the acquire in
     * pen_dealing_next. */
    pen_cell_publish(&dealing->ended, 1);
    pen_dealing_wake(dealing);
}

void pen_dealing_wake_reader(pen_dealing *dealing)
{
    if (pen_flag_lower(&dealing->wants_room)) {
        pen_parker_wake(dealing->reader);
    }
}

static bool has_turn(const pen_dealing *dealing, uint64_t run)
{
    /* [BATON-1] acquire: all that was dispatched before is seen; pairs with the release in
     * pen_dealing_pass. With one dispatcher nobody passes anything. */
    return dealing->count == 1 || pen_cell_read(&dealing->turn) == run;
}

static pen_txn *take(pen_dealing *dealing, unsigned number)
{
    pen_txn *txn = pen_ring_pop(&dealing->rings[number]);
    if (txn != NULL) {
        pen_dealing_wake_reader(dealing);
    }
    return txn;
}

/* Looks once; false when there is nothing. */
static bool look(pen_dealing *dealing, unsigned number, uint64_t run, bool wants_txn,
                 bool wants_turn, pen_dealt *what, pen_txn **txn)
{
    /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
    if (pen_cell_read(dealing->stop) >= dealing->stop_at) {
        *what = PEN_DEALT_STOPPED;
        return true;
    }
    if (wants_turn && has_turn(dealing, run)) {
        *what = PEN_DEALT_TURN;
        return true;
    }
    /* [INPUT-1] acquire: read before the ring is looked at for the last time; pairs with the
     * release in pen_dealing_end. */
    bool ended = pen_cell_read(&dealing->ended);
    *txn = wants_txn ? take(dealing, number) : NULL;
    *what = *txn != NULL ? PEN_DEALT_TXN : PEN_DEALT_OVER;
    return *txn != NULL || (ended && !wants_turn);
}

/* How long to sleep at most, when nothing has come: 0 when that is to be told now. `dry_us`: since
 * when it would count as dry, 0 while that does not matter. */
static int until_dry(const pen_dealing *dealing, uint64_t run, int64_t *dry_us)
{
    if (!has_turn(dealing, run) || !dealing->tells_dry) {
        return PEN_PARK_FOREVER;
    }
    int64_t now_us = pen_now_us();
    if (*dry_us == 0) {
        *dry_us = now_us + PEN_DRY_US;
    }
    return now_us >= *dry_us ? 0 : (int)((*dry_us - now_us) / 1000) + 1;
}

pen_dealt pen_dealing_next(pen_dealing *dealing, unsigned number, uint64_t run, bool wants_txn,
                           bool wants_turn, pen_txn **txn)
{
    PEN_ASSERT(wants_txn || wants_turn);
    pen_dealt what = PEN_DEALT_OVER;
    int64_t dry_us = 0;
    *txn = NULL;
    while (!look(dealing, number, run, wants_txn, wants_turn, &what, txn)) {
        pen_parker_prepare(&dealing->parkers[number]);
        if (look(dealing, number, run, wants_txn, wants_turn, &what, txn)) {
            pen_parker_cancel(&dealing->parkers[number]);
            break;
        }
        int timeout_ms = until_dry(dealing, run, &dry_us);
        if (timeout_ms == 0) {
            pen_parker_cancel(&dealing->parkers[number]);
            return PEN_DEALT_DRY;
        }
        (void)pen_meter_park(wants_turn ? PEN_METRIC_DISPATCHER_BATON : PEN_METRIC_DISPATCHER_INPUT,
                             &dealing->parkers[number], -1, 0, timeout_ms);
    }
    return what;
}

void pen_dealing_tell_dry(pen_dealing *dealing, bool tell)
{
    dealing->tells_dry = tell;
}

void pen_dealing_pass(pen_dealing *dealing, uint64_t run)
{
    if (dealing->count == 1) {
        return;
    }
    PEN_ASSERT(has_turn(dealing, run));
    /* [BATON-1] release: publishes the former, the targets, the open batch; pairs with the acquire
     * in has_turn. */
    pen_cell_publish(&dealing->turn, run + 1);
    pen_parker_wake(&dealing->parkers[owner(dealing, run + 1)]);
}
