/* Purpose: runs another program (pg_dump, pg_restore) and keeps all that it says.
 * Thread:  any; it waits for the program's end.
 * Owns:    nothing; gives what came out.
 * Flow:    path, arguments and environment in; its standard output and standard error out. */
#ifndef PEN_IO_SUBPROCESS_H
#define PEN_IO_SUBPROCESS_H

#include "core/error.h"

typedef struct pen_subprocess {
    const char *path;        /* of the program's file */
    const char *const *args; /* behind its name, NULL at the end */
    const char *const *env;  /* NAME=VALUE over what we have, NULL at the end; or NULL */
} pen_subprocess;

/* Runs it to its end. *out and *said are its standard output and standard error, NUL-terminated
 * (free() both; set also after an error that is the program's). Our own PENSTOCK_ settings, which
 * may hold passwords, do not reach it. Errors: PEN_ERROR_FATAL when it cannot be started, or ended
 * with anything but 0; then the text has the last words that it said. */
PEN_MUST_CHECK bool pen_subprocess_run(const pen_subprocess *spec, char **out, char **said,
                                       pen_error *err);

#endif
