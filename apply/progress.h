/* Purpose: the progress thread: makes what was applied durable, then lets the source forget it.
 * Thread:  pen_progress_run is the progress thread; create and destroy are main's.
 * Owns:    the control connection to the target (synchronous_commit=on) and the checkpoint file.
 * Flow:    applied_lsn in; durable_lsn and checkpoints out. It never reports an LSN that is not
 *          durable on the target. */
#ifndef PEN_APPLY_PROGRESS_H
#define PEN_APPLY_PROGRESS_H

#include "apply/stream.h"
#include "io/checkpoint.h"

typedef struct pen_progress pen_progress;

/* Takes `control` and `file`. */
pen_progress *pen_progress_create(pen_stream *stream, pen_pgconn *control,
                                  pen_checkpoint_file *file);
void pen_progress_destroy(pen_progress *progress); /* NULL is nothing */
void pen_progress_run(void *progress);

#endif
