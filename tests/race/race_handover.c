/* The whole handover without servers: one thread plays the dispatcher, several play workers. Every
 * transaction is applied once, batches commit in order, and nobody waits for ever, which a watchdog
 * would show. Delays come between any two steps of the protocol, because this file compiles it with
 * them: the source is the product's own. */
#include "apply/handover.h"
#include "core/metrics.h"
#include "tests/race/chance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int delay(void)
{
    return delay_by_chance(8, 128, 60);
}

#define pen_cell_read(cell)            (delay(), pen_cell_read(cell))
#define pen_cell_publish(cell, value)  (delay(), pen_cell_publish(cell, value))
#define pen_cell_exchange(cell, value) (delay(), pen_cell_exchange(cell, value))
#define pen_cell_swap(cell, from, to)  (delay(), pen_cell_swap(cell, from, to))
#define pen_place_put(place, item)     (delay(), pen_place_put(place, item))
#define pen_place_take(place)          (delay(), pen_place_take(place))
#define pen_place_is_empty(place)      (delay(), pen_place_is_empty(place))
#define pen_flag_raise(flag)           (delay(), pen_flag_raise(flag))
#define pen_flag_lower(flag)           (delay(), pen_flag_lower(flag))
#define pen_idle_add(set, member)      (delay(), pen_idle_add(set, member))
#define pen_idle_remove(set, member)   (delay(), pen_idle_remove(set, member))
#define pen_idle_pick(set, count)      (delay(), pen_idle_pick(set, count))
#define pen_idle_is_full(set, count)   (delay(), pen_idle_is_full(set, count))
#define pen_idle_take_word(set, word)  (delay(), pen_idle_take_word(set, word))
#define pen_parker_prepare(parker)     (delay(), pen_parker_prepare(parker))
#define pen_parker_wake(parker)        (delay(), pen_parker_wake(parker))
#define pen_meter_park(wait, parker, fd, events, timeout_ms)                                       \
    (delay(), pen_meter_park(wait, parker, fd, events, timeout_ms))

#include "apply/handover.c"

#define TXNS        12000
#define WORKERS_MAX 5

typedef enum source {
    SOURCE_BUSY,   /* batches fill while workers are busy */
    SOURCE_QUIET,  /* a batch a transaction, and nothing more until somebody has taken it */
    SOURCE_BEHIND, /* batches are held to be filled, mostly, until now and then it is dry */
    SOURCE_GROWS,  /* batches are left to who is at work, and nothing more until one has it */
    SOURCE_QUICK,  /* batches are left to the commit before, mostly */
    SOURCE_ABORTED /* everybody is told to stop half-way */
} source;

typedef struct worker {
    unsigned number;
    pen_parker parker;
    pen_thread thread;
    uint64_t batches;
    uint64_t waits; /* for its turn */
    uint64_t followed;
    uint64_t let_go;
} worker;

/* Nothing from here on is atomic but `taken`: the handover alone orders it. */
static pen_handover handover;
static pen_parker dispatcher;
static pen_cell stop;
static pen_budget budget;
static pen_arena arena;
static worker workers[WORKERS_MAX];
static unsigned worker_count;
static source mode;
static pen_batch_limits limits;
static uint8_t applied[TXNS + 1]; /* by commit LSN, written by whoever holds the transaction */
static pen_lsn last_of[TXNS + 1]; /* by batch number, the last commit LSN, written at the commit */
static uint64_t newest;           /* batch number, written at the commit */
static pen_cell taken[TXNS + 2];  /* by batch number */
static pen_counter wrong;
static uint64_t rooms;   /* the dispatcher waited for */
static uint64_t holds;   /* transactions after which the batch was held */
static uint64_t growing; /* and left to who is at work */
static pen_cell over;    /* 1: the watchdog ends */
static pen_parker watcher;
static pen_cell watched; /* number of the batch that the watcher waits for */

static void complain(const char *what, uint64_t number)
{
    fprintf(stderr, "batch or transaction %lu: %s\n", number, what);
    pen_counter_add(&wrong, 1);
}

static pen_txn *make_txn(pen_lsn commit_lsn)
{
    struct {
        pen_txn txn;
        pen_segment segment;
    } *head = pen_arena_alloc(&arena, sizeof(*head));
    head->segment = (pen_segment){.block = arena.block};
    pen_block_acquire(arena.block);
    head->txn = (pen_txn){.commit_lsn = commit_lsn,
                          .end_lsn = commit_lsn,
                          .first = &head->segment,
                          .last = &head->segment,
                          .change_count = 1,
                          .bytes = 1};
    return &head->txn;
}

/* As apply/dispatcher.c does it: late transactions and others, and a stream that is dry at times.
 */
static void let_out(pen_batch *batch)
{
    uint64_t draw = next_random();
    if (mode == SOURCE_GROWS) {
        growing++;
        pen_handover_offer_to_busy(&handover, batch);
        return;
    }
    bool quick = mode == SOURCE_QUICK || (mode == SOURCE_ABORTED && draw / 128 % 2 == 0);
    if (quick && draw / 256 % 8 != 0) {
        pen_handover_follow(&handover, batch);
        return;
    }
    bool behind = mode == SOURCE_BEHIND || (mode == SOURCE_ABORTED && draw % 2 == 0);
    if (!behind || draw / 2 % 8 == 0 || batch->txn_count == limits.transactions) {
        pen_handover_offer(&handover, batch);
        return;
    }
    if (draw / 512 % 2 == 0) {
        growing++;
        pen_handover_offer_to_busy(&handover, batch);
    } else {
        holds++;
        pen_handover_hold(&handover, batch);
    }
    if (draw / 16 % 8 == 0) {
        delay();
        pen_handover_offer_held(&handover);
    }
}

/* As apply/dispatcher.c does it. */
static void dispatch_all(void *arg)
{
    random_state = *(uint64_t *)arg;
    uint64_t next_number = 1;
    for (pen_lsn lsn = 1; lsn <= TXNS; lsn++) {
        pen_txn *txn = make_txn(lsn);
        pen_batch *batch = pen_handover_take_back(&handover);
        if (batch != NULL && !pen_batch_has_room(batch, txn, &limits)) {
            rooms++;
            pen_handover_offer(&handover, batch);
            if (!pen_handover_wait_for_room(&handover)) {
                pen_txn_release(txn);
                break;
            }
            batch = NULL;
        }
        if (batch == NULL) {
            batch = pen_batch_create(next_number++, lsn - 1);
        }
        uint64_t committed = pen_handover_committed(&handover);
        if (committed > 0 && last_of[committed] == PEN_LSN_NONE) {
            complain("said to be committed, and is not", committed);
        }
        pen_batch_add(batch, txn);
        let_out(batch);
        bool waits = mode == SOURCE_QUIET || mode == SOURCE_GROWS;
        if (waits && !pen_handover_wait_for_room(&handover)) {
            complain("stopped, and nobody said so", lsn);
        }
        if (mode == SOURCE_ABORTED && lsn == TXNS / 2) {
            pen_cell_publish(&stop, 1);
            pen_handover_wake_workers(&handover);
            break;
        }
    }
    if (mode != SOURCE_ABORTED) {
        pen_handover_end(&handover);
    }
    pen_arena_deinit(&arena);
}

/* Applies and commits `batch`, and gives the one that follows, if any; false when told to stop. */
static bool apply(worker *self, const pen_batch *batch, pen_batch **next)
{
    uint64_t number = batch->number;
    uint64_t committed = pen_handover_committed(&handover);
    if (committed >= number || (committed > 0 && last_of[committed] == PEN_LSN_NONE)) {
        complain("comes before it may", number);
    }
    for (const pen_txn *txn = batch->first; txn != NULL; txn = txn->next) {
        applied[txn->commit_lsn]++;
        delay();
    }
    /* In a quiet stream the next batch must find somebody else: there are `worker_count` of us. */
    while (mode == SOURCE_QUIET && number % worker_count != 0 && number < TXNS &&
           pen_cell_read(&taken[number + 1]) == 0) {
        usleep(10);
    }
    if (committed != number - 1) {
        self->waits++;
        pen_turn turn = PEN_TURN_COME;
        if (next_random() & 1) {
            /* As when it can do something as soon as an earlier batch has committed. */
            uint64_t bound = committed + next_random() % (number - committed);
            turn = pen_handover_wait_for_batch(&handover, self->number, number, bound);
            if (turn == PEN_TURN_COME && (pen_handover_committed(&handover) < bound ||
                                          (bound > 0 && last_of[bound] == PEN_LSN_NONE))) {
                complain("did not wait for an earlier one", number);
            }
        }
        if (turn == PEN_TURN_COME) {
            turn = pen_handover_wait_for_turn(&handover, self->number, number, true);
        }
        if (turn == PEN_TURN_LET_GO) {
            self->let_go++;
            turn = pen_handover_wait_for_turn(&handover, self->number, number, false);
        }
        if (turn != PEN_TURN_COME) {
            return false;
        }
    }
    if (newest != number - 1 || last_of[number - 1] != batch->previous_commit_lsn) {
        complain("commits out of turn", number);
    }
    pen_counter_add(&steps, 1);
    newest = number;
    last_of[number] = batch->last->commit_lsn;
    *next = pen_handover_commit(&handover, self->number, number);
    self->followed += *next != NULL;
    return true;
}

/* As apply/watchdog.c does it, but of anybody, and often too late. */
static void watch(void *arg)
{
    random_state = *(uint64_t *)arg + 1000;
    while (pen_cell_read(&over) == 0) {
        unsigned number = (unsigned)(next_random() % worker_count);
        uint64_t held = pen_handover_holding(&handover, number);
        if (held > pen_handover_committed(&handover) + 1) {
            pen_handover_let_go(&handover, number, held);
        }
        usleep(20);
    }
}

/* As apply/eager.c does it: waits for a batch, again and again. */
static void wait_for_commits(void *arg)
{
    random_state = *(uint64_t *)arg + 2000;
    while (pen_cell_read(&over) == 0) {
        uint64_t number = pen_handover_committed(&handover) + 1 + next_random() % 3;
        uint64_t committed = 0;
        pen_cell_publish(&watched, number);
        for (;;) {
            pen_parker_prepare(&watcher);
            committed = pen_handover_watch(&handover);
            if (committed >= number || pen_cell_read(&over) != 0) {
                pen_parker_cancel(&watcher);
                break;
            }
            (void)pen_parker_park(&watcher, -1, 0, PEN_PARK_FOREVER);
        }
        if (committed > 0 && last_of[committed] == PEN_LSN_NONE) {
            complain("was watched to be committed, and is not", committed);
        }
    }
}

static void work(void *arg)
{
    worker *self = arg;
    random_state = 7 * (self->number + 1);
    pen_batch *batch;
    pen_batch *next = NULL;
    bool going = true;
    while (going &&
           (batch = next != NULL ? next : pen_handover_take(&handover, self->number)) != NULL) {
        next = NULL;
        pen_cell_publish(&taken[batch->number], 1);
        self->batches++;
        going = apply(self, batch, &next);
        pen_batch_destroy(batch);
    }
}

static bool set_up(pen_error *err)
{
    memset(applied, 0, sizeof(applied));
    memset(last_of, 0, sizeof(last_of));
    memset(workers, 0, sizeof(workers));
    newest = 0;
    rooms = 0;
    holds = 0;
    growing = 0;
    for (size_t i = 0; i < PEN_COUNTOF(taken); i++) {
        pen_cell_init(&taken[i], 0);
    }
    limits =
        (pen_batch_limits){.rows = 100, .bytes = 100, .transactions = mode == SOURCE_QUIET ? 1 : 4};
    pen_cell_init(&stop, 0);
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_handover_init(&handover, worker_count, &dispatcher, &stop, 1);
    pen_cell_init(&watched, 0);
    if (!pen_parker_init(&dispatcher, err) || !pen_parker_init(&watcher, err)) {
        return false;
    }
    pen_handover_add_watcher(&handover, &watcher);
    for (unsigned i = 0; i < worker_count; i++) {
        workers[i].number = i;
        if (!pen_parker_init(&workers[i].parker, err)) {
            return false;
        }
        pen_handover_add_worker(&handover, i, &workers[i].parker);
    }
    return true;
}

/* Every transaction of the committed batches once, and all of them unless it was aborted. */
static void check(void)
{
    pen_lsn last = last_of[newest];
    if (mode != SOURCE_ABORTED && last != TXNS) {
        complain("was the last to commit", last);
    }
    for (pen_lsn lsn = 1; lsn <= TXNS; lsn++) {
        if (applied[lsn] > 1 || (lsn <= last && applied[lsn] == 0)) {
            complain("not applied exactly once", lsn);
        }
    }
    pen_batch *left = pen_handover_leftover(&handover);
    if (left != NULL) {
        if (mode != SOURCE_ABORTED) {
            complain("was left behind", left->number);
        }
        pen_batch_destroy(left);
    }
    if (pen_budget_used(&budget) != 0) {
        complain("bytes were not given back", pen_budget_used(&budget));
    }
}

static bool run(source which, unsigned count, uint64_t seed)
{
    pen_error err;
    pen_thread thread = {.started = false};
    pen_thread watchdog = {.started = false};
    pen_thread beside = {.started = false};
    mode = which;
    worker_count = count;
    if (!set_up(&err)) {
        goto fail;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!pen_thread_start(&workers[i].thread, PEN_ROLE_WORKER, "worker", work, &workers[i],
                              &err)) {
            goto fail;
        }
    }
    pen_cell_init(&over, 0);
    if (!pen_thread_start(&watchdog, PEN_ROLE_PROGRESS, "watchdog", watch, &seed, &err)) {
        goto fail;
    }
    if (!pen_thread_start(&beside, PEN_ROLE_WORKER, "watcher", wait_for_commits, &seed, &err)) {
        goto fail;
    }
    if (!pen_thread_start(&thread, PEN_ROLE_DISPATCHER, "dispatcher", dispatch_all, &seed, &err)) {
        goto fail;
    }
    pen_thread_join(&thread);
    uint64_t waits = 0;
    uint64_t let_go = 0;
    uint64_t followed = 0;
    for (unsigned i = 0; i < count; i++) {
        pen_thread_join(&workers[i].thread);
        waits += workers[i].waits;
        let_go += workers[i].let_go;
        followed += workers[i].followed;
    }
    while (pen_cell_read(&watched) <= newest) {
        usleep(10); /* for ever, if a commit did not wake it */
    }
    pen_cell_publish(&over, 1);
    pen_parker_wake(&watcher);
    pen_thread_join(&beside);
    pen_thread_join(&watchdog);
    for (unsigned i = 0; i < count; i++) {
        pen_parker_deinit(&workers[i].parker);
    }
    pen_parker_deinit(&dispatcher);
    pen_parker_deinit(&watcher);
    check();
    if (mode == SOURCE_QUICK && followed == 0) {
        complain("and no other batch followed a commit", newest);
    }
    printf("%s, %u workers: %lu batches, %lu waits for a turn, %lu let go, %lu for room, %lu held, "
           "%lu left to who is at work, %lu followed\n",
           which == SOURCE_BUSY     ? "busy"
           : which == SOURCE_QUIET  ? "quiet"
           : which == SOURCE_BEHIND ? "behind"
           : which == SOURCE_GROWS  ? "growing"
           : which == SOURCE_QUICK  ? "quick"
                                    : "aborted",
           count, newest, waits, let_go, rooms, holds, growing, followed);
    /* Who is told to stop may not have come to the second one yet. */
    return pen_counter_get(&wrong) == 0 && (newest > 1 || mode == SOURCE_ABORTED);
fail:
    fprintf(stderr, "%s\n", err.text);
    exit(EXIT_FAILURE);
}

static bool race(uint64_t first_seed)
{
    static const unsigned counts[] = {1, 2, WORKERS_MAX};
    bool right = true;
    for (size_t i = 0; i < PEN_COUNTOF(counts); i++) {
        right = run(SOURCE_BUSY, counts[i], first_seed + 20 + i) && right;
        right = run(SOURCE_QUIET, counts[i], first_seed + 40 + i) && right;
        right = run(SOURCE_BEHIND, counts[i], first_seed + 50 + i) && right;
        right = run(SOURCE_GROWS, counts[i], first_seed + 90 + i) && right;
        right = run(SOURCE_QUICK, counts[i], first_seed + 80 + i) && right;
    }
    for (uint64_t round = 0; round < 20; round++) {
        right = run(SOURCE_ABORTED, counts[round % PEN_COUNTOF(counts)], first_seed + 60 + round) &&
                right;
    }
    return right;
}

int main(void)
{
    bool right = true;
    begin_watchdog();
    for (uint64_t i = 0; i < races(); i++) {
        right = race(10000 * i) && right;
    }
    return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
