/* Purpose: sessions on the target: one place for the settings under which rows are written.
 * Thread:  any; the connection belongs to the caller.
 * Owns:    nothing; gives the connection.
 * Flow:    options in, a connection out on which the same text always means the same value. */
#ifndef PEN_APPLY_SESSION_H
#define PEN_APPLY_SESSION_H

#include "io/pgconn.h"

typedef struct pen_session_options {
    const char *conninfo;
    const char *application_name;
    bool replica_role; /* ask for session_replication_role=replica: FKs and ordinary triggers sleep
                        */
    bool durable;      /* synchronous_commit=on: for the durability barrier */
    bool names_only;   /* speak UTF-8, as the source session; else the target's own encoding, in
                          which the stream brings its values */
} pen_session_options;

/* Opens a session for writing rows. Every SET is checked. */
PEN_MUST_CHECK bool pen_session_open(const pen_session_options *options, pen_pgconn **conn,
                                     pen_error *err);

/* Lets an open session plan as the server would by itself: queries over the catalogs of many tables
 * need the joins and scans that the statements for rows must not use. */
PEN_MUST_CHECK bool pen_session_plan_freely(pen_pgconn *conn, pen_error *err);

/* Lets it plan queries over the catalogs that it keeps prepared: once, without their values, and by
 * indexes also while the catalogs are small. */
PEN_MUST_CHECK bool pen_session_plan_once(pen_pgconn *conn, pen_error *err);

/* Asks whether there is a table (or a view) of that name, which is quoted where it must be. */
PEN_MUST_CHECK bool pen_session_has_table(pen_pgconn *conn, const char *name, bool *has,
                                          pen_error *err);

/* Asks on an open session whether this user may set session_replication_role (superusers, and those
 * granted it from PostgreSQL 15 on; not on Neon). */
PEN_MUST_CHECK bool pen_session_may_be_replica(pen_pgconn *conn, bool *may, pen_error *err);

#endif
