/* The former against a model that remembers every change, with workers that do all that they may:
 * random histories over few keys, random limits, workers that take, run, fail, replay and commit at
 * random moments. However it goes, no two conflicting changes run out of the source's order. And
 * the test tells when a rule is broken: each is, on purpose. */
#include "apply/former.h"

#include "core/feed.h"

#include <criterion/criterion.h>
#include <string.h>

enum { TXNS = 40, CHANGES_MAX = 240, KEYS_MAX = 64, WORKERS_MAX = 9, BATCHES_MAX = TXNS + 2 };

/* What is done wrong, to see that it shows. */
typedef enum mistake {
    MISTAKE_NONE,
    MISTAKE_THRESHOLD, /* a worker asks for each change anew what has committed */
    MISTAKE_TURN,      /* it commits without waiting for its turn */
    MISTAKE_BOUND,     /* it runs the bound changes at once */
    MISTAKE_KEY,       /* one key in ten is not told */
    MISTAKE_FAR,       /* a large transaction does not wait for its turn */
    MISTAKE_KINDS
} mistake;

typedef struct step {
    uint64_t reads; /* keys, as bits */
    uint64_t writes;
    bool after_all;
    bool is_fed;
    uint64_t batch;
    const pen_change *chg;
    bool has_run;
} step;

typedef enum phase { PHASE_FREE, PHASE_WAIT, PHASE_BOUND, PHASE_DONE, PHASE_LATE } phase;

typedef struct worker {
    pen_batch *batch; /* NULL: idle */
    phase phase;
    uint64_t threshold;
    size_t at; /* the next of its batch's steps to be looked at */
} worker;

typedef struct world {
    uint64_t seed;
    mistake wrong;
    size_t memory;
    pen_batch_limits limits;
    uint32_t key_count;
    uint32_t write_percent;
    unsigned worker_count;
    uint32_t fail_percent;
    pen_former *former;
    pen_batch *open;
    worker workers[WORKERS_MAX];
    step steps[CHANGES_MAX];
    size_t step_count;
    size_t first_of[BATCHES_MAX]; /* steps, by batch number */
    size_t txn_count;
    uint64_t begun; /* batches */
    uint64_t committed;
    pen_lsn last_lsn; /* of the newest transaction that was dispatched */
    uint64_t violations;
    uint64_t beside; /* changes that ran while an earlier batch was not committed */
    uint64_t replays;
} world;

static pen_budget budget;
static pen_arena arena;

static uint64_t next_random(world *w)
{
    /* splitmix64, of Steele, Lea and Flood's paper of 2014 */
    uint64_t mixed = w->seed += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

static uint64_t below(world *w, uint64_t limit)
{
    return next_random(w) % limit;
}

static bool percent(world *w, uint32_t chance)
{
    return below(w, 100) < chance;
}

/* The model's own word on two changes of the source, `a` before `b`. */
static bool must_keep_order(const step *a, const step *b)
{
    if ((a->writes & (b->reads | b->writes)) != 0 || (a->reads & b->writes) != 0) {
        return true;
    }
    return a->batch != b->batch && (b->after_all || a->is_fed || b->is_fed);
}

static void run_step(world *w, size_t at)
{
    step *it = &w->steps[at];
    cr_assert_not(it->has_run);
    for (size_t i = 0; i < at; i++) {
        w->violations += !w->steps[i].has_run && must_keep_order(&w->steps[i], it);
    }
    it->has_run = true;
    w->beside += w->committed + 1 < it->batch;
}

static void take_back(world *w, size_t at)
{
    for (size_t i = at + 1; i < w->step_count; i++) {
        const step *later = &w->steps[i];
        w->violations += later->has_run && later->batch != w->steps[at].batch &&
                         must_keep_order(&w->steps[at], later);
    }
    w->steps[at].has_run = false;
}

/* The dispatcher */

static pen_txn *make_txn(world *w, bool is_fed)
{
    /* All of it, with its changes, in one block. */
    pen_arena_reserve(&arena, 4096);
    pen_txn *txn = pen_arena_alloc(&arena, sizeof(*txn));
    pen_segment *seg = pen_arena_alloc(&arena, sizeof(*seg));
    *seg = (pen_segment){.block = arena.block};
    pen_block_acquire(arena.block);
    *txn = (pen_txn){.commit_lsn = w->last_lsn + 1 + below(w, 3), .first = seg, .last = seg};
    if (is_fed) {
        txn->feed = pen_feed_create();
        pen_feed_release(txn->feed); /* nobody plays the reader */
    }
    return txn;
}

static void add_change(pen_txn *txn, pen_change *chg)
{
    *chg = (pen_change){.kind = PEN_CHANGE_UPDATE, .bound = UINT64_MAX};
    pen_segment *seg = txn->last;
    if (seg->last == NULL) {
        seg->first = chg;
    } else {
        seg->last->next = chg;
    }
    seg->last = chg;
    txn->change_count++;
    txn->bytes += 10;
}

/* Notes a random change in the model and gives its keys. */
static uint32_t random_keys(world *w, step *it, pen_key *keys)
{
    uint32_t count = (uint32_t)below(w, 5);
    uint32_t told = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t key = below(w, w->key_count);
        bool write = percent(w, w->write_percent);
        *(write ? &it->writes : &it->reads) |= UINT64_C(1) << key;
        if (w->wrong != MISTAKE_KEY || !percent(w, 10)) {
            /* Any hash does: few tables are as large as these are different. */
            keys[told++] = (pen_key){.hash = (key + 1) * UINT64_C(0x9e3779b97f4a7c15),
                                     .access = write ? PEN_ACCESS_WRITE : PEN_ACCESS_READ};
        }
    }
    return told;
}

static void check_limits(const world *w, const pen_batch *batch)
{
    if (batch->txn_count > 1) {
        cr_assert_null(batch->feed);
        cr_assert_leq(batch->txn_count, w->limits.transactions);
        cr_assert_leq(batch->change_count, w->limits.rows);
        cr_assert_leq(batch->bytes, w->limits.bytes);
    }
}

/* As apply/dispatcher.c does it; nothing when the open batch is full. */
static void dispatch(world *w)
{
    static pen_key keys[CHANGES_MAX * 5];
    static pen_change_keys changes[CHANGES_MAX];
    pen_txn_keys its = {.keys = keys, .changes = changes};
    bool is_fed = percent(w, 3);
    size_t first = w->step_count;
    size_t count = 1 + below(w, percent(w, 10) ? 20 : 5);
    pen_txn *txn = make_txn(w, is_fed);
    for (size_t i = 0; i < count; i++) {
        step *it = &w->steps[first + i];
        pen_change *chg = pen_arena_alloc(&arena, sizeof(*chg));
        *it = (step){.chg = chg, .is_fed = is_fed, .after_all = percent(w, 2)};
        changes[i] = (pen_change_keys){.key_count = random_keys(w, it, keys + its.key_count),
                                       .after_all = it->after_all};
        its.key_count += changes[i].key_count;
        add_change(txn, chg);
    }
    if (w->open != NULL && !pen_former_has_room(w->former, w->open, txn)) {
        pen_txn_release(txn);
        return;
    }
    if (w->open == NULL) {
        w->open = pen_former_begin(w->former);
        cr_assert_eq(w->open->number, ++w->begun);
        cr_assert_eq(w->open->previous_commit_lsn, w->last_lsn);
        w->first_of[w->begun] = first;
    }
    for (size_t i = 0; i < count; i++) {
        w->steps[first + i].batch = w->begun;
    }
    w->step_count += count;
    w->first_of[w->begun + 1] = w->step_count;
    w->txn_count++;
    w->last_lsn = txn->commit_lsn;
    uint64_t stale = percent(w, 50) ? w->committed : below(w, w->committed + 1);
    pen_former_add(w->former, w->open, txn, is_fed ? NULL : &its, stale);
    check_limits(w, w->open);
}

/* The workers */

static size_t end_of(const world *w, const worker *me)
{
    return w->first_of[me->batch->number + 1];
}

static void take(world *w, worker *me)
{
    *me = (worker){.batch = w->open, .at = w->first_of[w->open->number]};
    w->open = NULL;
    /* Any batch that has committed will do. */
    me->threshold = percent(w, 70) ? w->committed : below(w, w->committed + 1);
    me->phase = me->batch->feed != NULL && w->wrong != MISTAKE_FAR ? PHASE_LATE : PHASE_FREE;
    for (size_t i = me->at; i < end_of(w, me); i++) {
        uint64_t bound = w->steps[i].chg->bound;
        if (me->batch->feed == NULL) {
            cr_assert_lt(bound, me->batch->number, "mistake %d: %lu is no earlier batch",
                         (int)w->wrong, bound);
        } else {
            ((pen_change *)(uintptr_t)w->steps[i].chg)->bound = 0;
        }
    }
}

static void fail(world *w, worker *me)
{
    for (size_t i = end_of(w, me); i-- > w->first_of[me->batch->number];) {
        if (w->steps[i].has_run) {
            take_back(w, i);
        }
    }
    me->phase = PHASE_LATE;
    w->replays++;
}

/* Runs the next change of the wave, or goes on to the next phase. */
static void run_wave(world *w, worker *me, phase next)
{
    while (me->at < end_of(w, me)) {
        size_t at = me->at++;
        uint64_t threshold = w->wrong == MISTAKE_THRESHOLD ? w->committed : me->threshold;
        bool is_free = w->steps[at].chg->bound <= threshold;
        if (!w->steps[at].has_run && (me->phase == PHASE_BOUND || is_free)) {
            run_step(w, at);
            return;
        }
    }
    me->at = w->first_of[me->batch->number];
    me->phase = next;
}

/* True when the batch that the largest bound names has committed. */
static bool may_run_bound(const world *w, const worker *me)
{
    for (size_t i = w->first_of[me->batch->number]; i < end_of(w, me); i++) {
        if (w->steps[i].chg->bound > w->committed) {
            return w->wrong == MISTAKE_BOUND;
        }
    }
    return true;
}

static void commit(world *w, worker *me)
{
    w->committed = me->batch->number > w->committed ? me->batch->number : w->committed;
    pen_batch_destroy(me->batch);
    me->batch = NULL;
}

/* One thing that a worker may do now, if any. */
static void go_on(world *w, worker *me)
{
    if (me->batch == NULL) {
        if (w->open != NULL) {
            take(w, me);
        }
        return;
    }
    bool turn = w->committed + 1 >= me->batch->number;
    if (me->phase != PHASE_LATE && percent(w, w->fail_percent)) {
        fail(w, me);
        return;
    }
    switch (me->phase) {
    case PHASE_FREE:
        run_wave(w, me, PHASE_WAIT);
        break;
    case PHASE_WAIT:
        if (w->committed > me->threshold && percent(w, 30)) {
            me->threshold = w->committed; /* one more wave */
            me->phase = PHASE_FREE;
        } else {
            me->phase = may_run_bound(w, me) ? PHASE_BOUND : PHASE_WAIT;
        }
        break;
    case PHASE_BOUND:
        run_wave(w, me, PHASE_DONE);
        break;
    case PHASE_DONE:
        if (turn || w->wrong == MISTAKE_TURN) {
            commit(w, me);
        }
        break;
    case PHASE_LATE:
        if (turn) {
            for (size_t i = w->first_of[me->batch->number]; i < end_of(w, me); i++) {
                run_step(w, i);
            }
            commit(w, me);
        }
        break;
    }
}

static bool is_busy(const world *w)
{
    for (unsigned i = 0; i < w->worker_count; i++) {
        if (w->workers[i].batch != NULL) {
            return true;
        }
    }
    return w->open != NULL;
}

/* Until every transaction is dispatched and committed. */
static void live(world *w, uint64_t seed)
{
    static const uint32_t paces[] = {2, 20, 60};
    uint32_t pace = paces[seed % PEN_COUNTOF(paces)]; /* of the source against the target */
    pen_arena_init(&arena, &budget);
    w->seed = seed;
    w->last_lsn = 41;
    w->former = pen_former_create(w->memory, &w->limits, w->last_lsn);
    bool more = true;
    while (more || is_busy(w)) {
        if (more && percent(w, pace)) {
            dispatch(w);
        } else {
            go_on(w, &w->workers[below(w, w->worker_count)]);
        }
        more = w->txn_count < TXNS && w->step_count + 20 < CHANGES_MAX;
    }
    for (size_t i = 0; i < w->step_count; i++) {
        cr_assert(w->steps[i].has_run);
    }
    pen_former_counts counts = pen_former_count(w->former);
    cr_assert_leq(counts.changes, w->step_count);
    cr_assert_leq(counts.bound, counts.changes);
    pen_former_destroy(w->former);
    pen_arena_deinit(&arena);
    cr_assert_eq(pen_budget_used(&budget), 0);
}

typedef struct tally {
    uint64_t violations;
    uint64_t beside;
    uint64_t replays;
} tally;

static tally histories(size_t memory, mistake wrong, uint64_t first_seed, uint64_t count)
{
    static const uint32_t key_counts[] = {2, 5, 16, KEYS_MAX};
    static const uint32_t write_percents[] = {20, 50, 100};
    static const uint64_t most[] = {1, 3, 8, 1000};
    static const unsigned worker_counts[] = {1, 2, 4, WORKERS_MAX};
    static const uint32_t fail_percents[] = {0, 0, 1, 5};
    static world w;
    tally sum = {0};
    pen_budget_init(&budget, SIZE_MAX, NULL);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t seed = first_seed + i;
        memset(&w, 0, sizeof(w));
        w.memory = memory;
        w.wrong = wrong;
        w.key_count = key_counts[i % 4];
        w.write_percent = write_percents[i % 3];
        w.limits = (pen_batch_limits){.transactions = most[i / 4 % 4],
                                      .rows = most[i / 16 % 4] * 4,
                                      .bytes = most[i / 64 % 4] * 60};
        w.worker_count = worker_counts[i / 7 % 4];
        w.fail_percent = fail_percents[i / 5 % 4];
        live(&w, seed * 1000003);
        if (wrong == MISTAKE_NONE) {
            cr_assert_eq(w.violations, 0, "seed %lu of %zu bytes", seed, memory);
        }
        sum.violations += w.violations;
        sum.beside += w.beside;
        sum.replays += w.replays;
    }
    return sum;
}

TestSuite(former, .timeout = 120);

Test(former, keeps_the_order_with_one_bucket)
{
    histories(PEN_CONFLICT_BUCKET, MISTAKE_NONE, 10000, 3000);
}

Test(former, keeps_the_order_with_few_buckets)
{
    tally sum = histories((size_t)4 * PEN_CONFLICT_BUCKET, MISTAKE_NONE, 20000, 3000);
    cr_assert_gt(sum.beside, 1000, "and still lets changes run beside earlier batches");
}

Test(former, keeps_the_order_with_room_for_all)
{
    tally sum = histories((size_t)1024 * PEN_CONFLICT_BUCKET, MISTAKE_NONE, 30000, 6000);
    cr_assert_gt(sum.beside, 50000, "most changes run beside earlier batches");
    cr_assert_gt(sum.replays, 1000);
}

/* Whoever breaks a rule is found out: else the three above would prove nothing. */
Test(former, each_broken_rule_shows)
{
    for (mistake wrong = MISTAKE_NONE + 1; wrong < MISTAKE_KINDS; wrong++) {
        tally sum = histories((size_t)1024 * PEN_CONFLICT_BUCKET, wrong, 40000, 800);
        cr_assert_gt(sum.violations, 0, "mistake %d", (int)wrong);
    }
}

Test(former, the_memory_is_cut_to_a_power_of_two)
{
    const pen_batch_limits limits = {.rows = 1, .bytes = 1, .transactions = 1};
    static const struct {
        size_t memory;
        uint64_t evictions; /* of 8 keys that share one bucket only while there are few */
    } cases[] = {{64, 5}, {127, 5}, {128, 2}, {255, 2}, {256, 0}};
    pen_budget_init(&budget, SIZE_MAX, NULL);
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        pen_arena_init(&arena, &budget);
        pen_former *former = pen_former_create(cases[i].memory, &limits, 0);
        world w = {0};
        pen_txn *txn = make_txn(&w, false);
        pen_change chg;
        add_change(txn, &chg);
        pen_key keys[8];
        for (uint64_t k = 0; k < PEN_COUNTOF(keys); k++) {
            keys[k] = (pen_key){.hash = (k + 1) << 32 | k, .access = PEN_ACCESS_WRITE};
        }
        const pen_change_keys all = {.key_count = PEN_COUNTOF(keys)};
        const pen_txn_keys its = {.keys = keys, .key_count = PEN_COUNTOF(keys), .changes = &all};
        pen_batch *batch = pen_former_begin(former);
        pen_former_add(former, batch, txn, &its, 0);
        cr_assert_eq(pen_former_count(former).evictions, cases[i].evictions, "%zu bytes: %lu",
                     cases[i].memory, pen_former_count(former).evictions);
        pen_batch_destroy(batch);
        pen_former_destroy(former);
        pen_arena_deinit(&arena);
    }
}

Test(former, a_large_one_that_does_not_come_whole_leaves_the_progress_where_it_was)
{
    const pen_batch_limits limits = {.rows = 1, .bytes = 1, .transactions = 1};
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_former *former = pen_former_create(128, &limits, 100);
    world w = {.last_lsn = 200, .seed = 1};
    for (int turn = 0; turn < 2; turn++) {
        pen_batch *batch = pen_former_begin(former);
        pen_former_add(former, batch, make_txn(&w, true), NULL, 0);
        cr_assert_eq(batch->previous_commit_lsn, 100);
        pen_former_forget_fed(former);
        pen_batch_destroy(batch);
    }
    pen_batch *whole = pen_former_begin(former);
    pen_txn *txn = make_txn(&w, true);
    pen_lsn commit_lsn = txn->commit_lsn;
    pen_former_add(former, whole, txn, NULL, 0);
    pen_batch *next = pen_former_begin(former);
    cr_assert_eq(whole->previous_commit_lsn, 100);
    cr_assert_eq(next->previous_commit_lsn, commit_lsn);
    cr_assert_eq(next->number, 4);
    pen_batch_destroy(whole);
    pen_batch_destroy(next);
    pen_former_destroy(former);
    pen_arena_deinit(&arena);
}
