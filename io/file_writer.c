#include "io/file_writer.h"

#include "core/sync.h"
#include "core/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Two counters pass one write back and forth: begun == finished means that the request is the
 * caller's, begun == finished + 1 that it is the thread's. Neither side holds a lock, so the
 * caller never waits for a thread that lost its processor. */
struct pen_file_writer {
    pen_thread thread;
    pen_parker thread_sleep;
    pen_parker caller_sleep; /* only pen_file_writer_wait sleeps there */
    int fd;
    /* caller */
    PEN_ALIGNED pen_cell begun;
    pen_cell stop;
    uint64_t begun_count; /* the caller's copy of `begun` */
    const uint8_t *data;
    size_t size;
    uint64_t offset;
    /* thread */
    PEN_ALIGNED pen_cell finished;
    int sys_errno;
};

static int write_durably(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
    while (size > 0) {
        ssize_t done = pwrite(fd, data, size, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? errno : EIO;
        }
        data += done;
        size -= (size_t)done;
        offset += (uint64_t)done;
    }
    /* Not repeated whatever it says: after a failed flush the pages look clean and are not on
     * disk, and a second fdatasync would succeed. */
    return fdatasync(fd) == 0 ? 0 : errno;
}

static bool has_work(pen_file_writer *writer, uint64_t finished)
{
    /* [FWRITE-1] acquire: sees the request; pairs with the release in pen_file_writer_begin. */
    return pen_cell_read(&writer->begun) != finished;
}

static bool has_ended(pen_file_writer *writer)
{
    /* [FWRITE-3] acquire: pairs with the release in pen_file_writer_stop; a write that was begun
     * before the stop is therefore seen by a has_work that comes after this. */
    return pen_cell_read(&writer->stop) != 0;
}

static void run(void *arg)
{
    pen_file_writer *writer = arg;
    uint64_t finished = 0;
    for (;;) {
        /* In this order: nothing begins after the stop, so what has_work finds then is the last. */
        bool ended = has_ended(writer);
        if (has_work(writer, finished)) {
            writer->sys_errno =
                write_durably(writer->fd, writer->data, writer->size, writer->offset);
            finished++;
            /* [FWRITE-2] release: publishes sys_errno and gives the request back; pairs with the
             * acquire in pen_file_writer_poll. */
            pen_cell_publish(&writer->finished, finished);
            pen_parker_wake(&writer->caller_sleep);
            continue;
        }
        if (ended) {
            return;
        }
        pen_parker_prepare(&writer->thread_sleep);
        if (has_ended(writer) || has_work(writer, finished)) {
            pen_parker_cancel(&writer->thread_sleep);
        } else {
            pen_parker_park(&writer->thread_sleep, -1, 0, PEN_PARK_FOREVER);
        }
    }
}

bool pen_file_writer_start(int fd, pen_file_writer **writer, pen_error *err)
{
    pen_file_writer *made = pen_alloc_lines(sizeof(*made));
    made->fd = fd;
    made->thread_sleep.event_fd = -1;
    made->caller_sleep.event_fd = -1;
    pen_cell_init(&made->begun, 0);
    pen_cell_init(&made->finished, 0);
    pen_cell_init(&made->stop, 0);
    if (!pen_parker_init(&made->thread_sleep, err) || !pen_parker_init(&made->caller_sleep, err) ||
        !pen_thread_start(&made->thread, PEN_ROLE_CHECKPOINT, "checkpoint", run, made, err)) {
        pen_parker_deinit(&made->thread_sleep);
        pen_parker_deinit(&made->caller_sleep);
        free(made);
        *writer = NULL;
        return false;
    }
    *writer = made;
    return true;
}

void pen_file_writer_stop(pen_file_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    /* [FWRITE-3] release: pairs with the acquire in has_ended. */
    pen_cell_publish(&writer->stop, 1);
    pen_parker_wake(&writer->thread_sleep);
    pen_thread_join(&writer->thread);
    pen_parker_deinit(&writer->thread_sleep);
    pen_parker_deinit(&writer->caller_sleep);
    free(writer);
}

void pen_file_writer_begin(pen_file_writer *writer, const uint8_t *data, size_t size,
                           uint64_t offset)
{
    /* [FWRITE-2] acquire: the request is the caller's again, if the thread gave it back; pairs with
     * the release in run. */
    PEN_ASSERT(pen_cell_read(&writer->finished) == writer->begun_count);
    writer->data = data;
    writer->size = size;
    writer->offset = offset;
    writer->begun_count++;
    /* [FWRITE-1] release: publishes the request; pairs with the acquire in has_work. */
    pen_cell_publish(&writer->begun, writer->begun_count);
    pen_parker_wake(&writer->thread_sleep);
}

bool pen_file_writer_poll(pen_file_writer *writer, int *sys_errno)
{
    /* [FWRITE-2] acquire: sees sys_errno; pairs with the release in run. */
    if (pen_cell_read(&writer->finished) != writer->begun_count) {
        return false;
    }
    *sys_errno = writer->sys_errno;
    return true;
}

int pen_file_writer_wait(pen_file_writer *writer)
{
    int sys_errno;
    while (!pen_file_writer_poll(writer, &sys_errno)) {
        pen_parker_prepare(&writer->caller_sleep);
        if (pen_file_writer_poll(writer, &sys_errno)) {
            pen_parker_cancel(&writer->caller_sleep);
            return sys_errno;
        }
        pen_parker_park(&writer->caller_sleep, -1, 0, PEN_PARK_FOREVER);
    }
    return sys_errno;
}
