#include "io/subprocess.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What of its last words an error shows. */
#define SHOWN_BYTES 1200

typedef struct gathered {
    char *data;
    size_t len;
    size_t capacity;
} gathered;

static size_t count_of(const char *const *list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL) {
        count++;
    }
    return count;
}

static bool is_replaced(const char *setting, const char *const *env)
{
    size_t name = strcspn(setting, "=") + 1;
    for (size_t i = 0; i < count_of(env); i++) {
        if (strncmp(env[i], setting, name) == 0) {
            return true;
        }
    }
    return strncmp(setting, "PENSTOCK_", 9) == 0;
}

/* An array of borrowed strings; the array is given. */
static char **make_environment(const char *const *env)
{
    size_t ours = count_of((const char *const *)environ);
    size_t more = count_of(env);
    size_t used = 0;
    char **made = pen_calloc(ours + more + 1, sizeof(*made));
    for (size_t i = 0; i < ours; i++) {
        if (!is_replaced(environ[i], env)) {
            made[used++] = environ[i];
        }
    }
    for (size_t i = 0; i < more; i++) {
        made[used++] = (char *)(uintptr_t)env[i];
    }
    return made;
}

static char **make_arguments(const pen_subprocess *spec)
{
    size_t count = count_of(spec->args);
    char **made = pen_calloc(count + 2, sizeof(*made));
    made[0] = (char *)(uintptr_t)spec->path;
    for (size_t i = 0; i < count; i++) {
        made[i + 1] = (char *)(uintptr_t)spec->args[i];
    }
    return made;
}

static bool spawn(const pen_subprocess *spec, const int out[2], const int said[2], pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t plain;
    sigemptyset(&none);
    sigemptyset(&plain);
    sigaddset(&plain, SIGPIPE); /* which we ignore */
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, said[1], STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &plain);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    char **args = make_arguments(spec);
    char **env = make_environment(spec->env);
    int rc = posix_spawn(pid, spec->path, &actions, &attributes, args, env);
    free(args);
    free(env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    errno = rc;
    return rc == 0;
}

/* Takes what the pipe has; false at its end. */
static bool gather(int fd, gathered *into)
{
    if (into->capacity - into->len < 65536) {
        into->capacity = into->capacity == 0 ? 131072 : into->capacity * 2;
        into->data = pen_realloc(into->data, into->capacity);
    }
    ssize_t got = read(fd, into->data + into->len, into->capacity - into->len - 1);
    if (got > 0) {
        into->len += (size_t)got;
    }
    into->data[into->len] = '\0';
    return got > 0 || (got < 0 && errno == EINTR);
}

static void gather_both(int out_fd, int said_fd, gathered *out, gathered *said)
{
    struct pollfd fds[2] = {{.fd = out_fd, .events = POLLIN}, {.fd = said_fd, .events = POLLIN}};
    gathered *into[2] = {out, said};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        (void)poll(fds, 2, -1);
        for (int i = 0; i < 2; i++) {
            if (fds[i].fd >= 0 && fds[i].revents != 0 && !gather(fds[i].fd, into[i])) {
                fds[i].fd = -1;
            }
        }
    }
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* The end of what it said on one line. */
static void last_words(const gathered *said, char *words)
{
    size_t from = said->len > SHOWN_BYTES ? said->len - SHOWN_BYTES : 0;
    size_t used = 0;
    for (size_t i = from; i < said->len; i++) {
        bool blank = strchr("\n\r\t ", said->data[i]) != NULL;
        if (!blank || (used > 0 && words[used - 1] != ' ')) {
            words[used++] = blank ? ' ' : said->data[i];
        }
    }
    words[used] = '\0';
}

static bool judge(const pen_subprocess *spec, int status, const gathered *said, pen_error *err)
{
    char words[SHOWN_BYTES + 1] = "";
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return true;
    }
    if (said->len > 0) {
        last_words(said, words);
    }
    return pen_error_set(err, PEN_ERROR_FATAL, "%s failed (%s %d): %s", base_name(spec->path),
                         WIFSIGNALED(status) ? "signal" : "exit code",
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), words);
}

bool pen_subprocess_run(const pen_subprocess *spec, char **out, char **said, pen_error *err)
{
    int out_pipe[2];
    int said_pipe[2] = {-1, -1};
    pid_t pid = 0;
    gathered outs = {.data = pen_calloc(1, 1)};
    gathered words = {.data = pen_calloc(1, 1)};
    *out = NULL;
    *said = NULL;
    if (pipe2(out_pipe, O_CLOEXEC) != 0) {
        free(outs.data);
        free(words.data);
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot make a pipe");
    }
    bool ok = pipe2(said_pipe, O_CLOEXEC) == 0;
    if (!ok) {
        pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot make a pipe");
    } else {
        ok = spawn(spec, out_pipe, said_pipe, &pid);
        if (!ok) {
            pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot run %s", spec->path);
        }
        close(said_pipe[1]);
    }
    close(out_pipe[1]);
    if (ok) {
        int status = 0;
        gather_both(out_pipe[0], said_pipe[0], &outs, &words);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        ok = judge(spec, status, &words, err);
    }
    close(out_pipe[0]);
    if (said_pipe[0] >= 0) {
        close(said_pipe[0]);
    }
    *out = outs.data;
    *said = words.data;
    return ok;
}
