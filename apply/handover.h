/* Purpose: how batches change hands: from the dispatcher to whichever worker is idle, and from
 *          worker to worker whose turn it is to commit.
 * Thread:  dispatcher and workers, as each function says; main makes it before they start.
 * Owns:    the open batch, in its place or held; borrows the parkers and the stop cell.
 * Flow:    offered batches in; each out once, to one worker; their numbers as they commit, in turn.
 *
 * There is one open batch at a time. The dispatcher offers it, and any worker may take it; or holds
 * it, and then it is out of the workers' reach and the open place is empty; or offers it without
 * waking anybody as long as one is at work; or leaves it to whoever commits the batch before, and
 * then no other worker is woken for it.
 *
 * A wait that could be for ever, and why it is not:
 * - A worker goes to sleep while a batch is offered: it joins the idle set and looks once more; the
 *   dispatcher offers and then looks into the set. Of two exchanges on the set one comes first.
 * - The dispatcher picks a worker that at that moment finds an earlier batch: who leaves the set
 *   and was picked already wakes another one, if there is still a batch.
 * - The dispatcher goes to sleep while the full batch is taken: it raises a flag and looks once
 *   more; who takes lowers it.
 * - A wake comes for something that is not there any more: a batch taken back, room filled again.
 *   So a parker is prepared before the thread is found in the set or the flag; a wake that came
 *   between these would be lost, and with it the place in the set or the raised flag.
 * - A batch is held that nobody offers: who holds one asks to be told when the stream is dry, and
 *   then offers it (apply/dealing.h), or is the reader, which lets it out before it waits for
 *   anything; the end offers it too. The next batch begins only when it was
 *   offered and taken, so nobody waits for a batch behind it.
 * - A batch is offered to who is at work, and nobody is woken for it: a worker that is not in the
 *   idle set has yet to join it, and then looks once more; when all are in it, one is woken. Should
 *   that worker be at work for long, the batch is offered to all when it is full or the stream dry.
 * - A worker waits for its turn while the batch before commits: [HOLDER-1]. A turn does not pass.
 * - A batch is left to whoever commits the one before, and that has committed: [HOLDER-1] as well.
 *   Either the worker finds that a batch follows, or the dispatcher finds the commit, and offers.
 * - A worker waits for an earlier batch, and that commits: it joins the set of those and looks once
 *   more; who commits says so and then looks into the set. Of two exchanges on the set one comes
 *   first.
 * - The watcher waits for a batch, and that commits: it raises a flag and looks once more; who
 * commits says so and then lowers.
 * - A worker is told to let go while it goes to sleep: what it is told is published before the
 * wake, and looked at after the prepare. It is told a batch's number, so that what comes late, when
 * it has another batch, is nothing.
 */
#ifndef PEN_APPLY_HANDOVER_H
#define PEN_APPLY_HANDOVER_H

#include "apply/batch.h"
#include "core/idle_set.h"
#include "core/sync.h"
#include "core/thread.h"

/* A worker holding batch k is found at holders[k % PEN_HOLDERS]; at least twice the workers there
 * can be, so that no two live batches share a place. */
#define PEN_HOLDERS 512

/* There instead of a worker: whoever commits the batch before takes this one. */
#define PEN_FOLLOWS (PEN_IDLE_MAX + 1)

typedef struct pen_handover {
    /* set before the threads start, then read-only */
    pen_parker *dispatcher;
    pen_parker *workers[PEN_IDLE_MAX]; /* NULL: there is no such worker */
    unsigned worker_count;
    pen_parker *watcher; /* who is woken by a commit when it asks for that; or NULL */
    const pen_cell *stop;
    uint64_t stop_at;
    /* dispatcher writes */
    PEN_ALIGNED pen_place open;
    pen_place following;  /* the open batch while it is left to a commit; then `open` is empty */
    pen_batch *held;      /* the open batch while it is not offered; then `open` is empty */
    pen_cell offered_all; /* 1: no batch comes after the one in the open place, if any */
    pen_flag wants_room;  /* raised by the dispatcher: the open batch is full */
    /* workers write */
    PEN_ALIGNED pen_cell committed; /* number of the newest committed batch: whose turn it is */
    pen_flag watched;               /* raised by the watcher: it waits for a commit */
    PEN_ALIGNED pen_idle_set idle;
    PEN_ALIGNED pen_idle_set early; /* who waits for an earlier batch than the one before its own */
    PEN_ALIGNED pen_cell
        holders[PEN_HOLDERS]; /* worker number + 1; 0: nobody yet; or see PEN_FOLLOWS */
    PEN_ALIGNED pen_cell holding[PEN_IDLE_MAX]; /* number of the batch that it took last */
    /* the watchdog writes */
    PEN_ALIGNED pen_cell let_go[PEN_IDLE_MAX]; /* number of a batch whose locks are in the way */
} pen_handover;

typedef enum pen_turn {
    PEN_TURN_COME,
    PEN_TURN_LET_GO, /* not come, and an earlier batch waits for locks that this one holds */
    PEN_TURN_STOPPED
} pen_turn;

/* Main. `handover` is aligned to a cache line. Borrows `dispatcher`, and `stop`, which ends every
 * wait here once it says `stop_at` or more: who publishes that wakes the dispatcher and calls
 * pen_handover_wake_workers. */
void pen_handover_init(pen_handover *handover, unsigned worker_count, pen_parker *dispatcher,
                       const pen_cell *stop, uint64_t stop_at);
/* Main, before the threads start: worker `number`, from 0, sleeps on `parker` (borrowed). */
void pen_handover_add_worker(pen_handover *handover, unsigned number, pen_parker *parker);
/* Main, before the threads start: who calls pen_handover_watch sleeps on `parker` (borrowed). */
void pen_handover_add_watcher(pen_handover *handover, pen_parker *parker);
/* Main, after the threads have ended: gives the batch that nobody took, or NULL. */
pen_batch *pen_handover_leftover(pen_handover *handover);

/* Any thread. */
void pen_handover_wake_workers(pen_handover *handover);
void pen_handover_wake_worker(pen_handover *handover, unsigned number);
/* Any thread: number of the newest committed batch, 0 for none; all that was done before its commit
 * is seen. */
uint64_t pen_handover_committed(const pen_handover *handover);

/* The watcher, after the prepare and before it sleeps: gives the number of the newest committed
 * batch, and is woken when another one commits. */
PEN_MUST_CHECK uint64_t pen_handover_watch(pen_handover *handover);

/* Dispatcher: lets the workers have `batch` (takes it), and wakes an idle one. There is no other
 * open batch: nothing was offered or held since the last take-back or wait. */
void pen_handover_offer(pen_handover *handover, pen_batch *batch);
/* Dispatcher: lets the workers have `batch` (takes it), but wakes an idle one only when none is at
 * work: of those that are, whoever is done first will look for it. As above, there is no other open
 * batch. */
void pen_handover_offer_to_busy(pen_handover *handover, pen_batch *batch);
/* Dispatcher: keeps `batch` (takes it) from the workers until it is taken back or offered. As
 * above, there is no other open batch. */
void pen_handover_hold(pen_handover *handover, pen_batch *batch);
/* Dispatcher: leaves `batch` (takes it) to the worker that commits the one before, without a wake;
 * offers it when that has committed. As above, there is no other open batch. */
void pen_handover_follow(pen_handover *handover, pen_batch *batch);
/* Dispatcher: offers the held batch, if any, or wakes an idle worker for the one that is offered.
 */
void pen_handover_offer_held(pen_handover *handover);
/* Dispatcher: gives the held batch back, or NULL when none is held. */
pen_batch *pen_handover_take_held(pen_handover *handover);
/* Dispatcher: gives the open batch back, however it was let out or held, or NULL when a worker has
 * it or there was none. */
pen_batch *pen_handover_take_back(pen_handover *handover);
/* Dispatcher: waits until a worker has taken what was offered; false when told to stop. */
PEN_MUST_CHECK bool pen_handover_wait_for_room(pen_handover *handover);
/* Dispatcher: before an error ends all, waits until batch `number` has committed, and with it all
 * that came before the error, or until told to stop. Offers the held batch, if any. */
void pen_handover_finish(pen_handover *handover, uint64_t number);
/* Dispatcher, once: offers the batch that is held or left, if any; nothing more is offered. */
void pen_handover_end(pen_handover *handover);

/* Worker `number`: waits for a batch and gives it, or NULL when none will come. */
pen_batch *pen_handover_take(pen_handover *handover, unsigned number);
/* Worker `number`, which holds batch `batch_number`: waits until every batch before it has
 * committed. `has_locks`: its transaction is open on the target, and it wants to know when it is to
 * let go; it then rolls back and waits again, without. */
PEN_MUST_CHECK pen_turn pen_handover_wait_for_turn(pen_handover *handover, unsigned number,
                                                   uint64_t batch_number, bool has_locks);
/* The same, but waits only until batch `bound`, an earlier one, has committed. */
PEN_MUST_CHECK pen_turn pen_handover_wait_for_batch(pen_handover *handover, unsigned number,
                                                    uint64_t batch_number, uint64_t bound);
/* Worker `number`, whose turn it is: batch `batch_number` has committed; wakes who holds the next
 * one, and who waits for a batch. Gives, as pen_handover_take does, a batch that was left to a
 * commit, or NULL: the next one, or, when this call comes late, a later one. */
PEN_MUST_CHECK pen_batch *pen_handover_commit(pen_handover *handover, unsigned number,
                                              uint64_t batch_number);

/* Any thread: number of the batch that worker `number` took last, 0 for none; it may have committed
 * since. */
uint64_t pen_handover_holding(const pen_handover *handover, unsigned number);
/* The watchdog: worker `number` is to let go of the locks that it holds for `batch_number`. */
void pen_handover_let_go(pen_handover *handover, unsigned number, uint64_t batch_number);

#endif
