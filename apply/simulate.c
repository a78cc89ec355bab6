#include "apply/simulate.h"

#include "apply/former.h"
#include "apply/handover.h"

#include <stdlib.h>

typedef enum phase {
    PHASE_IDLE,
    PHASE_FREE_CPU,
    PHASE_FREE_WAIT,
    PHASE_EARLIER, /* waits until an earlier batch has committed */
    PHASE_TURN,    /* waits until the batch before has committed */
    PHASE_TAIL_CPU,
    PHASE_TAIL_WAIT
} phase;

typedef struct worker {
    phase phase;
    double ends;  /* of this phase: in work done by each (CPU), or by the clock (waits) */
    double began; /* of this phase, by the clock */
    double cost;  /* of this phase, were the processors its own */
    uint64_t batch;
    bool alone;    /* all of it goes out at its turn, in one flight */
    bool is_large; /* it has no changes: `now` is all of it */
    uint64_t from; /* what is bound to an earlier batch is there */
    uint64_t awaits;
    double took; /* without waiting for others */
    unsigned trips;
    pen_price now; /* what is being sent, without the batch's own costs and round trips */
    pen_priced_change *changes;
    size_t change_count;
    size_t change_capacity;
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
    pen_priced_change *changes;
    size_t change_count;
    size_t change_capacity;
    pen_price large; /* of a large transaction, which has no changes */
    pen_pricer *pricer;
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
    sim->pricer = pen_pricer_create(costs);
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
    pen_pricer_destroy(sim->pricer);
    free(sim->changes);
    for (unsigned i = 0; i < sim->options.workers; i++) {
        free(sim->workers[i].changes);
    }
    free(sim);
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

/* Who was sent at its batch's turn because of what it is bound to. */
static void tell_waiting(const pen_simulation *sim, const worker *it)
{
    const pen_simulation_watcher *watcher = sim->watcher;
    for (size_t i = 0; watcher != NULL && !it->alone && i < it->change_count; i++) {
        const pen_priced_change *chg = &it->changes[i];
        if (chg->bound >= it->from) {
            watcher->waits(watcher->arg, chg->tag, chg->table, pen_pricer_one(sim->pricer, chg));
        }
    }
}

static void begin(pen_simulation *sim, worker *it, phase first, pen_wave wave)
{
    if (!it->is_large) {
        it->now = pen_pricer_wave(sim->pricer, it->changes, it->change_count, wave);
    }
    sim->result.sent_rows += it->now.sent;
    sim->result.statements += it->now.statements;
    it->trips++;
    it->from = wave.to + 1;
    enter(sim, it, first, it->now.cpu + (first == PHASE_TAIL_CPU ? sim->costs->batch : 0));
}

/* All that remains, and COMMIT. */
static void begin_tail(pen_simulation *sim, worker *it)
{
    tell_waiting(sim, it);
    begin(sim, it, PHASE_TAIL_CPU, (pen_wave){it->from, UINT64_MAX});
    *(it->is_large ? &sim->result.large_rows
      : it->alone  ? &sim->result.free_rows
                   : &sim->result.bound_rows) += it->now.rows;
}

/* What need not wait any more, though the turn has not come. */
static void begin_wave(pen_simulation *sim, worker *it)
{
    begin(sim, it, PHASE_FREE_CPU, (pen_wave){it->from, sim->committed});
    sim->result.free_rows += it->now.rows;
}

/* The batch that is worth waiting for before the turn; 0 for none. */
static uint64_t worth_waiting_for(const pen_simulation *sim, const worker *it)
{
    uint32_t counts[PEN_HOLDERS] = {0};
    uint64_t worth = sim->options.filling == NULL ? 0 : pen_waves_worth(sim->options.filling);
    if (worth == 0 || !pen_waves_may_be(it->batch, it->change_count, it->from, worth)) {
        return 0;
    }
    for (size_t i = 0; i < it->change_count; i++) {
        uint64_t bound = it->changes[i].bound;
        if (bound >= it->from && bound <= it->batch - 2) {
            PEN_ASSERT(bound - it->from < PEN_HOLDERS);
            counts[bound - it->from]++;
        }
    }
    return pen_waves_next(counts, it->batch, it->from, worth);
}

/* Goes on as far as what has committed allows. */
static void go_on(pen_simulation *sim, worker *it)
{
    if (sim->committed == it->batch - 1) {
        begin_tail(sim, it);
        return;
    }
    it->awaits = it->is_large ? 0 : worth_waiting_for(sim, it);
    if (it->awaits != 0 && it->awaits <= sim->committed) {
        begin_wave(sim, it);
    } else {
        it->phase = it->awaits != 0 ? PHASE_EARLIER : PHASE_TURN;
    }
}

static void take_changes(pen_simulation *sim, worker *it)
{
    pen_priced_change *changes = it->changes;
    size_t capacity = it->change_capacity;
    it->changes = sim->changes;
    it->change_count = sim->change_count;
    it->change_capacity = sim->change_capacity;
    sim->changes = changes;
    sim->change_count = 0;
    sim->change_capacity = capacity;
}

/* Takes the open batch. `since`: what had to happen before. */
static void take(pen_simulation *sim, worker *it, const pen_path *since)
{
    pen_batch *batch = sim->open;
    bool is_next = sim->committed == batch->number - 1;
    take_changes(sim, it);
    it->batch = batch->number;
    it->path = *since;
    it->is_large = batch->feed != NULL;
    it->alone = !it->is_large && is_next && it->change_count <= PEN_ONE_FLIGHT_CHANGES;
    it->now = sim->large;
    it->from = 0;
    it->took = 0;
    it->trips = 0;
    sim->taken_path = *since;
    sim->result.batches++;
    free_batch(batch);
    sim->open = NULL;
    sim->offered = false;
    if (it->is_large || it->alone) {
        go_on(sim, it);
    } else {
        begin_wave(sim, it);
    }
}

/* Its batch has committed: now it is the next one's turn, and it has time itself. */
static void commit(pen_simulation *sim, worker *it)
{
    sim->result.first_commit_ns = sim->committed == 0 ? sim->now : sim->result.first_commit_ns;
    sim->committed = it->batch;
    sim->committed_path = it->path;
    it->phase = PHASE_IDLE;
    if (sim->options.filling != NULL && !it->is_large) {
        pen_filling_learn(sim->options.filling, it->change_count, (int64_t)(it->took / 1000),
                          it->trips, (int64_t)(sim->costs->round_trip / 1000));
    }
    for (unsigned i = 0; i < sim->options.workers; i++) {
        worker *next = &sim->workers[i];
        if ((next->phase == PHASE_TURN && next->batch == sim->committed + 1) ||
            (next->phase == PHASE_EARLIER && next->awaits <= sim->committed)) {
            next->path = it->path;
            go_on(sim, next);
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
    it->took += took;
    switch (it->phase) {
    case PHASE_FREE_CPU:
        *rows += it->cost;
        enter(sim, it, PHASE_FREE_WAIT, it->now.wait + costs->round_trip);
        break;
    case PHASE_FREE_WAIT:
        *rows += it->now.wait;
        it->path.commits += costs->round_trip;
        go_on(sim, it);
        break;
    case PHASE_TAIL_CPU:
        *rows += it->now.cpu;
        it->path.commits += costs->batch;
        enter(sim, it, PHASE_TAIL_WAIT, it->now.wait + costs->round_trip);
        break;
    case PHASE_TAIL_WAIT:
        *rows += it->now.wait;
        it->path.commits += costs->round_trip;
        commit(sim, it);
        break;
    case PHASE_IDLE:
    case PHASE_EARLIER:
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

/* The same, but wakes an idle one only when none is at work. */
static void offer_to_busy(pen_simulation *sim)
{
    for (unsigned i = 0; i < sim->options.workers; i++) {
        if (sim->workers[i].phase != PHASE_IDLE) {
            sim->offered = true;
            return;
        }
    }
    offer(sim);
}

/* Waits until the open batch was taken. */
static void wait_for_room(pen_simulation *sim)
{
    offer(sim);
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
            sim->changes[sim->change_count++] = (pen_priced_change){
                .bound = chg->bound,
                .row_hash = played->changes[i].row_hash,
                .tag = watcher == NULL
                           ? 0
                           : watcher->note(watcher->arg, chg, keys, key_count, sim->open->number,
                                           chg->bound, sim->committed),
                .table = played->changes[i].table,
                .kind = played->changes[i].kind};
            keys += key_count;
        }
    }
}

/* Lets the workers have the open batch as far as it is filled. */
static void let_out(pen_simulation *sim)
{
    const pen_filling *filling = sim->options.filling;
    pen_batch_limits enough = filling != NULL ? pen_filling_enough(filling) : sim->options.fill;
    pen_batch_limits plenty = filling != NULL ? pen_filling_plenty(filling) : sim->options.fill;
    if (sim->open->feed != NULL || pen_batch_is_full(sim->open, &plenty)) {
        offer(sim);
    } else if (pen_batch_is_full(sim->open, &enough)) {
        offer_to_busy(sim);
    }
}

/* The open batch takes no more, or not this one. */
static bool has_no_room(const pen_simulation *sim, const pen_txn *txn)
{
    const pen_filling *filling = sim->options.filling;
    pen_batch_limits most = filling != NULL ? pen_filling_most(filling) : sim->options.limits;
    return pen_batch_is_full(sim->open, &most) || !pen_former_has_room(sim->former, sim->open, txn);
}

void pen_simulation_add(pen_simulation *sim, const pen_played *played)
{
    pen_txn *txn = played->txn;
    sim->result.transactions++;
    sim->result.changes += txn->change_count;
    if (txn->feed == NULL) {
        receive(sim, txn->change_count);
    }
    if (sim->open != NULL && has_no_room(sim, txn)) {
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
        sim->large = pen_pricer_large(sim->pricer, played);
    }
    let_out(sim);
    if (txn->feed != NULL) {
        receive(sim, txn->change_count); /* it flows while it is applied */
    }
}

pen_simulated pen_simulation_finish(pen_simulation *sim)
{
    if (sim->open != NULL) {
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
