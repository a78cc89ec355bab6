#include "apply/copy_wide.h"

#include "apply/copy_pipe.h"

#include <stdlib.h>

/* Of rows up to this nobody takes notice. */
#define WIDE ((uint64_t)1 << 20)

/* libpq begins with 16 kB and doubles that until a message fits. */
static uint64_t buffer_for(uint64_t row_bytes)
{
    uint64_t size = 16384;
    while (size < row_bytes + 5) {
        size *= 2;
    }
    return size;
}

static uint64_t share_of(const pen_copy_chunk *chunk)
{
    uint64_t row_bytes =
        chunk->widest > chunk->table->widest ? chunk->widest : chunk->table->widest;
    return row_bytes <= WIDE ? 0 : buffer_for(row_bytes);
}

bool pen_copy_wide_is(uint64_t row_bytes)
{
    return row_bytes > WIDE;
}

void pen_copy_wide_learn(const pen_copy_chunk *chunk, uint64_t row_bytes)
{
    if (row_bytes / 2 > chunk->widest && row_bytes > chunk->table->widest) {
        chunk->table->widest = row_bytes;
    }
}

bool pen_copy_wide_measure(pen_pgconn *source, pen_copy_chunk *chunk, pen_error *err)
{
    const pen_copy_table *table = chunk->table;
    /* bytea is twice as long as text. */
    const char *const values[] = {table->binary ? "1" : "2"};
    pen_text text = {0};
    pen_pgresult *res = NULL;
    if (table->width_sql == NULL) {
        chunk->measured = true;
        return true;
    }
    pen_text_appendf(&text, "SELECT pg_catalog.max(0 * $1::pg_catalog.int8 + %s) FROM ONLY %s",
                     table->width_sql, table->source_name);
    pen_copy_append_where(&text, table, chunk->first_page, chunk->end_page);
    char *sql = pen_text_take(&text);
    bool ok = pen_pgconn_exec(source, "measure the rows", sql, 1, values, &res, err);
    free(sql);
    if (ok) {
        const char *most = pen_pgresult_value(res, 0, 0);
        chunk->widest = most == NULL ? 0 : strtoull(most, NULL, 10);
        chunk->measured = true;
        pen_pgresult_clear(res);
    }
    return ok;
}

bool pen_copy_wide_fits(const pen_copy_queue *queue, const pen_copy_chunk *chunk)
{
    uint64_t share = share_of(chunk);
    return share == 0 || queue->shared_out == 0 ||
           queue->shared_out + share <= queue->migration->options->memory;
}

void pen_copy_wide_take(pen_copy_job *job, const pen_copy_chunk *chunk)
{
    PEN_ASSERT(job->share == 0);
    job->share = share_of(chunk);
    job->queue->shared_out += job->share;
}

void pen_copy_wide_give_back(pen_copy_job *job)
{
    job->queue->shared_out -= job->share;
    job->share = 0;
}
