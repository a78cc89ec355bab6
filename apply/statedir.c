#include "apply/statedir.h"

#include "core/log.h"
#include "core/text.h"
#include "core/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* 16 hexadecimal digits and a line break. */
#define ID_SIZE 17

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
        if (pwrite(fd, text, 17, 0) != 17 || ftruncate(fd, ID_SIZE) != 0 || fsync(fd) != 0) {
            return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot write the lock file");
        }
    }
    *id ^= (uint64_t)status.st_ino * UINT64_C(0x9E3779B97F4A7C15);
    return true;
}

/* Behind the id stands who has the lock, for pen_statedir_take_over. */
static void note_holder(int fd)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%-20d\n", (int)getpid());
    (void)!pwrite(fd, text, (size_t)len, ID_SIZE);
}

static char *path_in(const char *path, const char *name)
{
    pen_text text = {0};
    pen_text_appendf(&text, "%s/%s", path, name);
    return pen_text_take(&text);
}

/* True for a process that runs our program: a pid can have been given to another since. */
static bool is_penstock(int pid)
{
    char path[40];
    char name[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    FILE *file = fopen(path, "re");
    bool ok = file != NULL && fgets(name, sizeof(name), file) != NULL &&
              strncmp(name, "penstock", 8) == 0;
    if (file != NULL) {
        fclose(file);
    }
    return ok;
}

static bool try_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

bool pen_statedir_take_over(const char *path, int64_t wait_ms, pen_error *err)
{
    char *lock = path_in(path, "lock");
    char *asked = path_in(path, "cutover");
    char text[24] = "";
    int fd = open(lock, O_RDWR | O_CLOEXEC);
    bool gone = fd < 0 || try_lock(fd);
    int64_t deadline_us = pen_now_us() + wait_ms * 1000;
    int pid = 0;
    if (!gone) {
        int asked_fd = open(asked, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (asked_fd >= 0) {
            close(asked_fd);
        }
        pid = pread(fd, text, sizeof(text) - 1, ID_SIZE) > 0 ? atoi(text) : 0;
        if (pid > 0 && is_penstock(pid)) {
            pen_log(PEN_LOG_INFO, "asking the penstock with pid %d to hand over", pid);
            (void)kill(pid, SIGTERM);
        }
    }
    while (!gone && pen_now_us() < deadline_us) {
        usleep(50 * 1000);
        gone = try_lock(fd);
    }
    if (fd >= 0) {
        close(fd);
    }
    free(lock);
    free(asked);
    return gone || pen_error_set(err, PEN_ERROR_RETRY,
                                 "the penstock with pid %d, which has the state directory %s, does "
                                 "not end; stop it and start again, nothing is lost",
                                 pid, path);
}

bool pen_statedir_was_asked(const char *path)
{
    char *asked = path_in(path, "cutover");
    bool is_there = access(asked, F_OK) == 0;
    free(asked);
    return is_there;
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
    note_holder(fd);
    char *asked = path_in(path, "cutover");
    (void)unlink(asked); /* by an earlier cutover, of an earlier run */
    free(asked);
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
