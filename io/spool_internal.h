/* Purpose: what the spool and its cursors share: the bytes that are still in memory.
 * Thread:  the reader, as for io/spool.h; only io/spool.c and io/spool_cursor.c include it.
 * Owns:    as said there.
 * Flow:    appended bytes stay in chunks until these are used again; a cursor reads them there. */
#ifndef PEN_IO_SPOOL_INTERNAL_H
#define PEN_IO_SPOOL_INTERNAL_H

#include "io/disk.h"
#include "io/spool.h"
#include "io/spool_segments.h"

/* A run of whole records of one segment: in one of the fixed buffers, or, when none was free or the
 * record is larger than one, in memory of its own. */
typedef struct pen_spool_chunk {
    struct pen_spool_chunk *next;
    pen_spool_pos pos; /* of its first byte */
    uint8_t *data;
    size_t capacity;
    size_t filled;
    size_t handed;  /* bytes that were given to the disk at least once */
    size_t written; /* bytes that the file has */
    bool closed;    /* nothing more comes into it */
    bool in_flight; /* `request` is under way */
    bool refused;   /* its write found the disk full, and none has succeeded since */
    pen_disk_request request;
} pen_spool_chunk;

/* One at a time: first all writes up to `end`, then one sync. */
typedef struct pen_spool_barrier {
    enum { PEN_BARRIER_NONE, PEN_BARRIER_WRITING, PEN_BARRIER_SYNCING } state;
    bool again; /* another one was asked for meanwhile */
    pen_spool_pos end;
    pen_lsn mark;
    pen_disk_request request;
} pen_spool_barrier;

struct pen_spool {
    pen_spool_segments segments;
    size_t segment_size;
    pen_disk *disk;
    int fd; /* of the last segment; nothing of others is under way; -1: there is none */

    /* The buffers and their chunks; a chunk is free or in the log. */
    uint8_t *buffers;
    pen_spool_chunk *fixed;
    pen_spool_chunk *free;
    size_t buffer_size;
    unsigned buffer_count;
    /* The log's newest bytes without a gap, oldest chunk first. What is before the head is in the
     * file. */
    pen_spool_chunk *head;
    pen_spool_chunk *tail;
    size_t own_count;    /* chunks with memory of their own */
    uint64_t generation; /* of the list: one more whenever a chunk leaves it */

    unsigned under_way; /* requests */
    unsigned refused;   /* chunks */
    bool none_made;     /* the disk was too full for a new segment */
    int64_t next_try_us;

    pen_lsn mark;
    pen_spool_barrier barrier;
    pen_spool_pos synced;
    pen_lsn synced_lsn;

    pen_spool_cursor *cursors;
    /* A write or a sync that failed: what is on disk is not known, so nothing goes on. */
    bool broken;
    pen_error failure;
};

/* Puts a cursor that stands behind the last record of a full segment at the next one's beginning.
 */
void pen_spool_cursors_settle(const pen_spool *spool);
/* True when no cursor stands before `segment`. */
bool pen_spool_cursors_are_from(const pen_spool *spool, uint64_t segment);

#endif
