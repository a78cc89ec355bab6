/* Purpose: where a migration stands: its phase, and the tables on the target that remember it.
 * Thread:  main; pen_migration_may_stream also whoever resumes a stream.
 * Owns:    the two control sessions, from open to close.
 * Flow:    options in; the phase that is under way out, and each new one into the target.
 *
 * Truth is on the target, in the schema "penstock", beside the stream's own tables:
 * - migration: the phase that is under way
 * - schema_item: each object that the source's dump makes, in its order, and whether it is made
 * - copied_table: each table to copy, in which round it was last begun, and under which fence
 * - copied_chunk: each chunk that is there, written in the same transaction as its rows */
#ifndef PEN_APPLY_MIGRATION_H
#define PEN_APPLY_MIGRATION_H

#include "apply/resume.h"
#include "apply/statedir.h"

/* The phase that is under way, in their order. */
typedef enum pen_phase {
    PEN_PHASE_CHECK,
    PEN_PHASE_SCHEMA,
    PEN_PHASE_SLOT,
    PEN_PHASE_COPY,
    PEN_PHASE_UNIQUE, /* unique indexes and primary keys */
    PEN_PHASE_STREAM, /* and the other indexes beside it */
    PEN_PHASE_READY,  /* the same, with nothing left but the cutover */
    PEN_PHASE_CUTOVER,
    PEN_PHASE_DONE
} pen_phase;

const char *pen_phase_name(pen_phase phase);

typedef struct pen_migration {
    const pen_options *options;
    pen_statedir *statedir; /* borrowed */
    pen_pgconn *source;     /* ordinary sessions that speak UTF-8 */
    pen_pgconn *target;     /* holds the stream's lock */
    pen_replication *rep;   /* a walsender's client, for the slot */
    pen_resume resume;
    pen_phase phase;
    bool streams; /* the stream is recorded: its slot was made */
} pen_migration;

/* Connects to both, takes the stream's lock, and reads the phase. The caller holds the state
 * directory meanwhile. */
PEN_MUST_CHECK bool pen_migration_open(const pen_options *options, pen_statedir *dir,
                                       pen_migration **migration, pen_error *err);
void pen_migration_close(pen_migration *migration); /* NULL is nothing */

/* Only looks where the migration stands, whoever is at work on it: connects to the target alone.
 * The phase is PEN_PHASE_CHECK where there is none. */
PEN_MUST_CHECK bool pen_migration_look(const pen_options *options, pen_migration **migration,
                                       pen_error *err);

/* Makes the control session on the target anew, with the stream's lock, after it was lost. */
PEN_MUST_CHECK bool pen_migration_reconnect_target(pen_migration *migration, pen_error *err);
PEN_MUST_CHECK bool pen_migration_reconnect_source(pen_migration *migration, pen_error *err);

/* Records that `phase` is under way now, durably, and says so. */
PEN_MUST_CHECK bool pen_migration_enter(pen_migration *migration, pen_phase phase, pen_error *err);

/* The same by another session on the target, without a word. */
PEN_MUST_CHECK bool pen_migration_record(pen_pgconn *target, const char *name, pen_phase phase,
                                         pen_error *err);

/* Refuses a stream whose tables are not copied yet. */
PEN_MUST_CHECK bool pen_migration_may_stream(pen_pgconn *target, const char *name, pen_error *err);

/* Names tables and partitions that came into the publication after the copy had begun, and may have
 * had rows, which nobody has copied.
 * Nothing where no migration was begun. */
PEN_MUST_CHECK bool pen_migration_warn_of_late(const pen_options *options, pen_pgconn *source,
                                               pen_pgconn *target, pen_error *err);

#endif
