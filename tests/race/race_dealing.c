/* The baton without servers: one thread plays the reader, several play dispatchers. Each
 * transaction is dispatched once, all in commit order, by one dispatcher at a time, who sees what
 * the one before did; the same where a single one lends its role to the reader; and nobody waits
 * for ever, which a watchdog would show. Delays come between any two steps of the protocol, because
 * this file compiles it with them: the source is the product's own. */
#include "apply/dealing.h"
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
#define pen_flag_raise(flag)           (delay(), pen_flag_raise(flag))
#define pen_flag_lower(flag)           (delay(), pen_flag_lower(flag))
#define pen_ring_push(ring, item)      (delay(), pen_ring_push(ring, item))
#define pen_ring_pop(ring)             (delay(), pen_ring_pop(ring))
#define pen_parker_prepare(parker)     (delay(), pen_parker_prepare(parker))
#define pen_parker_wake(parker)        (delay(), pen_parker_wake(parker))
#define pen_meter_park(wait, parker, fd, events, timeout_ms)                                       \
    (delay(), pen_meter_park(wait, parker, fd, events, timeout_ms))

#include "apply/dealing.c"

#undef pen_cell_publish

#define TXNS 1200

typedef enum source {
    SOURCE_BUSY,
    SOURCE_QUIET,  /* deals one more only when the one before was dispatched */
    SOURCE_BURSTS, /* quiet now and then */
    SOURCE_ABORTED /* everybody is told to stop half-way */
} source;

typedef struct dispatcher {
    unsigned number;
    pen_thread thread;
    uint64_t runs;
    uint64_t ahead; /* taken without the baton */
    uint64_t dry;   /* told so */
} dispatcher;

/* Nothing from here on is atomic but what says so: the dealing alone orders it. */
static pen_dealing dealing;
static pen_parker reader;
static pen_cell stop;
static pen_txn txns[TXNS];
static uint8_t taken[TXNS];
static dispatcher dispatchers[PEN_DISPATCHERS_MAX];
static source mode;
static uint64_t total; /* transactions of this run */
static uint64_t run_seed;
static uint64_t dispatched; /* who holds the baton */
static uint64_t held;       /* the same: the newest of them are held, so many */
static pen_cell shown;      /* those that are not held, for the quiet reader */
static pen_counter wrong;
static uint64_t full;     /* the reader waited for room */
static uint64_t direct;   /* the reader dispatched itself */
static uint64_t together; /* several of those were let out at once */
static uint64_t kept;     /* dispatched by the reader and not let out yet; in the role */

static void complain(const char *what, uint64_t number)
{
    fprintf(stderr, "transaction %lu: %s\n", number, what);
    pen_counter_add(&wrong, 1);
}

static bool reader_waits(uint64_t number)
{
    bool quiet = mode == SOURCE_QUIET || (mode == SOURCE_BURSTS && number / 50 % 3 == 0);
    return quiet && pen_cell_read(&shown) < number;
}

static void dispatch(const pen_txn *txn);

/* As apply/dispatcher.c does it: some are left to the dispatcher. */
static bool dispatch_directly(void *arg, pen_txn *txn)
{
    if (arg != &direct || next_random() % 4 == 0) {
        return false;
    }
    taken[txn->commit_lsn - 1]++;
    kept++;
    dispatch(txn);
    direct++;
    return true;
}

static void let_out_directly(void *arg)
{
    if (arg != &direct || pen_thread_role() != PEN_ROLE_READER || !dealing.has_role) {
        complain("let out without the role", dispatched);
    }
    together += kept > 1;
    if (kept > 0) {
        kept = 0;
        pen_cell_publish(&shown, dispatched);
    }
}

/* As apply/intake.c does it. */
static void deal_all(void *arg)
{
    random_state = *(uint64_t *)arg;
    for (uint64_t i = 0; i < total; i++) {
        txns[i] = (pen_txn){.commit_lsn = i + 1};
        while (!pen_dealing_deal(&dealing, &txns[i])) {
            full++;
            pen_parker_prepare(&reader);
            if (pen_dealing_deal(&dealing, &txns[i])) {
                pen_parker_cancel(&reader);
                break;
            }
            if (pen_cell_read(&stop) != 0) {
                pen_parker_cancel(&reader);
                return;
            }
            (void)pen_parker_park(&reader, -1, 0, PEN_PARK_FOREVER);
        }
        if (next_random() % 4 == 0 || reader_waits(i + 1)) {
            pen_dealing_flush(&dealing);
        }
        while (reader_waits(i + 1)) {
            usleep(5);
        }
        if (mode == SOURCE_ABORTED && i == total / 2 - 2) {
            pen_dealing_flush(&dealing);
            usleep(5000); /* so that the dispatcher sleeps, and lends its role for the next ones */
        }
        if (mode == SOURCE_ABORTED && i == total / 2) {
            pen_cell_publish(&stop, 1);
            pen_dealing_wake(&dealing);
            usleep(200); /* so that who sleeps wants its role back first */
            pen_dealing_flush(&dealing);
            return;
        }
    }
    pen_dealing_flush(&dealing);
    pen_dealing_end(&dealing);
}

static void dispatch(const pen_txn *txn)
{
    if (txn->commit_lsn != dispatched + 1) {
        complain("dispatched out of order", txn->commit_lsn);
    }
    delay();
    pen_counter_add(&steps, 1);
    dispatched = txn->commit_lsn;
    if (pen_thread_role() == PEN_ROLE_READER) {
        /* It must not hold: there is nobody who would be told that it is dry. */
        if (held > 0 || dealing.tells_dry) {
            complain("dispatched by the reader behind what is held", dispatched);
        }
        return;
    }
    if (kept > 0) {
        complain("dispatched while the reader keeps those before it", dispatched);
    }
    /* Now and then, and always when the baton goes on. */
    bool hold = next_random() % 64 == 0 || dispatched % PEN_RUN == 0;
    held = hold ? held + 1 : 0;
    pen_dealing_tell_dry(&dealing, hold);
    if (!hold) {
        pen_cell_publish(&shown, dispatched);
    }
}

/* The stream is dry, or at its end: what is held is let out. */
static void let_out(void)
{
    held = 0;
    pen_dealing_tell_dry(&dealing, false);
    pen_cell_publish(&shown, dispatched);
}

/* As apply/dispatcher.c does it, but that it wants less now and then. */
static void work(void *arg)
{
    dispatcher *self = arg;
    pen_txn *ahead[PEN_RUN];
    unsigned first = 0;
    unsigned count = 0;
    unsigned in_run = 0;
    uint64_t at = self->number;
    random_state = 77 + self->number + 1000 * run_seed;
    for (;;) {
        pen_txn *txn = NULL;
        unsigned waiting = count - first;
        bool wants = waiting == 0 || (in_run + waiting < PEN_RUN && next_random() % 4 != 0);
        pen_dealt what = pen_dealing_next(&dealing, self->number, at, wants, waiting > 0, &txn);
        if (what == PEN_DEALT_OVER || what == PEN_DEALT_STOPPED) {
            if (what == PEN_DEALT_OVER && waiting > 0) {
                complain("left behind", ahead[first]->commit_lsn);
            }
            return;
        }
        if (what == PEN_DEALT_DRY) {
            if (held == 0 || waiting > 0) {
                complain("the last one, when it is told without need that it is dry", dispatched);
            }
            self->dry++;
            let_out();
            continue;
        }
        if (what == PEN_DEALT_TXN) {
            if (count == 0) {
                first = 0;
            }
            taken[txn->commit_lsn - 1]++;
            self->ahead += waiting > 0;
            ahead[count++] = txn;
            continue;
        }
        dispatch(ahead[first++]);
        if (first == count) {
            first = count = 0;
        }
        if (++in_run == PEN_RUN) {
            pen_dealing_pass(&dealing, at);
            self->runs++;
            at += dealing.count;
            in_run = 0;
        }
    }
}

static void check(void)
{
    if (mode != SOURCE_ABORTED && dispatched != total) {
        complain("was the last to be dispatched", dispatched);
    }
    for (uint64_t i = 0; i < total; i++) {
        if (taken[i] > 1 || (mode != SOURCE_ABORTED && taken[i] != 1)) {
            complain("not taken exactly once", i + 1);
        }
    }
    for (const pen_txn *txn; (txn = pen_dealing_leftover(&dealing)) != NULL;) {
        if (mode != SOURCE_ABORTED) {
            complain("was left in a ring", txn->commit_lsn);
        }
    }
}

static bool run(source which, uint64_t length, unsigned count, size_t capacity, uint64_t seed)
{
    pen_error err;
    pen_thread thread = {.started = false};
    mode = which;
    total = length;
    run_seed = seed;
    dispatched = 0;
    held = 0;
    full = 0;
    direct = 0;
    together = 0;
    kept = 0;
    memset(taken, 0, sizeof(taken));
    memset(dispatchers, 0, sizeof(dispatchers));
    memset(&dealing, 0, sizeof(dealing));
    pen_cell_init(&stop, 0);
    pen_cell_init(&shown, 0);
    if (!pen_parker_init(&reader, &err) ||
        !pen_dealing_init(&dealing, count, capacity, &reader, &stop, 1, &err)) {
        goto fail;
    }
    /* With several it must be nothing. */
    if (seed % 2 == 0 || count > 1) {
        const pen_direct how = {
            .dispatch = dispatch_directly, .let_out = let_out_directly, .arg = &direct};
        pen_dealing_set_direct(&dealing, &how);
    }
    for (unsigned i = 0; i < count; i++) {
        dispatchers[i].number = i;
        if (!pen_thread_start(&dispatchers[i].thread, PEN_ROLE_DISPATCHER, "dispatcher", work,
                              &dispatchers[i], &err)) {
            goto fail;
        }
    }
    if (!pen_thread_start(&thread, PEN_ROLE_READER, "reader", deal_all, &seed, &err)) {
        goto fail;
    }
    pen_thread_join(&thread);
    uint64_t runs = 0;
    uint64_t ahead = 0;
    uint64_t dry = 0;
    for (unsigned i = 0; i < count; i++) {
        pen_thread_join(&dispatchers[i].thread);
        runs += dispatchers[i].runs;
        ahead += dispatchers[i].ahead;
        dry += dispatchers[i].dry;
    }
    check();
    bool was_direct = dealing.direct.dispatch != NULL;
    pen_dealing_deinit(&dealing);
    pen_parker_deinit(&reader);
    if (total == TXNS) {
        printf("%d, %u dispatchers, rings of %zu: %lu runs, %lu ahead of their turn, %lu waits for "
               "room, %lu times dry, %lu by the reader, %lu times some together\n",
               (int)which, count, capacity, runs, ahead, full, dry, direct, together);
        bool quiet = was_direct && (mode == SOURCE_QUIET || mode == SOURCE_BURSTS);
        if ((quiet && direct < total / 20) || (!was_direct && direct > 0)) {
            complain("by the reader: too few, or more than may be", direct);
        }
        if (was_direct && which == SOURCE_BURSTS && together == 0) {
            complain("and the reader never let out several together", total);
        }
        if (which == SOURCE_QUIET && dry == 0) {
            complain("and nobody was ever told that it is dry", total);
        }
    }
    /* Who is told to stop may not have come to the first one yet. */
    return pen_counter_get(&wrong) == 0 && (dispatched > 0 || mode == SOURCE_ABORTED);
fail:
    fprintf(stderr, "%s\n", err.text);
    exit(EXIT_FAILURE);
}

static bool race(uint64_t first_seed)
{
    static const unsigned counts[] = {1, 2, 5, PEN_DISPATCHERS_MAX};
    static const size_t capacities[] = {2, 64};
    bool right = true;
    for (uint64_t i = 0; i < 2 * PEN_COUNTOF(counts); i++) {
        unsigned count = counts[i % PEN_COUNTOF(counts)];
        size_t capacity = capacities[i / PEN_COUNTOF(counts)];
        right = run(SOURCE_BUSY, TXNS, count, capacity, first_seed + 20 + i) && right;
        right = run(SOURCE_QUIET, TXNS, count, capacity, first_seed + 40 + i) && right;
        right = run(SOURCE_BURSTS, TXNS, count, capacity, first_seed + 60 + i) && right;
    }
    for (uint64_t round = 0; round < 20; round++) {
        right = run(SOURCE_ABORTED, TXNS, counts[round % PEN_COUNTOF(counts)],
                    capacities[round % 2], first_seed + 80 + round) &&
                right;
    }
    /* The end, again and again: nothing that was dealt just before may be left. */
    for (uint64_t round = 0; round < 400; round++) {
        right = run(SOURCE_BUSY, 1 + round % 70, counts[round % PEN_COUNTOF(counts)], 64,
                    first_seed + 1000 + 7 * round) &&
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
