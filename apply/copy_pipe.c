#include "apply/copy_pipe.h"

#include "apply/large_objects.h"

#include <inttypes.h>
#include <stdlib.h>

void pen_copy_append_where(pen_text *sql, const pen_copy_table *table, uint64_t first_page,
                           uint64_t end_page)
{
    const char *joint = " WHERE ";
    if (table->row_filter != NULL) {
        pen_text_appendf(sql, "%s(%s)", joint, table->row_filter);
        joint = " AND ";
    }
    if (first_page > 0) {
        pen_text_appendf(sql, "%sctid >= '(%" PRIu64 ",0)'::pg_catalog.tid", joint, first_page);
        joint = " AND ";
    }
    if (end_page != UINT64_MAX) {
        pen_text_appendf(sql, "%sctid < '(%" PRIu64 ",0)'::pg_catalog.tid", joint, end_page);
    }
}

static char *source_command(const pen_copy_table *table, uint64_t first_page, uint64_t end_page)
{
    pen_text sql = {0};
    if (table->large_objects) {
        return pen_large_objects_read_sql(first_page, end_page);
    }
    pen_text_appendf(&sql, "COPY (SELECT %s FROM ONLY %s", table->columns, table->source_name);
    pen_copy_append_where(&sql, table, first_page, end_page);
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

/* What went through since it was counted last. */
typedef struct tally {
    uint64_t rows;
    uint64_t bytes;
    uint64_t row_bytes; /* of the row that is under way */
} tally;

static void count(pen_copy_pipe *pipe, tally *seen)
{
    pen_counter_add(pipe->rows, seen->rows);
    pen_counter_add(pipe->all_rows, seen->rows);
    pen_counter_add(pipe->bytes, seen->bytes);
    pen_counter_add(pipe->all_bytes, seen->bytes);
    pipe->counted_rows += seen->rows;
    seen->rows = 0;
    seen->bytes = 0;
}

/* Notes the next `size` bytes; a row that ends just where the buffer is full is taken for one with
 * the next, so that of `rows` there are never more than there were. */
static void note(pen_copy_pipe *pipe, tally *seen, size_t size, bool ends)
{
    seen->bytes += size;
    seen->row_bytes += size;
    if (ends) {
        pipe->widest = seen->row_bytes > pipe->widest ? seen->row_bytes : pipe->widest;
        seen->row_bytes = 0;
        seen->rows++;
    }
}

/* Moves everything over, in buffers that are full: the target does not care where a row ends. */
static bool pump(pen_copy_pipe *pipe, bool binary, pen_error *err)
{
    size_t used = 0;
    tally seen = {0};
    for (;;) {
        size_t room = PEN_COPY_BUFFER - used;
        size_t size = 0;
        pen_copy_state state =
            pen_pgconn_copy_take(pipe->source, pipe->buffer + used, room, &size, err);
        if (state != PEN_COPY_DATA) {
            /* The binary form's trailer is no row. */
            seen.rows -= binary && seen.rows > 0;
            count(pipe, &seen);
            pipe->source_failed = state == PEN_COPY_FAILED;
            return state == PEN_COPY_END &&
                   (used == 0 || pen_pgconn_copy_put(pipe->target, pipe->buffer, used, err));
        }
        note(pipe, &seen, size, size < room);
        used += size;
        if (used < PEN_COPY_BUFFER) {
            continue;
        }
        count(pipe, &seen);
        used = 0;
        /* [COPYSTOP-1] acquire: pairs with the release in pen_copy_queue_stop. */
        if (pen_cell_read(pipe->stop)) {
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        if (!pen_pgconn_copy_put(pipe->target, pipe->buffer, PEN_COPY_BUFFER, err)) {
            return false;
        }
    }
}

bool pen_copy_pipe_run(pen_copy_pipe *pipe, const pen_copy_table *table, uint64_t first_page,
                       uint64_t end_page, int64_t *rows, pen_error *err)
{
    int64_t given = 0;
    pipe->source_failed = false;
    pipe->widest = 0;
    pipe->counted_rows = 0;
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
    /* Those whose ends were not seen. */
    count(pipe, &(tally){.rows = (uint64_t)given - pipe->counted_rows});
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
