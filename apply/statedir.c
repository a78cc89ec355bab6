#include "apply/statedir.h"

#include "core/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct pen_statedir {
    char *checkpoint;
    char *spool;
    int lock_fd;
};

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
    pen_statedir *made = pen_calloc(1, sizeof(*made));
    made->lock_fd = fd;
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

bool pen_statedir_has_spool(const pen_statedir *dir)
{
    return access(dir->spool, F_OK) == 0;
}
