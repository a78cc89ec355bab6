/* A network between two programs of one machine, for kernels that have no netem. Every chunk that
 * comes in goes out a fixed time later, so the delay is added once however much is under way, and
 * costs no bandwidth; making a connection takes no longer. With a delay of 0 bytes are passed on at
 * once, which shows what the proxy itself costs. */
#include "bench/bench_proxy.h"

#include "core/base.h"
#include "core/thread.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024,
    EVENTS = 64,
    UNDER_WAY_MAX =
        64 << 20, /* bytes of one direction; as with a window, more waits in the sender's socket */
    BACKLOG = 256
};

typedef struct chunk {
    struct chunk *next;
    int64_t due_us;
    size_t size; /* 0: the end of the stream */
    size_t sent;
    uint8_t bytes[];
} chunk;

typedef struct link link_t;

/* What comes in on `from` and goes out on `to`. */
typedef struct flow {
    chunk *first;
    chunk *last;
    size_t under_way;
    bool stalled; /* the receiver's socket is full */
    bool ended;   /* the end has come in */
    bool passed;  /* and gone out */
} flow;

typedef struct end {
    link_t *link;
    int fd;
    uint32_t watched;
} end;

struct link {
    link_t *next;
    link_t *previous;
    end ends[2];   /* the client's and the server's */
    flow flows[2]; /* flows[i] comes in on ends[i] and goes out on the other */
    bool broken;
};

typedef struct proxy {
    int epoll;
    int listener;
    int timer;
    uint16_t to;
    int64_t delay_us;
    int64_t armed_us; /* what the timer is set to; 0: nothing */
    link_t *links;
    uint8_t came[CHUNK];
} proxy;

static void die(const char *what)
{
    fprintf(stderr, "penstock-bench proxy: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void drop_first(flow *of)
{
    chunk *it = of->first;
    of->first = it->next;
    if (of->first == NULL) {
        of->last = NULL;
    }
    of->under_way -= it->size;
    free(it);
}

/* An end is asked for input while there is room, and for output while its socket was full. */
static void watch(proxy *px, link_t *link, size_t side)
{
    uint32_t wanted = 0;
    if (!link->flows[side].ended && link->flows[side].under_way < UNDER_WAY_MAX) {
        wanted |= EPOLLIN;
    }
    if (link->flows[1 - side].stalled) {
        wanted |= EPOLLOUT;
    }
    if (wanted != link->ends[side].watched) {
        struct epoll_event event = {.events = wanted, .data.ptr = &link->ends[side]};
        if (epoll_ctl(px->epoll, EPOLL_CTL_MOD, link->ends[side].fd, &event) != 0) {
            die("cannot watch a socket");
        }
        link->ends[side].watched = wanted;
    }
}

/* Sends of flows[side] what is due. */
static void pass_on(link_t *link, size_t side, int64_t now_us)
{
    flow *of = &link->flows[side];
    int to = link->ends[1 - side].fd;
    of->stalled = false;
    while (of->first != NULL && of->first->due_us <= now_us && !link->broken) {
        chunk *it = of->first;
        if (it->size == 0) {
            (void)shutdown(to, SHUT_WR);
            of->passed = true;
            drop_first(of);
            return;
        }
        ssize_t sent =
            send(to, it->bytes + it->sent, it->size - it->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            of->stalled = true;
            return;
        }
        if (sent < 0 && errno != EINTR) {
            link->broken = true;
            return;
        }
        it->sent += sent > 0 ? (size_t)sent : 0;
        if (it->sent == it->size) {
            drop_first(of);
        }
    }
}

static void put_under_way(flow *of, const uint8_t *bytes, size_t size, int64_t due_us)
{
    chunk *it = pen_malloc(sizeof(*it) + size);
    *it = (chunk){.due_us = due_us, .size = size};
    if (size > 0) {
        memcpy(it->bytes, bytes, size);
    }
    of->under_way += size;
    if (of->last != NULL) {
        of->last->next = it;
    } else {
        of->first = it;
    }
    of->last = it;
}

/* Takes what has come in on ends[side]: one read, so that no link starves the others. */
static void take_in(proxy *px, link_t *link, size_t side)
{
    flow *of = &link->flows[side];
    ssize_t got = recv(link->ends[side].fd, px->came, sizeof(px->came), MSG_DONTWAIT);
    ssize_t sent = 0;
    if (got < 0) {
        link->broken = errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
        return;
    }
    of->ended = got == 0;
    if (px->delay_us == 0 && of->first == NULL && got > 0) {
        sent = send(link->ends[1 - side].fd, px->came, (size_t)got, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent == got) {
            return;
        }
        sent = sent < 0 ? 0 : sent; /* an error shows again when the rest is sent */
    }
    put_under_way(of, px->came + sent, (size_t)(got - sent), pen_now_us() + px->delay_us);
}

static void close_link(proxy *px, link_t *link)
{
    for (size_t side = 0; side < 2; side++) {
        while (link->flows[side].first != NULL) {
            drop_first(&link->flows[side]);
        }
        close(link->ends[side].fd);
    }
    if (link->previous != NULL) {
        link->previous->next = link->next;
    } else {
        px->links = link->next;
    }
    if (link->next != NULL) {
        link->next->previous = link->previous;
    }
    free(link);
}

static void open_link(proxy *px)
{
    int client = accept4(px->listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) {
        return;
    }
    struct sockaddr_in address = loopback(px->to);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0 || connect(server, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(client);
        if (server >= 0) {
            close(server);
        }
        return;
    }
    link_t *link = pen_calloc(1, sizeof(*link));
    int fds[2] = {client, server};
    for (size_t side = 0; side < 2; side++) {
        int one = 1;
        (void)setsockopt(fds[side], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        link->ends[side] = (end){.link = link, .fd = fds[side], .watched = EPOLLIN};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &link->ends[side]};
        if (epoll_ctl(px->epoll, EPOLL_CTL_ADD, fds[side], &event) != 0) {
            die("cannot watch a socket");
        }
    }
    link->next = px->links;
    if (px->links != NULL) {
        px->links->previous = link;
    }
    px->links = link;
}

/* Sends what is due, closes what is over, and sets the timer for what is due next. */
static void settle(proxy *px)
{
    int64_t now_us = pen_now_us();
    int64_t next_us = 0;
    for (link_t *link = px->links, *next = NULL; link != NULL; link = next) {
        next = link->next;
        for (size_t side = 0; side < 2; side++) {
            flow *of = &link->flows[side];
            if (of->first != NULL && !of->stalled) {
                pass_on(link, side, now_us);
            }
            if (of->first != NULL && !of->stalled &&
                (next_us == 0 || of->first->due_us < next_us)) {
                next_us = of->first->due_us;
            }
        }
        if (link->broken || (link->flows[0].passed && link->flows[1].passed)) {
            close_link(px, link);
            continue;
        }
        watch(px, link, 0);
        watch(px, link, 1);
    }
    if (next_us != px->armed_us) {
        struct itimerspec at = {
            .it_value = {.tv_sec = next_us / 1000000, .tv_nsec = next_us % 1000000 * 1000}};
        if (timerfd_settime(px->timer, TFD_TIMER_ABSTIME, &at, NULL) != 0) {
            die("cannot set the timer");
        }
        px->armed_us = next_us;
    }
}

static void handle(proxy *px, const struct epoll_event *event)
{
    if (event->data.ptr == &px->listener) {
        open_link(px);
        return;
    }
    if (event->data.ptr == &px->timer) {
        uint64_t times = 0;
        (void)!read(px->timer, &times, sizeof(times));
        px->armed_us = 0;
        return;
    }
    end *at = event->data.ptr;
    size_t side = at == &at->link->ends[0] ? 0 : 1;
    if ((event->events & EPOLLOUT) != 0) {
        at->link->flows[1 - side].stalled = false;
    }
    if ((event->events & EPOLLIN) != 0) {
        take_in(px, at->link, side);
    }
    if ((event->events & EPOLLERR) != 0 ||
        ((event->events & EPOLLHUP) != 0 && (event->events & EPOLLIN) == 0)) {
        at->link->broken = true;
    }
}

static void add_fixed(const proxy *px, int fd, void *mark)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = mark};
    if (fd < 0 || epoll_ctl(px->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        die("cannot start");
    }
}

static void start_listening(proxy *px)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    px->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (px->listener < 0 || bind(px->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(px->listener, BACKLOG) != 0 ||
        getsockname(px->listener, (struct sockaddr *)&address, &size) != 0) {
        die("cannot listen on 127.0.0.1");
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static bool read_number(const char *text, long max, long *value)
{
    char *last = NULL;
    *value = strtol(text, &last, 10);
    return last != text && *last == '\0' && *value >= 0 && *value <= max;
}

int bench_proxy(int argc, char **argv)
{
    static proxy px;
    long to = 0;
    long delay_us = 0;
    for (int i = 0; i < argc; i += 2) {
        bool known =
            i + 1 < argc &&
            ((strcmp(argv[i], "--to") == 0 && read_number(argv[i + 1], UINT16_MAX, &to)) ||
             (strcmp(argv[i], "--delay-us") == 0 && read_number(argv[i + 1], 60000000, &delay_us)));
        if (!known) {
            fprintf(
                stderr,
                "penstock-bench proxy: \"%s\" is not understood, or its value is not; see --help\n",
                argv[i]);
            return 2;
        }
    }
    if (to == 0) {
        fprintf(stderr, "penstock-bench proxy: --to PORT is needed; see --help\n");
        return 2;
    }
    px.to = (uint16_t)to;
    px.delay_us = delay_us;
    px.epoll = epoll_create1(EPOLL_CLOEXEC);
    px.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    start_listening(&px);
    add_fixed(&px, px.listener, &px.listener);
    add_fixed(&px, px.timer, &px.timer);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(px.epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) {
            die("cannot wait");
        }
        for (int i = 0; i < count; i++) {
            handle(&px, &events[i]);
        }
        settle(&px);
    }
}
