#include "apply/source.h"

#include "apply/claim.h"

#include <stdio.h>

/* With --streaming parallel. What the source keeps back arrives only with the Commit, and is what
 * the target then has left to do: some 20,000 rows. Smaller blocks were no faster. */
#define EAGER_DECODING_KB 4096

bool pen_source_open_session(const pen_options *options, const char *part, pen_pgconn **conn,
                             pen_error *err)
{
    char name[64];
    snprintf(name, sizeof(name), "penstock %s %s", options->name, part);
    const pen_pgconn_options connect = {
        .conninfo = options->source,
        .side = "source",
        .application_name = name,
        /* Names are compared with the target's, and the operator's patterns are in UTF-8. */
        .setup = "SET client_encoding = 'UTF8'; SET search_path = '';"
                 " SET statement_timeout = 0; SET lock_timeout = 0;"
                 " SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;"
                 " SET default_transaction_read_only = off; SET row_security = off;"
                 " SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10;"
                 " SET tcp_keepalives_count = 3",
    };
    pen_pgconn *made = NULL;
    *conn = NULL;
    if (!pen_pgconn_open(&connect, &made, err)) {
        return false;
    }
    if (pen_pgconn_server_version(made) >= 170000 &&
        !pen_pgconn_exec(made, "set up the session", "SET transaction_timeout = 0", 0, NULL, NULL,
                         err)) {
        pen_pgconn_close(made);
        return false;
    }
    *conn = made;
    return true;
}

bool pen_source_open_stream(const pen_options *options, uint64_t owner, const char *encoding,
                            pen_replication **rep, pen_source_identity *identity, pen_error *err)
{
    char name[64];
    char mark[PEN_CLAIM_MARK_SIZE];
    snprintf(name, sizeof(name), "penstock %s reader", options->name);
    pen_claim_format_mark(owner, mark);
    const pen_replication_options replication = {
        .conninfo = options->source,
        .application_name = name,
        .slot = options->slot,
        .publication = options->publication,
        .client_encoding = encoding,
        .setup = mark,
        .streaming = options->streaming != PEN_STREAMING_OFF,
        .decoding_kb = options->streaming == PEN_STREAMING_PARALLEL ? EAGER_DECODING_KB : 0,
    };
    return pen_replication_open(&replication, rep, identity, err);
}
