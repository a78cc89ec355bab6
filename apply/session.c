#include "apply/session.h"

#include "apply/claim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Why each group:
 * - the same text must be the same value here as on the source's stream, and a NULL in an array no
 *   text;
 * - no timeout of the server's or role's default may end a session that only waits for its turn;
 * - row security must not hide rows silently: off makes the server say so instead;
 * - JIT compiles for 100 ms what runs for 0.04 ms;
 * - a server that lost us must notice, or its locks stay;
 * - a worker that stands in the queue for a lock holds others up: in the end it goes out, and
 * queues anew. A role that has a lock_timeout on the target has it for a reason, so that counts. */
static const char *const row_settings =
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; "
    "SET xmloption = 'content'; SET array_nulls = on; SET search_path = ''; "
    "SET default_transaction_read_only = off; "
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
    "SET idle_session_timeout = 0; "
    "SET row_security = off; SET jit = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET client_connection_check_interval = '10s'; "
    "SELECT pg_catalog.set_config('lock_timeout', '5min', false)"
    " WHERE pg_catalog.current_setting('lock_timeout') = '0'; ";

/* A generic plan made while a table was small would stay a sequential scan for ever. */
static const char *const plans[] = {
    [PEN_SESSION_FOR_ROWS] =
        "SET plan_cache_mode = 'force_generic_plan'; SET enable_seqscan = off; "
        "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; ",
    [PEN_SESSION_FOR_CATALOG] =
        "SET plan_cache_mode = 'force_generic_plan'; SET enable_seqscan = off; ",
    [PEN_SESSION_FOR_QUERIES] = "",
};

bool pen_session_open(const pen_session_options *options, pen_pgconn **conn, pen_error *err)
{
    const pen_pgconn_options connect = {
        .conninfo = options->conninfo,
        .side = "target",
        .application_name = options->application_name,
    };
    pen_pgconn *made = NULL;
    char mark[PEN_CLAIM_MARK_SIZE] = "";
    char setup[2048];
    if (!pen_pgconn_open(&connect, &made, err)) {
        return false;
    }
    int version = pen_pgconn_server_version(made);
    if (version < 140000) {
        pen_error_set(err, PEN_ERROR_FATAL,
                      "target: PostgreSQL %d is too old; 14 is the oldest that penstock writes to",
                      version / 10000);
        goto fail;
    }
    if (options->owner != 0) {
        pen_claim_format_mark(options->owner, mark);
    }
    /* All at once: a round trip for each would show at a start, and after each lost connection. */
    int size = snprintf(
        setup, sizeof(setup), "%s%sSET client_encoding = '%s'; SET synchronous_commit = %s; %s%s%s",
        row_settings, plans[options->plans],
        options->names_only ? "UTF8" : pen_pgconn_parameter(made, "server_encoding"),
        options->durable ? "on" : "off", version >= 170000 ? "SET transaction_timeout = 0; " : "",
        options->replica_role ? "SET session_replication_role = replica; " : "", mark);
    PEN_ASSERT(size > 0 && (size_t)size < sizeof(setup));
    if (!pen_pgconn_exec(made, "set up the session", setup, 0, NULL, NULL, err)) {
        goto fail;
    }
    *conn = made;
    return true;
fail:
    pen_pgconn_close(made);
    return false;
}

bool pen_session_may_be_replica(pen_pgconn *conn, bool *may, pen_error *err)
{
    /* Two commands at once are a transaction of their own, which a refusal ends. */
    *may = pen_pgconn_exec(conn, "set session_replication_role",
                           "SET LOCAL session_replication_role = replica; SELECT 1", 0, NULL, NULL,
                           err);
    return *may || strcmp(err->sqlstate, "42501") == 0;
}

bool pen_session_has_table(pen_pgconn *conn, const char *name, bool *has, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, "look for a table", "SELECT pg_catalog.to_regclass($1) IS NOT NULL",
                         1, values, &res, err)) {
        return false;
    }
    *has = pen_pgresult_value(res, 0, 0)[0] == 't';
    pen_pgresult_clear(res);
    return true;
}
