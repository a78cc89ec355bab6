#include "apply/watchdog.h"

#include "apply/eager.h"
#include "apply/worker.h"
#include "core/log.h"
#include "core/sqlstate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The oldest batch has not come on for so long: worth a query. */
#define STUCK_US (80 * 1000)
/* A session that goes on holding us up is named again. */
#define NAME_EVERY_US (60 * 1000 * 1000)
#define NAMED_MAX     32

/* $1: the PID of the oldest batch's session. No row when that does not wait for a lock, which is
 * looked at first: pg_locks and pg_blocking_pids lock the whole lock table for a moment. Waits of a
 * few milliseconds are nothing: workers that extend one table wait for each other. PID 0 is a
 * prepared transaction's. */
static const char *const chain_sql =
    "WITH RECURSIVE waiting(pid) AS MATERIALIZED ("
    "  SELECT a.pid FROM pg_catalog.pg_stat_activity a"
    "  WHERE a.pid = $1::pg_catalog.int4 AND a.wait_event_type = 'Lock'),"
    " chain(pid) AS ("
    "  SELECT w.pid FROM waiting w WHERE"
    "   (SELECT pg_catalog.min(l.waitstart) FROM pg_catalog.pg_locks l"
    "    WHERE l.pid = w.pid AND NOT l.granted)"
    "   < pg_catalog.clock_timestamp() - '50 ms'::pg_catalog.interval"
    "  UNION SELECT b.pid FROM chain,"
    "   LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(chain.pid)) AS b(pid))"
    " SELECT chain.pid, a.application_name, a.usename, a.state, a.query_start,"
    "  a.wait_event_type = 'Lock' AS waits,"
    "  pg_catalog.substring(a.query, '^[[:space:]]*[[:alpha:]]+[[:space:]]*[[:alpha:]]*') AS words"
    " FROM chain LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = chain.pid"
    " WHERE chain.pid <> $1::pg_catalog.int4";

typedef struct named {
    int pid;
    int64_t named_us; /* 0: a free place */
} named;

struct pen_watchdog {
    pen_stream *stream;
    pen_pgconn *control;
    uint64_t committed; /* what it was when it last moved */
    int64_t moved_us;
    bool blocked; /* somebody is noted as holding the stream up */
    named named[NAMED_MAX];
    uint64_t eager_open;          /* transaction that was applied early when that was asked */
    uint64_t freed[PEN_IDLE_MAX]; /* number of the batch that a worker was told to let go of */
};

/* Who holds the stream up now; "" for nobody. */
static void note_blocker(pen_watchdog *watchdog, const char *text)
{
    pen_blocker *blocker = &watchdog->stream->blocker;
    watchdog->blocked = text[0] != '\0';
    pthread_mutex_lock(&blocker->lock);
    snprintf(blocker->text, sizeof(blocker->text), "%s", text);
    pthread_mutex_unlock(&blocker->lock);
}

static void forget_blocker(pen_watchdog *watchdog)
{
    if (watchdog->blocked) {
        note_blocker(watchdog, "");
    }
}

pen_watchdog *pen_watchdog_create(pen_stream *stream, pen_pgconn *control)
{
    pen_watchdog *made = pen_calloc(1, sizeof(*made));
    made->stream = stream;
    made->control = control;
    made->moved_us = pen_now_us();
    return made;
}

void pen_watchdog_destroy(pen_watchdog *watchdog)
{
    if (watchdog != NULL) {
        forget_blocker(watchdog);
    }
    free(watchdog);
}

/* The worker that holds batch `number`, or NULL: nobody has taken it yet. */
static const pen_worker *find_holder(const pen_stream *stream, uint64_t number)
{
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (pen_handover_holding(&stream->handover, i) == number) {
            return stream->workers[i];
        }
    }
    return NULL;
}

/* The worker whose session has this PID, or NULL. */
static const pen_worker *find_worker(const pen_stream *stream, int pid)
{
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (stream->workers[i]->backend_pid == pid) {
            return stream->workers[i];
        }
    }
    return NULL;
}

/* A statement that fails tells of nothing but itself, and the next look asks again. */
static bool ask(pen_watchdog *watchdog, const char *what, const char *sql, int pid,
                pen_pgresult **res, pen_error *err)
{
    char text[16];
    const char *const params[] = {text};
    snprintf(text, sizeof(text), "%d", pid);
    if (pen_pgconn_exec(watchdog->control, what, sql, 1, params, res, err)) {
        return true;
    }
    if (pen_sqlstate_passes(err->sqlstate)) {
        *res = NULL;
        return true;
    }
    return false;
}

static bool cancel(pen_watchdog *watchdog, int pid, pen_error *err)
{
    pen_pgresult *res = NULL;
    bool ok = ask(watchdog, "cancel a statement", "SELECT pg_catalog.pg_cancel_backend($1)", pid,
                  &res, err);
    pen_pgresult_clear(res);
    return ok;
}

/* Tells the worker of a later batch to let go. One that itself waits for a lock looks at nothing
 * else until that is over: its statement is cancelled. */
static bool free_from(pen_watchdog *watchdog, const pen_worker *worker, uint64_t number, bool waits,
                      pen_error *err)
{
    if (watchdog->freed[worker->number] != number) {
        watchdog->freed[worker->number] = number;
        pen_log(PEN_LOG_INFO,
                "the oldest batch waits for a lock that worker %u holds for a later one: that is "
                "rolled back and applied again at its turn",
                worker->number + 1);
    }
    pen_handover_let_go(&watchdog->stream->handover, worker->number, number);
    return !waits || cancel(watchdog, worker->backend_pid, err);
}

/* The same for a transaction that is applied while it is in progress, and so later than any batch.
 */
static bool free_from_eager(pen_watchdog *watchdog, bool waits, pen_error *err)
{
    pen_eager_worker *eager = watchdog->stream->eager;
    pen_eager_worker_let_go(eager, watchdog->eager_open);
    return !waits || cancel(watchdog, pen_eager_worker_pid(eager), err);
}

static bool is_eager(const pen_watchdog *watchdog, int pid)
{
    const pen_eager_worker *eager = watchdog->stream->eager;
    return eager != NULL && pen_eager_worker_pid(eager) == pid;
}

/* True when the session is to be named now: for the first time, or once more after a while. */
static bool is_due(pen_watchdog *watchdog, int pid)
{
    int64_t now_us = pen_now_us();
    named *oldest = &watchdog->named[0];
    for (size_t i = 0; i < NAMED_MAX; i++) {
        named *it = &watchdog->named[i];
        if (it->named_us != 0 && it->pid == pid) {
            bool due = now_us - it->named_us >= NAME_EVERY_US;
            it->named_us = due ? now_us : it->named_us;
            return due;
        }
        oldest = it->named_us < oldest->named_us ? it : oldest;
    }
    *oldest = (named){.pid = pid, .named_us = now_us};
    return true;
}

static const char *or_unknown(const char *text)
{
    return text != NULL && text[0] != '\0' ? text : "unknown";
}

/* The query's text may hold secrets: no more than its first words, and those only for debugging. */
static void name_session(pen_watchdog *watchdog, const pen_pgresult *res, int row)
{
    const char *pid = or_unknown(pen_pgresult_named(res, row, "pid"));
    char text[PEN_BLOCKER_SIZE] = "a prepared transaction";
    if (strcmp(pid, "0") != 0) {
        snprintf(text, sizeof(text),
                 "pid %s, application \"%s\", user %s, %s, its query began at %s", pid,
                 or_unknown(pen_pgresult_named(res, row, "application_name")),
                 or_unknown(pen_pgresult_named(res, row, "usename")),
                 or_unknown(pen_pgresult_named(res, row, "state")),
                 or_unknown(pen_pgresult_named(res, row, "query_start")));
    }
    note_blocker(watchdog, text);
    if (!is_due(watchdog, (int)strtol(pid, NULL, 10))) {
        return;
    }
    if (strcmp(pid, "0") == 0) {
        pen_log(PEN_LOG_WARN, "the stream waits for a lock of a prepared transaction on the "
                              "target: see pg_prepared_xacts there, and end it");
        return;
    }
    pen_log(PEN_LOG_WARN,
            "the stream waits for a lock of somebody else's session on the target: %s", text);
    pen_log(PEN_LOG_DEBUG, "the query of pid %s begins with: %s", pid,
            or_unknown(pen_pgresult_named(res, row, "words")));
}

/* Goes through those who hold the oldest batch up, by themselves or by others. */
static bool judge(pen_watchdog *watchdog, const pen_pgresult *res, uint64_t oldest, pen_error *err)
{
    bool freed = false;
    for (int row = 0; row < pen_pgresult_rows(res); row++) {
        int pid = (int)strtol(or_unknown(pen_pgresult_named(res, row, "pid")), NULL, 10);
        const pen_worker *worker = find_worker(watchdog->stream, pid);
        const char *waits = pen_pgresult_named(res, row, "waits");
        uint64_t number =
            worker == NULL ? 0 : pen_handover_holding(&watchdog->stream->handover, worker->number);
        if (is_eager(watchdog, pid)) {
            freed = true;
            if (!free_from_eager(watchdog, waits != NULL && waits[0] == 't', err)) {
                return false;
            }
        }
        if (number > oldest) {
            freed = true;
            if (!free_from(watchdog, worker, number, waits != NULL && waits[0] == 't', err)) {
                return false;
            }
        }
    }
    bool foreign = false;
    for (int row = 0; row < pen_pgresult_rows(res) && !freed; row++) {
        int pid = (int)strtol(or_unknown(pen_pgresult_named(res, row, "pid")), NULL, 10);
        const char *waits = pen_pgresult_named(res, row, "waits");
        /* Who waits for another one of them is not at fault. */
        if (find_worker(watchdog->stream, pid) == NULL && (waits == NULL || waits[0] != 't')) {
            name_session(watchdog, res, row);
            foreign = true;
        }
    }
    if (!foreign) {
        forget_blocker(watchdog);
    }
    return true;
}

bool pen_watchdog_look(pen_watchdog *watchdog, pen_error *err)
{
    const pen_stream *stream = watchdog->stream;
    uint64_t committed = pen_handover_committed(&stream->handover);
    int64_t now_us = pen_now_us();
    if (committed != watchdog->committed) {
        watchdog->committed = committed;
        watchdog->moved_us = now_us;
        forget_blocker(watchdog);
        return true;
    }
    const pen_worker *holder = find_holder(stream, committed + 1);
    pen_eager_worker *eager = stream->eager;
    bool by_eager =
        eager != NULL && (holder == NULL ? pen_eager_worker_is_awaited(eager)
                                         : pen_eager_worker_batch(eager) == committed + 1);
    if (holder == NULL && !by_eager) {
        watchdog->moved_us = now_us; /* nothing is under way */
        forget_blocker(watchdog);
        return true;
    }
    pen_pgresult *res = NULL;
    if (now_us - watchdog->moved_us < STUCK_US) {
        return true;
    }
    watchdog->eager_open = eager == NULL ? 0 : pen_eager_worker_open(eager);
    int pid = by_eager ? pen_eager_worker_pid(eager) : holder->backend_pid;
    bool ok = ask(watchdog, "look for who holds a lock", chain_sql, pid, &res, err);
    if (ok && res != NULL) {
        ok = judge(watchdog, res, committed + 1, err);
    }
    pen_pgresult_clear(res);
    return ok;
}
