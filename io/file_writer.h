/* Purpose: durable writes by a thread with pwrite and fdatasync, where io_uring is refused.
 * Thread:  one caller at a time; the writer has a thread of its own, of role PEN_ROLE_CHECKPOINT.
 * Owns:    its thread; the bytes are borrowed from begin until the write has finished.
 * Flow:    one write at a time in by begin, its errno out by poll or wait. */
#ifndef PEN_IO_FILE_WRITER_H
#define PEN_IO_FILE_WRITER_H

#include "core/error.h"

typedef struct pen_file_writer pen_file_writer;

/* Starts the thread that writes to `fd`, which must stay open until stop. Gives it in *writer.
 * Errors: PEN_ERROR_FATAL when there is no thread or eventfd to be had. */
PEN_MUST_CHECK bool pen_file_writer_start(int fd, pen_file_writer **writer, pen_error *err);

/* Finishes the write that was begun, then ends the thread; NULL is nothing. */
void pen_file_writer_stop(pen_file_writer *writer);

/* Hands over `size` bytes to be written at `offset` and returns at once. The write before must
 * have finished. */
void pen_file_writer_begin(pen_file_writer *writer, const uint8_t *data, size_t size,
                           uint64_t offset);

/* True when the write that was begun has finished; then *sys_errno is 0 if it is on stable storage,
 * or why it is not. Never waits. */
PEN_MUST_CHECK bool pen_file_writer_poll(pen_file_writer *writer, int *sys_errno);

/* Waits until it has finished and returns that errno. */
int pen_file_writer_wait(pen_file_writer *writer);

#endif
