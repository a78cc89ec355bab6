/* Purpose: paces the reading: while the source is far behind, so that its walsender works in large
 *          steps; while it keeps up, so that we are not woken for each message.
 * Thread:  the reader.
 * Owns:    nothing.
 * Flow:    how much waits in the socket in; a short sleep before more is taken out.
 *
 * A reader that takes each message as it comes makes the walsender wake it, and the kernel send a
 * packet, for each; what both then burn is more than what the work itself costs. Only latency
 * speaks for taking each message at once, and in a drain it does not count. What helps depends on
 * what is between the two:
 *
 * - On one machine the kernel does the receiver's work in the sender's send(), for each message, as
 *   long as the receive window is open. While it is closed a send only appends to what waits on the
 *   sender's side, at less than half the cost, and the next read has it come over in large pieces.
 *   So the reader stays away until a stock lies there, takes all of it, and stays away again. It
 *   must stay away long enough for that: a shorter pause never closes the window, and is worse than
 *   none.
 * - From elsewhere the window must not close, because it takes a round trip to open again. There,
 *   and through a Unix socket, whose buffer is small, it is enough that each read finds something:
 *   with a short pause before each look the socket's queue fills meanwhile. */
#ifndef PEN_APPLY_PACING_H
#define PEN_APPLY_PACING_H

#include "core/base.h"

/* From elsewhere. What is to wait in the socket: enough that the walsender never finds nobody who
 * takes it, and so little that its own buffer has room left. */
#define PEN_PACING_QUEUE (64u * 1024u)
/* The longest pause then: far below the time in which a status is late, or anybody is waited for.
 */
#define PEN_PACING_MOST_US 300u

/* On one machine. What is to be taken between two pauses: several windows of a new connection, and
 * a fraction of what Linux lets wait on the sender's side there. */
#define PEN_PACING_STOCK (384u * 1024u)
/* With less than this in the socket the stock is used up. */
#define PEN_PACING_READ (16u * 1024u)
/* The longest pause then: a walsender at its slowest fills several windows in it. */
#define PEN_PACING_MOST_AWAY_US 20000u

/* While the source keeps up. How long to stay away from a socket in which something comes again and
 * again. */
#define PEN_PACING_REST_US 300u

typedef struct pen_pacing {
    bool one_machine; /* the other end is on this one, and not by a Unix socket */
    uint32_t pause_us;
    size_t taken;        /* since the last pause, about */
    uint32_t silence_us; /* lately, from when all was read until something came */
} pen_pacing;

/* For a new connection. */
void pen_pacing_begin(pen_pacing *pacing, int socket);
/* How long to wait, microseconds, when `queued` bytes wait in the socket. It grows while that is
 * too little and shrinks while it is too much, for what is right depends on the rows. */
uint32_t pen_pacing_choose(pen_pacing *pacing, size_t queued);
/* Waits as long as is right before `socket` is read; gives how long it meant to, microseconds. */
uint32_t pen_pacing_pause(pen_pacing *pacing, int socket);
/* True when more is to be taken out of `socket` before what was taken is looked at: the sooner the
 * stock is here, the sooner the window is closed again. */
bool pen_pacing_takes_more(pen_pacing *pacing, int socket);
/* While the source keeps up. Something came after the socket had been empty for so long,
 * microseconds. */
void pen_pacing_heard(pen_pacing *pacing, int64_t silence_us);
/* True when something will come so soon that it is cheaper to look for it in a while than to be
 * woken for it: the walsender's send(), too, costs more when it wakes somebody. */
bool pen_pacing_may_rest(const pen_pacing *pacing);
/* Stays away for a while. */
void pen_pacing_rest(void);

/* For the rest of a transaction of which a part is there: it will come within microseconds, and
 * nobody has use for the part. */
void pen_pacing_nap(void);

#endif
