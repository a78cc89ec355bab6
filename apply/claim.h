/* Purpose: one penstock per stream, whatever machine it runs on: session locks on the target.
 * Thread:  main; the connections belong to the caller.
 * Owns:    nothing; a lock lives as long as its session.
 * Flow:    a session in; the stream's lock taken on it out, or who has it, in words.
 *
 * Two advisory locks, which any role may take, and which die with their session:
 * - the stream's, exclusive, on the control session: its key is the stream's name. Whoever else
 *   comes is refused for as long as that session lives.
 * - the owner's, shared, on every session there and on the source's walsender: its key is the state
 * directory's id. Who holds that directory's lock on disk knows by it which sessions an earlier run
 * of its own has left behind, and ends them: they may hold row locks for as long as the server
 * takes to miss their client. Neither is what keeps a transaction from being applied twice: that is
 * the progress row's guard. */
#ifndef PEN_APPLY_CLAIM_H
#define PEN_APPLY_CLAIM_H

#include "io/pgconn.h"

/* What marks a session as one of the state directory `owner`'s: SQL without parameters, which a
 * walsender takes as well. */
#define PEN_CLAIM_MARK_SIZE 96
void pen_claim_format_mark(uint64_t owner, char sql[PEN_CLAIM_MARK_SIZE]);

/* Ends the session `pid` (a number as text) if it is marked as `owner`'s: the caller knows that it
 * is not one of this run. *ours tells whether it is; a session that this role may not end stays. */
PEN_MUST_CHECK bool pen_claim_end(pen_pgconn *conn, uint64_t owner, const char *pid, bool *ours,
                                  pen_error *err);

/* Ends all other sessions that are marked as `owner`'s, waiting for that for at most 65 s and
 * saying so. Errors: PEN_ERROR_RETRY when some stay. */
PEN_MUST_CHECK bool pen_claim_alone(pen_pgconn *control, uint64_t owner, pen_error *err);

/* Takes the stream `name` for the session `control`, which is marked and `owner`'s only one: ends
 * what earlier runs of `owner` have left, waiting for that for at most 65 s and saying so. Errors:
 * PEN_ERROR_FATAL when another penstock has the stream; PEN_ERROR_RETRY when sessions of an earlier
 * run stay. */
PEN_MUST_CHECK bool pen_claim_stream(pen_pgconn *control, const char *name, uint64_t owner,
                                     pen_error *err);

#endif
