#include "apply/statedir.h"

#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

struct pen_statedir {
    char *checkpoint;
    char *spool;
    uint64_t id;
    int lock_fd;
};

/* The lock's file holds the id: 16 hexadecimal digits and a line break. One that is not whole, as a
 * crash while it was made leaves it, is made anew. */
static bool read_id(int fd, uint64_t *id, pen_error *err)
{
    char text[18] = "";
    struct stat status;
    char rest = 0;
    if (fstat(fd, &status) != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot look at the lock file");
    }
    if (pread(fd, text, 17, 0) != 17 || sscanf(text, "%16" SCNx64 "%c", id, &rest) != 2 ||
        rest != '\n') {
        if (getrandom(id, sizeof(*id), 0) != sizeof(*id)) {
            return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot get random bytes");
        }
        snprintf(text, sizeof(text), "%016" PRIx64 "\n", *id);
        if (pwrite(fd, text, 17, 0) != 17 || ftruncate(fd, 17) != 0 || fsync(fd) != 0) {
            return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot write the lock file");
        }
    }
    *id ^= (uint64_t)status.st_ino * UINT64_C(0x9E3779B97F4A7C15);
    return true;
}

bool pen_statedir_open(const char *path, pen_statedir **dir, pen_error *err)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return pen_error_set_errno(err, PEN_ERROR_CONFIG, errno,
                                   "cannot make the state directory %s; name another one by --dir",
                                   path);
    }
    pen_text text = {0};
    pen_text_appendf(&text, "%s/lock", path);
    char *lock = pen_text_take(&text);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int open_errno = errno;
    free(lock);
    if (fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_CONFIG, open_errno,
                                   "cannot use the state directory %s; name another one by --dir",
                                   path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int lock_errno = errno;
        close(fd);
        return lock_errno == EWOULDBLOCK
                   ? pen_error_set(
                         err, PEN_ERROR_FATAL,
                         "another penstock is running with the state directory %s; stop it, or "
                         "give this stream its own --name and --dir",
                         path)
                   : pen_error_set_errno(err, PEN_ERROR_FATAL, lock_errno,
                                         "cannot lock the state directory %s", path);
    }
    uint64_t id = 0;
    if (!read_id(fd, &id, err)) {
        close(fd);
        return pen_error_context(err, "state directory %s", path);
    }
    pen_statedir *made = pen_calloc(1, sizeof(*made));
    made->lock_fd = fd;
    made->id = id;
    pen_text_appendf(&text, "%s/checkpoint", path);
    made->checkpoint = pen_text_take(&text);
    pen_text_appendf(&text, "%s/spool", path);
    made->spool = pen_text_take(&text);
    *dir = made;
    return true;
}

void pen_statedir_close(pen_statedir *dir)
{
    if (dir != NULL) {
        close(dir->lock_fd);
        free(dir->checkpoint);
        free(dir->spool);
        free(dir);
    }
}

const char *pen_statedir_checkpoint(const pen_statedir *dir)
{
    return dir->checkpoint;
}

const char *pen_statedir_spool(const pen_statedir *dir)
{
    return dir->spool;
}

uint64_t pen_statedir_id(const pen_statedir *dir)
{
    return dir->id;
}

bool pen_statedir_has_spool(const pen_statedir *dir)
{
    return access(dir->spool, F_OK) == 0;
}
