#include "io/spool_segments.h"

#include "core/kill_point.h"
#include "core/log.h"
#include "io/spool_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS 16u
#define ENDING ".spool"

/* What an operator can do about a spool that is not whole: the same in all cases. */
#define PUT_BACK                                                                                   \
    "put the spool's files back as they were; if they are lost, what was in them is lost for the " \
    "target: move the directory away and set the target up anew"

bool pen_spool_is_no_space(int sys_errno)
{
    return sys_errno == ENOSPC || sys_errno == EDQUOT;
}

/* ---- names and the list ---- */

const char *pen_spool_segments_path(const pen_spool_segments *segments, uint64_t number)
{
    snprintf(segments->path, segments->path_size, "%s/%s-%016llx" ENDING, segments->dir,
             segments->name, (unsigned long long)number);
    return segments->path;
}

static const char *file_name(const pen_spool_segments *segments, uint64_t number)
{
    return pen_spool_segments_path(segments, number) + strlen(segments->dir) + 1;
}

/* The number in a segment's file name; 0 when `file` is none of this spool's. */
static uint64_t number_of(const pen_spool_segments *segments, const char *file)
{
    size_t len = strlen(segments->name);
    if (strncmp(file, segments->name, len) != 0 || file[len] != '-' ||
        strlen(file) != len + 1 + DIGITS + strlen(ENDING)) {
        return 0;
    }
    uint64_t number = strtoull(file + len + 1, NULL, 16);
    return number > 0 && strcmp(file, file_name(segments, number)) == 0 ? number : 0;
}

pen_spool_segment *pen_spool_segments_find(const pen_spool_segments *segments, uint64_t number)
{
    if (segments->count == 0 || number < segments->list[0].header.segment ||
        number - segments->list[0].header.segment >= segments->count) {
        return NULL;
    }
    return &segments->list[number - segments->list[0].header.segment];
}

pen_spool_segment *pen_spool_segments_last(const pen_spool_segments *segments)
{
    return segments->count == 0 ? NULL : &segments->list[segments->count - 1];
}

static void add(pen_spool_segments *segments, const pen_spool_header *header, uint64_t size)
{
    if (segments->list == NULL || segments->count == segments->capacity) {
        segments->capacity = segments->capacity == 0 ? 16 : segments->capacity * 2;
        segments->list =
            pen_realloc(segments->list, segments->capacity * sizeof(segments->list[0]));
    }
    segments->list[segments->count++] = (pen_spool_segment){.header = *header, .size = size};
}

static bool sync_directory(pen_spool_segments *segments, pen_error *err)
{
    if (fsync(segments->dir_fd) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make the directory \"%s\" durable; see to the disk",
                                   segments->dir);
    }
    segments->unlinked = false;
    return true;
}

static bool delete_file(pen_spool_segments *segments, uint64_t number, pen_error *err)
{
    if (unlinkat(segments->dir_fd, file_name(segments, number), 0) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot delete the spool segment \"%s\"",
                                   pen_spool_segments_path(segments, number));
    }
    segments->unlinked = true;
    return true;
}

/* ---- opening ---- */

static bool open_directory(pen_spool_segments *segments, pen_error *err)
{
    bool made = mkdir(segments->dir, 0700) == 0;
    if (!made && errno != EEXIST) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make the directory \"%s\" of the spool", segments->dir);
    }
    segments->dir_fd = open(segments->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (segments->dir_fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot open the directory \"%s\" of the spool", segments->dir);
    }
    if (!made || !segments->durable) {
        return true;
    }
    int parent = openat(segments->dir_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = parent >= 0 && fsync(parent) == 0;
    int sys_errno = errno;
    if (parent >= 0) {
        close(parent);
    }
    return synced ||
           pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                               "cannot make the directory of \"%s\" durable; see to the disk",
                               segments->dir);
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Gives the numbers of the segments that are there, in order. */
static bool list_numbers(pen_spool_segments *segments, uint64_t **numbers, size_t *count,
                         pen_error *err)
{
    size_t capacity = 0;
    *numbers = NULL;
    *count = 0;
    DIR *dir = opendir(segments->dir);
    struct dirent *entry = NULL;
    while (dir != NULL && (errno = 0, entry = readdir(dir)) != NULL) {
        uint64_t number = number_of(segments, entry->d_name);
        if (number == 0) {
            continue;
        }
        if (*count == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            *numbers = pen_realloc(*numbers, capacity * sizeof(**numbers));
        }
        (*numbers)[(*count)++] = number;
    }
    int sys_errno = errno;
    if (dir != NULL) {
        closedir(dir);
    }
    if (dir == NULL || sys_errno != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                                   "cannot read the directory \"%s\" of the spool", segments->dir);
    }
    if (*count > 0) {
        qsort(*numbers, *count, sizeof(**numbers), compare_numbers);
    }
    return true;
}

static bool differs(const char *path, const char *what, const char *there, const char *here,
                    pen_error *err)
{
    return pen_error_set(err, PEN_ERROR_FATAL,
                         "the spool segment \"%s\" is of another stream: its %s is \"%s\", this "
                         "one's is \"%s\"; give this stream a directory of its own, or move the "
                         "other spool away",
                         path, what, there, here);
}

static bool check_identity(const pen_spool_segments *segments, const pen_spool_header *there,
                           uint64_t number, const char *path, pen_error *err)
{
    const pen_spool_header *here = &segments->header;
    if (there->system_identifier != here->system_identifier) {
        char left[24];
        char right[24];
        snprintf(left, sizeof(left), "%llu", (unsigned long long)there->system_identifier);
        snprintf(right, sizeof(right), "%llu", (unsigned long long)here->system_identifier);
        return differs(path, "source's system identifier", left, right, err);
    }
    if (strcmp(there->database, here->database) != 0) {
        return differs(path, "source's database", there->database, here->database, err);
    }
    if (strcmp(there->slot, here->slot) != 0) {
        return differs(path, "slot", there->slot, here->slot, err);
    }
    if (strcmp(there->encoding, here->encoding) != 0) {
        return differs(path, "encoding", there->encoding, here->encoding, err);
    }
    if (there->kind != here->kind) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "\"%s\" is a file of another kind (%d, not %d); move it away", path,
                             (int)there->kind, (int)here->kind);
    }
    if (there->segment != number || (segments->count > 0 && there->id != here->id)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the spool segment \"%s\" belongs elsewhere: it says to be segment "
                             "%llu of spool %016llx, among those of %016llx; " PUT_BACK,
                             path, (unsigned long long)there->segment,
                             (unsigned long long)there->id, (unsigned long long)here->id);
    }
    return true;
}

/* Reads all of a segment and adds it to the list. `fd` is its file to be cut where it is torn, -1
 * where it must be whole. */
static bool read_segment(pen_spool_segments *segments, uint64_t number, int fd, pen_error *err)
{
    const char *path = pen_spool_segments_path(segments, number);
    pen_spool_file *file;
    pen_spool_file_result result = PEN_SPOOL_FILE_FAILED;
    pen_spool_record record;
    if (!pen_spool_file_open(path, &file, err)) {
        return pen_error_advise(err, PUT_BACK);
    }
    const pen_spool_header header = *pen_spool_file_header(file);
    if (!check_identity(segments, &header, number, path, err)) {
        goto done;
    }
    do {
        result = pen_spool_file_next(file, &record, err);
    } while (result == PEN_SPOOL_FILE_RECORD);
    uint64_t end = pen_spool_file_offset(file);
    struct stat status = {.st_size = 0};
    if (result == PEN_SPOOL_FILE_TORN && fd < 0) {
        result = PEN_SPOOL_FILE_FAILED;
        pen_error_set(err, PEN_ERROR_FATAL,
                      "the spool segment \"%s\" is damaged at byte %llu, and it is not the last "
                      "one; " PUT_BACK,
                      path, (unsigned long long)end);
    } else if (result == PEN_SPOOL_FILE_TORN) {
        if (fstat(fd, &status) != 0 || ftruncate(fd, (off_t)end) != 0 || fsync(fd) != 0) {
            result = PEN_SPOOL_FILE_FAILED;
            pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                "cannot cut the torn tail of the spool segment \"%s\"", path);
            goto done;
        }
        pen_log(PEN_LOG_WARN,
                "the spool segment \"%s\" ended in a torn tail of %llu bytes, behind byte %llu, as "
                "a crash leaves it: cut off",
                path, (unsigned long long)status.st_size - end, (unsigned long long)end);
    }
    segments->header.id = header.id;
    add(segments, &header, end);
done:
    pen_spool_file_close(file);
    return result == PEN_SPOOL_FILE_END || result == PEN_SPOOL_FILE_TORN;
}

/* Opens the last segment to be written on; what it holds is then what the disk holds. */
static bool open_last(const pen_spool_segments *segments, uint64_t number, int *fd, pen_error *err)
{
    const char *path = pen_spool_segments_path(segments, number);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (*fd < 0 || fstat(*fd, &status) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot open the spool segment \"%s\"", path);
    }
    if (!S_ISREG(status.st_mode)) {
        return pen_error_set(err, PEN_ERROR_FATAL, "\"%s\" is not a regular file; move it away",
                             path);
    }
    /* A process that died may have left bytes that only the kernel has, and, where a flush failed,
     * pages that look clean and are not on disk: these are forgotten, and read from there. */
    if (fsync(*fd) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make the spool segment \"%s\" durable; see to the disk",
                                   path);
    }
    (void)posix_fadvise(*fd, 0, 0, POSIX_FADV_DONTNEED);
    return true;
}

/* True when the file is no more than what a crash leaves of a segment that is being made: at most a
 * header, and that not whole. */
static bool is_half_made(int fd)
{
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header header;
    pen_error err;
    struct stat status;
    if (fstat(fd, &status) != 0 || status.st_size > (off_t)sizeof(image)) {
        return false;
    }
    ssize_t size = pread(fd, image, sizeof(image), 0);
    return size == status.st_size &&
           !pen_spool_header_decode((pen_slice){image, (size_t)size}, &header, &err);
}

/* Opens the last of `*count` segments; one that was never finished is deleted, and the one before
 * it, which was durable before that was begun, is the last. *whole tells that. */
static bool settle_last(pen_spool_segments *segments, const uint64_t *numbers, size_t *count,
                        int *fd, bool *whole, pen_error *err)
{
    *whole = false;
    if (*count == 0) {
        return true;
    }
    uint64_t last = numbers[*count - 1];
    if (!open_last(segments, last, fd, err)) {
        return false;
    }
    if (!is_half_made(*fd)) {
        return true;
    }
    pen_log(PEN_LOG_WARN,
            "the spool segment \"%s\" has no whole header, as a crash leaves a torn one: deleted",
            pen_spool_segments_path(segments, last));
    close(*fd);
    *fd = -1;
    (*count)--;
    *whole = true;
    return delete_file(segments, last, err) && sync_directory(segments, err) &&
           (*count == 0 || open_last(segments, numbers[*count - 1], fd, err));
}

static bool recover(pen_spool_segments *segments, const uint64_t *numbers, size_t count, int *fd,
                    pen_error *err)
{
    bool whole;
    if (!settle_last(segments, numbers, &count, fd, &whole, err)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && numbers[i] != numbers[i - 1] + 1) {
            return pen_error_set(err, PEN_ERROR_FATAL,
                                 "the spool segment \"%s\" is missing, though there are others "
                                 "before and behind it; " PUT_BACK,
                                 pen_spool_segments_path(segments, numbers[i - 1] + 1));
        }
        bool may_be_torn = i == count - 1 && !whole;
        if (!read_segment(segments, numbers[i], may_be_torn ? *fd : -1, err)) {
            return false;
        }
    }
    return count == 0 || sync_directory(segments, err);
}

bool pen_spool_peek(const char *dir, const char *name, pen_spool_header *header)
{
    pen_spool_segments segments = {.dir_fd = -1, .dir = pen_strdup(dir), .name = pen_strdup(name)};
    segments.path_size = strlen(dir) + strlen(name) + DIGITS + sizeof(ENDING) + 3;
    segments.path = pen_malloc(segments.path_size);
    uint64_t *numbers = NULL;
    size_t count = 0;
    pen_error ignored;
    pen_spool_file *file = NULL;
    if (list_numbers(&segments, &numbers, &count, &ignored) && count > 0 &&
        pen_spool_file_open(pen_spool_segments_path(&segments, numbers[0]), &file, &ignored)) {
        *header = *pen_spool_file_header(file);
    }
    bool found = file != NULL;
    pen_spool_file_close(file);
    free(numbers);
    pen_spool_segments_close(&segments);
    return found;
}

bool pen_spool_segments_open(pen_spool_segments *segments, const pen_spool_options *options,
                             int *fd, pen_error *err)
{
    *fd = -1;
    *segments = (pen_spool_segments){.dir_fd = -1};
    segments->dir = pen_strdup(options->dir);
    segments->name = pen_strdup(options->name);
    segments->path_size =
        strlen(options->dir) + strlen(options->name) + DIGITS + sizeof(ENDING) + 3;
    segments->path = pen_malloc(segments->path_size);
    segments->durable = options->durable;
    segments->header = options->header;
    uint64_t *numbers = NULL;
    size_t count = 0;
    bool good = open_directory(segments, err) && list_numbers(segments, &numbers, &count, err);
    if (good && segments->durable) {
        good = recover(segments, numbers, count, fd, err);
    }
    for (size_t i = 0; good && !segments->durable && i < count; i++) {
        good = delete_file(segments, numbers[i], err);
    }
    free(numbers);
    if (!good && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    return good;
}

void pen_spool_segments_close(pen_spool_segments *segments)
{
    if (segments->dir_fd >= 0) {
        close(segments->dir_fd);
    }
    free(segments->dir);
    free(segments->name);
    free(segments->path);
    free(segments->list);
}

/* ---- making and deleting ---- */

static bool write_header(int fd, const pen_spool_header *header)
{
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(header, image);
    for (size_t at = 0; at < sizeof(image);) {
        ssize_t done = pwrite(fd, image + at, sizeof(image) - at, (off_t)at);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            errno = done < 0 ? errno : EIO;
            return false;
        }
        at += (size_t)done;
    }
    return true;
}

bool pen_spool_segments_make(pen_spool_segments *segments, pen_lsn start_lsn, int *fd, bool *made,
                             pen_error *err)
{
    const pen_spool_segment *last = pen_spool_segments_last(segments);
    pen_spool_header header = segments->header;
    header.segment = last == NULL ? 1 : last->header.segment + 1;
    header.start_lsn = start_lsn;
    *made = false;
    if (last == NULL && getrandom(&header.id, sizeof(header.id), 0) != sizeof(header.id)) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make an id for the spool in \"%s\"", segments->dir);
    }
    const char *file = file_name(segments, header.segment);
    *fd = openat(segments->dir_fd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = *fd >= 0;
    PEN_KILL_POINT("segment-empty");
    good = good && write_header(*fd, &header) && (!segments->durable || fsync(*fd) == 0);
    PEN_KILL_POINT("segment-made");
    good = good && (!segments->durable || fsync(segments->dir_fd) == 0);
    int sys_errno = good ? 0 : errno;
    if (good) {
        segments->unlinked = segments->unlinked && !segments->durable;
        segments->header.id = header.id;
        add(segments, &header, PEN_SPOOL_HEADER_SIZE);
        *made = true;
        return true;
    }
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
        /* For good: the segment before it goes on growing, and may be torn only while it is the
         * last. */
        if (!delete_file(segments, header.segment, err) ||
            (segments->durable && !sync_directory(segments, err))) {
            return false;
        }
    }
    return pen_spool_is_no_space(sys_errno) ||
           pen_error_set_errno(err, PEN_ERROR_FATAL, sys_errno,
                               "cannot make the spool segment \"%s\"",
                               pen_spool_segments_path(segments, header.segment));
}

bool pen_spool_segments_trim(pen_spool_segments *segments, uint64_t number, pen_error *err)
{
    size_t gone = 0;
    bool good = true;
    while (good && gone + 1 < segments->count && segments->list[gone].header.segment < number) {
        /* One after the other on disk too, or a crash could leave a gap. */
        PEN_KILL_POINT("trim-before");
        good = (!segments->unlinked || !segments->durable || sync_directory(segments, err)) &&
               delete_file(segments, segments->list[gone].header.segment, err);
        PEN_KILL_POINT("trim-after");
        gone += good;
    }
    if (gone > 0) {
        segments->count -= gone;
        memmove(segments->list, segments->list + gone, segments->count * sizeof(segments->list[0]));
    }
    return good;
}

void pen_spool_segments_remove(pen_spool_segments *segments)
{
    pen_error err;
    for (size_t i = 0; i < segments->count; i++) {
        if (!delete_file(segments, segments->list[i].header.segment, &err)) {
            pen_log(PEN_LOG_WARN, "%s", err.text);
        }
    }
    /* One that came back after a crash of the machine would be taken for the newest. */
    if (segments->durable && !sync_directory(segments, &err)) {
        pen_log(PEN_LOG_WARN, "%s", err.text);
    }
}
