#include "io/pipeline.h"

#include "core/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* libpq moves its whole unsent buffer on each partial send, so an unbounded pipeline is quadratic.
 */
#define IN_FLIGHT_MAX (512u * 1024u)
/* Results come only after a flush request; one each so many bytes keeps them coming. */
#define FLUSH_EVERY (32u * 1024u)

typedef enum item_kind { ITEM_PREPARE, ITEM_EXECUTE, ITEM_SYNC } item_kind;

/* One thing sent and not yet answered. */
typedef struct item {
    const void *subject;
    pen_prepared *prepared; /* of a preparation, or NULL */
    int64_t expected_rows;
    uint32_t bytes;
    uint8_t kind; /* item_kind */
    bool answered;
} item;

struct pen_pipeline {
    pen_pgconn *conn;
    pen_pipeline_owner owner;
    /* a ring that grows: items [head, tail) modulo capacity */
    item *items;
    size_t capacity;
    size_t head;
    size_t tail;
    size_t in_flight; /* bytes sent or queued and not answered */
    size_t unflushed; /* bytes queued since the last flush request */
    /* the first failure */
    bool failed;
    int64_t failed_rows; /* -1: it was not the count */
    const void *failed_subject;
    pen_error failure;
};

bool pen_pipeline_open(pen_pgconn *conn, const pen_pipeline_owner *owner, pen_pipeline **pipeline,
                       pen_error *err)
{
    pen_pipeline *made = pen_calloc(1, sizeof(*made));
    made->conn = conn;
    made->owner = *owner;
    made->failed_rows = -1;
    made->capacity = 256;
    made->items = pen_calloc(made->capacity, sizeof(*made->items));
    if (!pen_pgconn_set_nonblocking(conn, err) || !pen_pgconn_enter_pipeline(conn, err)) {
        pen_pipeline_close(made);
        return false;
    }
    *pipeline = made;
    return true;
}

void pen_pipeline_close(pen_pipeline *pipeline)
{
    if (pipeline != NULL) {
        pen_pgconn_close(pipeline->conn);
        free(pipeline->items);
        free(pipeline);
    }
}

const void *pen_pipeline_failed(const pen_pipeline *pipeline)
{
    return pipeline->failed_subject;
}

int64_t pen_pipeline_failed_rows(const pen_pipeline *pipeline)
{
    return pipeline->failed_rows;
}

bool pen_pipeline_can_reset(const pen_pipeline *pipeline)
{
    return pipeline->failed;
}

static item *push_item(pen_pipeline *p, item_kind kind, const void *subject, int64_t expected_rows,
                       size_t bytes)
{
    if (p->tail - p->head == p->capacity) {
        item *grown = pen_calloc(p->capacity * 2, sizeof(*grown));
        for (size_t i = p->head; i < p->tail; i++) {
            grown[i - p->head] = p->items[i & (p->capacity - 1)];
        }
        free(p->items);
        p->items = grown;
        p->tail -= p->head;
        p->head = 0;
        p->capacity *= 2;
    }
    uint32_t counted = bytes > UINT32_MAX ? UINT32_MAX : (uint32_t)bytes;
    item *it = &p->items[p->tail++ & (p->capacity - 1)];
    *it = (item){.subject = subject,
                 .expected_rows = expected_rows,
                 .bytes = counted,
                 .kind = (uint8_t)kind};
    p->in_flight += counted;
    p->unflushed += counted;
    return it;
}

static void keep_failure(pen_pipeline *p, const item *it, int64_t wrong_rows)
{
    p->failed = true;
    p->failed_rows = wrong_rows;
    p->failed_subject = it->subject;
}

static bool is_right_count(int64_t expected, int64_t rows)
{
    return expected == PEN_ROWS_ANY || expected == PEN_ROWS_COMMIT || rows == expected ||
           (expected == PEN_ROWS_AT_MOST_ONE && (rows == 0 || rows == 1));
}

/* Judges one result of `it`. */
static void judge(pen_pipeline *p, const item *it, const pen_pgresult *res)
{
    pen_result_status status = pen_pgresult_status(res);
    if (it->prepared != NULL) {
        *it->prepared = status == PEN_RESULT_OK ? PEN_PREPARED_YES : PEN_PREPARED_NO;
    }
    if (p->failed || status == PEN_RESULT_SYNC) {
        return; /* what follows a failure was skipped, and is not worth a second message */
    }
    if (status == PEN_RESULT_ERROR || status == PEN_RESULT_SKIPPED) {
        pen_pgresult_error(res, it->kind == ITEM_PREPARE ? "prepare a statement" : "apply",
                           &p->failure);
        keep_failure(p, it, -1);
    } else if (it->kind == ITEM_EXECUTE &&
               !is_right_count(it->expected_rows, pen_pgresult_affected(res))) {
        pen_error_set(&p->failure, PEN_ERROR_CONFLICT,
                      "the statement changed %" PRId64 " rows instead of %" PRId64,
                      pen_pgresult_affected(res), it->expected_rows > 0 ? it->expected_rows : 1);
        keep_failure(p, it, pen_pgresult_affected(res));
    } else if (it->kind == ITEM_EXECUTE && it->expected_rows == PEN_ROWS_COMMIT &&
               strcmp(pen_pgresult_tag(res), "COMMIT") != 0) {
        /* COMMIT of a transaction that had failed answers ROLLBACK, and is no error to libpq. */
        pen_error_set(&p->failure, PEN_ERROR_FATAL,
                      "the transaction was rolled back by the server");
        keep_failure(p, it, -1);
    }
}

/* Takes the results that are there; never waits. */
static void take_results(pen_pipeline *p)
{
    while (p->head != p->tail && !pen_pgconn_busy(p->conn)) {
        item *it = &p->items[p->head & (p->capacity - 1)];
        pen_pgresult *res = pen_pgconn_next(p->conn);
        bool over; /* is this item answered whole? */
        if (res != NULL) {
            judge(p, it, res);
            it->answered = true;
            over = pen_pgresult_status(res) == PEN_RESULT_SYNC;
            pen_pgresult_clear(res);
        } else if (it->answered) {
            over = true; /* libpq ends a statement's results with a NULL, but not a Sync's */
        } else {
            return;
        }
        if (over) {
            p->in_flight -= it->bytes;
            p->head++;
        }
    }
}

/* One step: send what goes, take in what came, and sleep when there was neither. */
static bool step(pen_pipeline *p, pen_error *err)
{
    bool pending = false;
    if (!pen_pgconn_flush(p->conn, &pending, err)) {
        return false;
    }
    size_t head = p->head;
    take_results(p);
    if (p->head != head) {
        return true;
    }
    pen_parker_prepare(p->owner.parker);
    /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
    if (pen_cell_read(p->owner.stop) >= p->owner.stop_at) {
        pen_parker_cancel(p->owner.parker);
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    int events = PEN_PARK_READABLE | (pending ? PEN_PARK_WRITABLE : 0);
    int happened = pen_meter_park(p->owner.wait, p->owner.parker, pen_pgconn_socket(p->conn),
                                  events, PEN_PARK_FOREVER);
    if ((happened & PEN_PARK_READABLE) && !pen_pgconn_consume(p->conn, err)) {
        return false;
    }
    return true;
}

static bool report_failure(const pen_pipeline *p, pen_error *err)
{
    *err = p->failure;
    return false;
}

/* Called after each queued item: keeps results coming and the bytes in flight bounded. */
static bool pace(pen_pipeline *p, pen_error *err)
{
    if (p->unflushed < FLUSH_EVERY) {
        return true;
    }
    p->unflushed = 0;
    if (!pen_pgconn_send_flush_request(p->conn, err)) {
        return false;
    }
    bool pending = false;
    if (!pen_pgconn_flush(p->conn, &pending, err) || !pen_pgconn_consume(p->conn, err)) {
        return false;
    }
    take_results(p);
    while (p->in_flight > IN_FLIGHT_MAX && p->head != p->tail && !p->failed) {
        if (!step(p, err)) {
            return false;
        }
    }
    return !p->failed || report_failure(p, err);
}

bool pen_pipeline_prepare(pen_pipeline *pipeline, const char *name, const char *sql,
                          const void *subject, pen_prepared *prepared, pen_error *err)
{
    return pen_pipeline_prepare_typed(pipeline, name, sql, 0, NULL, subject, prepared, err);
}

bool pen_pipeline_prepare_typed(pen_pipeline *pipeline, const char *name, const char *sql,
                                uint32_t type_count, const uint32_t *types, const void *subject,
                                pen_prepared *prepared, pen_error *err)
{
    if (!pen_pgconn_send_prepare(pipeline->conn, name, sql, (int)type_count, types, err)) {
        return false;
    }
    item *it = push_item(pipeline, ITEM_PREPARE, subject, PEN_ROWS_ANY,
                         strlen(sql) + 4 * (size_t)type_count + 64);
    it->prepared = prepared;
    if (prepared != NULL) {
        *prepared = PEN_PREPARED_SENT;
    }
    return pace(pipeline, err);
}

bool pen_pipeline_execute(pen_pipeline *pipeline, const char *name, int value_count,
                          const char *const *values, const int *lengths, const int *formats,
                          int64_t expected_rows, const void *subject, pen_error *err)
{
    if (!pen_pgconn_send_execute(pipeline->conn, name, value_count, values, lengths, formats,
                                 err)) {
        return false;
    }
    size_t bytes = 64;
    for (int i = 0; i < value_count; i++) {
        bytes += 8 + (values[i] == NULL ? 0 : (size_t)lengths[i]);
    }
    (void)push_item(pipeline, ITEM_EXECUTE, subject, expected_rows, bytes);
    return pace(pipeline, err);
}

static bool send_sync(pen_pipeline *p, pen_error *err)
{
    if (!pen_pgconn_send_sync(p->conn, err)) {
        return false;
    }
    (void)push_item(p, ITEM_SYNC, NULL, PEN_ROWS_ANY, 8);
    return true;
}

bool pen_pipeline_reset(pen_pipeline *pipeline, pen_error *err)
{
    PEN_ASSERT(pipeline->failed);
    if (!send_sync(pipeline, err)) {
        return false;
    }
    pipeline->unflushed = 0;
    while (pipeline->head != pipeline->tail) {
        if (!step(pipeline, err)) {
            return false;
        }
    }
    pipeline->failed = false;
    pipeline->failed_rows = -1;
    pipeline->failed_subject = NULL;
    return true;
}

bool pen_pipeline_drain(pen_pipeline *pipeline, bool sync, pen_error *err)
{
    if (sync) {
        if (!send_sync(pipeline, err)) {
            return false;
        }
    } else if (!pen_pgconn_send_flush_request(pipeline->conn, err)) {
        return false;
    }
    pipeline->unflushed = 0;
    while (pipeline->head != pipeline->tail && !(pipeline->failed && !sync)) {
        if (!step(pipeline, err)) {
            return false;
        }
    }
    return !pipeline->failed || report_failure(pipeline, err);
}

#ifdef PEN_KILL_POINTS
void pen_pipeline_push(pen_pipeline *pipeline, bool sync)
{
    pen_error ignored;
    bool pending = !sync || send_sync(pipeline, &ignored);
    while (pending && pen_pgconn_flush(pipeline->conn, &pending, &ignored) && pending) {
        pen_parker_prepare(pipeline->owner.parker);
        (void)pen_parker_park(pipeline->owner.parker, pen_pgconn_socket(pipeline->conn),
                              PEN_PARK_WRITABLE, 10);
    }
}
#endif
