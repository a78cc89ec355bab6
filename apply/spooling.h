/* Purpose: what is received goes into the spool before anything else (--ack spooled): what to put in,
 *          where a segment may end, and what the source may forget.
 * Thread:  the reader; create and recover are main's, before it.
 * Owns:    what it must know of the stream for that: the Relation messages in force, whether a
 *          transaction is open. Borrows the spool.
 * Flow:    the connection's events in; records in the spool, with marks, out.
 *
 * A segment begins outside of every transaction and block, with the Relation messages that are in
 * force or will be when a transaction in progress commits, so that it can be read without the
 * segments before it. */
#ifndef PEN_APPLY_SPOOLING_H
#define PEN_APPLY_SPOOLING_H

#include "io/replication.h"
#include "io/spool.h"

typedef struct pen_spooling pen_spooling;

/* Then comes pen_spooling_begin or pen_spooling_recover. */
pen_spooling *pen_spooling_create(pen_spool *spool);
void pen_spooling_destroy(pen_spooling *spooling); /* NULL is nothing */

/* An empty spool begins: every transaction that ends at or before `start_lsn` is durable on the
 * target. */
void pen_spooling_begin(pen_spooling *spooling, pen_lsn start_lsn);

/* Before anything is put in: reads the last segment of a spool that was there, cuts off what does
 * not end (the transaction that was being received), and notes that a new connection begins. */
PEN_MUST_CHECK bool pen_spooling_recover(pen_spooling *spooling, pen_error *err);

/* Everything up to there need not be sent again: where the next connection begins. */
pen_lsn pen_spooling_received(const pen_spooling *spooling);
/* After recovery: every transaction with changes ends at or before it. */
pen_lsn pen_spooling_changes_end_lsn(const pen_spooling *spooling);

/* False while no event may be taken: the disk is full, or slower than the source. Tries to make the
 * next segment where that is due. */
PEN_MUST_CHECK bool pen_spooling_is_ready(pen_spooling *spooling, bool *ready, pen_error *err);
/* Puts a message or a keepalive into the spool. Errors: PEN_ERROR_FATAL when the message is not
 * what the protocol allows. */
PEN_MUST_CHECK bool pen_spooling_take(pen_spooling *spooling, const pen_event *event,
                                      pen_error *err);

/* The connection is lost: what has come in part, and what is in progress, comes again on the next
 * one. */
void pen_spooling_lose(pen_spooling *spooling);

#endif
