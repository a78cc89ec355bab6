/* Purpose: where in the source's WAL the intake is: what was here already, what has arrived, what the
 *          dispatchers have, where the stream ends, and which segments of a spool that needs.
 * Thread:  the reader; init and deinit are main's, before and after it.
 * Owns:    the list of segments.
 * Flow:    what arrives and what is handed on in; positions that others rely on out.
 *
 * A transaction is named by its commit LSN, and they come in that order; it ends at its end LSN,
 * and the next commit record cannot lie before that. So two numbers tell what has come whole
 * (commit_lsn) and what is known to be over (received). */
#ifndef PEN_APPLY_POSITIONS_H
#define PEN_APPLY_POSITIONS_H

#include "apply/stream.h"

struct pen_segment_end;

typedef struct pen_positions {
    pen_stream *stream;
    pen_lsn skip_lsn;   /* transactions that commit at or before it were here already */
    pen_lsn commit_lsn; /* of the newest transaction that came whole */
    pen_lsn received;   /* everything before it has arrived */
    /* of a spool of the whole stream: the segments with messages, from the first one needed */
    struct pen_segment_end *segments;
    size_t segment_count;
    size_t segment_capacity;
} pen_positions;

/* Begins where the stream resumes. */
void pen_positions_init(pen_positions *positions, pen_stream *stream);
void pen_positions_deinit(pen_positions *positions);

/* True for a transaction that the target has, or that came before the connection was lost. */
bool pen_positions_was_here(const pen_positions *positions, pen_lsn commit_lsn);
/* True when nothing at `lsn` or behind it is wanted any more. */
bool pen_positions_is_beyond_end(const pen_positions *positions, pen_lsn lsn);

/* A transaction came whole; *again: it was here. Errors: PEN_ERROR_FATAL, it came out of order. */
PEN_MUST_CHECK bool pen_positions_note_commit(pen_positions *positions, pen_lsn commit_lsn,
                                              bool *again, pen_error *err);
/* It ends at `end_lsn`, and will be handed over. */
void pen_positions_note_received(pen_positions *positions, pen_lsn end_lsn);
/* A transaction up to `end_lsn` is the dispatcher's from now on. */
void pen_positions_note_handed(pen_positions *positions, pen_lsn end_lsn);
/* Everything that committed before `lsn` has been handed over, or had nothing for us. */
void pen_positions_note_idle(pen_positions *positions, pen_lsn lsn);
/* A new connection: what came whole so far may come again. */
void pen_positions_note_session(pen_positions *positions);

/* A message stands in `segment` of the spool. */
void pen_positions_note_segment(pen_positions *positions, uint64_t segment);
/* A transaction whose first message stands in segment `first` ends at `end_lsn`. */
void pen_positions_note_end(pen_positions *positions, uint64_t first, pen_lsn end_lsn);
/* The first segment that is still needed when everything up to `durable` is durable on the target,
 * and that from `open` on holds transactions in progress; 0 before the first message. */
uint64_t pen_positions_needed_segment(pen_positions *positions, uint64_t open, pen_lsn durable);

#endif
