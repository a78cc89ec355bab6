/* Purpose: receives the stream into the spool while a migration copies (--ack spooled), so that the
 *          source need not keep its WAL for as long.
 * Thread:  one of its own, which supervises a reader; the functions here are main's.
 * Owns:    that reader with its connection and the spool, until it ends; borrows the migration.
 * Flow:    the slot's stream in, segments of the spool out; the stream goes on from there. */
#ifndef PEN_APPLY_AHEAD_H
#define PEN_APPLY_AHEAD_H

#include "apply/migration.h"

typedef struct pen_ahead pen_ahead;

/* Whether what an earlier run of this migration has received is to be used still: refuses another
 * --ack, before hours of copying are for nothing. */
PEN_MUST_CHECK bool pen_ahead_check(const pen_migration *migration, pen_error *err);

/* Begins, once the slot is there, where --ack spooled asks for it and *ahead is NULL. */
PEN_MUST_CHECK bool pen_ahead_begin(pen_migration *migration, pen_ahead **ahead, pen_error *err);

/* Ends it: all that has come is durable in the spool, and the slot is free. False, with the reason,
 * when it has failed before: the source has no slot any more, say. NULL is nothing. */
PEN_MUST_CHECK bool pen_ahead_end(pen_ahead *ahead, pen_error *err);

#endif
