/* Purpose: named places at which a test lets the process die, as kill -9 would, or get another
 *          signal: SIGSTOP, to be met there by somebody.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    PENSTOCK_KILL_AT=NAME or NAME:N in the environment, and PENSTOCK_KILL_BY=NUMBER for
 *          another signal; SIGKILL at the Nth pass of that place.
 *
 * Only in builds with the option PEN_KILL_POINTS; in all others the macro is nothing, and the
 * variable means nothing. */
#ifndef PEN_CORE_KILL_POINT_H
#define PEN_CORE_KILL_POINT_H

#ifdef PEN_KILL_POINTS

#include <stdbool.h>

/* Whether this pass is the one; then the caller dies. */
bool pen_kill_point_is_due(const char *name);
void pen_kill_point_die(void);

/* With `last_act`: what was only queued so far can be sent before. */
#define PEN_KILL_POINT_AFTER(name, last_act)                                                       \
    do {                                                                                           \
        if (pen_kill_point_is_due(name)) {                                                         \
            last_act;                                                                              \
            pen_kill_point_die();                                                                  \
        }                                                                                          \
    } while (false)
#define PEN_KILL_POINT(name) PEN_KILL_POINT_AFTER(name, (void)0)

#else
#define PEN_KILL_POINT_AFTER(name, last_act) ((void)0)
#define PEN_KILL_POINT(name)                 ((void)0)
#endif

#endif
