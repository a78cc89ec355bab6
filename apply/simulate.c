#include "apply/simulate.h"

#include "apply/former.h"

#include <stdlib.h>

/* As in apply/worker.c: what goes out in one flight, and from where on changes are planned. */
#define ONE_FLIGHT_CHANGES 64
#define PLANNED_CHANGES    8

/* As in apply/plan_steps.c: a statement for a set of rows is worth it from here on, below each row
 * is one; and what one set has at most. */
#define SET_LEAST 8
#define SET_ROWS  2000

/* One change of the open batch. */
typedef struct change {
    uint64_t bound;
    uint64_t row_hash;
    uint64_t tag; /* the watcher's */
    uint32_t table;
    uint8_t kind;
} change;

/* What sending some changes costs. */
typedef struct work {
    double cpu;
    double wait;
    uint64_t rows; /* as the source counts them */
    uint64_t sent; /* rows, when changes of one row have become one */
    uint64_t statements;
} work;

typedef enum phase {
    PHASE_IDLE,
    PHASE_FREE_CPU,
    PHASE_FREE_WAIT,
    PHASE_TURN, /* waits until the batch before has committed */
    PHASE_TAIL_CPU,
    PHASE_TAIL_WAIT
} phase;

typedef struct worker {
    phase phase;
    double ends;  /* of this phase: in work done by each (CPU), or by the clock (waits) */
    double began; /* of this phase, by the clock */
    double cost;  /* of this phase, were the processors its own */
    uint64_t batch;
    bool alone;  /* all of it goes out at its turn, in one flight */
    work beside; /* what it sends beside other batches, without round trips */
    work tail;   /* what it sends at its turn, without the batch's own costs */
    pen_path path;
} worker;

struct pen_simulation {
    pen_simulation_options options;
    const pen_costs *costs;
    const pen_simulation_watcher *watcher;
    pen_former *former;
    double now;
    double done_by_each; /* what one who has been at work all the time has got done */
    unsigned at_work;    /* workers and dispatcher in a CPU phase */
    uint64_t committed;
    pen_path committed_path;
    /* dispatcher */
    bool receiving;
    double receive_ends;
    pen_path dispatcher;
    /* the open batch */
    pen_batch *open; /* NULL: none */
    bool offered;
    pen_path taken_path; /* of the batch that was taken last */
    change *changes;
    size_t change_count;
    size_t change_capacity;
    work large; /* of a large transaction, which has no changes */
    /* distinct rows of a wave: open addressing, by stamp so that nothing is cleared */
    uint64_t *seen;
    uint32_t *seen_stamp;
    size_t seen_size;
    uint32_t stamp;
    /* statements of a wave: rows of each (table, kind) */
    uint64_t *group_rows;
    size_t group_count;
    double busy;
    pen_simulated result;
    worker workers[];
};

pen_simulation *pen_simulation_create(const pen_simulation_options *options, const pen_costs *costs,
                                      const pen_simulation_watcher *watcher)
{
    pen_simulation *sim =
        pen_calloc(1, sizeof(*sim) + (size_t)options->workers * sizeof(sim->workers[0]));
    sim->options = *options;
    sim->costs = costs;
    sim->watcher = watcher;
    sim->former = pen_former_create(options->conflict_memory, &options->limits, PEN_LSN_NONE);
    return sim;
}

static void free_batch(pen_batch *batch)
{
    batch->first = NULL; /* its transactions are somebody else's */
    batch->last = NULL;
    pen_batch_destroy(batch);
}

void pen_simulation_destroy(pen_simulation *sim)
{
    if (sim == NULL) {
        return;
    }
    if (sim->open != NULL) {
        free_batch(sim->open);
    }
    pen_former_destroy(sim->former);
    free(sim->changes);
    free(sim->seen);
    free(sim->seen_stamp);
    free(sim->group_rows);
    free(sim);
}

/* ---- what sending costs ---- */

static double latency_of(const pen_costs *costs, uint32_t table)
{
    return table < costs->table_count && costs->row_latency != NULL ? costs->row_latency[table] : 0;
}

/* Makes room to tell `count` rows apart. */
static void begin_wave(pen_simulation *sim, size_t count)
{
    size_t size = 64;
    while (size < 2 * count) {
        size *= 2;
    }
    if (size > sim->seen_size) {
        free(sim->seen);
        free(sim->seen_stamp);
        sim->seen = pen_calloc(size, sizeof(*sim->seen));
        sim->seen_stamp = pen_calloc(size, sizeof(*sim->seen_stamp));
        sim->seen_size = size;
        sim->stamp = 0;
    }
    sim->stamp++;
    for (size_t i = 0; i < sim->group_count; i++) {
        sim->group_rows[i] = 0;
    }
}

/* True for the first change of a row in this wave, and for each whose row is not known. */
static bool is_first(pen_simulation *sim, uint64_t row_hash)
{
    size_t mask = sim->seen_size - 1;
    size_t at = row_hash & mask;
    if (row_hash == 0) {
        return true;
    }
    while (sim->seen_stamp[at] == sim->stamp) {
        if (sim->seen[at] == row_hash) {
            return false;
        }
        at = (at + 1) & mask;
    }
    sim->seen_stamp[at] = sim->stamp;
    sim->seen[at] = row_hash;
    return true;
}

static void count_in_group(pen_simulation *sim, const change *chg)
{
    size_t kind = chg->kind == PEN_CHANGE_INSERT ? 0 : chg->kind == PEN_CHANGE_UPDATE ? 1 : 2;
    size_t group = (size_t)chg->table * 3 + kind;
    if (group >= sim->group_count) {
        sim->group_rows = pen_realloc(sim->group_rows, (group + 1) * sizeof(*sim->group_rows));
        for (size_t i = sim->group_count; i <= group; i++) {
            sim->group_rows[i] = 0;
        }
        sim->group_count = group + 1;
    }
    sim->group_rows[group]++;
}

static uint64_t statements_of(uint64_t rows, bool sets)
{
    return !sets || rows < SET_LEAST ? rows : (rows + SET_ROWS - 1) / SET_ROWS;
}

/* Of a change that is told of by itself. */
static double row_cost(const pen_costs *costs)
{
    return costs->row + (costs->sets ? 0 : costs->statement);
}

/* The processor time of what is counted in `sum`. */
static void price(work *sum, const pen_costs *costs)
{
    sum->cpu = (double)sum->sent * costs->row + (double)sum->statements * costs->statement;
}

/* The changes of one wave: those bound to nothing later than `threshold`, or the others. */
static work measure_wave(pen_simulation *sim, bool free_ones, uint64_t threshold)
{
    const pen_costs *costs = sim->costs;
    bool sets = costs->sets && sim->change_count >= PLANNED_CHANGES;
    work sum = {0};
    begin_wave(sim, sim->change_count);
    for (size_t i = 0; i < sim->change_count; i++) {
        const change *chg = &sim->changes[i];
        if ((chg->bound <= threshold) != free_ones) {
            continue;
        }
        sum.rows++;
        if (sets && !is_first(sim, chg->row_hash)) {
            continue; /* merged with the one before */
        }
        sum.sent++;
        sum.wait += latency_of(costs, chg->table);
        count_in_group(sim, chg);
    }
    for (size_t i = 0; i < sim->group_count; i++) {
        sum.statements += statements_of(sim->group_rows[i], sets);
    }
    price(&sum, costs);
    return sum;
}

static void tell_waiting(pen_simulation *sim, uint64_t threshold)
{
    const pen_simulation_watcher *watcher = sim->watcher;
    for (size_t i = 0; watcher != NULL && i < sim->change_count; i++) {
        const change *chg = &sim->changes[i];
        if (chg->bound > threshold) {
            watcher->waits(watcher->arg, chg->tag, chg->table,
                           row_cost(sim->costs) + latency_of(sim->costs, chg->table));
        }
    }
}

static work measure_large(const pen_simulation *sim, const pen_played *played)
{
    uint64_t rows = played->txn->change_count;
    /* By its parts, which are planned as batches are; what kinds its changes are is not known. */
    work sum = {.rows = rows, .sent = rows, .statements = statements_of(rows, sim->costs->sets)};
    price(&sum, sim->costs);
    for (uint32_t i = 0; i < sim->costs->table_count; i++) {
        sum.wait += (double)played->large_rows[i] * latency_of(sim->costs, i);
    }
    return sum;
}

/* ---- the clock ---- */

static bool is_cpu(phase at)
{
    return at == PHASE_FREE_CPU || at == PHASE_TAIL_CPU;
}

static bool is_wait(phase at)
{
    return at == PHASE_FREE_WAIT || at == PHASE_TAIL_WAIT;
}

/* How much of a processor each that is at work has. */
static double pace(const pen_simulation *sim)
{
    unsigned cores = sim->costs->cores;
    return cores == 0 || sim->at_work <= cores ? 1 : (double)cores / sim->at_work;
}

static double by_clock(const pen_simulation *sim, double done_by_each)
{
    double left = done_by_each - sim->done_by_each;
    return left <= 0 ? sim->now : sim->now + left / pace(sim);
}

static void enter(pen_simulation *sim, worker *it, phase next, double cost)
{
    sim->at_work += is_cpu(next);
    it->phase = next;
    it->began = sim->now;
    it->cost = cost;
    it->ends = is_cpu(next) ? sim->done_by_each + cost : sim->now + cost;
}

/* ---- the workers ---- */

static void begin_tail(pen_simulation *sim, worker *it)
{
    enter(sim, it, PHASE_TAIL_CPU, it->tail.cpu + sim->costs->batch);
}

/* Its turn has come, or not yet. */
static void reach_turn(pen_simulation *sim, worker *it)
{
    if (sim->committed == it->batch - 1) {
        begin_tail(sim, it);
    } else {
        it->phase = PHASE_TURN;
    }
}

static void count_sent(pen_simulation *sim, const work *done)
{
    sim->result.sent_rows += done->sent;
    sim->result.statements += done->statements;
}

/* Takes the open batch. `since`: what had to happen before. */
static void take(pen_simulation *sim, worker *it, const pen_path *since)
{
    pen_batch *batch = sim->open;
    uint64_t threshold = sim->committed;
    bool one_flight = threshold == batch->number - 1 && sim->change_count <= ONE_FLIGHT_CHANGES;
    it->batch = batch->number;
    it->path = *since;
    it->beside = (work){0};
    it->alone = batch->feed == NULL && one_flight;
    sim->taken_path = *since;
    sim->result.batches++;
    if (batch->feed != NULL) {
        it->tail = sim->large;
        sim->result.large_rows += it->tail.rows;
        reach_turn(sim, it);
    } else if (one_flight) {
        it->tail = measure_wave(sim, true, UINT64_MAX);
        sim->result.free_rows += it->tail.rows;
        begin_tail(sim, it);
    } else {
        it->beside = measure_wave(sim, true, threshold);
        it->tail = measure_wave(sim, false, threshold);
        tell_waiting(sim, threshold);
        sim->result.free_rows += it->beside.rows;
        sim->result.bound_rows += it->tail.rows;
        enter(sim, it, PHASE_FREE_CPU, it->beside.cpu);
    }
    count_sent(sim, &it->beside);
    count_sent(sim, &it->tail);
    free_batch(batch);
    sim->open = NULL;
    sim->offered = false;
    sim->change_count = 0;
}

/* Its batch has committed: now it is the next one's turn, and it has time itself. */
static void commit(pen_simulation *sim, worker *it)
{
    sim->result.first_commit_ns = sim->committed == 0 ? sim->now : sim->result.first_commit_ns;
    sim->committed = it->batch;
    sim->committed_path = it->path;
    it->phase = PHASE_IDLE;
    for (unsigned i = 0; i < sim->options.workers; i++) {
        worker *next = &sim->workers[i];
        if (next->phase == PHASE_TURN && next->batch == sim->committed + 1) {
            next->path = it->path;
            begin_tail(sim, next);
        }
    }
    if (sim->open != NULL && sim->offered) {
        take(sim, it, &it->path);
    }
}

static void end_phase(pen_simulation *sim, worker *it)
{
    const pen_costs *costs = sim->costs;
    double took = sim->now - it->began;
    double *rows = it->phase == PHASE_FREE_CPU || it->phase == PHASE_FREE_WAIT || it->alone
                       ? &it->path.free_rows
                       : &it->path.bound_rows;
    sim->at_work -= is_cpu(it->phase);
    sim->busy += took;
    it->path.processors += took - it->cost;
    switch (it->phase) {
    case PHASE_FREE_CPU:
        *rows += it->cost;
        enter(sim, it, PHASE_FREE_WAIT, it->beside.wait + costs->round_trip);
        break;
    case PHASE_FREE_WAIT:
        *rows += it->beside.wait;
        it->path.commits += costs->round_trip;
        reach_turn(sim, it);
        break;
    case PHASE_TAIL_CPU:
        *rows += it->tail.cpu;
        it->path.commits += costs->batch;
        enter(sim, it, PHASE_TAIL_WAIT, it->tail.wait + costs->round_trip);
        break;
    case PHASE_TAIL_WAIT:
        *rows += it->tail.wait;
        it->path.commits += costs->round_trip;
        commit(sim, it);
        break;
    case PHASE_IDLE:
    case PHASE_TURN:
        PEN_ASSERT(false);
    }
}

/* ---- from event to event ---- */

/* The worker whose phase ends first, or NULL when the dispatcher's job does; *at is when. False:
 * nothing is under way. */
static bool find_next(const pen_simulation *sim, const worker **first, double *at)
{
    bool found = sim->receiving;
    *first = NULL;
    *at = found ? by_clock(sim, sim->receive_ends) : 0;
    for (unsigned i = 0; i < sim->options.workers; i++) {
        const worker *it = &sim->workers[i];
        if (!is_cpu(it->phase) && !is_wait(it->phase)) {
            continue;
        }
        double ends = is_cpu(it->phase) ? by_clock(sim, it->ends) : it->ends;
        if (!found || ends < *at) {
            *at = ends;
            *first = it;
            found = true;
        }
    }
    return found;
}

/* Moves the clock to what happens next, and lets it happen. */
static bool step(pen_simulation *sim)
{
    const worker *first;
    double at;
    if (!find_next(sim, &first, &at)) {
        return false;
    }
    sim->done_by_each += (at - sim->now) * pace(sim);
    sim->now = at;
    if (first == NULL) {
        sim->receiving = false;
        sim->at_work--;
    } else {
        end_phase(sim, &sim->workers[first - sim->workers]);
    }
    return true;
}

/* ---- the dispatcher ---- */

static void receive(pen_simulation *sim, uint64_t changes)
{
    double cost = sim->costs->receive * (double)changes;
    double began = sim->now;
    if (cost <= 0) {
        return;
    }
    sim->receiving = true;
    sim->receive_ends = sim->done_by_each + cost;
    sim->at_work++;
    while (sim->receiving) {
        step(sim);
    }
    sim->dispatcher.receive += cost;
    sim->dispatcher.processors += sim->now - began - cost;
}

/* Lets the workers have the open batch. */
static void offer(pen_simulation *sim)
{
    sim->offered = true;
    for (unsigned i = 0; i < sim->options.workers; i++) {
        if (sim->workers[i].phase == PHASE_IDLE) {
            take(sim, &sim->workers[i], &sim->dispatcher);
            return;
        }
    }
}

/* Waits until the open batch was taken. */
static void wait_for_room(pen_simulation *sim)
{
    if (!sim->offered) {
        offer(sim);
    }
    while (sim->open != NULL) {
        bool going_on = step(sim);
        PEN_ASSERT(going_on);
    }
    sim->dispatcher = sim->taken_path;
}

static void note_changes(pen_simulation *sim, const pen_played *played)
{
    const pen_simulation_watcher *watcher = sim->watcher;
    const pen_key *keys = played->keys.keys;
    size_t i = 0;
    for (const pen_segment *seg = played->txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next, i++) {
            if (sim->change_count == sim->change_capacity) {
                sim->change_capacity = sim->change_capacity == 0 ? 256 : sim->change_capacity * 2;
                sim->changes =
                    pen_realloc(sim->changes, sim->change_capacity * sizeof(*sim->changes));
            }
            uint32_t key_count = played->keys.changes[i].key_count;
            sim->changes[sim->change_count++] =
                (change){.bound = chg->bound,
                         .row_hash = played->changes[i].row_hash,
                         .tag = watcher == NULL
                                    ? 0
                                    : watcher->note(watcher->arg, chg, keys, key_count,
                                                    sim->open->number, chg->bound, sim->committed),
                         .table = played->changes[i].table,
                         .kind = played->changes[i].kind};
            keys += key_count;
        }
    }
}

static bool is_filled(const pen_simulation *sim)
{
    const pen_batch *batch = sim->open;
    const pen_batch_limits *fill = &sim->options.fill;
    return batch->feed != NULL || batch->txn_count >= fill->transactions ||
           batch->change_count >= fill->rows || batch->bytes >= fill->bytes;
}

void pen_simulation_add(pen_simulation *sim, const pen_played *played)
{
    pen_txn *txn = played->txn;
    sim->result.transactions++;
    sim->result.changes += txn->change_count;
    if (txn->feed == NULL) {
        receive(sim, txn->change_count);
    }
    if (sim->open != NULL && !pen_former_has_room(sim->former, sim->open, txn)) {
        wait_for_room(sim);
    }
    if (sim->open == NULL) {
        sim->open = pen_former_begin(sim->former);
    }
    pen_former_add(sim->former, sim->open, txn, &played->keys, sim->committed);
    sim->open->first = NULL; /* whose it is, is gone when the next one comes */
    sim->open->last = NULL;
    if (txn->feed == NULL) {
        note_changes(sim, played);
    } else {
        sim->large = measure_large(sim, played);
    }
    if (!sim->offered && is_filled(sim)) {
        offer(sim);
    }
    if (txn->feed != NULL) {
        receive(sim, txn->change_count); /* it flows while it is applied */
    }
}

pen_simulated pen_simulation_finish(pen_simulation *sim)
{
    if (sim->open != NULL && !sim->offered) {
        offer(sim);
    }
    while (step(sim)) {
    }
    PEN_ASSERT(sim->open == NULL);
    sim->result.ns = sim->now;
    sim->result.path = sim->committed_path;
    sim->result.busy = sim->now > 0 ? sim->busy / (sim->now * sim->options.workers) : 0;
    return sim->result;
}
