/* Purpose: writes and syncs beside the calling thread: by io_uring, or by a thread where that is
 *          refused.
 * Thread:  one at a time.
 * Owns:    the ring or the thread; a request is borrowed from queue until it is given back.
 * Flow:    requests in by queue and submit, finished ones out by poll or wait, in any order. */
#ifndef PEN_IO_DISK_H
#define PEN_IO_DISK_H

#include "core/error.h"
#include "core/thread.h"
#include "io/disk_request.h"

typedef struct pen_disk pen_disk;

/* Starts it, for up to `entries` requests at once. `use_uring` false takes the thread, which gets
 * `name`; true falls back to it where io_uring is refused, and says so once a process. `parker`
 * (borrowed; NULL: none) is woken whenever a request has finished. Errors: PEN_ERROR_FATAL. */
PEN_MUST_CHECK bool pen_disk_start(const char *name, unsigned entries, bool use_uring,
                                   pen_parker *parker, pen_disk **disk, pen_error *err);

/* Waits for everything under way; NULL is nothing. */
void pen_disk_stop(pen_disk *disk);

/* Lets the kernel keep `count` buffers of `size` bytes each, one behind the other from `bytes` on,
 * mapped for the requests that name them. Where it does not want to, nothing is lost but a little
 * time. Once a disk. */
void pen_disk_register(pen_disk *disk, uint8_t *bytes, unsigned count, size_t size);

/* False when `entries` are under way: a result, not an error. */
PEN_MUST_CHECK bool pen_disk_queue(pen_disk *disk, pen_disk_request *request);
/* Sees to it that everything queued is begun; never waits. Errors: PEN_ERROR_FATAL when the kernel
 * does not take it, after which the disk is of no use. */
PEN_MUST_CHECK bool pen_disk_submit(pen_disk *disk, pen_error *err);
/* Gives a finished request, or NULL when none is; never waits. Errors: as pen_disk_submit. */
PEN_MUST_CHECK bool pen_disk_poll(pen_disk *disk, pen_disk_request **done, pen_error *err);
/* The same, but waits until one has finished; there must be one under way. */
PEN_MUST_CHECK bool pen_disk_wait(pen_disk *disk, pen_disk_request **done, pen_error *err);

/* "io_uring" or "thread", to show. */
const char *pen_disk_method(const pen_disk *disk);

#endif
