#include "io/http.h"

#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MOST 128u
/* A connection that says nothing for so long is closed: a browser's next poll makes another. */
#define SILENT_SECONDS    5u
#define CONNECTION_MEMORY ((size_t)16 << 10)
#define QUEUE             64

struct pen_http {
    pen_http_handler *handler;
    void *arg;
    bool loopback;
    int epoll_fd; /* the daemon's */
    struct MHD_Daemon *daemon;
};

static const char plain[] = "text/plain; charset=utf-8";

static void say(pen_http_answer *answer, unsigned status, const char *text)
{
    answer->status = status;
    answer->type = plain;
    answer->body = pen_strdup(text);
    answer->size = strlen(text);
}

/* The page may load nothing from elsewhere, and stand in nobody's frame. */
static const struct {
    const char *name;
    const char *value;
} headers[] = {
    {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Content-Security-Policy",
     "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src "
     "'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
};

static enum MHD_Result send_answer(struct MHD_Connection *connection, pen_http_answer *answer)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(answer->size, answer->body, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(answer->body);
        return MHD_NO;
    }
    bool ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
    for (size_t i = 0; ok && i < PEN_COUNTOF(headers); i++) {
        ok = MHD_add_response_header(response, headers[i].name, headers[i].value);
    }
    if (ok && answer->status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        ok = MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    enum MHD_Result result = ok ? MHD_queue_response(connection, answer->status, response) : MHD_NO;
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result handle(void *arg, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_size, void **state)
{
    const pen_http *http = arg;
    pen_http_answer answer = {0};
    (void)version;
    (void)upload;
    *upload_size = 0; /* what is sent along is of no interest */
    (void)state;
    const char *host =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        say(&answer, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    } else if (http->loopback && host != NULL && !pen_address_names_loopback(host)) {
        say(&answer, MHD_HTTP_FORBIDDEN,
            "this server is only for its own machine, by the name localhost or its address\n");
    } else {
        http->handler(http->arg, url, &answer);
    }
    return send_answer(connection, &answer);
}

static socklen_t make_address(const pen_address *address, struct sockaddr_storage *storage)
{
    memset(storage, 0, sizeof(*storage));
    if (address->ipv6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)storage;
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(address->port);
        memcpy(&in6->sin6_addr, address->bytes, sizeof(in6->sin6_addr));
        return sizeof(*in6);
    }
    struct sockaddr_in *in = (struct sockaddr_in *)storage;
    in->sin_family = AF_INET;
    in->sin_port = htons(address->port);
    memcpy(&in->sin_addr, address->bytes, sizeof(in->sin_addr));
    return sizeof(*in);
}

static bool listen_at(const pen_address *address, int *fd, pen_address *bound, pen_error *err)
{
    struct sockaddr_storage storage;
    char text[PEN_ADDRESS_TEXT_SIZE];
    socklen_t size = make_address(address, &storage);
    const int on = 1;
    *fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0 || setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        /* [::] is IPv6 alone, whatever the system's default is. */
        (address->ipv6 && setsockopt(*fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(*fd, (const struct sockaddr *)&storage, size) != 0 || listen(*fd, QUEUE) != 0 ||
        getsockname(*fd, (struct sockaddr *)&storage, &size) != 0) {
        int why = errno;
        if (*fd >= 0) {
            close(*fd);
        }
        return pen_error_set_errno(
            err, PEN_ERROR_FATAL, why, "--http: cannot listen at %s%s",
            pen_address_format(address, text),
            why == EADDRINUSE ? "; another program has that port: take another one, or 0" : "");
    }
    *bound = *address;
    bound->port = ntohs(address->ipv6 ? ((const struct sockaddr_in6 *)&storage)->sin6_port
                                      : ((const struct sockaddr_in *)&storage)->sin_port);
    return true;
}

bool pen_http_open(const pen_address *address, pen_http_handler *handler, void *arg,
                   pen_http **http, pen_address *bound, pen_error *err)
{
    int fd;
    if (!listen_at(address, &fd, bound, err)) {
        return false;
    }
    pen_http *made = pen_calloc(1, sizeof(*made));
    made->handler = handler;
    made->arg = arg;
    made->loopback = pen_address_is_loopback(address);
    /* Without a thread of its own: pen_http_turn does the work. */
    made->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, handle, made, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MOST, MHD_OPTION_CONNECTION_TIMEOUT,
        SILENT_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        made->daemon == NULL ? NULL : MHD_get_daemon_info(made->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    if (info == NULL) {
        if (made->daemon == NULL) {
            close(fd);
        }
        pen_http_close(made);
        return pen_error_set(err, PEN_ERROR_FATAL, "--http: the HTTP server cannot be started");
    }
    made->epoll_fd = info->epoll_fd;
    *http = made;
    return true;
}

void pen_http_close(pen_http *http)
{
    if (http != NULL) {
        if (http->daemon != NULL) {
            MHD_stop_daemon(http->daemon);
        }
        free(http);
    }
}

int pen_http_fd(const pen_http *http)
{
    return http->epoll_fd;
}

int pen_http_timeout_ms(const pen_http *http)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;
    if (MHD_get_timeout(http->daemon, &timeout_ms) != MHD_YES) {
        return -1;
    }
    return timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
}

void pen_http_turn(pen_http *http)
{
    (void)MHD_run(http->daemon);
}
