/* Purpose: the dispatchers: find what each change must wait for, and form batches.
 * Thread:  main makes, starts, joins and destroys them; each is a thread of its own.
 * Owns:    the former, the targets, and the transactions that they took from their rings.
 * Flow:    whole transactions, dealt by the reader, in; batches into the open place out.
 * They never wait for a dependency: they only write down what a change is bound to.
 *
 * Each hashes the keys of its transactions on its own, as far as it may (apply/targets.h); probing
 * the conflict table and adding to the batch it does with the baton, in commit order
 * (apply/dealing.h). With the baton goes everything that only one may touch: the former, the
 * targets, the open batch, the parker that its holder sleeps on (pen_stream.baton_parker), and a
 * large transaction to its end.
 *
 * While a single one sleeps, the reader may do its work for a small transaction that needs neither
 * a look at the target's catalogs nor a wait: on a small machine waking a thread costs more than
 * what it does. */
#ifndef PEN_APPLY_DISPATCHER_H
#define PEN_APPLY_DISPATCHER_H

#include "apply/stream.h"

typedef struct pen_dispatchers pen_dispatchers;

/* As many as the stream deals to. Takes `catalog`, a session on the target in autocommit. */
pen_dispatchers *pen_dispatchers_create(pen_stream *stream, pen_pgconn *catalog);
/* After all threads have ended. NULL is nothing. */
void pen_dispatchers_destroy(pen_dispatchers *all);

PEN_MUST_CHECK bool pen_dispatchers_start(pen_dispatchers *all, pen_error *err);
void pen_dispatchers_join(pen_dispatchers *all); /* NULL is nothing */

#endif
