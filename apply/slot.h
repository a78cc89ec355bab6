/* Purpose: the source's replication slot: whether there can be one, what it is, and making it.
 * Thread:  whoever the session belongs to.
 * Owns:    nothing; borrows a session on the source.
 * Flow:    the source's catalogs in; a slot that can be read out, or the reason why not, in words.
 */
#ifndef PEN_APPLY_SLOT_H
#define PEN_APPLY_SLOT_H

#include "core/lsn.h"
#include "io/pgconn.h"

typedef struct pen_slot {
    bool exists;
    pen_lsn confirmed_lsn;
    char active_pid[16]; /* of the server process that reads it; "" when none does */
} pen_slot;

/* Whether changes can be read from this server at all; *wal_sender_timeout_ms: its setting. */
PEN_MUST_CHECK bool pen_slot_check_server(pen_pgconn *source, int *wal_sender_timeout_ms,
                                          pen_error *err);

/* What the slot is now. Errors: PEN_ERROR_FATAL when it is there and cannot be used. */
PEN_MUST_CHECK bool pen_slot_read(pen_pgconn *source, const char *slot, const char *database,
                                  pen_slot *state, pen_error *err);

/* The same, and where another reader has it waits until that one is gone, a little longer than
 * `wal_sender_timeout_ms`: after a crash of ours the server needs as long to notice, unless it lets
 * us end what is left of a run with the state directory `owner`. */
PEN_MUST_CHECK bool pen_slot_read_free(pen_pgconn *source, const char *slot, const char *database,
                                       uint64_t owner, int wal_sender_timeout_ms, pen_slot *state,
                                       pen_error *err);

/* Makes it. Waits for the transactions that are open on the source. */
PEN_MUST_CHECK bool pen_slot_create(pen_pgconn *source, const char *slot, pen_slot *state,
                                    pen_error *err);

#endif
