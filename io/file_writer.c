#include "io/file_writer.h"

#include "core/ring.h"
#include "core/sync.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Two rings pass the requests back and forth, each with room for all of them. Neither side holds a
 * lock, so the caller never waits for a thread that lost its processor. */
struct pen_file_writer {
    pen_thread thread;
    pen_parker thread_sleep;
    pen_parker caller_sleep; /* only pen_file_writer_wait sleeps there */
    pen_parker *parker;      /* whoever else is to be woken; NULL: nobody */
    unsigned entries;
    unsigned under_way; /* the caller's: queued and not given back */
    pen_cell stop;
    pen_ring queued;
    pen_ring finished;
};

static int write_all(pen_disk_request *request)
{
    while (request->written < request->size) {
        ssize_t done =
            pwrite(request->fd, request->data + request->written, request->size - request->written,
                   (off_t)(request->offset + request->written));
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? errno : EIO;
        }
        request->written += (size_t)done;
    }
    return 0;
}

static int do_request(pen_disk_request *request)
{
    int sys_errno = request->op == PEN_DISK_SYNC ? 0 : write_all(request);
    if (sys_errno != 0 || request->op == PEN_DISK_WRITE) {
        return sys_errno;
    }
    /* Not repeated whatever it says: after a failed flush the pages look clean and are not on
     * disk, and a second fdatasync would succeed. */
    return fdatasync(request->fd) == 0 ? 0 : errno;
}

static bool has_ended(pen_file_writer *writer)
{
    /* [FWRITE-1] acquire: pairs with the release in pen_file_writer_stop; what was queued before
     * the stop is therefore seen by a pop that comes after this. */
    return pen_cell_read(&writer->stop) != 0;
}

/* NULL when there will be none any more. */
static pen_disk_request *next_request(pen_file_writer *writer)
{
    for (;;) {
        /* In this order: nothing is queued after the stop, so an empty ring stays empty then. */
        bool ended = has_ended(writer);
        pen_disk_request *request = pen_ring_pop(&writer->queued);
        if (request != NULL || ended) {
            return request;
        }
        pen_parker_prepare(&writer->thread_sleep);
        ended = has_ended(writer);
        request = pen_ring_pop(&writer->queued);
        if (request != NULL || ended) {
            pen_parker_cancel(&writer->thread_sleep);
            return request;
        }
        pen_parker_park(&writer->thread_sleep, -1, 0, PEN_PARK_FOREVER);
    }
}

static void run(void *arg)
{
    pen_file_writer *writer = arg;
    pen_disk_request *request;
    while ((request = next_request(writer)) != NULL) {
        request->sys_errno = do_request(request);
        bool pushed = pen_ring_push(&writer->finished, request);
        PEN_ASSERT(pushed);
        pen_parker_wake(&writer->caller_sleep);
        if (writer->parker != NULL) {
            pen_parker_wake(writer->parker);
        }
    }
}

static size_t power_of_two_from(size_t least)
{
    size_t size = 2;
    while (size < least) {
        size *= 2;
    }
    return size;
}

bool pen_file_writer_start(const char *name, unsigned entries, pen_parker *parker,
                           pen_file_writer **writer, pen_error *err)
{
    PEN_ASSERT(entries >= 1 && entries <= 4096);
    pen_file_writer *made = pen_alloc_lines(sizeof(*made));
    made->thread_sleep.event_fd = -1;
    made->caller_sleep.event_fd = -1;
    made->parker = parker;
    made->entries = entries;
    pen_cell_init(&made->stop, 0);
    pen_ring_init(&made->queued, power_of_two_from(entries));
    pen_ring_init(&made->finished, power_of_two_from(entries));
    *writer = made;
    if (!pen_parker_init(&made->thread_sleep, err) || !pen_parker_init(&made->caller_sleep, err) ||
        !pen_thread_start(&made->thread, PEN_ROLE_DISK, name, run, made, err)) {
        pen_file_writer_stop(made); /* joins nothing: the thread was never started */
        *writer = NULL;
        return false;
    }
    return true;
}

void pen_file_writer_stop(pen_file_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->thread.started) {
        /* [FWRITE-1] release: pairs with the acquire in has_ended. */
        pen_cell_publish(&writer->stop, 1);
        pen_parker_wake(&writer->thread_sleep);
        pen_thread_join(&writer->thread);
    }
    pen_parker_deinit(&writer->thread_sleep);
    pen_parker_deinit(&writer->caller_sleep);
    pen_ring_deinit(&writer->queued);
    pen_ring_deinit(&writer->finished);
    free(writer);
}

bool pen_file_writer_queue(pen_file_writer *writer, pen_disk_request *request)
{
    PEN_ASSERT(request->op == PEN_DISK_SYNC || request->size > 0);
    if (writer->under_way == writer->entries) {
        return false;
    }
    request->written = 0;
    request->sys_errno = 0;
    bool pushed = pen_ring_push(&writer->queued, request);
    PEN_ASSERT(pushed);
    writer->under_way++;
    pen_parker_wake(&writer->thread_sleep);
    return true;
}

pen_disk_request *pen_file_writer_poll(pen_file_writer *writer)
{
    pen_disk_request *done = pen_ring_pop(&writer->finished);
    writer->under_way -= done != NULL;
    return done;
}

pen_disk_request *pen_file_writer_wait(pen_file_writer *writer)
{
    PEN_ASSERT(writer->under_way > 0);
    for (;;) {
        pen_disk_request *done = pen_file_writer_poll(writer);
        if (done != NULL) {
            return done;
        }
        pen_parker_prepare(&writer->caller_sleep);
        done = pen_file_writer_poll(writer);
        if (done != NULL) {
            pen_parker_cancel(&writer->caller_sleep);
            return done;
        }
        pen_parker_park(&writer->caller_sleep, -1, 0, PEN_PARK_FOREVER);
    }
}
