/* Purpose: the state directory: one penstock per stream, by a lock on a file in it.
 * Thread:  main.
 * Owns:    the directory's lock, until closed.
 * Flow:    --dir in; the paths of the files in it and its id out, or the reason why another run has
 * it. */
#ifndef PEN_APPLY_STATEDIR_H
#define PEN_APPLY_STATEDIR_H

#include "core/error.h"

typedef struct pen_statedir pen_statedir;

/* Makes the directory where it is absent (mode 0700) and locks it for as long as the process lives.
 * Errors: PEN_ERROR_CONFIG when it cannot be made; PEN_ERROR_FATAL when another penstock holds it.
 */
PEN_MUST_CHECK bool pen_statedir_open(const char *path, pen_statedir **dir, pen_error *err);
void pen_statedir_close(pen_statedir *dir); /* NULL is nothing */

/* The same for a cutover: asks the penstock that has the directory, if there is one, to hand over,
 * by a file in it and a SIGTERM, and waits until it has ended, at most `wait_ms`; nobody else gets
 * in between. Errors: PEN_ERROR_RETRY when it does not end. */
PEN_MUST_CHECK bool pen_statedir_take_over(const char *path, int64_t wait_ms, pen_statedir **dir,
                                           pen_error *err);
/* Path of that file, borrowed: it is there when somebody has asked since the directory was opened,
 * before the signal comes. */
const char *pen_statedir_asked(const pen_statedir *dir);

/* Paths of the checkpoint file, and of the directory for spools, borrowed. */
const char *pen_statedir_checkpoint(const pen_statedir *dir);
const char *pen_statedir_spool(const pen_statedir *dir);
/* Its id: made with it, random, and so another one in each directory; a copy of the directory,
 * which somebody else could use at the same time, has another one too. */
uint64_t pen_statedir_id(const pen_statedir *dir);
/* Whether an earlier run has left that directory. */
bool pen_statedir_has_spool(const pen_statedir *dir);

#endif
