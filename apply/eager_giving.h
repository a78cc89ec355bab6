/* Purpose: the reader's half of applying a transaction while it is in progress: reads its messages
 *          from the spool as they come, and gives them to the dispatcher in parts.
 * Thread:  the reader; init and deinit are main's, before and after it.
 * Owns:    the part that did not find room yet, where it reads, the Relation messages it has read,
 *          a reference on what is known of the transaction. Borrows the rest.
 * Flow:    blocks of one transaction at a time in; parts, and in the end its Commit, out.
 *
 * Why this may be done before its Commit. What a transaction has touched stays locked on the source
 * until it ends. So whoever else touched the same and committed, did so before the change was
 * written, and came in the stream before the change: a part waits until all batches that were
 * formed before it have committed. And nobody who commits between the change and the Commit can
 * touch the same; so it does not matter when in that time it is applied. It is at its turn, as any
 * other, that it becomes visible.
 *
 * What that does not hold for gives up: a subtransaction that is rolled back (its locks are gone),
 * a relation that it has changed itself or that others have, TRUNCATE, triggers that may read
 * anything. So does whatever goes wrong on the target: a constraint that the source does not have
 * is an error, or a wait that the watchdog ends. The transaction is then rolled back there, and
 * applied at its Commit, from the spool, as with --streaming on.
 *
 * A wait that could be for ever, and why it is not:
 * - A part waits for batches that nobody lets out: the dispatcher lets the held one out first.
 * - The reader waits for memory that parts have, and they for batches: those were formed before,
 *   and need nothing more from the reader; for no part is given while a large transaction arrives,
 *   which the dispatcher sees to the end of before it takes what lies behind.
 * - The reader waits for the parts to be on the target, because the Commit has come, and one of
 * them for a lock: the watchdog knows that the reader waits, and names who has it.
 * - The Commit's batch waits for its turn, and one before it for a lock of this transaction: the
 *   watchdog tells the eager worker to let go, and the stream begins anew behind the progress row.
 */
#ifndef PEN_APPLY_EAGER_GIVING_H
#define PEN_APPLY_EAGER_GIVING_H

#include "apply/stream.h"
#include "apply/streamed.h"
#include "core/assemble.h"
#include "core/eager.h"

struct pen_eager_relation;

typedef struct pen_eager_giving {
    pen_stream *stream;
    pen_streamed *streamed; /* NULL: nothing is ever read */
    pen_pgoutput *decoder;
    pen_assembler assembler;
    uint64_t made; /* transactions so far */
    /* of the one that is read */
    pen_eager *eager; /* NULL: none is */
    pen_streamed_reading reading;
    pen_txn *part;  /* made, but the ring was full */
    uint64_t given; /* parts */
    uint64_t change_count;
    uint64_t bytes;
    struct pen_eager_relation *relations; /* its Relation messages */
    size_t relation_count;
    size_t relation_capacity;
    const pen_relation *last_relation; /* of the newest change */
} pen_eager_giving;

void pen_eager_giving_init(pen_eager_giving *giving, pen_stream *stream, pen_streamed *streamed,
                           pen_pgoutput *decoder, pen_arena *arena);
void pen_eager_giving_deinit(pen_eager_giving *giving);

/* A block of `xid` has begun: from now on it is read, if no other is. */
void pen_eager_giving_consider(pen_eager_giving *giving, uint32_t xid);
/* Before pen_streamed_abort of the same. */
void pen_eager_giving_abort(pen_eager_giving *giving, uint32_t xid, uint32_t subxid);
/* Before `xid` is taken in from the spool, because it has committed and cannot be had otherwise. */
void pen_eager_giving_leave(pen_eager_giving *giving, uint32_t xid);
/* It is not wanted any more. */
void pen_eager_giving_drop(pen_eager_giving *giving);

/* Gives what there is room for. Only while all that came before was given to the dispatchers.
 * `ended`: its Commit has come. Errors: the spool's, or PEN_ERROR_FATAL for a message that the
 * protocol does not allow. */
PEN_MUST_CHECK bool pen_eager_giving_poll(pen_eager_giving *giving, bool ended, pen_error *err);

/* The Commit of what is read has come. */
void pen_eager_giving_end(pen_eager_giving *giving);
/* True while `xid` is read, and can be had so. */
bool pen_eager_giving_has(const pen_eager_giving *giving, uint32_t xid);
/* True when all of it that has come was given, and is on the target. */
bool pen_eager_giving_is_done(const pen_eager_giving *giving);
/* True while parts are on the way, whose memory comes back. */
bool pen_eager_giving_is_in_flight(const pen_eager_giving *giving);

/* All of it was given, and it committed: its Relation messages are in force from now on. Gives the
 * transaction that stands for it. `commit` is the Stream Commit. */
PEN_MUST_CHECK bool pen_eager_giving_finish(pen_eager_giving *giving, const pen_message *commit,
                                            pen_txn **txn, pen_error *err);

#endif
