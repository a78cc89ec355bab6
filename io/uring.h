/* Purpose: durable writes by io_uring; the only place that includes liburing.h.
 * Thread:  one at a time per ring. A thread that leaves writes in flight when it ends has them
 *          cancelled by the kernel; whoever polls next starts them again.
 * Owns:    the ring; a write and its bytes are borrowed from queue until they are given back.
 * Flow:    writes in by queue and submit, finished writes out by poll or wait. */
#ifndef PEN_IO_URING_H
#define PEN_IO_URING_H

#include "core/error.h"

typedef struct pen_uring pen_uring;

typedef struct pen_uring_write {
    /* The caller's; not to be changed while it is in flight. */
    int fd;
    const uint8_t *data;
    size_t size; /* bytes, more than 0 */
    uint64_t offset;
    /* The ring's; to be read when the write is given back. */
    size_t written; /* bytes that are on disk */
    int sys_errno;  /* 0: all of it is on disk */
} pen_uring_write;

typedef enum pen_uring_result {
    PEN_URING_CREATED,
    /* Not here: no such system call, a seccomp profile, kernel.io_uring_disabled, a kernel before
     * 5.6, or (before 5.12) the limit of locked memory. *err says which; another way must do. */
    PEN_URING_REFUSED,
    PEN_URING_FAILED /* an error of its own: too many open files */
} pen_uring_result;

/* Makes a ring for up to `entries` writes at once (1 to 4096) and tries it with an empty request.
 * Gives it in *ring, which is NULL unless the result is PEN_URING_CREATED. */
PEN_MUST_CHECK pen_uring_result pen_uring_create(unsigned entries, pen_uring **ring,
                                                 pen_error *err);

/* Waits for the writes in flight, since the kernel reads their bytes; NULL is nothing. */
void pen_uring_destroy(pen_uring *ring);

/* Queues `write`; its bytes are on stable storage when it is given back without an error. Returns
 * false when `entries` of them are under way: a result, not an error. */
PEN_MUST_CHECK bool pen_uring_queue(pen_uring *ring, pen_uring_write *write);

/* Hands everything queued to the kernel without waiting for it, not even for room in the page
 * cache. Errors: PEN_ERROR_FATAL when the kernel does not take it; the ring is then of no use. */
PEN_MUST_CHECK bool pen_uring_submit(pen_uring *ring, pen_error *err);

/* Gives one finished write in *done, or NULL when none has finished; never waits. Errors: as
 * pen_uring_submit. What happened to the write itself is in its sys_errno. */
PEN_MUST_CHECK bool pen_uring_poll(pen_uring *ring, pen_uring_write **done, pen_error *err);

/* The same, but waits until one has finished; there must be one under way. */
PEN_MUST_CHECK bool pen_uring_wait(pen_uring *ring, pen_uring_write **done, pen_error *err);

#endif
