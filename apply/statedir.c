#include "apply/statedir.h"

#include "core/kill_point.h"
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
    char *asked;
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

/* Behind the id stands who has the lock, or 0, for pen_statedir_take_over. */
static void note_holder(int fd, int pid)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%-20d\n", pid);
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

/* Asks once whoever has the lock: it notes who it is as soon as it can be asked, and removes what
 * was asked of those before it. */
static void ask(int lock_fd, const char *asked, int *asked_pid)
{
    char text[24] = "";
    int pid = pread(lock_fd, text, sizeof(text) - 1, ID_SIZE) > 0 ? atoi(text) : 0;
    int fd = open(asked, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool is_new = fd >= 0;
    if (is_new) {
        close(fd);
    }
    if (pid > 0 && (is_new || pid != *asked_pid) && is_penstock(pid)) {
        *asked_pid = pid;
        pen_log(PEN_LOG_INFO, "asking the penstock with pid %d to hand over", pid);
        (void)kill(pid, SIGTERM);
    }
}

/* Waits for the lock, which then is ours, and asks for it. */
static bool wait_for_lock(int fd, const char *path, int64_t wait_ms, pen_error *err)
{
    char *asked = path_in(path, "cutover");
    int64_t deadline_us = pen_now_us() + wait_ms * 1000;
    int pid = 0;
    bool ours = try_lock(fd);
    while (!ours && pen_now_us() < deadline_us) {
        ask(fd, asked, &pid);
        usleep(50 * 1000);
        ours = try_lock(fd);
    }
    free(asked);
    return ours || pen_error_set(err, PEN_ERROR_RETRY,
                                 "the penstock with pid %d, which has the state directory %s, does "
                                 "not end; stop it and start again, nothing is lost",
                                 pid, path);
}

/* The file of the lock, with the directory around it. */
static bool open_lock(const char *path, int *fd, pen_error *err)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return pen_error_set_errno(err, PEN_ERROR_CONFIG, errno,
                                   "cannot make the state directory %s; name another one by --dir",
                                   path);
    }
    char *lock = path_in(path, "lock");
    *fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int open_errno = errno;
    free(lock);
    return *fd >= 0 || pen_error_set_errno(
                           err, PEN_ERROR_CONFIG, open_errno,
                           "cannot use the state directory %s; name another one by --dir", path);
}

/* Makes the directory of a lock that is ours; takes `fd`. */
static bool make_dir(const char *path, int fd, pen_statedir **dir, pen_error *err)
{
    uint64_t id = 0;
    PEN_KILL_POINT("state-locked");
    if (!read_id(fd, &id, err)) {
        close(fd);
        return pen_error_context(err, "state directory %s", path);
    }
    pen_statedir *made = pen_calloc(1, sizeof(*made));
    made->lock_fd = fd;
    made->id = id;
    made->asked = path_in(path, "cutover");
    made->checkpoint = path_in(path, "checkpoint");
    made->spool = path_in(path, "spool");
    (void)unlink(made->asked); /* by an earlier cutover, of an earlier run */
    *dir = made;
    return true;
}

bool pen_statedir_open(const char *path, pen_statedir **dir, pen_error *err)
{
    int fd = -1;
    if (!open_lock(path, &fd, err)) {
        return false;
    }
    if (!try_lock(fd)) {
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
    if (!make_dir(path, fd, dir, err)) {
        return false;
    }
    note_holder(fd, getpid());
    PEN_KILL_POINT("state-held");
    return true;
}

bool pen_statedir_take_over(const char *path, int64_t wait_ms, pen_statedir **dir, pen_error *err)
{
    int fd = -1;
    if (!open_lock(path, &fd, err)) {
        return false;
    }
    if (!wait_for_lock(fd, path, wait_ms, err)) {
        close(fd);
        return false;
    }
    if (!make_dir(path, fd, dir, err)) {
        return false;
    }
    note_holder(fd, getpid());
    return true;
}

const char *pen_statedir_asked(const pen_statedir *dir)
{
    return dir->asked;
}

void pen_statedir_close(pen_statedir *dir)
{
    if (dir != NULL) {
        note_holder(dir->lock_fd, 0);
        close(dir->lock_fd);
        free(dir->asked);
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
