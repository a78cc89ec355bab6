#include "io/control.h"

#include "core/log.h"
#include "core/text.h"
#include "core/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MOST 32
#define CLIENT_US    (5 * 1000 * 1000)
/* After no connection could be taken because the process has no descriptor left. */
#define PAUSE_US (1000 * 1000)
#define QUEUE    64
#define REQUEST  "status"
/* An answer grows with the workers: 256 of them are some 40 kB. */
#define ANSWER_MOST ((size_t)16 << 20)

typedef struct client {
    int fd; /* -1: a free place */
    int64_t deadline_us;
    char request[64];
    size_t taken;
    char *answer; /* NULL: none yet */
    size_t size;
    size_t sent;
} client;

struct pen_control {
    pen_control_answer *give;
    void *arg;
    int dir_fd;
    struct stat file; /* of the socket, as we made it */
    int listen_fd;
    int epoll_fd;
    int64_t paused_until_us; /* 0: not */
    client clients[CLIENTS_MOST];
};

/* The address of the socket in the opened directory `dir_fd`. The kernel takes 108 bytes; what is
 * longer goes by the descriptor. */
static bool make_address(const char *dir, int dir_fd, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t room = sizeof(address->sun_path);
    int len = snprintf(address->sun_path, room, "%s/" PEN_CONTROL_NAME, dir);
    if (len >= 0 && (size_t)len < room) {
        return true;
    }
    len = snprintf(address->sun_path, room, "/proc/self/fd/%d/" PEN_CONTROL_NAME, dir_fd);
    return len >= 0 && (size_t)len < room;
}

/* Our own lock on the directory says that whoever made the socket there is gone. */
static bool remove_stale(pen_control *control, pen_error *err)
{
    struct stat status;
    if (fstatat(control->dir_fd, PEN_CONTROL_NAME, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        return true;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return pen_error_set(err, PEN_ERROR_FATAL, "something that is no socket is in its place");
    }
    return unlinkat(control->dir_fd, PEN_CONTROL_NAME, 0) == 0 ||
           pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                               "what an earlier process left cannot be removed");
}

static bool watch(const pen_control *control, int operation, int fd, uint32_t events, void *whom)
{
    struct epoll_event event = {.events = events, .data.ptr = whom};
    return epoll_ctl(control->epoll_fd, operation, fd, &event) == 0;
}

static bool make_socket(pen_control *control, const char *dir, pen_error *err)
{
    struct sockaddr_un address;
    control->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    control->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    control->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (control->dir_fd < 0 || control->epoll_fd < 0 || control->listen_fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "it cannot be made");
    }
    if (!remove_stale(control, err)) {
        return false;
    }
    /* Linux gives the file the mode that the socket has, so there is no moment in which it is
     * anybody else's. */
    if (!make_address(dir, control->dir_fd, &address) || fchmod(control->listen_fd, 0600) != 0 ||
        bind(control->listen_fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        fstatat(control->dir_fd, PEN_CONTROL_NAME, &control->file, AT_SYMLINK_NOFOLLOW) != 0 ||
        fchmodat(control->dir_fd, PEN_CONTROL_NAME, 0600, 0) != 0 ||
        listen(control->listen_fd, QUEUE) != 0 ||
        !watch(control, EPOLL_CTL_ADD, control->listen_fd, EPOLLIN, NULL)) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "it cannot be made");
    }
    return true;
}

bool pen_control_open(const char *dir, pen_control_answer *answer, void *arg, pen_control **control,
                      pen_error *err)
{
    pen_control *made = pen_calloc(1, sizeof(*made));
    made->give = answer;
    made->arg = arg;
    made->dir_fd = -1;
    made->listen_fd = -1;
    made->epoll_fd = -1;
    for (size_t i = 0; i < CLIENTS_MOST; i++) {
        made->clients[i].fd = -1;
    }
    if (!make_socket(made, dir, err)) {
        pen_control_close(made);
        return pen_error_context(err, "control socket %s/" PEN_CONTROL_NAME, dir);
    }
    *control = made;
    return true;
}

static void drop(client *it)
{
    if (it->fd >= 0) {
        close(it->fd); /* which takes it out of epoll, too */
        free(it->answer);
        *it = (client){.fd = -1};
    }
}

/* While we have the socket open, no other file gets its number. */
static bool is_ours(const pen_control *control)
{
    struct stat there;
    return control->file.st_ino != 0 &&
           fstatat(control->dir_fd, PEN_CONTROL_NAME, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
           there.st_dev == control->file.st_dev && there.st_ino == control->file.st_ino;
}

void pen_control_close(pen_control *control)
{
    if (control == NULL) {
        return;
    }
    for (size_t i = 0; i < CLIENTS_MOST; i++) {
        drop(&control->clients[i]);
    }
    if (is_ours(control)) {
        (void)unlinkat(control->dir_fd, PEN_CONTROL_NAME, 0);
    }
    const int fds[] = {control->listen_fd, control->epoll_fd, control->dir_fd};
    for (size_t i = 0; i < PEN_COUNTOF(fds); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    free(control);
}

int pen_control_fd(const pen_control *control)
{
    return control->epoll_fd;
}

/* Taking connections */

static bool is_allowed(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && size == sizeof(peer) &&
           (peer.uid == geteuid() || peer.uid == 0);
}

/* A free place; else that of whoever is there longest. */
static client *make_room(pen_control *control)
{
    client *oldest = &control->clients[0];
    for (size_t i = 0; i < CLIENTS_MOST; i++) {
        client *it = &control->clients[i];
        if (it->fd < 0) {
            return it;
        }
        oldest = it->deadline_us < oldest->deadline_us ? it : oldest;
    }
    drop(oldest);
    return oldest;
}

static void take_connections(pen_control *control)
{
    for (;;) {
        int fd = accept4(control->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                /* Those that wait would be told of again and again. */
                control->paused_until_us = pen_now_us() + PAUSE_US;
                (void)watch(control, EPOLL_CTL_MOD, control->listen_fd, 0, NULL);
                return;
            }
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return;
        }
        if (!is_allowed(fd)) {
            close(fd);
            continue;
        }
        client *it = make_room(control);
        *it = (client){.fd = fd, .deadline_us = pen_now_us() + CLIENT_US};
        if (!watch(control, EPOLL_CTL_ADD, fd, EPOLLIN, it)) {
            drop(it);
        }
    }
}

/* One client */

static void send_answer(pen_control *control, client *it)
{
    while (it->sent < it->size) {
        ssize_t sent =
            send(it->fd, it->answer + it->sent, it->size - it->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0 && errno == EAGAIN && watch(control, EPOLL_CTL_MOD, it->fd, EPOLLOUT, it)) {
            return;
        }
        if (sent < 0) {
            break;
        }
        it->sent += (size_t)sent;
    }
    drop(it);
}

static void answer(pen_control *control, client *it)
{
    bool known = strcmp(it->request, REQUEST) == 0;
    it->answer = known ? control->give(control->arg)
                       : pen_strdup("{\"error\":\"the only question is " REQUEST "\"}");
    it->size = strlen(it->answer);
    send_answer(control, it);
}

static void take_request(pen_control *control, client *it)
{
    for (;;) {
        size_t room = sizeof(it->request) - 1 - it->taken;
        ssize_t got = room == 0 ? 0 : recv(it->fd, it->request + it->taken, room, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0 && errno == EAGAIN) {
            return;
        }
        if (got <= 0) {
            drop(it); /* it has hung up, or says too much */
            return;
        }
        it->taken += (size_t)got;
        char *end = memchr(it->request, '\n', it->taken);
        if (end != NULL) {
            *end = '\0';
            answer(control, it);
            return;
        }
    }
}

/* The thread's part */

int pen_control_timeout_ms(const pen_control *control)
{
    int64_t first_us = control->paused_until_us == 0 ? INT64_MAX : control->paused_until_us;
    for (size_t i = 0; i < CLIENTS_MOST; i++) {
        const client *it = &control->clients[i];
        if (it->fd >= 0 && it->deadline_us < first_us) {
            first_us = it->deadline_us;
        }
    }
    int64_t left_us = first_us - pen_now_us();
    return first_us == INT64_MAX ? -1 : left_us <= 0 ? 0 : (int)(left_us / 1000) + 1;
}

static void expire(pen_control *control)
{
    int64_t now_us = pen_now_us();
    for (size_t i = 0; i < CLIENTS_MOST; i++) {
        client *it = &control->clients[i];
        if (it->fd >= 0 && it->deadline_us <= now_us) {
            drop(it);
        }
    }
    if (control->paused_until_us != 0 && control->paused_until_us <= now_us) {
        control->paused_until_us = 0;
        (void)watch(control, EPOLL_CTL_MOD, control->listen_fd, EPOLLIN, NULL);
    }
}

void pen_control_turn(pen_control *control)
{
    struct epoll_event events[CLIENTS_MOST + 1];
    int count = epoll_wait(control->epoll_fd, events, (int)PEN_COUNTOF(events), 0);
    bool more = false;
    for (int i = 0; i < count; i++) {
        client *it = events[i].data.ptr;
        if (it == NULL) {
            more = true;
        } else if (it->answer != NULL) {
            send_answer(control, it);
        } else {
            take_request(control, it);
        }
    }
    /* Last, because it may drop somebody of whom an event tells. */
    if (more) {
        take_connections(control);
    }
    expire(control);
}

/* The other side */

/* Waits for `events` until the deadline; false when it has passed. */
static bool wait_for(int fd, short events, int64_t deadline_us)
{
    struct pollfd it = {.fd = fd, .events = events};
    int64_t left_us = deadline_us - pen_now_us();
    return left_us > 0 && poll(&it, 1, (int)(left_us / 1000) + 1) > 0;
}

static bool too_late(const char *dir, pen_error *err)
{
    return pen_error_set(err, PEN_ERROR_RETRY,
                         "the penstock with the state directory %s does not answer; is it stopped, "
                         "or its machine out of breath?",
                         dir);
}

static pen_control_result connect_to(const char *dir, int dir_fd, int fd, int64_t deadline_us,
                                     pen_error *err)
{
    struct sockaddr_un address;
    if (!make_address(dir, dir_fd, &address)) {
        return PEN_CONTROL_NOBODY;
    }
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTSOCK) {
            return PEN_CONTROL_NOBODY;
        }
        if (errno != EAGAIN && errno != EINTR) {
            pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                "cannot ask the penstock with the state directory %s; only the "
                                "user who runs it may",
                                dir);
            return PEN_CONTROL_FAILED;
        }
        if (pen_now_us() > deadline_us) {
            too_late(dir, err);
            return PEN_CONTROL_FAILED;
        }
        (void)poll(NULL, 0, 10); /* its queue is full */
    }
    return PEN_CONTROL_ANSWERED;
}

static bool read_answer(const char *dir, int fd, int64_t deadline_us, char **given, pen_error *err)
{
    size_t size = 0;
    size_t room = 0;
    char *text = NULL;
    for (;;) {
        if (room - size < 4096 && room < ANSWER_MOST) {
            room = room * 2 + 16384;
            text = pen_realloc(text, room);
        }
        ssize_t got = recv(fd, text + size, room - size - 1, MSG_DONTWAIT);
        if (got == 0) {
            break;
        }
        if (got > 0) {
            size += (size_t)got;
        } else if ((errno != EAGAIN && errno != EINTR) || !wait_for(fd, POLLIN, deadline_us)) {
            free(text);
            return too_late(dir, err);
        }
    }
    text[size] = '\0';
    *given = text;
    return true;
}

pen_control_result pen_control_ask(const char *dir, int timeout_ms, char **given, pen_error *err)
{
    int64_t deadline_us = pen_now_us() + (int64_t)timeout_ms * 1000;
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    pen_control_result result = PEN_CONTROL_NOBODY;
    if (dir_fd >= 0 && fd >= 0) {
        result = connect_to(dir, dir_fd, fd, deadline_us, err);
    }
    if (result == PEN_CONTROL_ANSWERED &&
        (send(fd, REQUEST "\n", strlen(REQUEST) + 1, MSG_NOSIGNAL) < 0 ||
         !read_answer(dir, fd, deadline_us, given, err))) {
        too_late(dir, err);
        result = PEN_CONTROL_FAILED;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    return result;
}
