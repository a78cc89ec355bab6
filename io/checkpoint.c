#include "io/checkpoint.h"

#include "core/log.h"
#include "io/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOTS     2u
#define FILE_SIZE (SLOTS * PEN_CHECKPOINT_SLOT_SIZE)

struct pen_checkpoint_file {
    char *path;
    int fd;
    pen_disk *disk;

    /* What comes next. */
    bool has_next;
    pen_checkpoint next;

    /* What is being written; image and request are the disk's while in_flight. */
    bool in_flight;
    uint64_t generation; /* of the newest slot, written or in flight; 0: none */
    unsigned next_slot;  /* the older one */
    pen_disk_request request;
    uint8_t image[PEN_CHECKPOINT_SLOT_SIZE];

    uint64_t written; /* generation of the newest slot on disk */

    /* A write that failed: what is on disk since then is not known, so nothing goes on. */
    bool broken;
    pen_error failure;
};

/* ---- opening ---- */

static bool write_zeros(int fd, off_t from)
{
    static const uint8_t zeros[FILE_SIZE];
    while (from < (off_t)FILE_SIZE) {
        ssize_t done = pwrite(fd, zeros, (size_t)((off_t)FILE_SIZE - from), from);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done < 0 ? errno : EIO;
            return false;
        }
        from += done;
    }
    return true;
}

/* Makes the directory entry of `path` durable. */
static bool sync_directory(const char *path)
{
    char *dir = pen_strdup(path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL) {
        memcpy(dir, ".", 2); /* fits: a path has at least one byte */
    } else {
        slash[slash == dir ? 1 : 0] = '\0';
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd < 0) {
        return false;
    }
    bool synced = fsync(fd) == 0;
    int sys_errno = errno;
    close(fd);
    errno = sys_errno;
    return synced;
}

/* Zeros are really written, not just a size set: so the disk is found full now and not at the first
 * checkpoint, and no later write needs a new block. */
static bool create_file(const char *path, int *fd, pen_error *err)
{
    *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (*fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make the checkpoint file \"%s\"", path);
    }
    if (!write_zeros(*fd, 0) || fsync(*fd) != 0 || !sync_directory(path)) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                            "cannot make the new checkpoint file \"%s\" durable; see to the disk",
                            path);
        close(*fd);
        unlink(path);
        return false;
    }
    return true;
}

/* Reads up to `size` bytes from the start of the file; -1 and errno on failure. */
static ssize_t read_start(int fd, uint8_t *bytes, size_t size)
{
    size_t filled = 0;
    while (filled < size) {
        ssize_t got = pread(fd, bytes + filled, size - filled, (off_t)filled);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        filled += (size_t)got;
    }
    return (ssize_t)filled;
}

static bool all_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Chooses among the slots in the first `size` bytes of the file; says in the log what is amiss. */
static void choose_slot(pen_checkpoint_file *file, const uint8_t *bytes, size_t size, bool *found,
                        pen_checkpoint *newest)
{
    bool torn = size < FILE_SIZE;
    *found = false;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        size_t start = (size_t)slot * PEN_CHECKPOINT_SLOT_SIZE;
        size_t len = size > start ? size - start : 0;
        if (len > PEN_CHECKPOINT_SLOT_SIZE) {
            len = PEN_CHECKPOINT_SLOT_SIZE;
        }
        pen_checkpoint read;
        if (!pen_checkpoint_decode((pen_slice){bytes + start, len}, &read)) {
            torn = torn || !all_zero(bytes + start, len);
        } else if (!*found || read.generation > newest->generation) {
            *found = true;
            *newest = read;
            file->next_slot = (slot + 1) % SLOTS;
        }
    }
    if (*found) {
        file->generation = newest->generation;
        file->written = newest->generation;
        if (torn) {
            pen_log(PEN_LOG_WARN,
                    "the checkpoint file \"%s\" holds one slot that is torn or truncated; going "
                    "on from the other, generation %llu",
                    file->path, (unsigned long long)newest->generation);
        }
    } else if (torn) {
        pen_log(PEN_LOG_WARN,
                "the checkpoint file \"%s\" is torn, truncated or not penstock's: nothing in it is "
                "used, and the next checkpoint overwrites it",
                file->path);
    }
    /* Nothing but zeros is a file that was made and never written to: no reason to warn. */
}

static bool read_file(pen_checkpoint_file *file, bool *found, pen_checkpoint *newest,
                      pen_error *err)
{
    struct stat status;
    if (fstat(file->fd, &status) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot look at the checkpoint file \"%s\"", file->path);
    }
    if (!S_ISREG(status.st_mode)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the checkpoint file \"%s\" is not a regular file; move it away",
                             file->path);
    }
    uint8_t bytes[FILE_SIZE];
    ssize_t size = read_start(file->fd, bytes, sizeof(bytes));
    if (size < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot read the checkpoint file \"%s\"", file->path);
    }
    choose_slot(file, bytes, (size_t)size, found, newest);
    if (size < (ssize_t)FILE_SIZE && (!write_zeros(file->fd, size) || fsync(file->fd) != 0)) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot extend the checkpoint file \"%s\"; see to the disk",
                                   file->path);
    }
    return true;
}

bool pen_checkpoint_open(const char *path, bool use_uring, pen_checkpoint_file **file, bool *found,
                         pen_checkpoint *newest, pen_error *err)
{
    *file = NULL;
    *found = false;
    pen_checkpoint_file *opened = pen_calloc(1, sizeof(*opened));
    opened->path = pen_strdup(path);
    opened->fd = open(path, O_RDWR | O_CLOEXEC);
    if (opened->fd >= 0) {
        if (!read_file(opened, found, newest, err)) {
            goto fail;
        }
    } else if (errno != ENOENT) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot open the checkpoint file \"%s\"",
                            path);
        goto fail;
    } else if (!create_file(path, &opened->fd, err)) {
        opened->fd = -1;
        goto fail;
    }
    if (!pen_disk_start("checkpoint", 1, use_uring, NULL, &opened->disk, err)) {
        goto fail;
    }
    *file = opened;
    return true;

fail:
    *found = false;
    pen_checkpoint_close(opened);
    return false;
}

void pen_checkpoint_close(pen_checkpoint_file *file)
{
    if (file == NULL) {
        return;
    }
    pen_disk_stop(file->disk); /* waits for the write in flight, which reads file->image */
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->path);
    free(file);
}

/* ---- writing ---- */

/* Keeps the first failure and gives it again at every call. Returns false always. */
static bool break_file(pen_checkpoint_file *file, pen_error *err)
{
    file->broken = true;
    file->failure = *err;
    return false;
}

static bool give_failure(const pen_checkpoint_file *file, pen_error *err)
{
    *err = file->failure;
    return false;
}

/* Takes the result of the write in flight, if it has finished or `wait` is true. */
static bool take_finished(pen_checkpoint_file *file, bool wait, pen_error *err)
{
    if (!file->in_flight) {
        return true;
    }
    pen_disk_request *done;
    if (!(wait ? pen_disk_wait(file->disk, &done, err) : pen_disk_poll(file->disk, &done, err))) {
        pen_error_context(err, "checkpoint file \"%s\"", file->path);
        return break_file(file, err);
    }
    if (done == NULL) {
        return true;
    }
    file->in_flight = false;
    if (done->sys_errno != 0) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, done->sys_errno,
                            "cannot write the checkpoint file \"%s\" durably; what is on disk is "
                            "not known any more: see to the disk and start again",
                            file->path);
        return break_file(file, err);
    }
    file->written = file->generation;
    return true;
}

/* Starts writing the newest state into the older slot, unless a write is in flight. */
static bool start_next(pen_checkpoint_file *file, pen_error *err)
{
    if (file->in_flight || !file->has_next) {
        return true;
    }
    file->has_next = false;
    file->generation++;
    file->next.generation = file->generation;
    pen_checkpoint_encode(&file->next, file->image);
    uint64_t offset = (uint64_t)file->next_slot * PEN_CHECKPOINT_SLOT_SIZE;
    file->next_slot = (file->next_slot + 1) % SLOTS;
    file->in_flight = true;
    file->request = (pen_disk_request){.op = PEN_DISK_WRITE_DURABLY,
                                       .fd = file->fd,
                                       .data = file->image,
                                       .size = sizeof(file->image),
                                       .offset = offset};
    bool queued = pen_disk_queue(file->disk, &file->request);
    PEN_ASSERT(queued);
    if (!pen_disk_submit(file->disk, err)) {
        pen_error_context(err, "checkpoint file \"%s\"", file->path);
        return break_file(file, err);
    }
    return true;
}

bool pen_checkpoint_poll(pen_checkpoint_file *file, pen_error *err)
{
    if (file->broken) {
        return give_failure(file, err);
    }
    return take_finished(file, false, err) && start_next(file, err);
}

bool pen_checkpoint_submit(pen_checkpoint_file *file, const pen_checkpoint *cp, pen_error *err)
{
    file->next = *cp;
    file->has_next = true;
    return pen_checkpoint_poll(file, err);
}

bool pen_checkpoint_flush(pen_checkpoint_file *file, pen_error *err)
{
    if (file->broken) {
        return give_failure(file, err);
    }
    while (file->in_flight || file->has_next) {
        if (!take_finished(file, true, err) || !start_next(file, err)) {
            return false;
        }
    }
    return true;
}

uint64_t pen_checkpoint_written(const pen_checkpoint_file *file)
{
    return file->written;
}

const char *pen_checkpoint_method(const pen_checkpoint_file *file)
{
    return pen_disk_method(file->disk);
}
