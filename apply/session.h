/* Purpose: sessions on the target: one place for the settings under which rows are written.
 * Thread:  any; the connection belongs to the caller.
 * Owns:    nothing; gives the connection.
 * Flow:    options in, a connection out on which the same text always means the same value. */
#ifndef PEN_APPLY_SESSION_H
#define PEN_APPLY_SESSION_H

#include "io/pgconn.h"

/* How the session's queries are planned. */
typedef enum pen_session_plans {
    PEN_SESSION_FOR_ROWS,    /* prepared statements for rows: by indexes, once, without values */
    PEN_SESSION_FOR_CATALOG, /* queries over the catalogs that are kept prepared: once, and by
                                indexes also while the catalogs are small; any joins */
    PEN_SESSION_FOR_QUERIES, /* as the server would by itself: for queries over the catalogs of many
                                tables */
} pen_session_plans;

typedef struct pen_session_options {
    const char *conninfo;
    const char *application_name;
    uint64_t owner; /* marks the session as this state directory's (claim.h); 0 not */
    pen_session_plans plans;
    bool replica_role; /* ask for session_replication_role=replica: FKs and ordinary triggers sleep
                        */
    bool durable;      /* synchronous_commit=on: for the durability barrier */
    bool names_only;   /* speak UTF-8, as the source session; else the target's own encoding, in
                          which the stream brings its values */
} pen_session_options;

/* Opens a session for writing rows: one round trip after the login. Every SET is checked. */
PEN_MUST_CHECK bool pen_session_open(const pen_session_options *options, pen_pgconn **conn,
                                     pen_error *err);

/* Asks whether there is a table (or a view) of that name, which is quoted where it must be. */
PEN_MUST_CHECK bool pen_session_has_table(pen_pgconn *conn, const char *name, bool *has,
                                          pen_error *err);

/* Asks on an open session whether this user may set session_replication_role (superusers, and those
 * granted it from PostgreSQL 15 on; not on Neon). */
PEN_MUST_CHECK bool pen_session_may_be_replica(pen_pgconn *conn, bool *may, pen_error *err);

#endif
