#include "io/uring.h"

#include "core/log.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A durable write is one request with RWF_DSYNC, not a write linked to an fdatasync. It has one
 * result where the pair has two to be matched; a short write makes its own part durable and the
 * rest is simply queued again, where it would break the chain; and it flushes the range that it
 * wrote instead of all that anybody wrote to the file.
 *
 * IOSQE_ASYNC sends it to a kernel thread at once. Without it the kernel first tries in the
 * caller's context, and a file system that takes buffered writes there (XFS, btrfs) may also do
 * the flush there: then submitting would wait for the disk. A plain write may wait there too, for a
 * lock of the file or for dirty pages to be written back, and whoever appends must never wait.
 *
 * The parker's eventfd is the ring's too: the kernel adds to it with every completion. So a sleep
 * that begins after a completion ends at once, and the sleep itself takes the count away, as it
 * does after a wake: a completion that was seen before costs one early return, never a spin. */

/* No write system call moves more at once than 2^31 less a page. */
#define LARGEST_REQUEST ((size_t)1 << 30)

struct pen_uring {
    struct io_uring uring;
    unsigned entries;
    unsigned under_way;  /* queued or in flight, not given back */
    unsigned registered; /* buffers that the kernel keeps mapped */
};

/* Whether the kernel's answer means that io_uring is not to be had here at all. */
static bool is_refusal(int sys_errno)
{
    /* ENOMEM: before 5.12 the rings count against RLIMIT_MEMLOCK, 64 KiB by default. A machine that
     * is really out of memory will say so again soon enough. */
    return sys_errno == ENOSYS || sys_errno == EPERM || sys_errno == EACCES || sys_errno == ENOMEM;
}

static bool knows_write(struct io_uring *uring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool known = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_WRITE);
    io_uring_free_probe(probe);
    return known;
}

/* Sends an empty request through: a sandbox may allow io_uring_setup and yet refuse
 * io_uring_enter, and that must be found out before a checkpoint depends on it. */
static int try_it(struct io_uring *uring)
{
    io_uring_prep_nop(io_uring_get_sqe(uring));
    int rc;
    do {
        rc = io_uring_submit_and_wait(uring, 1);
    } while (rc == -EINTR);
    if (rc < 0) {
        return -rc;
    }
    struct io_uring_cqe *cqe;
    do {
        rc = io_uring_wait_cqe(uring, &cqe);
    } while (rc == -EINTR);
    if (rc < 0) {
        return -rc;
    }
    io_uring_cqe_seen(uring, cqe);
    return 0;
}

pen_uring_result pen_uring_create(unsigned entries, pen_parker *parker, pen_uring **ring,
                                  pen_error *err)
{
    PEN_ASSERT(entries >= 1 && entries <= 4096);
    *ring = NULL;
    pen_uring *made = pen_calloc(1, sizeof(*made));
    made->entries = entries;
    int sys_errno = -io_uring_queue_init(entries, &made->uring, 0);
    if (sys_errno != 0) {
        goto fail;
    }
    sys_errno = knows_write(&made->uring) ? try_it(&made->uring) : ENOSYS;
    if (sys_errno == 0 && parker != NULL) {
        sys_errno = -io_uring_register_eventfd(&made->uring, parker->event_fd);
    }
    if (sys_errno != 0) {
        io_uring_queue_exit(&made->uring);
        goto fail;
    }
    *ring = made;
    return PEN_URING_CREATED;

fail:
    free(made);
    if (is_refusal(sys_errno)) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno, "the kernel refuses io_uring here");
        return PEN_URING_REFUSED;
    }
    pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                        "cannot set up io_uring; look at the limits of open files");
    return PEN_URING_FAILED;
}

void pen_uring_register(pen_uring *ring, uint8_t *bytes, unsigned count, size_t size)
{
    PEN_ASSERT(ring->registered == 0 && count > 0);
    struct iovec *buffers = pen_calloc(count, sizeof(*buffers));
    for (unsigned i = 0; i < count; i++) {
        buffers[i].iov_base = bytes + i * size;
        buffers[i].iov_len = size;
    }
    int rc = io_uring_register_buffers(&ring->uring, buffers, count);
    free(buffers);
    if (rc == 0) {
        ring->registered = count;
    } else {
        pen_log(PEN_LOG_DEBUG, "io_uring does not register %u buffers of %zu bytes: %s", count,
                size, strerror(-rc));
    }
}

void pen_uring_destroy(pen_uring *ring)
{
    if (ring == NULL) {
        return;
    }
    /* Whatever came of them: nobody waits for the results any more, only for the bytes. */
    while (ring->under_way > 0) {
        int rc = io_uring_submit_and_wait(&ring->uring, 1);
        if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
            break;
        }
        struct io_uring_cqe *cqe;
        while (ring->under_way > 0 && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
            io_uring_cqe_seen(&ring->uring, cqe);
            ring->under_way--;
        }
    }
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

static void prepare_write(pen_uring *ring, struct io_uring_sqe *sqe,
                          const pen_disk_request *request)
{
    const uint8_t *data = request->data + request->written;
    uint64_t offset = request->offset + request->written;
    size_t rest = request->size - request->written;
    if (rest > LARGEST_REQUEST) {
        rest = LARGEST_REQUEST;
    }
    if (request->registered > 0 && request->registered <= ring->registered) {
        io_uring_prep_write_fixed(sqe, request->fd, data, (unsigned)rest, offset,
                                  (int)request->registered - 1);
    } else {
        io_uring_prep_write(sqe, request->fd, data, (unsigned)rest, offset);
    }
    if (request->op == PEN_DISK_WRITE_DURABLY) {
        sqe->rw_flags = RWF_DSYNC;
    }
}

/* Queues `request`, or what is left of a write. There is room: the kernel takes an entry off the
 * queue before it answers, and no more than `entries` are under way. */
static void queue_rest(pen_uring *ring, pen_disk_request *request)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    PEN_ASSERT(sqe != NULL);
    if (request->op == PEN_DISK_SYNC) {
        io_uring_prep_fsync(sqe, request->fd, IORING_FSYNC_DATASYNC);
    } else {
        prepare_write(ring, sqe, request);
    }
    io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    io_uring_sqe_set_data(sqe, request);
}

bool pen_uring_queue(pen_uring *ring, pen_disk_request *request)
{
    PEN_ASSERT(request->op == PEN_DISK_SYNC || request->size > 0);
    if (ring->under_way == ring->entries) {
        return false;
    }
    request->written = 0;
    request->sys_errno = 0;
    queue_rest(ring, request);
    ring->under_way++;
    return true;
}

/* Whether the kernel may take the same another time: it was interrupted, or short of memory for
 * requests (EAGAIN) or for completions (EBUSY). What it did not take stays queued. */
static bool may_submit_again(int rc)
{
    return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY;
}

static bool submit_failed(int rc, pen_error *err)
{
    return pen_error_set_errno(err, PEN_ERROR_FATAL, -rc,
                               "the kernel does not take a write by io_uring any more; start again "
                               "without it");
}

bool pen_uring_submit(pen_uring *ring, pen_error *err)
{
    int rc = io_uring_submit(&ring->uring);
    return rc >= 0 || may_submit_again(rc) || submit_failed(rc, err);
}

/* Takes in the answer to a sync. True when it is over, false when it was queued again. */
static bool take_in_sync(pen_uring *ring, pen_disk_request *request, int res)
{
    if (res == -ECANCELED) {
        /* It never ran, so there is no failure of a flush that another one would hide. */
        queue_rest(ring, request);
        return false;
    }
    request->sys_errno = -res;
    return true;
}

/* The same for a write, of which the rest may have been queued. */
static bool take_in_write(pen_uring *ring, pen_disk_request *request, int res)
{
    if (res > 0) {
        request->written += (size_t)res;
        if (request->written == request->size) {
            return true;
        }
    } else if (res == 0) {
        request->sys_errno = EIO; /* no progress and no reason: it would go on like that for ever */
        return true;
    } else if (res != -EINTR && res != -EAGAIN && res != -ECANCELED) {
        /* Never again: a failed flush leaves pages that look clean and are not on disk. */
        request->sys_errno = -res;
        return true;
    }
    /* The other three are safe to repeat, because it is the bytes that are written again, which
     * makes their pages dirty again; a repeated fsync alone would not. ECANCELED is the kernel's
     * answer when the thread that submitted has ended. */
    queue_rest(ring, request);
    return false;
}

bool pen_uring_poll(pen_uring *ring, pen_disk_request **done, pen_error *err)
{
    *done = NULL;
    struct io_uring_cqe *cqe;
    while (ring->under_way > 0 && *done == NULL && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        pen_disk_request *request = io_uring_cqe_get_data(cqe);
        int res = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        if (request->op == PEN_DISK_SYNC ? take_in_sync(ring, request, res)
                                         : take_in_write(ring, request, res)) {
            ring->under_way--;
            *done = request;
        }
    }
    /* Also what an earlier submit left queued. */
    return io_uring_sq_ready(&ring->uring) == 0 || pen_uring_submit(ring, err);
}

bool pen_uring_wait(pen_uring *ring, pen_disk_request **done, pen_error *err)
{
    PEN_ASSERT(ring->under_way > 0);
    while (pen_uring_poll(ring, done, err)) {
        if (*done != NULL) {
            return true;
        }
        int rc = io_uring_submit_and_wait(&ring->uring, 1);
        if (rc < 0 && !may_submit_again(rc)) {
            return submit_failed(rc, err);
        }
        if (rc == -EAGAIN) {
            /* The kernel is short of memory; let somebody free some. */
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
    }
    return false;
}
