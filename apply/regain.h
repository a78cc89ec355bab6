/* Purpose: brings a lost source back beside the stream, which goes on with what lies in the spool
 *          (--ack spooled): connects as often as it takes, checks that it is the source that was
 *          lost, and starts the stream behind the spool's end.
 * Thread:  one of its own, from begin to its end; the functions here are main's.
 * Owns:    the new connections, until the reader has the one and main takes the other.
 * Flow:    the end of the spool in; a replication connection into stream->next_source for the
 *          reader, and an ordinary session for main, out.
 *
 * libpq cannot be stopped while it connects, which takes half a minute where nobody answers. So an
 * end does not wait for it: the thread is left behind, touches nothing but its own from then on,
 * and is gone with the process at the latest. */
#ifndef PEN_APPLY_REGAIN_H
#define PEN_APPLY_REGAIN_H

#include "apply/stream.h"
#include "io/spool.h"

typedef struct pen_regain pen_regain;

/* Begins: the source was lost when everything up to `received` was in the spool, of which `header`
 * says what it holds. */
PEN_MUST_CHECK bool pen_regain_begin(pen_stream *stream, const pen_spool_header *header,
                                     pen_lsn received, pen_regain **regain, pen_error *err);

typedef enum pen_regained {
    PEN_REGAIN_TRIES,
    PEN_REGAIN_BACK,  /* the reader has its connection, *session is given */
    PEN_REGAIN_FAILED /* *err says why it cannot come back */
} pen_regained;

pen_regained pen_regain_poll(pen_regain *regain, pen_pgconn **session, pen_error *err);

/* Ends it, wherever it is; what the reader did not take up stays where it is. NULL is nothing. */
void pen_regain_end(pen_regain *regain);

#endif
