/* Purpose: what a server's error means for us, by its SQLSTATE and, from a proxy, by its words.
 * Thread:  any; pure.
 * Owns:    nothing.
 * Flow:    SQLSTATE in, whether to retry, to give up or to call it a conflict out. */
#ifndef PEN_CORE_SQLSTATE_H
#define PEN_CORE_SQLSTATE_H

#include "core/error.h"

/* What an SQLSTATE means for us: worth a retry, a conflict, or fatal. */
pen_error_kind pen_sqlstate_kind(const char *sqlstate);

/* True for what ends a statement but not its session, and may be over when it is tried again: a
 * deadlock, a lock timeout, a cancel, a serialization failure, resources that ran out. */
bool pen_sqlstate_passes(const char *sqlstate);

/* True where a server that is there will let us in, or go on with us, later. */
bool pen_sqlstate_says_later(const char *sqlstate);

/* The same for a connection that was refused with these words, by a server or by a proxy. */
bool pen_sqlstate_lets_in_later(const char *sqlstate, const char *words);

/* True for a refused connection that stays refused until somebody changes something there. */
bool pen_sqlstate_is_final(const char *sqlstate, const char *words);

#endif
