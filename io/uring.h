/* Purpose: writes and syncs by io_uring; the only place that includes liburing.h.
 * Thread:  one at a time per ring. A thread that leaves writes in flight when it ends has them
 *          cancelled by the kernel; whoever polls next starts them again.
 * Owns:    the ring; a request and its bytes are borrowed from queue until they are given back.
 * Flow:    requests in by queue and submit, finished ones out by poll or wait. */
#ifndef PEN_IO_URING_H
#define PEN_IO_URING_H

#include "core/error.h"
#include "core/thread.h"
#include "io/disk_request.h"

typedef struct pen_uring pen_uring;

typedef enum pen_uring_result {
    PEN_URING_CREATED,
    /* Not here: no such system call, a seccomp profile, kernel.io_uring_disabled, a kernel before
     * 5.6, or (before 5.12) the limit of locked memory. *err says which; another way must do. */
    PEN_URING_REFUSED,
    PEN_URING_FAILED /* an error of its own: too many open files */
} pen_uring_result;

/* Makes a ring for up to `entries` requests at once (1 to 4096) and tries it with an empty one.
 * Gives it in *ring, which is NULL unless the result is PEN_URING_CREATED. `parker` (borrowed,
 * NULL: none): its owner is woken by the kernel when a request may have finished. */
PEN_MUST_CHECK pen_uring_result pen_uring_create(unsigned entries, pen_parker *parker,
                                                 pen_uring **ring, pen_error *err);

/* Lets the kernel keep `count` buffers of `size` bytes each, one behind the other from `bytes` on,
 * mapped until the ring is destroyed; a write names one by `registered`. Where the kernel refuses
 * (RLIMIT_MEMLOCK), such writes go as all others do. At most once a ring. */
void pen_uring_register(pen_uring *ring, uint8_t *bytes, unsigned count, size_t size);

/* Waits for the requests in flight, since the kernel reads their bytes; NULL is nothing. */
void pen_uring_destroy(pen_uring *ring);

/* Queues `request`. Returns false when `entries` of them are under way: a result, not an error. A
 * sync covers the writes that were given back before it was queued, no others. */
PEN_MUST_CHECK bool pen_uring_queue(pen_uring *ring, pen_disk_request *request);

/* Hands everything queued to the kernel without waiting for it, not even for room in the page
 * cache. Errors: PEN_ERROR_FATAL when the kernel does not take it; the ring is then of no use. */
PEN_MUST_CHECK bool pen_uring_submit(pen_uring *ring, pen_error *err);

/* Gives one finished request in *done, or NULL when none has finished; never waits. Errors: as
 * pen_uring_submit. What happened to the request itself is in its sys_errno. */
PEN_MUST_CHECK bool pen_uring_poll(pen_uring *ring, pen_disk_request **done, pen_error *err);

/* The same, but waits until one has finished; there must be one under way. */
PEN_MUST_CHECK bool pen_uring_wait(pen_uring *ring, pen_disk_request **done, pen_error *err);

#endif
