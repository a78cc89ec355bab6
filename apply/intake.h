/* Purpose: the way from a message of the output plugin to a transaction that is the dispatcher's.
 * Thread:  the reader; create and destroy are main's, before and after it.
 * Owns:    the decoder with its relation versions, the arena, what is half received, the spool of
 *          streamed transactions.
 * Flow:    messages and keepalives in, in the stream's order; whole transactions, and the segments
 *          of large ones, into the ring; how far the source is known to be through out.
 *
 * Where the messages come from, the connection or the spool, it does not know. It lives as long as
 * one run of dispatcher and workers: after a recovery there is a new one. */
#ifndef PEN_APPLY_INTAKE_H
#define PEN_APPLY_INTAKE_H

#include "apply/stream.h"
#include "core/pgoutput.h"
#include "io/spool.h"

typedef struct pen_intake pen_intake;

typedef struct pen_intake_options {
    /* Where the messages of streamed transactions lie until they commit. NULL: none will come. */
    pen_spool *spool;   /* borrowed */
    bool spool_is_ours; /* false: whoever gives the messages has put them there */
    bool abort_has_lsn; /* see pen_message_context; what lies in a spool that is not ours says so by
                           its length, for it may have come in another version of the protocol */
} pen_intake_options;

pen_intake *pen_intake_create(pen_stream *stream, const pen_intake_options *options);
/* Touches the spool no more: the reader's last call for an intake that main destroys while the
 * spool lives on. */
void pen_intake_let_go(pen_intake *intake);
/* After every transaction that it gave was released. NULL is nothing. */
void pen_intake_destroy(pen_intake *intake);

/* Gives what is complete to the dispatcher. *ready false: it has no room, or memory is used up, or
 * the disk is full; then nothing more may be given in, and the caller sleeps until woken (but looks
 * again after some milliseconds). Errors: the spool's. */
PEN_MUST_CHECK bool pen_intake_is_ready(pen_intake *intake, bool *ready, pen_error *err);
/* What the reader waits for when that said that it is not ready; PEN_METRIC_COUNT when it was. */
pen_metric pen_intake_blocked(const pen_intake *intake);

/* Takes one message, all of it; `at` is where it stands in a spool that is not ours. Errors:
 * PEN_ERROR_FATAL, what the source sent is not what the protocol allows. */
PEN_MUST_CHECK bool pen_intake_message(pen_intake *intake, pen_slice bytes, pen_spool_pos at,
                                       pen_error *err);
/* The source's clock said `sent` when it sent what was heard last: a transaction that committed
 * long before, and is only taken in now, is one that the source is behind with. */
void pen_intake_clock(pen_intake *intake, pen_pgtime sent);
/* True while the source is far behind with what comes. */
bool pen_intake_is_behind(const pen_intake *intake);
/* True while a transaction has come in part. */
bool pen_intake_is_within(const pen_intake *intake);
/* The source had reached `lsn`. */
void pen_intake_keepalive(pen_intake *intake, pen_lsn lsn);
/* A Relation message that is in force at this place of the spool. */
PEN_MUST_CHECK bool pen_intake_relation(pen_intake *intake, pen_slice bytes, pen_error *err);
/* The connection was lost, outside of a replay: what has come in part comes again, and where a part
 * of that is on its way to the target already, it is taken back there. */
void pen_intake_session(pen_intake *intake);

/* All that there was has been taken: see pen_dealing_flush. NULL is nothing. */
void pen_intake_flush(pen_intake *intake);

/* True while a committed streamed transaction is taken in from the spool: then pen_intake_replay,
 * which takes one message of it, goes on in place of pen_intake_message. */
bool pen_intake_is_replaying(const pen_intake *intake);
PEN_MUST_CHECK bool pen_intake_replay(pen_intake *intake, pen_error *err);

/* Takes nothing more, and drops what has come in part. */
void pen_intake_stop(pen_intake *intake);
/* True once all that was taken has been given to the dispatcher, after pen_intake_stop. */
PEN_MUST_CHECK bool pen_intake_finish(pen_intake *intake);
bool pen_intake_has_stopped(const pen_intake *intake);

/* Everything before it has arrived. */
pen_lsn pen_intake_received(const pen_intake *intake);
/* Messages taken so far, by kind. */
uint64_t pen_intake_count(const pen_intake *intake, pen_message_kind kind);
/* The first segment of a spool that is not ours that is still needed when everything up to
 * `durable` is durable on the target; 0 before the first message. */
uint64_t pen_intake_needed_segment(pen_intake *intake, pen_lsn durable);

#endif
