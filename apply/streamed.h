/* Purpose: transactions that the source sends while they are still in progress (--streaming on):
 *          where their messages lie in the spool, until each commits or is gone.
 * Thread:  the reader.
 * Owns:    the list of blocks of each transaction, not the bytes: those are the spool's.
 * Flow:    Stream Start, Stop, Abort in; at Stream Commit the messages that count, one by one, out;
 *          those of one that is applied while it is in progress (apply/eager_giving.h) before that,
 * too.
 *
 * A block is what stands between Stream Start and Stream Stop. Its messages stand one behind the
 * other in the spool, maybe with other records between, so a block is a position and a count. Which
 * subtransaction a message belongs to, it says itself; which of them were rolled back is a set that
 * is looked at when the transaction commits. */
#ifndef PEN_APPLY_STREAMED_H
#define PEN_APPLY_STREAMED_H

#include "core/pgoutput.h"
#include "io/spool.h"

typedef struct pen_streamed pen_streamed;

/* How far the messages of one of them were given. */
typedef struct pen_streamed_reading {
    uint32_t xid; /* 0: none is read */
    bool relations_only;
    size_t block;
    uint64_t given; /* messages of that block */
    uint64_t read;  /* messages of all blocks */
    pen_spool_cursor *cursor;
} pen_streamed_reading;

/* `spool` is borrowed: the one that the blocks' messages are in. `trimmed`: its first segments may
 * be gone, with the first blocks of transactions that are durable by now, or came anew later. */
pen_streamed *pen_streamed_create(pen_spool *spool, bool trimmed);
void pen_streamed_destroy(pen_streamed *streamed); /* NULL is nothing */

/* Between Stream Start and Stream Stop. */
bool pen_streamed_in_block(const pen_streamed *streamed);

/* Opens a block. Errors: PEN_ERROR_FATAL where the protocol does not allow it: inside a block; a
 * first one of a transaction that is known, a later one of one that is not (and cannot be). */
PEN_MUST_CHECK bool pen_streamed_start(pen_streamed *streamed, uint32_t xid, bool first,
                                       pen_error *err);
/* A message of the open block stands at `at` in the spool; it was the stream's `arrival`th. */
void pen_streamed_add(pen_streamed *streamed, pen_spool_pos at, uint64_t arrival);
PEN_MUST_CHECK bool pen_streamed_stop(pen_streamed *streamed, pen_error *err);
/* A subtransaction (or, where both are the same, the whole) was rolled back. One that is not known
 * is none of ours. */
PEN_MUST_CHECK bool pen_streamed_abort(pen_streamed *streamed, uint32_t xid, uint32_t subxid,
                                       pen_error *err);
/* Forgets `xid`, or all: the connection began anew, and what is in progress comes again. */
void pen_streamed_forget(pen_streamed *streamed, uint32_t xid);
void pen_streamed_forget_all(pen_streamed *streamed);

/* The first segment of the spool that a transaction in progress has a block in, UINT64_MAX when
 * there is none. */
uint64_t pen_streamed_first_segment(const pen_streamed *streamed);
/* The same for one; 0 when it is not known. */
uint64_t pen_streamed_segment_of(const pen_streamed *streamed, uint32_t xid);

/* Begins to give the messages of `xid`, which is committed: false when it is not known, or not from
 * its first block on. With `relations_only`, for a transaction that is on the target already, its
 * Relation messages alone, of whatever blocks are there. */
PEN_MUST_CHECK bool pen_streamed_replay(pen_streamed *streamed, uint32_t xid, bool relations_only);

typedef enum pen_streamed_result {
    PEN_STREAMED_MESSAGE,
    PEN_STREAMED_END,   /* all that have come were given */
    PEN_STREAMED_FAILED /* the spool cannot be read, or is not what was written */
} pen_streamed_result;

/* Gives the next message that counts, borrowed until the next call or an append to the spool:
 * those of subtransactions that were rolled back are left out, but for Relation and Type messages,
 * which the source does not send again. At the end the transaction is forgotten. */
PEN_MUST_CHECK pen_streamed_result pen_streamed_next(pen_streamed *streamed, pen_slice *bytes,
                                                     uint64_t *arrival, pen_error *err);

/* Begins to read the messages of `xid` while it is in progress: false when it is not known, or not
 * from its first block on. To be ended before the transaction is forgotten. */
PEN_MUST_CHECK bool pen_streamed_begin_reading(pen_streamed *streamed,
                                               pen_streamed_reading *reading, uint32_t xid);
void pen_streamed_end_reading(pen_streamed_reading *reading);
/* `xid` is not to be read any more before it commits. */
void pen_streamed_refuse_reading(pen_streamed *streamed, uint32_t xid);
/* Messages that have come and were not read. */
uint64_t pen_streamed_left(const pen_streamed *streamed, const pen_streamed_reading *reading);
/* As pen_streamed_next; after the end more may come. */
PEN_MUST_CHECK pen_streamed_result pen_streamed_read(const pen_streamed *streamed,
                                                     pen_streamed_reading *reading,
                                                     pen_slice *bytes, uint64_t *arrival,
                                                     pen_error *err);

#endif
