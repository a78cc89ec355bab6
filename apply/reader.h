/* Purpose: the reader: receives the stream and reports to the source.
 * Thread:  pen_reader_run is the reader's thread; create and destroy are main's.
 * Owns:    the replication connection, the spools, the capture.
 * Flow:    the walsender's bytes in; messages into the intake, by way of the spool with --ack
 *          spooled; status back. It never blocks without still sending status.
 *
 * With --ack spooled it outlives a failure of the target: it lets go of its intake, goes on
 * receiving into the spool, and takes up the next intake when main has made one. So it outlives the
 * loss of the source: it goes on giving what the spool holds to its intake, and takes up the next
 * connection when there is one. */
#ifndef PEN_APPLY_READER_H
#define PEN_APPLY_READER_H

#include "apply/intake.h"
#include "apply/spooling.h"
#include "io/capture.h"
#include "io/replication.h"

typedef struct pen_reader pen_reader;

typedef struct pen_reader_parts {
    pen_replication *rep;   /* on which the stream has been started */
    pen_spool *spool;       /* --ack spooled: the whole stream; else NULL */
    pen_spooling *spooling; /* the same */
    pen_spool *streamed;    /* blocks of transactions in progress, where no spool has them */
    pen_capture *capture;   /* borrowed; or NULL */
    pen_lsn reported;       /* what was reported to the source so far */
} pen_reader_parts;

/* Takes all the parts but the capture. */
pen_reader *pen_reader_create(pen_stream *stream, const pen_reader_parts *parts);
/* After its thread has ended and every transaction it gave was released. NULL is nothing. */
void pen_reader_destroy(pen_reader *reader);
void pen_reader_run(void *reader);

/* Main: what an intake for this reader must know. */
pen_intake_options pen_reader_intake_options(const pen_reader *reader);

#endif
