/* Purpose: the control socket in the state directory: one question, one answer, for the same user.
 * Thread:  the server's functions belong to one thread, which is on no way of data; pen_control_ask
 *          is for another process.
 * Owns:    the socket and its file, its clients' connections, the opened directory.
 * Flow:    "status" on a line in; a document out, and the connection's end.
 *
 * The file is DIR/control, mode 0600; whoever connects must be of the server's own user, or root,
 * which is asked of the kernel as well. Nobody is waited for: every client has a deadline, there
 * are only so many, and when one more comes, the one that is there longest makes room. */
#ifndef PEN_IO_CONTROL_H
#define PEN_IO_CONTROL_H

#include "core/error.h"

#define PEN_CONTROL_NAME "control"

/* Gives the answer, which is freed by free(). */
typedef char *pen_control_answer(void *arg);

typedef struct pen_control pen_control;

/* Makes the socket in `dir`, whose lock the caller has: what an earlier process has left there is
 * removed. A path longer than a socket's address can be is no matter. Errors: PEN_ERROR_FATAL when
 * it cannot be made, or something else is in its place. */
PEN_MUST_CHECK bool pen_control_open(const char *dir, pen_control_answer *answer, void *arg,
                                     pen_control **control, pen_error *err);
/* Removes the file, unless another process has put its own there; NULL is nothing. */
void pen_control_close(pen_control *control);

/* Becomes readable when there is something to do. */
int pen_control_fd(const pen_control *control);
/* When pen_control_turn is to be called at the latest, in milliseconds; -1: not before that. */
int pen_control_timeout_ms(const pen_control *control);
/* Does what can be done without waiting. */
void pen_control_turn(pen_control *control);

typedef enum pen_control_result {
    PEN_CONTROL_ANSWERED,
    PEN_CONTROL_NOBODY, /* nobody listens there */
    PEN_CONTROL_FAILED  /* *err */
} pen_control_result;

/* Asks the process that listens in `dir`, for at most `timeout_ms`. The answer is given (free()).
 */
PEN_MUST_CHECK pen_control_result pen_control_ask(const char *dir, int timeout_ms, char **answer,
                                                  pen_error *err);

#endif
