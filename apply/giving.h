/* Purpose: gives what the intake has assembled to the dispatchers: whole transactions as they are
 *          dealt, a large one segment by segment through its feed.
 * Thread:  the reader; init and deinit are main's, before and after it.
 * Owns:    the transaction and the segment that did not find room yet, and a reference on the feed;
 *          borrows the assembler and the positions.
 * Flow:    transactions in commit order in; the same to the dispatchers out, as soon as they have
 *          room. A large one is begun before its Commit has come, and ended after. */
#ifndef PEN_APPLY_GIVING_H
#define PEN_APPLY_GIVING_H

#include "apply/positions.h"
#include "core/assemble.h"
#include "core/feed.h"

typedef struct pen_giving {
    pen_stream *stream;
    pen_assembler *assembler;
    pen_positions *positions;
    pen_txn *waiting;     /* complete or begun, but the ring was full */
    pen_feed *feed;       /* of the large transaction that is arriving, or NULL */
    pen_segment *segment; /* of it, taken from the assembler, but the feed was full */
    uint64_t fed;         /* segments given into it, the transaction's first ones counted as one */
    bool feed_ends;       /* its Commit has come; what is left of it goes into the feed */
} pen_giving;

void pen_giving_init(pen_giving *giving, pen_stream *stream, pen_assembler *assembler,
                     pen_positions *positions);
void pen_giving_deinit(pen_giving *giving);

/* Gives what there is; false while there is no room for all of it, and then nothing more may be
 * put in. */
PEN_MUST_CHECK bool pen_giving_poll(pen_giving *giving);

/* Takes a whole transaction. */
void pen_giving_put(pen_giving *giving, pen_txn *txn);
/* Takes the beginning of a large one, which the assembler has given away; the rest is taken from
 * there as it comes. */
void pen_giving_begin(pen_giving *giving, pen_txn *txn);
/* Its Commit has come: `txn` is the assembler's, and is not touched after. */
void pen_giving_end(pen_giving *giving, const pen_txn *txn);
/* Its Commit will not come. */
void pen_giving_discard(pen_giving *giving);

/* True from the beginning of a large transaction until all of it was given; `is_open`: until its
 * Commit has come. */
bool pen_giving_is_feeding(const pen_giving *giving);
bool pen_giving_is_open(const pen_giving *giving);
/* True while segments of it are on the way, whose memory comes back. */
bool pen_giving_is_in_flight(const pen_giving *giving);

#endif
