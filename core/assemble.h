/* Purpose: messages to whole transactions.
 * Thread:  the reader (or a test).
 * Owns:    the transaction under construction; a complete one is given to the caller.
 * Flow:    pen_messages of one stream in their order in, one pen_txn at each Commit out. */
#ifndef PEN_CORE_ASSEMBLE_H
#define PEN_CORE_ASSEMBLE_H

#include "core/pgoutput.h"

typedef struct pen_assembler {
    pen_arena *arena; /* borrowed, the decoder's */
    pen_txn *open;    /* between Begin and Commit, or NULL; &fed once it is fed */
    pen_txn fed;      /* what has come since the open transaction was given away */
} pen_assembler;

void pen_assembler_init(pen_assembler *assembler, pen_arena *arena);
/* Releases the transaction under construction, if any: the half-received one after a lost
 * connection. */
void pen_assembler_discard(pen_assembler *assembler);

/* Adds one message; `bytes` is its length on the wire. At a Commit gives the transaction in *txn,
 * else NULL; the caller releases it with pen_txn_release. Origin, Type, Relation and Message
 * messages change nothing here. Errors: PEN_ERROR_FATAL for an order that the protocol does not
 * allow: a row outside a transaction, a Begin inside one, a Commit without Begin or with another
 * LSN than its Begin told, and a message of streaming or of two-phase decoding, which are not for
 * here. */
PEN_MUST_CHECK bool pen_assembler_add(pen_assembler *assembler, const pen_message *msg,
                                      size_t bytes, pen_txn **txn, pen_error *err);

/* Gives the open transaction away before its Commit, with the segments that it has so far: from now
 * on its segments are to be taken one by one, and at its Commit pen_assembler_add gives `fed`,
 * whose segments are those not taken yet and whose other fields count the whole transaction; it
 * belongs to the assembler. */
pen_txn *pen_assembler_give_open(pen_assembler *assembler);
/* Takes the first segment of a transaction that was given away, or NULL: while the transaction is
 * open, not the one that is being filled. The caller releases its block. */
pen_segment *pen_assembler_take_segment(pen_assembler *assembler);

#endif
