/* Purpose: one pgoutput message while it is read: shared by the sources of the decoder, and by nobody
 *          else.
 * Thread:  the decoder's caller.
 * Owns:    nothing; lives as long as one call of pen_pgoutput_decode.
 * Flow:    the message's bytes in; fields of a pen_message, or an error that names the offset, out.
 */
#ifndef PEN_CORE_PGOUTPUT_READING_H
#define PEN_CORE_PGOUTPUT_READING_H

#include "core/pgoutput.h"
#include "core/rel_versions.h"

struct pen_pgoutput {
    pen_arena *arena; /* borrowed */
    pen_rel_versions versions;
};

typedef struct pen_reading {
    pen_pgoutput *decoder;
    pen_slice bytes;
    pen_cursor cur;
    const pen_message_context *context;
    pen_error *err;
} pen_reading;

/* Sets the error to what is wrong with the message, here; returns false. */
bool pen_reading_malformed(const pen_reading *in, const char *fmt, ...) PEN_PRINTF(2, 3);
/* The same for a message that is shorter or longer than what it says of itself. */
bool pen_reading_not_whole(const pen_reading *in);

/* The check at the end of each message: every byte read, and none missing. */
static inline bool pen_reading_whole(const pen_reading *in)
{
    return pen_cursor_done(&in->cur) || pen_reading_not_whole(in);
}

/* The protocol sends "" for pg_catalog. */
static inline pen_slice pen_reading_schema(pen_slice sent)
{
    return sent.len == 0 ? pen_slice_of("pg_catalog") : sent;
}

/* Reads what is left of any message but Relation and the changes: those about transactions, and the
 * few that nothing depends on. Refuses a kind that there is not. */
bool pen_reading_other(pen_reading *in, pen_message *msg);

#endif
