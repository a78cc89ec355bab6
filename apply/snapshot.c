#include "apply/snapshot.h"

#include "apply/claim.h"
#include "apply/source.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For the walsender of a run that was killed: until the source has noticed. */
#define SLOT_WAIT_US (65 * 1000 * 1000)

/* Drops the slot that a run has made and not recorded: its snapshot is gone. */
static bool drop_left_slot(pen_migration *migration, pen_error *err)
{
    const char *const values[] = {migration->options->slot};
    int64_t deadline_us = pen_now_us() + SLOT_WAIT_US;
    for (;;) {
        pen_pgresult *res = NULL;
        bool ours = false;
        char pid[16] = "";
        if (!pen_pgconn_exec(migration->source, "look for the slot",
                             "SELECT active_pid FROM pg_catalog.pg_replication_slots"
                             " WHERE slot_name = $1",
                             1, values, &res, err)) {
            return false;
        }
        bool exists = pen_pgresult_rows(res) > 0;
        const char *active = exists ? pen_pgresult_value(res, 0, 0) : NULL;
        snprintf(pid, sizeof(pid), "%s", active == NULL ? "" : active);
        pen_pgresult_clear(res);
        if (!exists) {
            return true;
        }
        if (pid[0] == '\0') {
            pen_log(PEN_LOG_INFO,
                    "dropping the slot \"%s\" that an earlier run has made: its snapshot is gone",
                    values[0]);
            return pen_pgconn_exec(migration->source, "drop the left slot",
                                   "SELECT pg_catalog.pg_drop_replication_slot($1)", 1, values,
                                   NULL, err);
        }
        if (pen_now_us() > deadline_us) {
            return pen_error_set(err, PEN_ERROR_RETRY,
                                 "source: the slot \"%s\" is in use by the server process %s; end "
                                 "that and start again, nothing is lost",
                                 values[0], pid);
        }
        if (!pen_claim_end(migration->source, migration->resume.owner, pid, &ours, err)) {
            return false;
        }
        usleep(200 * 1000);
    }
}

/* Opens the holder's session and begins its transaction, under `import` if that is given; exports
 * its snapshot. */
static bool hold(pen_migration *migration, const char *import, pen_snapshot *snapshot,
                 pen_error *err)
{
    char begin[160];
    pen_pgresult *res = NULL;
    snprintf(begin, sizeof(begin), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY%s%s%s",
             import == NULL ? "" : "; SET TRANSACTION SNAPSHOT '", import == NULL ? "" : import,
             import == NULL ? "" : "'");
    if (!pen_source_open_session(migration->options, "snapshot", &snapshot->holder, err) ||
        !pen_pgconn_exec(snapshot->holder, "hold the snapshot", begin, 0, NULL, NULL, err) ||
        !pen_pgconn_exec(snapshot->holder, "export the snapshot",
                         "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()",
                         0, NULL, &res, err)) {
        return false;
    }
    snprintf(snapshot->name, sizeof(snapshot->name), "%s", pen_pgresult_value(res, 0, 0));
    snapshot->xids = import != NULL ? NULL : pen_strdup(pen_pgresult_value(res, 0, 1));
    pen_pgresult_clear(res);
    return true;
}

bool pen_snapshot_of_slot(pen_migration *migration, pen_snapshot *snapshot, pen_lsn *slot_lsn,
                          pen_error *err)
{
    char exported[64];
    memset(snapshot, 0, sizeof(*snapshot));
    if (!drop_left_slot(migration, err)) {
        return false;
    }
    pen_log(PEN_LOG_INFO,
            "creating the replication slot \"%s\"; this waits for transactions that are open on "
            "the source",
            migration->options->slot);
    if (!pen_replication_create_slot(migration->rep, slot_lsn, exported, sizeof(exported), err)) {
        return false;
    }
    PEN_KILL_POINT("slot-made");
    if (!hold(migration, exported, snapshot, err)) {
        pen_snapshot_release(snapshot);
        return false;
    }
    return true;
}

bool pen_snapshot_take(pen_migration *migration, pen_snapshot *snapshot, pen_error *err)
{
    pen_pgresult *res = NULL;
    memset(snapshot, 0, sizeof(*snapshot));
    bool ok = hold(migration, NULL, snapshot, err) &&
              pen_pgconn_exec(snapshot->holder, "read the source's position",
                              "SELECT pg_catalog.pg_current_wal_insert_lsn()", 0, NULL, &res, err);
    if (ok && !pen_lsn_parse(pen_pgresult_value(res, 0, 0), &snapshot->fence_end)) {
        ok = pen_error_set(err, PEN_ERROR_FATAL, "source: its WAL position cannot be read");
    }
    pen_pgresult_clear(res);
    if (!ok) {
        pen_snapshot_release(snapshot);
    }
    return ok;
}

bool pen_snapshot_lives(pen_snapshot *snapshot)
{
    pen_error ignored;
    return snapshot->holder != NULL && pen_pgconn_exec(snapshot->holder, "look after the snapshot",
                                                       "SELECT 1", 0, NULL, NULL, &ignored);
}

void pen_snapshot_release(pen_snapshot *snapshot)
{
    pen_pgconn_close(snapshot->holder);
    snapshot->holder = NULL;
    free(snapshot->xids);
    snapshot->xids = NULL;
}
