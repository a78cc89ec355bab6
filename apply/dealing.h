/* Purpose: how transactions come from the reader to one or several dispatchers, and in which order
 *          those may dispatch: the baton.
 * Thread:  reader and dispatchers, as each function says; main makes it before they start.
 * Owns:    its rings and parkers, and the transactions in the rings; borrows the reader's parker
 *          and the stop cell.
 * Flow:    whole transactions in commit order in; each out once, to one dispatcher. They are dealt
 *          in runs: so many to the first dispatcher, so many to the second, and round again. Who
 * has a run prepares its transactions whenever it likes, and dispatches them only while it holds
 * the baton, which goes from run to run. So all are dispatched in commit order, and what one
 * dispatcher did with the baton is seen by the next.
 *
 * Runs, and not single transactions, because the baton costs a wake of somebody who sleeps. A run
 * that is not full yet costs nobody anything: who holds the baton dispatches at once what comes.
 *
 * One dispatcher alone needs no baton. It lends its role to the reader while it sleeps: then the
 * reader may dispatch transactions itself, and nobody is woken for it. What has come together it
 * dispatches into one batch, which nobody gets before it has looked at all that is there: then it
 * lets that out and gives the role back. What it leaves alone goes by the ring. In the ring nothing
 * is passed: what lies there comes first.
 *
 * A wait that could be for ever, and why it is not:
 * - The dispatcher wakes and the reader has its role: it says that it wants it back, and is woken
 *   when the reader, which waits for nothing meanwhile, gives it back. Both exchange, see [ROLE-1].
 * - A batch stays with the reader: until pen_dealing_flush, before it waits for anything.
 * - A dispatcher waits for the baton: the runs before its own were dealt in full before a
 *   transaction of its own was, so they are in the rings of others, who dispatch them without
 *   waiting for the reader. The first one waits for nobody.
 * - A dispatcher goes to sleep while its turn comes, or a transaction, or the end: each is
 * published before the wake, and looked at after the prepare.
 * - The open batch is held, or left to who is at work, and no transaction comes (apply/handover.h):
 * who holds the baton sleeps no longer than until the stream counts as dry, and whoever is given
 * the baton is woken, and sees that there is something to be told.
 * - The reader waits for room in a full ring: its dispatcher takes from it without the baton until
 * it has prepared a whole run, and then has the baton or will get it, see above. It raises a flag
 *   and tries once more; whoever takes lowers it afterwards, and wakes. That may have been another
 *   dispatcher, from another ring: then the reader finds its own still full, and raises it again.
 */
#ifndef PEN_APPLY_DEALING_H
#define PEN_APPLY_DEALING_H

#include "core/change.h"
#include "core/ring.h"
#include "core/sync.h"
#include "core/thread.h"

#define PEN_DISPATCHERS_MAX 16
/* Transactions in a run. */
#define PEN_RUN 32
/* A stream counts as dry when nothing has come for so long: far longer than a source that has
 * something to send makes us wait, or a reader that paces itself, and little beside how late what
 * is held is already. */
#define PEN_DRY_US (30 * 1000)

/* What the reader does in the role of the only dispatcher; neither waits for anything. */
typedef struct pen_direct {
    /* Puts `txn`, which is neither late nor large, into a batch that stays with the reader; false
     * leaves it as it was. */
    bool (*dispatch)(void *arg, pen_txn *txn);
    /* Lets out the batch that stayed with it, if there is one. */
    void (*let_out)(void *arg);
    void *arg;
} pen_direct;

typedef struct pen_dealing {
    /* set before the threads start, then read-only */
    unsigned count; /* of dispatchers */
    pen_parker *reader;
    const pen_cell *stop;
    uint64_t stop_at;
    pen_direct direct; /* all NULL: never; see pen_dealing_set_direct */
    /* each dispatcher sleeps on its own */
    pen_parker parkers[PEN_DISPATCHERS_MAX];
    pen_ring rings[PEN_DISPATCHERS_MAX];
    /* reader writes */
    PEN_ALIGNED uint64_t dealt;
    bool has_role;       /* the single dispatcher's; pen_dealing_flush gives it back */
    pen_cell ended;      /* 1: nothing more is dealt */
    pen_flag wants_room; /* raised by the reader: a ring is full */
    /* who holds the baton writes; with one dispatcher, who has its role */
    PEN_ALIGNED pen_cell turn; /* number of the run whose transactions may be dispatched */
    pen_cell role;             /* of a single dispatcher */
    bool tells_dry;            /* whoever has the baton is to be told when the stream is dry */
} pen_dealing;

/* Main. `dealing` is aligned to a cache line and zeroed. Borrows `reader`, and `stop`, which ends
 * every wait here once it says `stop_at` or more: who publishes that calls pen_dealing_wake.
 * `capacity`: of each ring, a power of two. */
PEN_MUST_CHECK bool pen_dealing_init(pen_dealing *dealing, unsigned count, size_t capacity,
                                     pen_parker *reader, const pen_cell *stop, uint64_t stop_at,
                                     pen_error *err);
/* Main; nothing after a failed or without any pen_dealing_init. Rings must be empty. */
void pen_dealing_deinit(pen_dealing *dealing);
/* Main, after the threads have ended: gives a transaction that nobody took, or NULL. */
pen_txn *pen_dealing_leftover(pen_dealing *dealing);
/* Main, between two runs of the threads, with nothing left: begins anew. */
void pen_dealing_reset(pen_dealing *dealing);

/* Main, while nothing is dealt: with one dispatcher, what it can do the reader does at times by
 * `direct` (copied); with several this is nothing. Forgotten by pen_dealing_reset. */
void pen_dealing_set_direct(pen_dealing *dealing, const pen_direct *direct);

/* Any thread: wakes all dispatchers. */
void pen_dealing_wake(pen_dealing *dealing);

/* Reader: gives `txn` to whose run it is, or dispatches it; false when there is no room now: the
 * reader is woken when there is. */
PEN_MUST_CHECK bool pen_dealing_deal(pen_dealing *dealing, pen_txn *txn);
/* Reader: has dealt all that was there; lets out what it dispatched itself, and gives back the role
 * that it had for it. To be called before it waits for anything, and before it ends. */
void pen_dealing_flush(pen_dealing *dealing);
/* Reader: nothing more is dealt; may be said again. */
void pen_dealing_end(pen_dealing *dealing);
/* Dispatcher: the reader may have waited for what it has just taken. */
void pen_dealing_wake_reader(pen_dealing *dealing);

typedef enum pen_dealt {
    PEN_DEALT_TXN,  /* a transaction, to be prepared */
    PEN_DEALT_TURN, /* the baton is here */
    PEN_DEALT_DRY,  /* it has been for PEN_DRY_US, and nothing has come; only when asked for */
    PEN_DEALT_OVER, /* nothing will come, and all that came was taken */
    PEN_DEALT_STOPPED
} pen_dealt;

/* Dispatcher `number`: waits for what comes next. `run`: the one that it is at. `wants_txn`: it has
 * room to prepare one more of that run. `wants_turn`: it has one to dispatch; with that the turn
 * goes before a transaction, and it is never over. At least one of both. */
PEN_MUST_CHECK pen_dealt pen_dealing_next(pen_dealing *dealing, unsigned number, uint64_t run,
                                          bool wants_txn, bool wants_turn, pen_txn **txn);
/* Dispatcher, which holds the baton: whether it, or who gets the baton next, is to be told when the
 * stream is dry. */
void pen_dealing_tell_dry(pen_dealing *dealing, bool tell);
/* Dispatcher, which holds the baton: has dispatched all of `run`; wakes who has the next one. */
void pen_dealing_pass(pen_dealing *dealing, uint64_t run);

#endif
