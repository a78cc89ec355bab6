/* Purpose: a small HTTP server that only tells: the only door to libmicrohttpd.
 * Thread:  all functions belong to one thread, which is on no way of data.
 * Owns:    the listening socket, its connections, and the answers that it was given.
 * Flow:    GET and HEAD in; what the caller answers, or the reason why not, out.
 *
 * Nobody is waited for: connections are bounded in number, in what they may send and in how long
 * they may be silent. */
#ifndef PEN_IO_HTTP_H
#define PEN_IO_HTTP_H

#include "core/address.h"
#include "core/error.h"

typedef struct pen_http_answer {
    unsigned status;  /* 200 and so on */
    const char *type; /* Content-Type; a constant */
    char *body;       /* freed by free() */
    size_t size;
} pen_http_answer;

/* Answers for `path`, which begins with a slash and has no query. */
typedef void pen_http_handler(void *arg, const char *path, pen_http_answer *answer);

typedef struct pen_http pen_http;

/* Listens; *bound is where, with the port that was found where 0 was asked for. A server on a
 * loopback address refuses requests that name another host (DNS rebinding). Errors: PEN_ERROR_FATAL
 * when it cannot listen there. */
PEN_MUST_CHECK bool pen_http_open(const pen_address *address, pen_http_handler *handler, void *arg,
                                  pen_http **http, pen_address *bound, pen_error *err);
void pen_http_close(pen_http *http); /* NULL is nothing */

/* As pen_control_fd, pen_control_timeout_ms and pen_control_turn. */
int pen_http_fd(const pen_http *http);
int pen_http_timeout_ms(const pen_http *http);
void pen_http_turn(pen_http *http);

#endif
