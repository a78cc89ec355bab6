/* Purpose: sees to a source that the reader has lost and goes on without, with the spool.
 * Thread:  the one that supervises the reader.
 * Owns:    nothing of its own: everything is in pen_run.
 * Flow:    the reader's word of a loss in; a thread that brings the source back (apply/regain.h),
 * and what comes of that, out. */
#ifndef PEN_APPLY_LOSSES_H
#define PEN_APPLY_LOSSES_H

#include "apply/run.h"

/* True while the reader goes on without its source. */
bool pen_losses_is_away(const pen_run *run);

/* A look, now and then and when woken; false when the source cannot come back: run->refused.
 * `streaming`: all else is there. */
bool pen_losses_see_to(pen_run *run, bool streaming);

#endif
