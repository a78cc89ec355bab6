/* Purpose: the wire format of pgoutput, bytes to messages, protocol versions 1 to 4; "Logical Replication Message Formats".
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
    PEN_MESSAGE_MESSAGE = 'M',
    /* protocol 2 and up */
    PEN_MESSAGE_STREAM_START = 'S',
    PEN_MESSAGE_STREAM_STOP = 'E',
    PEN_MESSAGE_STREAM_COMMIT = 'c',
    PEN_MESSAGE_STREAM_ABORT = 'A',
    /* protocol 3 and up, with two-phase decoding: never asked for, read to be shown */
    PEN_MESSAGE_BEGIN_PREPARE = 'b',
    PEN_MESSAGE_PREPARE = 'P',
    PEN_MESSAGE_COMMIT_PREPARED = 'K',
    PEN_MESSAGE_ROLLBACK_PREPARED = 'r',
    PEN_MESSAGE_STREAM_PREPARE = 'p'
} pen_message_kind;

/* The kind in the protocol's own words ("Stream Commit"); "unknown" for any other number. */
const char *pen_message_kind_name(pen_message_kind kind);

/* One decoded message. Slices point into the input and hold as long as that does; `change` and
 * `relation` live on as said above. */
typedef struct pen_message {
    pen_message_kind kind;
    uint32_t xid; /* inside a streamed block: the (sub)transaction that made the change or needed
                     the description, but for Message the transaction, also when a subtransaction
                     wrote it; 0 outside of one, and for Origin */
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
        struct {
            uint32_t xid; /* the transaction, never a subtransaction */
            bool first;   /* its first block */
        } stream_start;
        struct {
            uint32_t xid;
            pen_lsn commit_lsn;
            pen_lsn end_lsn;
            pen_pgtime commit_time;
        } stream_commit;
        struct { /* from PostgreSQL 18 also of what was never streamed */
            uint32_t xid;
            uint32_t subxid;       /* the same as xid when all of it is gone */
            pen_lsn abort_lsn;     /* these two only where the source was asked for */
            pen_pgtime abort_time; /* streaming 'parallel' (protocol 4); else 0 */
        } stream_abort;
        /* BEGIN_PREPARE, PREPARE, COMMIT_PREPARED, ROLLBACK_PREPARED, STREAM_PREPARE */
        struct {
            pen_lsn prepare_lsn; /* COMMIT_PREPARED: of the commit record; ROLLBACK_PREPARED: the
                                    end of the PREPARE */
            pen_lsn end_lsn;     /* of the PREPARE, the COMMIT or the ROLLBACK PREPARED */
            pen_pgtime time;     /* of what the message is about */
            pen_pgtime prepare_time; /* ROLLBACK_PREPARED only */
            uint32_t xid;
            pen_slice gid;
        } prepared;
    };
} pen_message;

/* A segment's header lies in the block of the segment's changes, and which change begins a segment
 * only the assembler knows. So the decoder leaves room for a header behind each change that it
 * makes: right after pen_pgoutput_decode, pen_arena_alloc(arena, sizeof(pen_segment)) does not
 * begin a new block. Nothing but that may be taken from the arena in between. */
#define PEN_CHANGE_TAIL ((sizeof(pen_segment) + 15) & ~(size_t)15)

typedef struct pen_pgoutput pen_pgoutput;

/* Gives a decoder; row changes go into `arena`, borrowed; NULL where no row will be decoded. */
pen_pgoutput *pen_pgoutput_create(pen_arena *arena);
/* Frees it and all relation versions. */
void pen_pgoutput_destroy(pen_pgoutput *decoder);

/* What the decoder must know of a message beside its bytes. */
typedef struct pen_message_context {
    /* Counts the messages of the stream as they arrived; a replayed one keeps its own. Of two
     * Relation messages of one relation the one that arrived later is in force, whatever the order
     * in which they are decoded. */
    uint64_t arrival;
    bool streamed;      /* it came inside a streamed block, and so carries its transaction's xid */
    bool abort_has_lsn; /* Stream Abort carries LSN and time: streaming 'parallel' was asked for */
} pen_message_context;

/* abort_has_lsn of a Stream Abort whose session is not known: its length tells. */
static inline bool pen_pgoutput_abort_tells_lsn(pen_slice bytes)
{
    return bytes.len == 1 + 4 + 4 + 8 + 8;
}

/* Decodes one message of protocol versions 1 to 4, all of `bytes`: a byte left over is an error as
 * one that is missing. No length in the input is trusted before it was checked against what is
 * there, so that a message never allocates more than a small multiple of its own size. A row change
 * is put whole into one arena block (arena->block afterwards) with PEN_CHANGE_TAIL behind it; no
 * heap allocation per row. The values of a row lie one behind the other in a copy of the message.
 * An empty schema name is given as "pg_catalog", which it stands for. A Relation message equal to
 * the version in force gives that version again. Errors: PEN_ERROR_FATAL, naming the message, what
 * is wrong with it and its offset; the decoder is still usable, the caller decides. */
PEN_MUST_CHECK bool pen_pgoutput_decode(pen_pgoutput *decoder, pen_slice bytes,
                                        const pen_message_context *context, pen_message *msg,
                                        pen_error *err);

/* Kind and transaction of a message without decoding it: what there is to be known of one inside a
 * streamed block until its transaction commits. *xid is what pen_message.xid will be. False when
 * `bytes` is too short for that, or the xid is 0 where there must be one; decoding says so in
 * words. */
PEN_MUST_CHECK bool pen_pgoutput_peek(pen_slice bytes, bool streamed, uint8_t *kind, uint32_t *xid);

/* Between these two the messages of one streamed transaction are decoded, at its Stream Commit, in
 * the order in which they came. Its Relation messages count for its own rows at once; at the end
 * they stay in force only where no later one arrived outside of it in the meantime. */
void pen_pgoutput_begin_replay(pen_pgoutput *decoder);
void pen_pgoutput_end_replay(pen_pgoutput *decoder);

/* The arrival of the newest message that told that version; 0 before there was one. */
uint64_t pen_pgoutput_relation_arrival(const pen_pgoutput *decoder, uint32_t oid);

/* Calls `give` with the Relation message of each version in force, as it would come outside of a
 * streamed block; the bytes are borrowed until it returns. */
void pen_pgoutput_each_relation(const pen_pgoutput *decoder,
                                void (*give)(void *arg, pen_slice message), void *arg);

typedef enum pen_relation_news {
    PEN_RELATION_KNOWN, /* it tells the version in force again */
    PEN_RELATION_FIRST, /* the first one of its relation */
    PEN_RELATION_OTHER  /* it tells another one */
} pen_relation_news;

/* What a Relation message, which came inside a streamed block, would change; without decoding it.
 * *oid is the relation's, 0 where it is too short to tell. */
pen_relation_news pen_pgoutput_compare_relation(const pen_pgoutput *decoder, pen_slice bytes,
                                                uint32_t *oid);

/* The version in force of the source's relation `oid`, or NULL before its Relation message. */
const pen_relation *pen_pgoutput_relation(const pen_pgoutput *decoder, uint32_t oid);

#endif
