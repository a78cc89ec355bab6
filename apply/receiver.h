/* Purpose: what receives a stream: the connection, the spool and the capture for a reader, and the
 *          reader itself; with a target, or before there is one.
 * Thread:  main, while there is no reader.
 * Owns:    nothing of its own: everything goes into pen_reader_parts, and from there into pen_run.
 * Flow:    options and the state directory in; a reader whose thread can be started out. */
#ifndef PEN_APPLY_RECEIVER_H
#define PEN_APPLY_RECEIVER_H

#include "apply/run.h"

/* Connects to the source for the stream, in the target's `encoding`, and opens the spool of the
 * whole stream where there is to be one, or was one. What is in *parts then, also on false, is for
 * pen_receiver_make or pen_receiver_close. */
PEN_MUST_CHECK bool pen_receiver_open(pen_run *run, const char *encoding, pen_reader_parts *parts,
                                      pen_error *err);
void pen_receiver_close(pen_reader_parts *parts);

/* How often the reader is to send a status, and how long the source may be silent. */
void pen_receiver_set_intervals(pen_stream *stream);

/* Starts the stream where run->stream->resume says, and makes the reader of what `parts` has; takes
 * that on success. */
PEN_MUST_CHECK bool pen_receiver_make(pen_run *run, pen_reader_parts *parts, pen_error *err);

/* Makes a reader that receives into the spool while nothing is applied, and starts it; run->source
 * is there. Of the target nothing is needed but what `there` says, a spool's header: no segment
 * goes before the target is found to be the right one, and has what is in it. `recorded`: the
 * target has everything up to there, and a spool that is not there yet begins with it;
 * PEN_LSN_NONE: there must be one. */
PEN_MUST_CHECK bool pen_receiver_begin(pen_run *run, const pen_spool_header *there,
                                       pen_lsn recorded, pen_error *err);

/* At a start without the target: where the spool of an earlier run is there, makes and starts a
 * reader that receives into that. Errors: only what the operator has to mend; else it is as well as
 * it was. */
PEN_MUST_CHECK bool pen_receiver_begin_early(pen_run *run, pen_error *err);
/* The target is there for the first time, and such a reader has received meanwhile by what the
 * spool says of the target: whether that is so. */
PEN_MUST_CHECK bool pen_receiver_join(pen_run *run, pen_pgconn *control, pen_error *err);

#endif
