/* Purpose: a drain with a given number of workers, without servers: the real former, and a clock that
 *          costs move forward.
 * Thread:  one.
 * Owns:    its former, and what it must remember of the open batch; memory does not grow with the
 *          stream.
 * Flow:    transactions in commit order in; the time that all of it takes, and what that goes into,
 *          out.
 *
 * The rules are those of a run (apply/dispatcher.c, handover.c, worker.c):
 * - One dispatcher brings the transactions, one after the other, to the one open batch. When that
 * has no room it waits until a worker has taken it.
 * - An idle worker takes the open batch as soon as it is as full as `fill` says; the last one as it
 *   is. With `filling` one that is done may take it before, and an idle one is woken when it can
 *   grow no more.
 * - A worker sends what is bound to no batch later than those that had committed when it began, and
 *   waits for the answers: one round trip. Where more of it is bound to an earlier batch than the
 *   one before, and worth it, it waits for that one and sends a further wave. When the batch before
 *   has committed it sends the rest with COMMIT: one more, and then it is the next one's turn. A
 *   small batch whose turn has come when it is taken goes out in one flight.
 * - A large transaction is a batch of its own, all of it sent at its turn.
 *
 * Processors are shared evenly: with more than `cores` at work each gets its share. So the clock is
 * moved from event to event, and not computed batch by batch. Waiting (round trips, a row's
 * latency) costs no processor. */
#ifndef PEN_APPLY_SIMULATE_H
#define PEN_APPLY_SIMULATE_H

#include "apply/filling.h"
#include "apply/pricing.h"

typedef struct pen_simulation_options {
    unsigned workers;
    pen_batch_limits limits;
    pen_batch_limits fill; /* a batch that has reached one of these is given to an idle worker */
    pen_filling *filling;  /* instead of the two, borrowed: batches follow what rows take, and may
                              have  further waves; NULL: neither */
    size_t conflict_memory;
} pen_simulation_options;

/* What the time on the critical path went into: the chain of events each of which had to wait for
 * the one before, from the beginning to the last commit. Nanoseconds; their sum is the time. */
typedef struct pen_path {
    double receive;
    double free_rows;  /* statements sent beside other batches */
    double bound_rows; /* statements sent at their batch's turn */
    double commits;    /* batches' own costs and round trips */
    double processors; /* more than that because processors were shared */
} pen_path;

typedef struct pen_simulated {
    double ns;
    double first_commit_ns; /* when the first batch had committed */
    uint64_t transactions;
    uint64_t changes;
    uint64_t batches;
    uint64_t free_rows;  /* changes that were sent beside other batches */
    uint64_t bound_rows; /* changes that had to wait for their batch's turn */
    uint64_t large_rows;
    uint64_t sent_rows; /* to the target, after changes of one row have become one */
    uint64_t statements;
    double
        busy; /* share of the workers' time that they were not idle, nor waiting for their turn */
    pen_path path;
} pen_simulated;

/* Whom to tell what had to wait. `waits` is called for each change that was sent at its batch's
 * turn because it was bound; `tag` is what `note` gave for it, when the change was added. */
typedef struct pen_simulation_watcher {
    void *arg;
    /* A change was added to batch `batch` and bound to `bound`; what had committed: `committed`. */
    uint64_t (*note)(void *arg, const pen_change *chg, const pen_key *keys, uint32_t key_count,
                     uint64_t batch, uint64_t bound, uint64_t committed);
    void (*waits)(void *arg, uint64_t tag, uint32_t table, double ns);
} pen_simulation_watcher;

typedef struct pen_simulation pen_simulation;

/* Borrows `costs` and `watcher` (NULL: nobody). */
pen_simulation *pen_simulation_create(const pen_simulation_options *options, const pen_costs *costs,
                                      const pen_simulation_watcher *watcher);
void pen_simulation_destroy(pen_simulation *sim); /* NULL is nothing */

/* The next transaction of a backlog: it is there as soon as there is time for it. Borrows it until
 * this returns; writes the bounds of its changes. */
void pen_simulation_add(pen_simulation *sim, const pen_played *played);
/* Nothing comes any more: lets all that is under way commit, and gives the result. Once. */
pen_simulated pen_simulation_finish(pen_simulation *sim);

#endif
