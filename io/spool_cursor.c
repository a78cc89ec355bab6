#include "io/spool_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* Bytes that are read from a file at once, where no record needs more. */
#define WINDOW ((size_t)256 * 1024)

struct pen_spool_cursor {
    pen_spool *spool;
    pen_spool_cursor *next; /* the spool's list */
    pen_spool_pos at;
    /* Where the last record was found in memory; believed only while the list is the same. */
    const pen_spool_chunk *chunk;
    uint64_t generation;
    /* What was last read from a file: bytes of one segment, which never change. */
    int fd;
    uint64_t fd_segment;
    uint8_t *window;
    size_t window_capacity;
    pen_spool_pos window_at;
    size_t window_len;
};

pen_spool_cursor *pen_spool_cursor_create(pen_spool *spool, pen_spool_pos at)
{
    pen_spool_cursor *cursor = pen_calloc(1, sizeof(*cursor));
    cursor->spool = spool;
    cursor->fd = -1;
    cursor->next = spool->cursors;
    spool->cursors = cursor;
    pen_spool_cursor_seek(cursor, at);
    return cursor;
}

static void close_file(pen_spool_cursor *cursor)
{
    if (cursor->fd >= 0) {
        close(cursor->fd);
        cursor->fd = -1;
    }
}

void pen_spool_cursor_destroy(pen_spool_cursor *cursor)
{
    if (cursor == NULL) {
        return;
    }
    pen_spool_cursor **link = &cursor->spool->cursors;
    while (*link != cursor) {
        link = &(*link)->next;
    }
    *link = cursor->next;
    close_file(cursor);
    free(cursor->window);
    free(cursor);
}

/* From the end of a segment to the beginning of the next, if that is there. */
static void settle(pen_spool_cursor *cursor)
{
    const pen_spool_segments *segments = &cursor->spool->segments;
    const pen_spool_segment *segment = pen_spool_segments_find(segments, cursor->at.segment);
    while (segment != NULL && cursor->at.offset == segment->size &&
           segment != pen_spool_segments_last(segments)) {
        segment++;
        cursor->at = (pen_spool_pos){segment->header.segment, PEN_SPOOL_HEADER_SIZE};
    }
    if (cursor->fd_segment != cursor->at.segment) {
        close_file(cursor); /* it may be deleted, and would take its room on the disk until then */
    }
}

void pen_spool_cursors_settle(const pen_spool *spool)
{
    for (pen_spool_cursor *cursor = spool->cursors; cursor != NULL; cursor = cursor->next) {
        settle(cursor);
    }
}

bool pen_spool_cursors_are_from(const pen_spool *spool, uint64_t segment)
{
    const pen_spool_cursor *cursor = spool->cursors;
    while (cursor != NULL && cursor->at.segment >= segment) {
        cursor = cursor->next;
    }
    return cursor == NULL;
}

void pen_spool_cursor_seek(pen_spool_cursor *cursor, pen_spool_pos at)
{
    PEN_ASSERT(!pen_spool_pos_before(at, pen_spool_first(cursor->spool)) &&
               !pen_spool_pos_before(pen_spool_end(cursor->spool), at));
    cursor->at = at;
    settle(cursor);
}

pen_spool_pos pen_spool_cursor_pos(const pen_spool_cursor *cursor)
{
    return cursor->at;
}

/* ---- from memory ---- */

static bool holds(const pen_spool_chunk *chunk, pen_spool_pos at)
{
    return chunk->pos.segment == at.segment && at.offset >= chunk->pos.offset &&
           at.offset < chunk->pos.offset + chunk->filled;
}

/* What is in memory from the cursor on; a record lies in one chunk. Empty when nothing is. */
static pen_slice in_memory(pen_spool_cursor *cursor)
{
    const pen_spool *spool = cursor->spool;
    const pen_spool_chunk *chunk = cursor->chunk;
    if (spool->head == NULL || pen_spool_pos_before(cursor->at, spool->head->pos)) {
        return (pen_slice){NULL, 0};
    }
    if (chunk == NULL || cursor->generation != spool->generation || !holds(chunk, cursor->at)) {
        for (chunk = spool->head; chunk != NULL && !holds(chunk, cursor->at);) {
            chunk = chunk->next;
        }
        cursor->chunk = chunk;
        cursor->generation = spool->generation;
    }
    if (chunk == NULL) {
        return (pen_slice){NULL, 0};
    }
    size_t skip = cursor->at.offset - chunk->pos.offset;
    return (pen_slice){chunk->data + skip, chunk->filled - skip};
}

/* ---- from the file ---- */

static bool read_failed(const pen_spool_cursor *cursor, int sys_errno, pen_error *err)
{
    return pen_error_set_errno(
        err, PEN_ERROR_FATAL, sys_errno, "cannot read the spool segment \"%s\"; see to the disk",
        pen_spool_segments_path(&cursor->spool->segments, cursor->at.segment));
}

static bool is_damaged(const pen_spool_cursor *cursor, pen_error *err)
{
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "the spool segment \"%s\" is damaged at byte %llu: that is not what was written; see to "
        "the disk, and start again",
        pen_spool_segments_path(&cursor->spool->segments, cursor->at.segment),
        (unsigned long long)cursor->at.offset);
}

static bool open_file(pen_spool_cursor *cursor, pen_error *err)
{
    if (cursor->fd >= 0) {
        return true; /* settle has closed any other */
    }
    cursor->fd = open(pen_spool_segments_path(&cursor->spool->segments, cursor->at.segment),
                      O_RDONLY | O_CLOEXEC);
    cursor->fd_segment = cursor->at.segment;
    return cursor->fd >= 0 || read_failed(cursor, errno, err);
}

/* Bytes of the cursor's segment that are in the file: all before the oldest chunk. */
static uint64_t end_in_file(const pen_spool_cursor *cursor, const pen_spool_segment *segment)
{
    const pen_spool_chunk *head = cursor->spool->head;
    return head != NULL && head->pos.segment == cursor->at.segment ? head->pos.offset
                                                                   : segment->size;
}

static pen_slice in_window(const pen_spool_cursor *cursor)
{
    if (cursor->window_at.segment != cursor->at.segment ||
        cursor->at.offset < cursor->window_at.offset ||
        cursor->at.offset >= cursor->window_at.offset + cursor->window_len) {
        return (pen_slice){NULL, 0};
    }
    size_t skip = cursor->at.offset - cursor->window_at.offset;
    return (pen_slice){cursor->window + skip, cursor->window_len - skip};
}

/* Reads at least `need` bytes from the cursor on into the window. The file has them by what was
 * written, so memory is asked for only what is there. */
static bool fill_window(pen_spool_cursor *cursor, size_t need, uint64_t end, pen_error *err)
{
    size_t want = need > WINDOW ? need : WINDOW;
    if (need > end - cursor->at.offset) {
        return is_damaged(cursor, err);
    }
    if (want > end - cursor->at.offset) {
        want = end - cursor->at.offset;
    }
    if (!open_file(cursor, err)) {
        return false;
    }
    /* Also back to its usual size, after a record that was larger. */
    if (cursor->window_capacity < want || cursor->window_capacity > WINDOW) {
        free(cursor->window);
        cursor->window_capacity = want > WINDOW ? want : WINDOW;
        cursor->window = pen_malloc(cursor->window_capacity);
    }
    cursor->window_at = cursor->at;
    cursor->window_len = 0;
    while (cursor->window_len < want) {
        ssize_t got =
            pread(cursor->fd, cursor->window + cursor->window_len, want - cursor->window_len,
                  (off_t)(cursor->at.offset + cursor->window_len));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return read_failed(cursor, errno, err);
        }
        if (got == 0) {
            return cursor->window_len >= need || is_damaged(cursor, err);
        }
        cursor->window_len += (size_t)got;
    }
    return true;
}

static bool read_from_file(pen_spool_cursor *cursor, const pen_spool_segment *segment,
                           pen_spool_record *record, size_t *size, pen_error *err)
{
    uint64_t end = end_in_file(cursor, segment);
    for (;;) {
        pen_slice bytes = in_window(cursor);
        switch (pen_spool_record_decode(&segment->header, cursor->at.offset, bytes, record, size)) {
        case PEN_SPOOL_WHOLE:
            return true;
        case PEN_SPOOL_TORN:
            cursor->window_len = 0; /* the next attempt reads anew */
            return is_damaged(cursor, err);
        case PEN_SPOOL_SHORT:
            if (!fill_window(cursor, *size, end, err)) {
                cursor->window_len = 0;
                return false;
            }
        }
    }
}

pen_spool_read pen_spool_cursor_next(pen_spool_cursor *cursor, pen_spool_record *record,
                                     pen_spool_pos *at, pen_error *err)
{
    settle(cursor);
    const pen_spool_segment *segment =
        pen_spool_segments_find(&cursor->spool->segments, cursor->at.segment);
    if (segment == NULL || cursor->at.offset >= segment->size) {
        return PEN_SPOOL_READ_NOTHING;
    }
    size_t size;
    pen_slice bytes = in_memory(cursor);
    if (bytes.len > 0) {
        /* Written by this process and never out of its hands. */
        pen_spool_decoded decoded =
            pen_spool_record_decode(&segment->header, cursor->at.offset, bytes, record, &size);
        PEN_ASSERT(decoded == PEN_SPOOL_WHOLE);
    } else if (!read_from_file(cursor, segment, record, &size, err)) {
        return PEN_SPOOL_READ_FAILED;
    }
    *at = cursor->at;
    cursor->at.offset += size;
    settle(cursor);
    return PEN_SPOOL_READ_RECORD;
}
