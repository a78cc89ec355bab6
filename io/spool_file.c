#include "io/spool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_SIZE ((size_t)256 * 1024)

struct pen_spool_file {
    char *path;
    int fd;
    pen_spool_header header;
    uint64_t given; /* where the record given last begins */

    /* The bytes of the file that are here and not given yet: `len` of them from buffer + start,
     * which stand at `next` in the file. */
    uint8_t *buffer;
    size_t size;
    size_t start;
    size_t len;
    uint64_t next;
};

/* Reads on until `wanted` bytes are there or the file ends; they must fit the buffer. */
static bool fill(pen_spool_file *file, size_t wanted, pen_error *err)
{
    if (file->start > 0) {
        memmove(file->buffer, file->buffer + file->start, file->len);
        file->start = 0;
    }
    while (file->len < wanted) {
        ssize_t got = read(file->fd, file->buffer + file->len, file->size - file->len);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot read \"%s\"",
                                       file->path);
        }
        if (got == 0) {
            break;
        }
        file->len += (size_t)got;
    }
    return true;
}

static bool read_header(pen_spool_file *file, pen_error *err)
{
    if (!fill(file, PEN_SPOOL_HEADER_SIZE, err)) {
        return false;
    }
    if (file->len == 0) {
        return pen_error_set(err, PEN_ERROR_FATAL, "\"%s\" is empty", file->path);
    }
    size_t len = file->len < PEN_SPOOL_HEADER_SIZE ? file->len : PEN_SPOOL_HEADER_SIZE;
    if (!pen_spool_header_decode((pen_slice){file->buffer, len}, &file->header, err)) {
        return pen_error_context(err, "\"%s\"", file->path);
    }
    file->start = PEN_SPOOL_HEADER_SIZE;
    file->len -= PEN_SPOOL_HEADER_SIZE;
    file->next = PEN_SPOOL_HEADER_SIZE;
    return true;
}

bool pen_spool_file_open(const char *path, pen_spool_file **opened, pen_error *err)
{
    pen_spool_file *file = pen_calloc(1, sizeof(*file));
    file->path = pen_strdup(path);
    struct stat status;
    /* Without O_NONBLOCK a pipe's open would wait for somebody to write into it. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &status) != 0) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot open \"%s\"", path);
        goto fail;
    }
    if (!S_ISREG(status.st_mode)) {
        pen_error_set(err, PEN_ERROR_FATAL, "\"%s\" is %s, not a file", path,
                      S_ISDIR(status.st_mode) ? "a directory" : "a device, pipe or socket");
        goto fail;
    }
    file->size = BUFFER_SIZE;
    file->buffer = pen_malloc(file->size);
    if (!read_header(file, err)) {
        goto fail;
    }
    *opened = file;
    return true;

fail:
    pen_spool_file_close(file);
    return false;
}

void pen_spool_file_close(pen_spool_file *file)
{
    if (file == NULL) {
        return;
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->buffer);
    free(file->path);
    free(file);
}

const pen_spool_header *pen_spool_file_header(const pen_spool_file *file)
{
    return &file->header;
}

uint64_t pen_spool_file_offset(const pen_spool_file *file)
{
    return file->given;
}

/* Makes room for a record of `size` bytes, if the file has as many. */
static bool make_room(pen_spool_file *file, size_t size, bool *enough, pen_error *err)
{
    struct stat status;
    *enough = true;
    if (size <= file->size) {
        return true;
    }
    if (fstat(file->fd, &status) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot look at \"%s\"",
                                   file->path);
    }
    *enough =
        (uint64_t)status.st_size >= file->next && (uint64_t)status.st_size - file->next >= size;
    if (*enough) {
        file->buffer = pen_realloc(file->buffer, size);
        file->size = size;
    }
    return true;
}

pen_spool_file_result pen_spool_file_next(pen_spool_file *file, pen_spool_record *record,
                                          pen_error *err)
{
    file->given = file->next;
    for (;;) {
        size_t size;
        pen_slice bytes = {file->buffer + file->start, file->len};
        switch (pen_spool_record_decode(&file->header, file->next, bytes, record, &size)) {
        case PEN_SPOOL_WHOLE:
            file->start += size;
            file->len -= size;
            file->next += size;
            return PEN_SPOOL_FILE_RECORD;
        case PEN_SPOOL_TORN:
            return PEN_SPOOL_FILE_TORN;
        case PEN_SPOOL_SHORT:
            break;
        }
        bool enough;
        if (!make_room(file, size, &enough, err) || (enough && !fill(file, size, err))) {
            return PEN_SPOOL_FILE_FAILED;
        }
        if (file->len < size) {
            return file->len == 0 ? PEN_SPOOL_FILE_END : PEN_SPOOL_FILE_TORN;
        }
    }
}
