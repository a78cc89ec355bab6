/* Purpose: the segment files of one spool: found and checked at open, made, deleted.
 * Thread:  the spool's.
 * Owns:    the list of segments and the directory's descriptor; not the file that is written.
 * Flow:    a directory in, a list without gaps out; new segments at its end, old ones away at its
 *          front.
 *
 * A segment is begun only when everything in the one before it is durable, so after a crash none
 * but the last can be torn: damage in another is damage. */
#ifndef PEN_IO_SPOOL_SEGMENTS_H
#define PEN_IO_SPOOL_SEGMENTS_H

#include "io/spool.h"

typedef struct pen_spool_segment {
    pen_spool_header header;
    uint64_t size; /* bytes, with what still waits to be written */
} pen_spool_segment;

typedef struct pen_spool_segments {
    char *dir;
    char *name;
    char *path; /* scratch for pen_spool_segments_path */
    size_t path_size;
    int dir_fd;
    bool durable;
    bool unlinked;           /* since the directory was last made durable */
    pen_spool_header header; /* what the next segment begins with, but for number and start */
    pen_spool_segment *list;
    size_t count;
    size_t capacity;
} pen_spool_segments;

/* Finds the segments of `options`, and checks them or, where the spool is not durable, deletes
 * them. Gives the last one, open to be written on, in *fd; -1 when there is none. Errors: as
 * pen_spool_open; pen_spool_segments_close is to be called even then. */
PEN_MUST_CHECK bool pen_spool_segments_open(pen_spool_segments *segments,
                                            const pen_spool_options *options, int *fd,
                                            pen_error *err);
void pen_spool_segments_close(pen_spool_segments *segments);

/* NULL when there is none of that number. */
pen_spool_segment *pen_spool_segments_find(const pen_spool_segments *segments, uint64_t number);
/* NULL when there is none at all. */
pen_spool_segment *pen_spool_segments_last(const pen_spool_segments *segments);
/* Path of a segment's file, borrowed until the next call. */
const char *pen_spool_segments_path(const pen_spool_segments *segments, uint64_t number);

/* True for the errno of a disk without room. */
bool pen_spool_is_no_space(int sys_errno);

/* Makes the next segment and gives its file in *fd. *made is false, and nothing is left behind,
 * when the disk is full. Errors: PEN_ERROR_FATAL for anything else. */
PEN_MUST_CHECK bool pen_spool_segments_make(pen_spool_segments *segments, pen_lsn start_lsn,
                                            int *fd, bool *made, pen_error *err);

/* Deletes the segments before `number`, but never the last. */
PEN_MUST_CHECK bool pen_spool_segments_trim(pen_spool_segments *segments, uint64_t number,
                                            pen_error *err);
/* Deletes all, as far as that goes. */
void pen_spool_segments_remove(pen_spool_segments *segments);

#endif
