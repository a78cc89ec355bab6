/* Purpose: the wire format of pgoutput, bytes to messages; "Logical Replication Message Formats".
 * Thread:  the reader (or a test); one decoder belongs to one caller.
 * Owns:    relation versions, until it is destroyed; row changes lie in the arena's current block.
 * Flow:    one CopyData payload (behind the XLogData header) in, one pen_message out. */
#ifndef PEN_CORE_PGOUTPUT_H
#define PEN_CORE_PGOUTPUT_H

#include "core/change.h"
#include "core/error.h"

typedef enum pen_message_kind {
    PEN_MESSAGE_BEGIN = 'B',
    PEN_MESSAGE_COMMIT = 'C',
    PEN_MESSAGE_ORIGIN = 'O',
    PEN_MESSAGE_RELATION = 'R',
    PEN_MESSAGE_TYPE = 'Y',
    PEN_MESSAGE_INSERT = 'I',
    PEN_MESSAGE_UPDATE = 'U',
    PEN_MESSAGE_DELETE = 'D',
    PEN_MESSAGE_TRUNCATE = 'T',
    PEN_MESSAGE_MESSAGE = 'M'
} pen_message_kind;

/* One decoded message. Slices point into the input and hold as long as that does; `change` and
 * `relation` live on as said above. */
typedef struct pen_message {
    pen_message_kind kind;
    union {
        struct {
            pen_lsn
                commit_lsn; /* the protocol's "final LSN of the transaction": its commit record */
            pen_pgtime commit_time;
            uint32_t xid;
        } begin;
        struct {
            pen_lsn commit_lsn;
            pen_lsn end_lsn;
            pen_pgtime commit_time;
        } commit;
        struct {
            pen_lsn lsn; /* on the origin server */
            pen_slice name;
        } origin;
        const pen_relation *relation; /* the version in force from here on */
        struct {
            uint32_t oid;
            pen_slice schema;
            pen_slice name;
        } type;
        pen_change *change; /* I, U, D, T */
        struct {
            bool transactional;
            pen_lsn lsn;
            pen_slice prefix;
            pen_slice content;
        } message;
    };
} pen_message;

/* A segment's header lies in the block of the segment's changes, and which change begins a segment
 * only the assembler knows. So the decoder leaves room for a header behind each change that it
 * makes: right after pen_pgoutput_decode, pen_arena_alloc(arena, sizeof(pen_segment)) does not
 * begin a new block. Nothing but that may be taken from the arena in between. */
#define PEN_CHANGE_TAIL ((sizeof(pen_segment) + 15) & ~(size_t)15)

typedef struct pen_pgoutput pen_pgoutput;

/* Gives a decoder; row changes go into `arena`, borrowed. */
pen_pgoutput *pen_pgoutput_create(pen_arena *arena);
/* Frees it and all relation versions. */
void pen_pgoutput_destroy(pen_pgoutput *decoder);

/* Decodes one message of protocol version 1, all of `bytes`: a byte left over is an error as one
 * that is missing. No length in the input is trusted before it was checked against what is there,
 * so that a message never allocates more than a small multiple of its own size. A row change is put
 * whole into one arena block (arena->block afterwards) with PEN_CHANGE_TAIL behind it; no heap
 * allocation per row. The values of a row lie one behind the other in a copy of the message.
 * An empty schema name is given as "pg_catalog", which it stands for. A Relation message equal to
 * the version in force gives that version again. Errors: PEN_ERROR_FATAL, naming the message, what
 * is wrong with it and its offset; the decoder is still usable, the caller decides. */
PEN_MUST_CHECK bool pen_pgoutput_decode(pen_pgoutput *decoder, pen_slice bytes, pen_message *msg,
                                        pen_error *err);

/* The version in force of the source's relation `oid`, or NULL before its Relation message. */
const pen_relation *pen_pgoutput_relation(const pen_pgoutput *decoder, uint32_t oid);

#endif
