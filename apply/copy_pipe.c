#include "apply/copy_pipe.h"

#include "apply/large_objects.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Messages between two looks at the counters and the stop. */
#define COUNTED_AT_ONCE 256

static char *source_command(const pen_copy_table *table, uint64_t first_page, uint64_t end_page)
{
    pen_text sql = {0};
    const char *joint = " WHERE ";
    if (table->large_objects) {
        return pen_large_objects_read_sql(first_page, end_page);
    }
    pen_text_appendf(&sql, "COPY (SELECT %s FROM ONLY %s", table->columns, table->source_name);
    if (table->row_filter != NULL) {
        pen_text_appendf(&sql, "%s(%s)", joint, table->row_filter);
        joint = " AND ";
    }
    if (first_page > 0) {
        pen_text_appendf(&sql, "%sctid >= '(%" PRIu64 ",0)'::pg_catalog.tid", joint, first_page);
        joint = " AND ";
    }
    if (end_page != UINT64_MAX) {
        pen_text_appendf(&sql, "%sctid < '(%" PRIu64 ",0)'::pg_catalog.tid", joint, end_page);
    }
    pen_text_appendf(&sql, ") TO STDOUT%s", table->binary ? " (FORMAT binary)" : "");
    return pen_text_take(&sql);
}

static char *target_command(const pen_copy_table *table)
{
    pen_text sql = {0};
    bool any = table->columns[0] != '\0';
    if (table->large_objects) {
        return pen_large_objects_write_sql();
    }
    pen_text_appendf(&sql, "COPY %s%s%s%s FROM STDIN%s", table->target_name, any ? " (" : "",
                     table->columns, any ? ")" : "", table->binary ? " (FORMAT binary)" : "");
    return pen_text_take(&sql);
}

static bool begin_copy(pen_pgconn *conn, const char *what, char *sql, pen_error *err)
{
    bool ok = pen_pgconn_exec(conn, what, sql, 0, NULL, NULL, err);
    free(sql);
    return ok;
}

typedef struct tally {
    uint64_t messages;
    uint64_t bytes;
} tally;

static void count(pen_copy_pipe *pipe, tally *seen)
{
    if (seen->messages == UINT64_MAX) {
        return; /* not even the one that is no row */
    }
    pen_counter_add(pipe->rows, seen->messages);
    pen_counter_add(pipe->all_rows, seen->messages);
    pen_counter_add(pipe->bytes, seen->bytes);
    pen_counter_add(pipe->all_bytes, seen->bytes);
    *seen = (tally){0};
}

/* Moves everything over. Each message is gathered whole; the target does not care where one ends.
 */
static bool pump(pen_copy_pipe *pipe, bool binary, pen_error *err)
{
    size_t used = 0;
    /* The binary form has one message more than rows, its trailer. */
    tally seen = {.messages = binary ? UINT64_MAX : 0};
    for (;;) {
        uint8_t *data = NULL;
        size_t size = 0;
        pen_copy_state state = pen_pgconn_copy_wait(pipe->source, &data, &size, err);
        if (state != PEN_COPY_DATA) {
            count(pipe, &seen);
            pipe->source_failed = state == PEN_COPY_FAILED;
            return state == PEN_COPY_END &&
                   (used == 0 || pen_pgconn_copy_put(pipe->target, pipe->buffer, used, err));
        }
        bool ok = true;
        if (used + size > PEN_COPY_BUFFER) {
            ok = used == 0 || pen_pgconn_copy_put(pipe->target, pipe->buffer, used, err);
            used = 0;
        }
        if (ok && size > PEN_COPY_BUFFER) {
            ok = pen_pgconn_copy_put(pipe->target, data, size, err);
        } else {
            memcpy(pipe->buffer + used, data, size);
            used += size;
        }
        pen_pgconn_copy_free(data);
        seen.messages++;
        seen.bytes += size;
        if (seen.messages == COUNTED_AT_ONCE) {
            count(pipe, &seen);
            /* [COPYSTOP-1] acquire: pairs with the release in pen_copy_queue_stop. */
            if (pen_cell_read(pipe->stop)) {
                return pen_error_set(err, PEN_ERROR_NONE, "stopped");
            }
        }
        if (!ok) {
            return false;
        }
    }
}

bool pen_copy_pipe_run(pen_copy_pipe *pipe, const pen_copy_table *table, uint64_t first_page,
                       uint64_t end_page, int64_t *rows, pen_error *err)
{
    int64_t given = 0;
    pipe->source_failed = false;
    if (!begin_copy(pipe->source, "read rows", source_command(table, first_page, end_page), err)) {
        pipe->source_failed = true;
        return false;
    }
    if ((table->large_objects && !pen_large_objects_ready(pipe->target, err)) ||
        !begin_copy(pipe->target, "write rows", target_command(table), err) ||
        !pump(pipe, table->binary, err)) {
        return false;
    }
    if (!pen_pgconn_copy_finish(pipe->source, "read rows", &given, err)) {
        pipe->source_failed = true;
        return false;
    }
    if (!pen_pgconn_copy_end(pipe->target, err) ||
        !pen_pgconn_copy_finish(pipe->target, "write rows", rows, err)) {
        return false;
    }
    if (*rows != given) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "target: it took %" PRId64 " rows of %" PRId64
                             " that the source gave; a rule or a trigger there keeps rows away",
                             *rows, given);
    }
    return !table->large_objects || pen_large_objects_store(pipe->target, rows, err);
}
