/* Purpose: makes the connections and the parts of a run, in the order in which they need each other,
 *          and takes them down again.
 * Thread:  main, while the threads concerned do not run.
 * Owns:    nothing of its own: everything goes into pen_run.
 * Flow:    options in; a run whose threads can be started out. */
#ifndef PEN_APPLY_PARTS_H
#define PEN_APPLY_PARTS_H

#include "apply/run.h"

/* Connects to both servers, finds out where the stream stands, and makes every part that is not
 * there: all of them, or all but the reader. */
PEN_MUST_CHECK bool pen_parts_make(pen_run *run, pen_error *err);
/* Starts their threads; the reader's only when it was made now. */
PEN_MUST_CHECK bool pen_parts_start(pen_run *run, pen_error *err);
/* Waits for the threads; all but the reader's, or all. */
void pen_parts_join(pen_run *run, bool with_reader);
/* Takes down what pen_parts_make made, all but the reader, or all; threads have ended. */
void pen_parts_unmake(pen_run *run, bool with_reader);

/* Commits a message that holds nothing: it moves the source's WAL, flushed, past every position
 * read before, so that the stream can prove to have reached it. With --ack spooled a source that
 * cannot be asked now is no error. */
PEN_MUST_CHECK bool pen_parts_nudge_source(pen_run *run, pen_error *err);

/* Ends the ordinary session on the source. */
void pen_parts_close_source(pen_run *run);

#endif
