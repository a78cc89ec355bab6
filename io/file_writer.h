/* Purpose: writes and syncs by a thread with pwrite and fdatasync, where io_uring is refused.
 * Thread:  one caller at a time; the writer has a thread of its own, of role PEN_ROLE_DISK.
 * Owns:    its thread; requests and their bytes are borrowed from queue until they are given back.
 * Flow:    requests in by queue, done one after the other, finished ones out by poll or wait. */
#ifndef PEN_IO_FILE_WRITER_H
#define PEN_IO_FILE_WRITER_H

#include "core/error.h"
#include "core/thread.h"
#include "io/disk_request.h"

typedef struct pen_file_writer pen_file_writer;

/* Starts the thread `name`, for up to `entries` requests at once (1 to 4096). `parker` (borrowed,
 * NULL: none) is woken when a request has finished. Gives it in *writer. Errors: PEN_ERROR_FATAL
 * when there is no thread or eventfd to be had. */
PEN_MUST_CHECK bool pen_file_writer_start(const char *name, unsigned entries, pen_parker *parker,
                                          pen_file_writer **writer, pen_error *err);

/* Finishes everything that was queued, then ends the thread; NULL is nothing. */
void pen_file_writer_stop(pen_file_writer *writer);

/* Hands `request` over and returns at once. False when `entries` of them are under way. */
PEN_MUST_CHECK bool pen_file_writer_queue(pen_file_writer *writer, pen_disk_request *request);

/* Gives a finished request, in the order of queueing, or NULL when none is. Never waits. */
pen_disk_request *pen_file_writer_poll(pen_file_writer *writer);

/* The same, but waits until one has finished; there must be one under way. */
pen_disk_request *pen_file_writer_wait(pen_file_writer *writer);

#endif
