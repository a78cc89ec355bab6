/* Purpose: the reader: receives the stream, decodes it, builds transactions, and reports to the
 *          source.
 * Thread:  pen_reader_run is the reader's thread; open and close are main's.
 * Owns:    the replication connection, the decoder, the arena.
 * Flow:    the walsender's bytes in; whole transactions into the ring; status back. It never blocks
 *          without still sending status. */
#ifndef PEN_APPLY_READER_H
#define PEN_APPLY_READER_H

#include "apply/stream.h"
#include "io/replication.h"

typedef struct pen_reader pen_reader;

/* Takes `rep`, on which the stream has been started. */
pen_reader *pen_reader_create(pen_stream *stream, pen_replication *rep);
/* After its thread has ended and every transaction it gave was released. NULL is nothing. */
void pen_reader_destroy(pen_reader *reader);
void pen_reader_run(void *reader);

#endif
