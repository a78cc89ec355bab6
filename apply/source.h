/* Purpose: connections to the source: ordinary sessions, and the one that the stream comes on.
 * Thread:  any; the connection belongs to the caller.
 * Owns:    nothing; gives the connection.
 * Flow:    options in, a connection out. */
#ifndef PEN_APPLY_SOURCE_H
#define PEN_APPLY_SOURCE_H

#include "core/options.h"
#include "io/pgconn.h"
#include "io/replication.h"

/* An ordinary session, for names in UTF-8, with no timeout of its role's or server's. `part`: what
 * it is for, as the server is told its name. *conn is NULL where there is none. */
PEN_MUST_CHECK bool pen_source_open_session(const pen_options *options, const char *part,
                                            pen_pgconn **conn, pen_error *err);

/* The stream's, not started yet. It comes in the target's `encoding`, so that nobody converts
 * twice; `owner` is the state directory's id, which marks it as ours. *identity: which server this
 * is. */
PEN_MUST_CHECK bool pen_source_open_stream(const pen_options *options, uint64_t owner,
                                           const char *encoding, pen_replication **rep,
                                           pen_source_identity *identity, pen_error *err);

#endif
