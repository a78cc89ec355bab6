/* Purpose: what went wrong, made once where it is detected and acted on once, in the top loop.
 * Thread:  each error belongs to the caller that passes it.
 * Owns:    nothing; all text is inside the struct, so an error can be copied by value.
 * Flow:    filled by the function that fails, widened by at most one context a layer, then logged.
 */
#ifndef PEN_CORE_ERROR_H
#define PEN_CORE_ERROR_H

#include "core/base.h"
#include "core/lsn.h"

typedef enum pen_error_kind {
    PEN_ERROR_NONE,
    PEN_ERROR_RETRY, /* may pass by itself: a lost connection, a deadlock, a server starting up */
    PEN_ERROR_CONFLICT, /* the target's rows are not what the stream expects */
    PEN_ERROR_CONFIG,   /* the operator's options or configuration: exit code 2 */
    PEN_ERROR_FATAL     /* all else: exit code 1 */
} pen_error_kind;

typedef struct pen_error {
    pen_error_kind kind;
    int sys_errno;    /* 0 where no system call failed */
    char sqlstate[6]; /* "" where no server said it */
    pen_lsn lsn;      /* commit LSN of the transaction concerned, or PEN_LSN_NONE */
    bool was_there;   /* PEN_ERROR_RETRY: from a server that had let us in, or says that it will */
    char text[2048];  /* what happened, to what, and what to do next; never a credential */
} pen_error;

/* Fills *err. Returns false always, so that a failing function ends with
 * `return pen_error_set(err, …);`. Text that does not fit is cut. */
bool pen_error_set(pen_error *err, pen_error_kind kind, const char *fmt, ...) PEN_PRINTF(3, 4);

/* The same, with `sys_errno` kept and its description appended as ": description". */
bool pen_error_set_errno(pen_error *err, pen_error_kind kind, int sys_errno, const char *fmt, ...)
    PEN_PRINTF(4, 5);

/* Puts "context: " before the text. Returns false always. */
bool pen_error_context(pen_error *err, const char *fmt, ...) PEN_PRINTF(2, 3);

/* Puts "; advice" behind the text: what to do next. Returns false always. */
bool pen_error_advise(pen_error *err, const char *advice);

/* The exit code that CLI users see for an error of this kind: 1, or 2 for configuration. */
int pen_error_exit_code(pen_error_kind kind);

#endif
