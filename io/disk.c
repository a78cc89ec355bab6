#include "io/disk.h"

#include "core/log.h"
#include "core/sync.h"
#include "io/file_writer.h"
#include "io/uring.h"

#include <stdlib.h>

/* One of two: the ring, or the thread where the ring is NULL. */
struct pen_disk {
    pen_uring *ring;
    pen_file_writer *thread;
};

static bool start_ring(pen_disk *disk, unsigned entries, pen_parker *parker, pen_error *err)
{
    pen_uring_result result = pen_uring_create(entries, parker, &disk->ring, err);
    if (result != PEN_URING_REFUSED) {
        return result == PEN_URING_CREATED;
    }
    /* Once a process, not once a file: what the kernel refuses it refuses to all of them.
     * The swap is its own pair, of two that open at once: [REFUSED-1] release by the one that
     * says it, [REFUSED-1] acquire by the other, which keeps quiet. */
    static pen_cell said;
    if (pen_cell_swap(&said, 0, 1)) {
        pen_log(PEN_LOG_INFO, "%s; threads write to the disk", err->text);
    }
    return true;
}

bool pen_disk_start(const char *name, unsigned entries, bool use_uring, pen_parker *parker,
                    pen_disk **disk, pen_error *err)
{
    pen_disk *made = pen_calloc(1, sizeof(*made));
    if ((use_uring && !start_ring(made, entries, parker, err)) ||
        (made->ring == NULL && !pen_file_writer_start(name, entries, parker, &made->thread, err))) {
        free(made);
        *disk = NULL;
        return false;
    }
    *disk = made;
    return true;
}

void pen_disk_stop(pen_disk *disk)
{
    if (disk == NULL) {
        return;
    }
    pen_uring_destroy(disk->ring);
    pen_file_writer_stop(disk->thread);
    free(disk);
}

void pen_disk_register(pen_disk *disk, uint8_t *bytes, unsigned count, size_t size)
{
    if (disk->ring != NULL) {
        pen_uring_register(disk->ring, bytes, count, size);
    }
}

bool pen_disk_queue(pen_disk *disk, pen_disk_request *request)
{
    return disk->ring != NULL ? pen_uring_queue(disk->ring, request)
                              : pen_file_writer_queue(disk->thread, request);
}

bool pen_disk_submit(pen_disk *disk, pen_error *err)
{
    return disk->ring == NULL || pen_uring_submit(disk->ring, err);
}

bool pen_disk_poll(pen_disk *disk, pen_disk_request **done, pen_error *err)
{
    if (disk->ring != NULL) {
        return pen_uring_poll(disk->ring, done, err);
    }
    *done = pen_file_writer_poll(disk->thread);
    return true;
}

bool pen_disk_wait(pen_disk *disk, pen_disk_request **done, pen_error *err)
{
    if (disk->ring != NULL) {
        return pen_uring_wait(disk->ring, done, err);
    }
    *done = pen_file_writer_wait(disk->thread);
    return true;
}

const char *pen_disk_method(const pen_disk *disk)
{
    return disk->ring != NULL ? "io_uring" : "thread";
}
