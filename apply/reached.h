/* Purpose: remembers in the state directory which servers the stream has reached, so that a start can
 *          tell one that is away from one that was mistyped.
 * Thread:  main.
 * Owns:    the file DIR/reached, a hint: losing it costs only that a start does not wait.
 * Flow:    connection strings in; where they lead, without any secret, into the file; whether that
 *          is the same as before out. */
#ifndef PEN_APPLY_REACHED_H
#define PEN_APPLY_REACHED_H

#include "core/error.h"
#include "core/options.h"

/* Both servers have let us in and are those of the stream. With the state directory's lock. */
void pen_reached_note(const pen_options *options);

/* Whether an error of a start is one to be waited out: the server says so itself, or nobody
 * answered, but both connection strings lead to where this stream has been before; then *err says
 * that. */
PEN_MUST_CHECK bool pen_reached_may_wait(const pen_options *options, pen_error *err);

#endif
