/* Purpose: what people and scripts see of a running stream: progress lines, and the last line.
 * Thread:  main.
 * Owns:    nothing.
 * Flow:    the counters of the shared state in, log lines out. */
#ifndef PEN_APPLY_SHOW_H
#define PEN_APPLY_SHOW_H

#include "apply/run.h"

/* Writes a progress line when one is due. */
void pen_show_progress(pen_run *run);
/* The last lines, after the threads have ended: what was done, and what was received. */
void pen_show_summary(const pen_run *run, pen_stop_reason reason);

#endif
