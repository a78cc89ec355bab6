#include "apply/dealing.h"

#include "core/metrics.h"

/* Who has a single dispatcher's role. */
enum {
    ROLE_DISPATCHER, /* always, but while it sleeps */
    ROLE_FREE,
    ROLE_READER,
    ROLE_WANTED /* the reader has it, and the dispatcher sleeps until it is given back */
};

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
    pen_cell_init(&dealing->role, ROLE_DISPATCHER);
    dealing->tells_dry = false;
    dealing->direct = (pen_direct){0};
    dealing->has_role = false;
}

void pen_dealing_set_direct(pen_dealing *dealing, const pen_direct *direct)
{
    dealing->direct = dealing->count == 1 ? *direct : (pen_direct){0};
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

static void give_role_back(pen_dealing *dealing)
{
    dealing->has_role = false;
    /* [ROLE-1] release: publishes all that was done in the role; pairs with the acquire in
     * take_role, or that in has_role the next time. */
    if (pen_cell_exchange(&dealing->role, ROLE_FREE) == ROLE_WANTED) {
        pen_parker_wake(&dealing->parkers[0]);
    }
}

/* True when the reader has the dispatcher's role, or gets it: while that sleeps and has left
 * nothing to be done. What it dispatched before is seen, and it will see what is dispatched here.
 */
static bool has_role(pen_dealing *dealing)
{
    if (dealing->has_role) {
        return true;
    }
    /* [ROLE-1] acquire: all that was done in the role is seen; pairs with the release in lend_role,
     * or that in give_role_back of the time before. */
    dealing->has_role = pen_cell_swap(&dealing->role, ROLE_FREE, ROLE_READER);
    if (dealing->has_role && dealing->tells_dry) {
        /* There is a batch of late ones, and only the dispatcher can tell when the stream is dry.
         */
        give_role_back(dealing);
    }
    return dealing->has_role;
}

/* Without the dispatcher. */
static bool deal_directly(pen_dealing *dealing, pen_txn *txn)
{
    /* A late one may be held, a large one takes its time. What lies in the ring comes first; we
     * alone add to it, so once empty it stays so. */
    return dealing->direct.dispatch != NULL && !txn->behind && !pen_txn_is_alone(txn) &&
           pen_ring_count(&dealing->rings[0]) == 0 && has_role(dealing) &&
           dealing->direct.dispatch(dealing->direct.arg, txn);
}

void pen_dealing_flush(pen_dealing *dealing)
{
    if (dealing->has_role) {
        dealing->direct.let_out(dealing->direct.arg);
        give_role_back(dealing);
    }
}

bool pen_dealing_deal(pen_dealing *dealing, pen_txn *txn)
{
    if (deal_directly(dealing, txn)) {
        return true;
    }
    pen_dealing_flush(dealing); /* the dispatcher goes on behind it */
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

/* A single dispatcher goes to sleep: the reader may have its role. */
static void lend_role(pen_dealing *dealing)
{
    if (dealing->direct.dispatch != NULL) {
        /* [ROLE-1] release: publishes the former, the targets, the open batch; pairs with the
         * acquire in has_role. */
        pen_cell_publish(&dealing->role, ROLE_FREE);
    }
}

/* It has slept, and takes its role back. */
static void take_role(pen_dealing *dealing)
{
    while (dealing->direct.dispatch != NULL) {
        pen_parker_prepare(&dealing->parkers[0]);
        /* [ROLE-1] acquire: sees what the reader has dispatched; pairs with the release in
         * give_role_back. */
        if (pen_cell_swap(&dealing->role, ROLE_FREE, ROLE_DISPATCHER)) {
            pen_parker_cancel(&dealing->parkers[0]);
            return;
        }
        if (pen_cell_swap(&dealing->role, ROLE_READER, ROLE_WANTED) ||
            pen_cell_read(&dealing->role) == ROLE_WANTED) {
            (void)pen_meter_park(PEN_METRIC_DISPATCHER_BATON, &dealing->parkers[0], -1, 0,
                                 PEN_PARK_FOREVER);
        } else {
            pen_parker_cancel(&dealing->parkers[0]);
        }
    }
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
        lend_role(dealing);
        (void)pen_meter_park(wants_turn ? PEN_METRIC_DISPATCHER_BATON : PEN_METRIC_DISPATCHER_INPUT,
                             &dealing->parkers[number], -1, 0, timeout_ms);
        take_role(dealing);
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
