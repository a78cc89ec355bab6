/* Purpose: where a stream begins: publication, slot, progress row, and every reason not to go on.
 * Thread:  main, before the threads start.
 * Owns:    nothing that outlives it but plain values.
 * Flow:    both servers' catalogs and the progress row in; a position to start at out, or the
 *          reason to refuse, in words.
 *
 * Truth is on the target, in the schema "penstock", written in the same transaction as the data:
 * - stream: which source this stream reads; set once, compared on every start
 * - progress: commit and end LSN of the last transaction applied, and the run that may go on there
 * - durable: the LSN that may be reported to the source; durable itself before it is reported */
#ifndef PEN_APPLY_RESUME_H
#define PEN_APPLY_RESUME_H

#include "core/options.h"
#include "io/pgconn.h"
#include "io/replication.h"

typedef struct pen_resume {
    pen_source_identity identity; /* set by the caller, from the replication connection */
    pen_lsn remembered_lsn; /* set by the caller: what the state directory says was applied of this
                               slot's stream, or PEN_LSN_NONE */
    uint64_t owner;         /* set by the caller: the state directory's id */
    bool receiving;         /* set by the caller: it is we who read the slot now */
    bool spool_found; /* set by the caller, and the next three: the state directory has a spool */
    pen_lsn spool_start_lsn;    /* what ends at or before it is not in the spool */
    pen_lsn spool_end_lsn;      /* its transactions with changes end at or before it */
    pen_lsn spool_received_lsn; /* everything up to there is in it, or was before it */
    char run_id[24];       /* random: what tells this run's sessions from those of an earlier one */
    bool replica_role;     /* the target lets us set session_replication_role */
    pen_lsn commit_lsn;    /* transactions that commit at or before it are on the target already */
    pen_lsn start_lsn;     /* the stream starts here */
    pen_lsn confirmed_lsn; /* the slot's: what was reported to the source so far */
    pen_lsn reported_lsn;  /* durable on the target, and the most that was ever reported */
    int wal_sender_timeout_ms;
} pen_resume;

/* Connects to both servers, creates what is absent (publication first, slot, the schema
 * "penstock"), checks that both sides fit, and takes the stream over from an earlier run, whose
 * sessions can write nothing more after this; refuses when another penstock has it. `source` is an
 * ordinary session, `target` one with synchronous_commit=on, which keeps the stream's lock for as
 * long as it lives; both borrowed. `source` may be NULL while it is away and a reader of ours has
 * the spool: then what was there when that began counts. */
PEN_MUST_CHECK bool pen_resume_prepare(pen_resume *resume, const pen_options *options,
                                       pen_pgconn *source, pen_pgconn *target, pen_error *err);

/* The first half of that: which source this is (NULL as above), the schema "penstock", and the
 * stream's lock; what copies the data before there is a stream begins with it. *knows_source: the
 * stream is recorded.
 */
PEN_MUST_CHECK bool pen_resume_claim(pen_resume *resume, const pen_options *options,
                                     pen_pgconn *source, pen_pgconn *target, bool *knows_source,
                                     pen_error *err);
/* Records a stream whose slot begins at `start`, with its progress row. */
PEN_MUST_CHECK bool pen_resume_record(pen_pgconn *target, const pen_options *options,
                                      const pen_resume *resume, pen_lsn start, pen_error *err);

/* A source that was lost is there again, as `now`, while what it sent before is still applied: it
 * must be the same one, with the slot at or before `received`, which is the end of the spool;
 * *confirmed: where that is. Waits until the slot is free. `source` is an ordinary session,
 * borrowed. */
PEN_MUST_CHECK bool pen_resume_rejoin(const pen_resume *resume, const pen_options *options,
                                      pen_pgconn *source, const pen_source_identity *now,
                                      pen_lsn received, pen_lsn *confirmed, pen_error *err);

#endif
