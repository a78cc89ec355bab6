#include "apply/slot.h"

#include "apply/claim.h"
#include "core/log.h"
#include "core/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool pen_slot_check_server(pen_pgconn *source, int *wal_sender_timeout_ms, pen_error *err)
{
    int version = pen_pgconn_server_version(source);
    pen_pgresult *res = NULL;
    if (version < 140000) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: PostgreSQL %d is too old; 14 is the oldest that penstock reads "
            "from",
            version / 10000);
    }
    if (!pen_pgconn_exec(source, "read the settings",
                         "SELECT name, setting FROM pg_catalog.pg_settings"
                         " WHERE name IN ('wal_level', 'wal_sender_timeout') ORDER BY name",
                         0, NULL, &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_rows(res) == 2;
    const char *wal_level = ok ? pen_pgresult_value(res, 0, 1) : "unknown";
    if (!ok || strcmp(wal_level, "logical") != 0) {
        pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: wal_level is %s, but changes can only be read with wal_level = logical; "
            "run ALTER SYSTEM SET wal_level = logical and restart the server (on a managed "
            "service, switch logical replication on)",
            wal_level);
        ok = false;
    } else {
        *wal_sender_timeout_ms = atoi(pen_pgresult_value(res, 1, 1));
    }
    pen_pgresult_clear(res);
    return ok;
}

bool pen_slot_read(pen_pgconn *source, const char *slot, const char *database, pen_slot *state,
                   pen_error *err)
{
    const char *const values[] = {slot, database};
    pen_pgresult *res = NULL;
    memset(state, 0, sizeof(*state));
    if (!pen_pgconn_exec(
            source, "look for the slot",
            "SELECT confirmed_flush_lsn, plugin IS NOT DISTINCT FROM 'pgoutput' AS right_plugin,"
            " database IS NOT DISTINCT FROM $2 AS right_database, two_phase, temporary,"
            " wal_status IS NOT DISTINCT FROM 'lost' AS lost, active_pid,"
            /* From 17 on, so not by its name as a column. */
            " pg_catalog.to_jsonb(s) ->> 'invalidation_reason' AS reason"
            " FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1",
            2, values, &res, err)) {
        return false;
    }
    if (pen_pgresult_rows(res) == 0) {
        pen_pgresult_clear(res);
        return true;
    }
    const char *confirmed = pen_pgresult_value(res, 0, 0);
    const char *reason = pen_pgresult_named(res, 0, "reason");
    char invalidated[128];
    const char *wrong = NULL;
    if (pen_pgresult_named(res, 0, "right_plugin")[0] != 't') {
        wrong = "it does not use the output plugin pgoutput";
    } else if (pen_pgresult_named(res, 0, "right_database")[0] != 't') {
        wrong = "it belongs to another database";
    } else if (pen_pgresult_named(res, 0, "two_phase")[0] == 't') {
        wrong =
            "it decodes prepared transactions (two_phase), whose data the server sends only once";
    } else if (pen_pgresult_named(res, 0, "temporary")[0] == 't') {
        wrong = "it is temporary";
    } else if (reason != NULL && strcmp(reason, "wal_removed") != 0) {
        snprintf(invalidated, sizeof(invalidated), "the source has invalidated it (%s)", reason);
        wrong = invalidated;
    } else if (reason != NULL || pen_pgresult_named(res, 0, "lost")[0] == 't') {
        wrong = "the source has removed WAL that it needs (wal_status is lost)";
    }
    bool ok = true;
    const char *pid = pen_pgresult_named(res, 0, "active_pid");
    snprintf(state->active_pid, sizeof(state->active_pid), "%s", pid == NULL ? "" : pid);
    /* One without a position is still being created, by a run that was stopped meanwhile. */
    bool being_created = confirmed == NULL && pid != NULL;
    if (wrong == NULL && !being_created &&
        (confirmed == NULL || !pen_lsn_parse(confirmed, &state->confirmed_lsn))) {
        wrong = "it has no confirmed position";
    }
    if (wrong != NULL) {
        ok = pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: the replication slot \"%s\" cannot be used: %s; name another one by "
            "--slot, or drop it and copy the data again",
            slot, wrong);
    }
    state->exists = true;
    pen_pgresult_clear(res);
    return ok;
}

bool pen_slot_read_free(pen_pgconn *source, const char *slot, const char *database, uint64_t owner,
                        int wal_sender_timeout_ms, pen_slot *state, pen_error *err)
{
    int64_t wait_ms = wal_sender_timeout_ms > 0 ? wal_sender_timeout_ms + 5000 : 65000;
    int64_t deadline_us = pen_now_us() + wait_ms * 1000;
    bool said = false;
    while (pen_slot_read(source, slot, database, state, err)) {
        if (state->active_pid[0] == '\0') {
            return true;
        }
        if (pen_now_us() > deadline_us) {
            return pen_error_set(
                err, PEN_ERROR_RETRY,
                "source: the replication slot \"%s\" is in use by the server process %s; "
                "stop the other reader and start again, nothing is lost",
                slot, state->active_pid);
        }
        if (!said) {
            said = true;
            pen_log(PEN_LOG_INFO,
                    "waiting for the replication slot \"%s\", which the source's process %s still "
                    "reads or creates, for at most %d s",
                    slot, state->active_pid, (int)(wait_ms / 1000));
        }
        bool ours = false;
        if (!pen_claim_end(source, owner, state->active_pid, &ours, err)) {
            return false;
        }
        usleep(200 * 1000);
    }
    return false;
}

bool pen_slot_create(pen_pgconn *source, const char *slot, pen_slot *state, pen_error *err)
{
    const char *const values[] = {slot};
    pen_pgresult *res = NULL;
    /* So that a server that still waits when we are stopped gives up, where its system can tell. */
    pen_error ignored;
    (void)!pen_pgconn_exec(source, "set up the session",
                           "SET client_connection_check_interval = '1s'", 0, NULL, NULL, &ignored);
    pen_log(PEN_LOG_INFO,
            "creating the replication slot \"%s\"; this waits for transactions that are "
            "open on the source",
            slot);
    if (!pen_pgconn_exec(
            source, "create the replication slot",
            "SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')", 1,
            values, &res, err)) {
        if (strcmp(err->sqlstate, "42501") == 0) {
            pen_error_context(
                err, "this user lacks the right to replicate; run ALTER ROLE … REPLICATION "
                     "on the source (on RDS: GRANT rds_replication)");
        }
        return false;
    }
    bool ok = pen_lsn_parse(pen_pgresult_value(res, 0, 0), &state->confirmed_lsn);
    pen_pgresult_clear(res);
    state->exists = ok;
    return ok || pen_error_set(err, PEN_ERROR_FATAL, "source: the new slot has no position");
}
