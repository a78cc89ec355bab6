#include "apply/claim.h"

#include "core/log.h"
#include "core/thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A server notices that a client is gone within a minute: see the keepalives in session.c. */
#define OWN_WAIT_US (65 * 1000 * 1000)
/* One that has just ended elsewhere, in order or not, lets go within moments. */
#define OTHERS_WAIT_US (3 * 1000 * 1000)
#define LOOK_EVERY_US  (50 * 1000)

/* $1 is the stream's name; under "C" the same name is the same key, whatever the database's
 * collation. */
#define STREAM_KEY "pg_catalog.hashtextextended('penstock stream ' || $1::text COLLATE \"C\", 0)"

/* The two halves of a lock's key as pg_locks shows them. */
#define IS_LOCK(key)                                                                               \
    "l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database ="                    \
    " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"      \
    " AND (l.classid::pg_catalog.int8 << 32 | l.objid::pg_catalog.int8) = " key

static void format_key(uint64_t key, char text[24])
{
    snprintf(text, 24, "%" PRId64, (int64_t)key);
}

void pen_claim_format_mark(uint64_t owner, char sql[PEN_CLAIM_MARK_SIZE])
{
    char key[24];
    format_key(owner, key);
    /* Nobody takes it in a way that others would wait for. */
    snprintf(sql, PEN_CLAIM_MARK_SIZE, "SELECT pg_catalog.pg_try_advisory_lock_shared('%s')", key);
}

bool pen_claim_end(pen_pgconn *conn, uint64_t owner, const char *pid, bool *ours, pen_error *err)
{
    char key[24];
    const char *const values[] = {key, pid};
    pen_pgresult *res = NULL;
    format_key(owner, key);
    *ours = false;
    if (!pen_pgconn_exec(conn, "look whose session reads the slot",
                         "SELECT 1 FROM pg_catalog.pg_locks l WHERE l.pid = $2::pg_catalog.int4"
                         " AND " IS_LOCK("$1::pg_catalog.int8"),
                         2, values, &res, err)) {
        return false;
    }
    *ours = pen_pgresult_rows(res) > 0;
    pen_pgresult_clear(res);
    return !*ours ||
           pen_pgconn_exec(conn, "end a session of an earlier run",
                           "SELECT pg_catalog.pg_terminate_backend($1::pg_catalog.int4)", 1,
                           values + 1, NULL, err) ||
           strcmp(err->sqlstate, "42501") == 0;
}

/* Asks the server to end the sessions that an earlier run has left; *left how many there still are,
 * *pid one of them. A role that may not end them waits until the server does. */
static bool end_own(pen_pgconn *control, uint64_t owner, int *left, char pid[16], pen_error *err)
{
    char key[24];
    const char *const values[] = {key};
    pen_pgresult *res = NULL;
    format_key(owner, key);
    if (!pen_pgconn_exec(control, "look for sessions of an earlier run",
                         "SELECT l.pid, pg_catalog.pg_has_role(a.usesysid, 'USAGE') AS may"
                         " FROM pg_catalog.pg_locks l"
                         " JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
                         " WHERE l.pid <> pg_catalog.pg_backend_pid()"
                         " AND " IS_LOCK("$1::pg_catalog.int8"),
                         1, values, &res, err)) {
        return false;
    }
    *left = pen_pgresult_rows(res);
    bool ok = true;
    for (int row = 0; ok && row < *left; row++) {
        const char *const one[] = {pen_pgresult_value(res, row, 0)};
        const char *may = pen_pgresult_value(res, row, 1);
        snprintf(pid, 16, "%s", one[0]);
        ok = may == NULL || may[0] != 't' ||
             pen_pgconn_exec(control, "end a session of an earlier run",
                             "SELECT pg_catalog.pg_terminate_backend($1::pg_catalog.int4)", 1, one,
                             NULL, err) ||
             strcmp(err->sqlstate, "42501") == 0;
    }
    pen_pgresult_clear(res);
    return ok;
}

bool pen_claim_alone(pen_pgconn *control, uint64_t owner, pen_error *err)
{
    int64_t deadline_us = pen_now_us() + OWN_WAIT_US;
    bool said = false;
    for (;;) {
        char pid[16] = "";
        int left = 0;
        if (!end_own(control, owner, &left, pid, err)) {
            return false;
        }
        if (left == 0) {
            return true;
        }
        if (pen_now_us() > deadline_us) {
            return pen_error_set(err, PEN_ERROR_RETRY,
                                 "target: the session with pid %s, of an earlier run of this "
                                 "stream, does not end; run there: SELECT pg_terminate_backend(%s),"
                                 " as a user who may, and start again, nothing is lost",
                                 pid, pid);
        }
        if (!said) {
            said = true;
            pen_log(PEN_LOG_INFO,
                    "waiting for the end of %d sessions on the target that an earlier run of this "
                    "stream has left, of which one has pid %s, for at most %d s",
                    left, pid, OWN_WAIT_US / 1000000);
        }
        usleep(LOOK_EVERY_US);
    }
}

static bool try_lock(pen_pgconn *control, const char *name, bool *taken, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(control, "lock the stream",
                         "SELECT pg_catalog.pg_try_advisory_lock(" STREAM_KEY ")", 1, values, &res,
                         err)) {
        return false;
    }
    *taken = pen_pgresult_value(res, 0, 0)[0] == 't';
    pen_pgresult_clear(res);
    return true;
}

static const char *or_unknown(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : "unknown";
}

/* Says who has the stream. *gone: nobody any more. Returns false always. */
static bool refuse(pen_pgconn *control, const char *name, bool *gone, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(control, "look for who has the stream",
                         "SELECT l.pid, a.application_name, a.client_addr, a.backend_start"
                         " FROM pg_catalog.pg_locks l"
                         " LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
                         " WHERE " IS_LOCK(STREAM_KEY),
                         1, values, &res, err)) {
        return false;
    }
    *gone = pen_pgresult_rows(res) == 0;
    if (!*gone) {
        const char *pid = or_unknown(pen_pgresult_named(res, 0, "pid"));
        pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: another penstock has the stream \"%s\": its session there has pid %s, "
            "application \"%s\", from address %s, since %s. Only one may apply a stream: stop that "
            "one, or give this one its own --name. If that one is dead already, its session ends "
            "within a minute, or by SELECT pg_terminate_backend(%s) there; then start again",
            name, pid, or_unknown(pen_pgresult_named(res, 0, "application_name")),
            or_unknown(pen_pgresult_named(res, 0, "client_addr")),
            or_unknown(pen_pgresult_named(res, 0, "backend_start")), pid);
    }
    pen_pgresult_clear(res);
    return false;
}

bool pen_claim_stream(pen_pgconn *control, const char *name, uint64_t owner, pen_error *err)
{
    if (!pen_claim_alone(control, owner, err)) {
        return false;
    }
    int64_t deadline_us = pen_now_us() + OTHERS_WAIT_US;
    for (;;) {
        bool taken = false;
        bool gone = false;
        if (!try_lock(control, name, &taken, err) || taken) {
            return taken;
        }
        if (pen_now_us() > deadline_us && !refuse(control, name, &gone, err) && !gone) {
            return false;
        }
        usleep(LOOK_EVERY_US);
    }
}
