#include "apply/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Why each group:
 * - the same text must be the same value here as on the source's stream, and a NULL in an array no
 *   text;
 * - no timeout of the server's or role's default may end a session that only waits for its turn;
 * - row security must not hide rows silently: off makes the server say so instead;
 * - plans: a generic plan made while a table was small would stay a sequential scan for ever; JIT
 *   compiles for 100 ms what runs for 0.04 ms;
 * - a server that lost us must notice, or its locks stay. */
static const char *const row_settings =
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; "
    "SET xmloption = 'content'; SET array_nulls = on; SET search_path = ''; "
    "SET default_transaction_read_only = off; "
    "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; "
    "SET idle_session_timeout = 0; "
    "SET row_security = off; "
    "SET plan_cache_mode = 'force_generic_plan'; SET jit = off; SET enable_seqscan = off; "
    "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; "
    "SET client_connection_check_interval = '10s'; ";

/* A worker that stands in the queue for a lock holds others up: in the end it goes out, and queues
 * anew. A role that has a lock_timeout on the target has it for a reason, so that counts. */
static const char *const lock_timeout =
    "SELECT pg_catalog.set_config('lock_timeout', '5min', false)"
    " WHERE pg_catalog.current_setting('lock_timeout') = '0'";

bool pen_session_open(const pen_session_options *options, pen_pgconn **conn, pen_error *err)
{
    const pen_pgconn_options connect = {
        .conninfo = options->conninfo,
        .side = "target",
        .application_name = options->application_name,
    };
    pen_pgconn *made = NULL;
    char rest[256];
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
    snprintf(rest, sizeof(rest), "SET client_encoding = '%s'; SET synchronous_commit = %s%s%s",
             options->names_only ? "UTF8" : pen_pgconn_parameter(made, "server_encoding"),
             options->durable ? "on" : "off",
             version >= 170000 ? "; SET transaction_timeout = 0" : "",
             options->replica_role ? "; SET session_replication_role = replica" : "");
    if (!pen_pgconn_exec(made, "set up the session", row_settings, 0, NULL, NULL, err) ||
        !pen_pgconn_exec(made, "set up the session", rest, 0, NULL, NULL, err) ||
        !pen_pgconn_exec(made, "set up the session", lock_timeout, 0, NULL, NULL, err)) {
        goto fail;
    }
    *conn = made;
    return true;
fail:
    pen_pgconn_close(made);
    return false;
}

bool pen_session_plan_freely(pen_pgconn *conn, pen_error *err)
{
    return pen_pgconn_exec(conn, "set up the session",
                           "RESET plan_cache_mode; RESET enable_seqscan; RESET enable_hashjoin;"
                           " RESET enable_mergejoin; RESET enable_material",
                           0, NULL, NULL, err);
}

bool pen_session_plan_once(pen_pgconn *conn, pen_error *err)
{
    return pen_pgconn_exec(conn, "set up the session",
                           "RESET enable_hashjoin; RESET enable_mergejoin; RESET enable_material",
                           0, NULL, NULL, err);
}

bool pen_session_may_be_replica(pen_pgconn *conn, bool *may, pen_error *err)
{
    *may = pen_pgconn_exec(conn, "set session_replication_role",
                           "BEGIN; SET LOCAL session_replication_role = replica; COMMIT", 0, NULL,
                           NULL, err);
    if (*may) {
        return true;
    }
    if (strcmp(err->sqlstate, "42501") != 0) {
        return false;
    }
    return pen_pgconn_exec(conn, "roll back", "ROLLBACK", 0, NULL, NULL, err);
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
