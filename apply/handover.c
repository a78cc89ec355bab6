#include "apply/handover.h"

#include "core/metrics.h"

/* Between two looks at what has committed. */
#define FINISH_LOOK_MS 10

void pen_handover_init(pen_handover *handover, unsigned worker_count, pen_parker *dispatcher,
                       const pen_cell *stop, uint64_t stop_at)
{
    PEN_ASSERT(worker_count <= PEN_IDLE_MAX && 2 * worker_count <= PEN_HOLDERS);
    *handover = (pen_handover){
        .dispatcher = dispatcher, .worker_count = worker_count, .stop = stop, .stop_at = stop_at};
    pen_place_init(&handover->open);
    pen_place_init(&handover->following);
    pen_cell_init(&handover->offered_all, 0);
    pen_flag_init(&handover->wants_room);
    pen_flag_init(&handover->watched);
    pen_cell_init(&handover->committed, 0);
    pen_idle_init(&handover->idle);
    pen_idle_init(&handover->early);
    for (size_t i = 0; i < PEN_HOLDERS; i++) {
        pen_cell_init(&handover->holders[i], 0);
    }
    for (size_t i = 0; i < PEN_IDLE_MAX; i++) {
        pen_cell_init(&handover->holding[i], 0);
        pen_cell_init(&handover->let_go[i], 0);
    }
}

void pen_handover_add_worker(pen_handover *handover, unsigned number, pen_parker *parker)
{
    PEN_ASSERT(number < handover->worker_count);
    handover->workers[number] = parker;
}

void pen_handover_add_watcher(pen_handover *handover, pen_parker *parker)
{
    handover->watcher = parker;
}

pen_batch *pen_handover_leftover(pen_handover *handover)
{
    return pen_handover_take_back(handover);
}

void pen_handover_wake_workers(pen_handover *handover)
{
    for (unsigned i = 0; i < handover->worker_count; i++) {
        if (handover->workers[i] != NULL) {
            pen_parker_wake(handover->workers[i]);
        }
    }
}

void pen_handover_wake_worker(pen_handover *handover, unsigned number)
{
    pen_parker_wake(handover->workers[number]);
}

uint64_t pen_handover_committed(const pen_handover *handover)
{
    /* [COMMITTED-1] acquire: pairs with the release in pen_handover_commit. */
    return pen_cell_read(&handover->committed);
}

uint64_t pen_handover_watch(pen_handover *handover)
{
    pen_flag_raise(&handover->watched);
    return pen_handover_committed(handover);
}

static bool stopped(const pen_handover *handover)
{
    /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
    return pen_cell_read(handover->stop) >= handover->stop_at;
}

static void wake_idle(pen_handover *handover)
{
    int worker = pen_idle_pick(&handover->idle, handover->worker_count);
    if (worker >= 0) {
        pen_parker_wake(handover->workers[worker]);
    }
}

static bool has_open_batch(const pen_handover *handover)
{
    return handover->held != NULL || !pen_place_is_empty(&handover->following) ||
           !pen_place_is_empty(&handover->open);
}

void pen_handover_offer(pen_handover *handover, pen_batch *batch)
{
    PEN_ASSERT(!has_open_batch(handover));
    /* [OPEN-1] release: publishes the batch and all that hangs off it; pairs with the acquire of
     * the exchange that takes it: a worker's, or the dispatcher's own when it takes it back. */
    pen_place_put(&handover->open, batch);
    wake_idle(handover);
}

void pen_handover_offer_to_busy(pen_handover *handover, pen_batch *batch)
{
    PEN_ASSERT(!has_open_batch(handover));
    /* [OPEN-1] release: as in pen_handover_offer. */
    pen_place_put(&handover->open, batch);
    if (pen_idle_is_full(&handover->idle, handover->worker_count)) {
        wake_idle(handover);
    }
}

void pen_handover_hold(pen_handover *handover, pen_batch *batch)
{
    PEN_ASSERT(!has_open_batch(handover));
    handover->held = batch;
}

/* Gives the batch back that was left to a commit, or NULL. Nobody holds it, so what says that it
 * follows must not stay: the next commit would look for it while another batch is left, and that
 * one's worker could be forgotten. */
static pen_batch *take_following(pen_handover *handover)
{
    /* [OPEN-1] acquire: see pen_handover_offer. */
    pen_batch *batch = pen_place_take(&handover->following);
    if (batch != NULL) {
        /* [HOLDER-1] release and acquire in one exchange: see pen_handover_wait_for_turn. */
        (void)pen_cell_exchange(&handover->holders[batch->number % PEN_HOLDERS], 0);
    }
    return batch;
}

void pen_handover_follow(pen_handover *handover, pen_batch *batch)
{
    PEN_ASSERT(!has_open_batch(handover));
    uint64_t number = batch->number; /* it may be a worker's soon */
    pen_cell *holder = &handover->holders[number % PEN_HOLDERS];
    /* First of all: a commit that was to take an earlier batch from the place, and comes late, may
     * take this one as soon as it is there; that its worker then waits must not be overwritten. */
    (void)pen_cell_exchange(holder, PEN_FOLLOWS);
    /* [OPEN-1] release: as in pen_handover_offer; pairs with the acquire in pen_handover_commit. */
    pen_place_put(&handover->following, batch);
    /* [HOLDER-1] release and acquire: whoever commits the batch before exchanges the same cell
     * after publishing `committed`. So either it finds the batch, or we find its commit here. */
    bool left = pen_cell_swap(holder, PEN_FOLLOWS, PEN_FOLLOWS);
    if (left && pen_handover_committed(handover) < number - 1) {
        return;
    }
    batch = pen_place_take(&handover->following);
    if (pen_handover_committed(handover) >= number - 1) {
        /* Whoever has it need not be woken for its turn; and nobody is to look for it when the cell
         * is another batch's. */
        (void)pen_cell_exchange(holder, 0);
    }
    if (batch != NULL) {
        pen_handover_offer(handover, batch);
    }
}

void pen_handover_offer_held(pen_handover *handover)
{
    pen_batch *batch = pen_handover_take_held(handover);
    if (batch != NULL) {
        pen_handover_offer(handover, batch);
    } else if (!pen_place_is_empty(&handover->open)) {
        wake_idle(handover);
    }
}

pen_batch *pen_handover_take_held(pen_handover *handover)
{
    pen_batch *held = handover->held;
    handover->held = NULL;
    return held;
}

pen_batch *pen_handover_take_back(pen_handover *handover)
{
    pen_batch *held = pen_handover_take_held(handover);
    if (held != NULL) {
        return held;
    }
    /* [OPEN-1] acquire: see pen_handover_offer. */
    pen_batch *following = take_following(handover);
    return following != NULL ? following : pen_place_take(&handover->open);
}

bool pen_handover_wait_for_room(pen_handover *handover)
{
    for (;;) {
        /* In this order: who took the batch before may lower the flag late, and its wake must not
         * be swallowed by the prepare. */
        pen_parker_prepare(handover->dispatcher);
        pen_flag_raise(&handover->wants_room);
        bool taken = pen_place_is_empty(&handover->open);
        if (taken || stopped(handover)) {
            pen_parker_cancel(handover->dispatcher);
            return taken;
        }
        (void)pen_meter_park(PEN_METRIC_DISPATCHER_ROOM, handover->dispatcher, -1, 0,
                             PEN_PARK_FOREVER);
    }
}

void pen_handover_finish(pen_handover *handover, uint64_t number)
{
    pen_handover_offer_held(handover);
    for (;;) {
        pen_parker_prepare(handover->dispatcher);
        if (pen_handover_committed(handover) >= number || stopped(handover)) {
            pen_parker_cancel(handover->dispatcher);
            return;
        }
        /* Nobody wakes a dispatcher for a commit. */
        (void)pen_meter_park(PEN_METRIC_DISPATCHER_ROOM, handover->dispatcher, -1, 0,
                             FINISH_LOOK_MS);
    }
}

void pen_handover_end(pen_handover *handover)
{
    pen_batch *batch = pen_handover_take_back(handover);
    if (batch != NULL) {
        pen_handover_offer(handover, batch);
    }
    /* [OFFERED-1] release: the last batch is in the place or gone; pairs with the acquire in
     * pen_handover_take. */
    pen_cell_publish(&handover->offered_all, 1);
    pen_handover_wake_workers(handover);
}

/* The open batch, or NULL after a sleep; *over: none will come. */
static pen_batch *take_or_sleep(pen_handover *handover, unsigned number, bool *over)
{
    pen_parker *parker = handover->workers[number];
    /* In this order: who picks us must not wake us before the prepare, which would swallow it; for
     * the batch may be gone when we look (the dispatcher takes it back to add to it), and when it
     * is offered again we are no longer in the set. */
    pen_parker_prepare(parker);
    pen_idle_add(&handover->idle, number);
    /* [OFFERED-1] acquire: read before the place is looked at for the last time; pairs with the
     * release in pen_handover_end. */
    *over = pen_cell_read(&handover->offered_all) || stopped(handover);
    /* [OPEN-1] acquire: pairs with the release in pen_handover_offer. */
    pen_batch *batch = pen_place_take(&handover->open);
    if (batch == NULL && !*over) {
        (void)pen_meter_park(PEN_METRIC_WORKER_INPUT, parker, -1, 0, PEN_PARK_FOREVER);
    } else {
        pen_parker_cancel(parker);
    }
    bool picked = !pen_idle_remove(&handover->idle, number);
    if (picked && batch != NULL && !pen_place_is_empty(&handover->open)) {
        /* We were picked for the batch that is there now, while we took the one before it. */
        wake_idle(handover);
    }
    return batch;
}

/* The worker has `batch`, if any. */
static pen_batch *hold_for(pen_handover *handover, unsigned number, pen_batch *batch)
{
    if (batch != NULL) {
        /* [HOLDING-1] release: pairs with the acquire in pen_handover_holding. */
        pen_cell_publish(&handover->holding[number], batch->number);
    }
    return batch;
}

pen_batch *pen_handover_take(pen_handover *handover, unsigned number)
{
    bool over = false;
    pen_batch *batch = NULL;
    while (batch == NULL && !over) {
        /* [OPEN-1] acquire: pairs with the release in pen_handover_offer. */
        batch = pen_place_take(&handover->open);
        if (batch == NULL) {
            batch = take_or_sleep(handover, number, &over);
        }
    }
    if (batch != NULL && pen_flag_lower(&handover->wants_room)) {
        pen_parker_wake(handover->dispatcher);
    }
    return hold_for(handover, number, batch);
}

pen_turn pen_handover_wait_for_turn(pen_handover *handover, unsigned number, uint64_t batch_number,
                                    bool has_locks)
{
    pen_parker *parker = handover->workers[number];
    /* [HOLDER-1] release and acquire in one exchange: whoever commits the batch before exchanges
     * the same cell after publishing `committed`, so either it finds us here or we find its commit
     * below. */
    (void)pen_cell_exchange(&handover->holders[batch_number % PEN_HOLDERS], number + 1);
    for (;;) {
        pen_parker_prepare(parker);
        bool turn = pen_handover_committed(handover) == batch_number - 1;
        /* [LETGO-1] acquire: pairs with the release in pen_handover_let_go. */
        bool let_go = has_locks && pen_cell_read(&handover->let_go[number]) == batch_number;
        if (turn || let_go || stopped(handover)) {
            pen_parker_cancel(parker);
            return turn ? PEN_TURN_COME : let_go ? PEN_TURN_LET_GO : PEN_TURN_STOPPED;
        }
        (void)pen_meter_park(PEN_METRIC_WORKER_TURN, parker, -1, 0, PEN_PARK_FOREVER);
    }
}

pen_turn pen_handover_wait_for_batch(pen_handover *handover, unsigned number, uint64_t batch_number,
                                     uint64_t bound)
{
    PEN_ASSERT(bound < batch_number);
    pen_parker *parker = handover->workers[number];
    for (;;) {
        /* In this order, as in take_or_sleep. */
        pen_parker_prepare(parker);
        pen_idle_add(&handover->early, number);
        bool come = pen_handover_committed(handover) >= bound;
        /* [LETGO-1] acquire: pairs with the release in pen_handover_let_go. */
        bool let_go = pen_cell_read(&handover->let_go[number]) == batch_number;
        if (come || let_go || stopped(handover)) {
            pen_parker_cancel(parker);
            (void)pen_idle_remove(&handover->early, number);
            return come ? PEN_TURN_COME : let_go ? PEN_TURN_LET_GO : PEN_TURN_STOPPED;
        }
        (void)pen_meter_park(PEN_METRIC_WORKER_TURN, parker, -1, 0, PEN_PARK_FOREVER);
    }
}

uint64_t pen_handover_holding(const pen_handover *handover, unsigned number)
{
    /* [HOLDING-1] acquire: pairs with the release in pen_handover_take. */
    return pen_cell_read(&handover->holding[number]);
}

void pen_handover_let_go(pen_handover *handover, unsigned number, uint64_t batch_number)
{
    /* [LETGO-1] release: before the wake; pairs with the acquire in pen_handover_wait_for_turn. */
    pen_cell_publish(&handover->let_go[number], batch_number);
    pen_parker_wake(handover->workers[number]);
}

pen_batch *pen_handover_commit(pen_handover *handover, unsigned number, uint64_t batch_number)
{
    PEN_ASSERT(pen_handover_committed(handover) == batch_number - 1);
    /* [COMMITTED-1] release: what the batch did is over; pairs with the acquire in
     * pen_handover_committed. */
    pen_cell_publish(&handover->committed, batch_number);
    /* [HOLDER-1] release and acquire in one exchange: see pen_handover_wait_for_turn. */
    uint64_t next = batch_number + 1;
    uint64_t holder = pen_cell_exchange(&handover->holders[next % PEN_HOLDERS], 0);
    pen_batch *following = NULL;
    if (holder == PEN_FOLLOWS) {
        /* Or the dispatcher has it back. [OPEN-1] acquire: pairs with the release in
         * pen_handover_follow. */
        following = pen_place_take(&handover->following);
    } else if (holder != 0) {
        pen_parker_wake(handover->workers[holder - 1]);
    }
    for (unsigned word = 0; word * 64 < handover->worker_count; word++) {
        uint64_t early = pen_idle_take_word(&handover->early, word);
        for (; early != 0; early &= early - 1) {
            pen_parker_wake(handover->workers[word * 64 + (unsigned)__builtin_ctzll(early)]);
        }
    }
    if (handover->watcher != NULL && pen_flag_lower(&handover->watched)) {
        pen_parker_wake(handover->watcher);
    }
    return hold_for(handover, number, following);
}
