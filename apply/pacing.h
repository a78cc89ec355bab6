/* Purpose: paces the reading while the source is far behind, so that its walsender works in large
 *          steps.
 * Thread:  the reader.
 * Owns:    nothing.
 * Flow:    how much waits in the socket in; a short sleep before more is taken out.
 *
 * A reader that takes each message as it comes makes the walsender wake it, and the kernel flush,
 * for each; what both then burn is more than what the work itself costs. With a pause before each
 * look the socket's queue fills meanwhile, and the next look finds a good part of it. Only latency
 * speaks for taking each message at once, and in a drain it does not count. */
#ifndef PEN_APPLY_PACING_H
#define PEN_APPLY_PACING_H

#include "core/base.h"

/* What is to wait in the socket: enough that the walsender never finds nobody who takes it, and so
 * little that its own buffer has room left. */
#define PEN_PACING_QUEUE (64u * 1024u)
/* The longest pause: far below the time in which a status is late, or anybody is waited for. */
#define PEN_PACING_MOST_US 300u

typedef struct pen_pacing {
    uint32_t pause_us;
} pen_pacing;

/* How long to wait, microseconds, when `queued` bytes wait in the socket. It grows while that is
 * too little and shrinks while it is too much, for what is right depends on the rows. */
uint32_t pen_pacing_choose(pen_pacing *pacing, size_t queued);
/* Waits as long as is right before `socket` is read; gives how long it meant to, microseconds. */
uint32_t pen_pacing_pause(pen_pacing *pacing, int socket);

#endif
