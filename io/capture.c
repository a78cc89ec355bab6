#include "io/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_AFTER_MS 1000

struct pen_capture {
    char *path;
    int fd;
    bool failed; /* a write failed, which was told: nothing goes on */
    pen_spool_header header;
    uint64_t records;
    uint64_t buffered_records;
    uint64_t written; /* bytes in the file, whole records all of them */
    size_t buffered;  /* bytes in the buffer */
    int64_t since_ms; /* when the first of them came */
    uint8_t buffer[PEN_CAPTURE_BUFFER];
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 0, or errno. */
static int write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t done = write(fd, bytes, size);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? errno : EIO;
        }
        bytes += done;
        size -= (size_t)done;
    }
    return 0;
}

/* What the failed write left behind the last whole record goes away, if it can; where it cannot,
 * the reader finds a torn end. */
static bool fail(pen_capture *capture, int sys_errno, pen_error *err)
{
    capture->failed = true;
    capture->records -= capture->buffered_records;
    capture->buffered_records = 0;
    capture->buffered = 0;
    bool cut = ftruncate(capture->fd, (off_t)capture->written) == 0;
    pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno, "cannot write the captured stream \"%s\"",
                        capture->path);
    return pen_error_advise(err, cut ? "capturing ends here, the records before it are kept"
                                     : "capturing ends here, its last record is torn");
}

static bool flush(pen_capture *capture, pen_error *err)
{
    int sys_errno = write_all(capture->fd, capture->buffer, capture->buffered);
    if (sys_errno != 0) {
        return fail(capture, sys_errno, err);
    }
    capture->written += capture->buffered;
    capture->buffered = 0;
    capture->buffered_records = 0;
    return true;
}

static bool write_header(pen_capture *capture, pen_error *err)
{
    if (getrandom(&capture->header.id, sizeof(capture->header.id), 0) !=
        (ssize_t)sizeof(capture->header.id)) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot get a random number for the captured stream \"%s\"",
                                   capture->path);
    }
    capture->header.kind = PEN_SPOOL_CAPTURE;
    capture->header.segment = 1;
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&capture->header, image);
    int sys_errno = write_all(capture->fd, image, sizeof(image));
    if (sys_errno != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                                   "cannot write the captured stream \"%s\"", capture->path);
    }
    capture->written = sizeof(image);
    return true;
}

bool pen_capture_create(const char *path, const pen_spool_header *header, pen_capture **created,
                        pen_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "the captured stream's file \"%s\" exists already; name another file "
                             "or remove it",
                             path);
    }
    if (fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make the captured stream's file \"%s\"", path);
    }
    pen_capture *capture = pen_malloc(sizeof(*capture));
    memset(capture, 0, offsetof(pen_capture, buffer));
    capture->path = pen_strdup(path);
    capture->fd = fd;
    capture->header = *header;
    if (!write_header(capture, err)) {
        unlink(path);
        close(fd);
        free(capture->path);
        free(capture);
        return false;
    }
    *created = capture;
    return true;
}

/* A record larger than the buffer is put together for itself. */
static bool write_large(pen_capture *capture, const pen_spool_record *record, size_t size,
                        pen_error *err)
{
    uint8_t *bytes = pen_malloc(size);
    pen_spool_record_encode(&capture->header, capture->written, record, bytes);
    int sys_errno = write_all(capture->fd, bytes, size);
    free(bytes);
    if (sys_errno != 0) {
        return fail(capture, sys_errno, err);
    }
    capture->written += size;
    capture->records++;
    return true;
}

bool pen_capture_add(pen_capture *capture, const pen_spool_record *record, pen_error *err)
{
    size_t size = pen_spool_record_size(record->payload.len);
    if (capture->failed) {
        return true;
    }
    if (size > sizeof(capture->buffer) - capture->buffered && !flush(capture, err)) {
        return false;
    }
    if (size > sizeof(capture->buffer)) {
        return write_large(capture, record, size, err);
    }
    if (capture->buffered == 0) {
        capture->since_ms = now_ms();
    }
    pen_spool_record_encode(&capture->header, capture->written + capture->buffered, record,
                            capture->buffer + capture->buffered);
    capture->buffered += size;
    capture->buffered_records++;
    capture->records++;
    return true;
}

bool pen_capture_poll(pen_capture *capture, pen_error *err)
{
    if (capture->buffered == 0 || now_ms() - capture->since_ms < FLUSH_AFTER_MS) {
        return true;
    }
    return flush(capture, err);
}

uint64_t pen_capture_records(const pen_capture *capture)
{
    return capture->records;
}

uint64_t pen_capture_size(const pen_capture *capture)
{
    return capture->written + capture->buffered;
}

bool pen_capture_close(pen_capture *capture, pen_error *err)
{
    if (capture == NULL) {
        return true;
    }
    bool ok = flush(capture, err);
    /* Some filesystems (NFS) tell of a full disk only now. */
    if (close(capture->fd) != 0 && ok && !capture->failed) {
        ok = pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                 "cannot write the captured stream \"%s\"", capture->path);
    }
    free(capture->path);
    free(capture);
    return ok;
}
