#include "apply/spooling.h"

#include "core/kill_point.h"
#include "core/log.h"
#include "core/pgoutput.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Where a Relation message inside of a block has its OID: behind kind and xid. */
#define STREAMED_OID_AT 5

/* A Relation message of a streamed transaction: it is in force once that commits. */
typedef struct pending_relation {
    uint32_t xid; /* the transaction's */
    uint64_t arrival;
    uint8_t *data;
    size_t len;
} pending_relation;

struct pen_spooling {
    pen_spool *spool;
    pen_pgoutput *decoder; /* for all but rows, which are not looked at here */
    bool in_txn;
    uint32_t in_block; /* xid, 0 outside of a block */
    uint64_t arrival;
    bool has_changes;        /* the open transaction */
    pen_lsn end_lsn;         /* of the newest transaction that is whole */
    pen_lsn changes_end_lsn; /* of the newest one with changes */
    pen_lsn received;        /* the newest mark */
    pending_relation *pending;
    size_t pending_count;
    size_t pending_capacity;
};

pen_spooling *pen_spooling_create(pen_spool *spool)
{
    pen_spooling *spooling = pen_calloc(1, sizeof(*spooling));
    spooling->spool = spool;
    spooling->decoder = pen_pgoutput_create(NULL);
    return spooling;
}

void pen_spooling_begin(pen_spooling *spooling, pen_lsn start_lsn)
{
    spooling->end_lsn = start_lsn;
    spooling->received = start_lsn;
}

/* Forgets the Relation messages of `xid`, or (0) of all. */
static void forget_pending(pen_spooling *spooling, uint32_t xid)
{
    size_t kept = 0;
    for (size_t i = 0; i < spooling->pending_count; i++) {
        if (xid == 0 || spooling->pending[i].xid == xid) {
            free(spooling->pending[i].data);
        } else {
            spooling->pending[kept++] = spooling->pending[i];
        }
    }
    spooling->pending_count = kept;
}

void pen_spooling_destroy(pen_spooling *spooling)
{
    if (spooling != NULL) {
        forget_pending(spooling, 0);
        free(spooling->pending);
        pen_pgoutput_destroy(spooling->decoder);
        free(spooling);
    }
}

pen_lsn pen_spooling_received(const pen_spooling *spooling)
{
    return spooling->received;
}

pen_lsn pen_spooling_changes_end_lsn(const pen_spooling *spooling)
{
    return spooling->changes_end_lsn;
}

static bool at_boundary(const pen_spooling *spooling)
{
    return !spooling->in_txn && spooling->in_block == 0;
}

/* What the stream looks like behind a message */

static void keep_relation(pen_spooling *spooling, pen_slice bytes)
{
    if (spooling->pending_count == spooling->pending_capacity) {
        spooling->pending_capacity =
            spooling->pending_capacity == 0 ? 16 : spooling->pending_capacity * 2;
        spooling->pending =
            pen_realloc(spooling->pending, spooling->pending_capacity * sizeof(*spooling->pending));
    }
    uint8_t *copy = pen_malloc(bytes.len);
    memcpy(copy, bytes.data, bytes.len);
    spooling->pending[spooling->pending_count++] = (pending_relation){
        .xid = spooling->in_block, .arrival = spooling->arrival, .data = copy, .len = bytes.len};
}

/* A streamed transaction committed, and so its Relation messages are in force. */
static bool commit_pending(pen_spooling *spooling, uint32_t xid, pen_error *err)
{
    bool ok = true;
    pen_pgoutput_begin_replay(spooling->decoder);
    for (size_t i = 0; ok && i < spooling->pending_count; i++) {
        const pending_relation *it = &spooling->pending[i];
        const pen_message_context context = {.arrival = it->arrival, .streamed = true};
        pen_message msg;
        ok =
            it->xid != xid || pen_pgoutput_decode(spooling->decoder, (pen_slice){it->data, it->len},
                                                  &context, &msg, err);
    }
    pen_pgoutput_end_replay(spooling->decoder);
    forget_pending(spooling, xid);
    return ok;
}

static void note_end(pen_spooling *spooling, pen_lsn end_lsn, bool has_changes)
{
    if (has_changes && end_lsn > spooling->changes_end_lsn) {
        spooling->changes_end_lsn = end_lsn;
    }
    if (end_lsn > spooling->end_lsn) {
        spooling->end_lsn = end_lsn;
    }
    if (end_lsn > spooling->received) {
        spooling->received = end_lsn;
    }
}

/* Follows a message inside of a block. */
static void follow_streamed(pen_spooling *spooling, pen_slice bytes)
{
    if (bytes.data[0] == PEN_MESSAGE_STREAM_STOP) {
        spooling->in_block = 0;
    } else if (bytes.data[0] == PEN_MESSAGE_RELATION && bytes.len >= STREAMED_OID_AT + 4) {
        keep_relation(spooling, bytes);
    }
}

/* Follows what the message says of transactions and relations. */
static bool follow(pen_spooling *spooling, pen_slice bytes, pen_error *err)
{
    spooling->arrival++;
    if (bytes.len == 0) {
        return pen_error_set(err, PEN_ERROR_FATAL, "source: the stream carries an empty message");
    }
    if (spooling->in_block != 0) {
        follow_streamed(spooling, bytes);
        return true;
    }
    switch (bytes.data[0]) {
    case PEN_MESSAGE_BEGIN:
        spooling->in_txn = true;
        spooling->has_changes = false;
        return true;
    case PEN_MESSAGE_COMMIT:
    case PEN_MESSAGE_RELATION:
    case PEN_MESSAGE_STREAM_START:
    case PEN_MESSAGE_STREAM_COMMIT:
    case PEN_MESSAGE_STREAM_ABORT:
        break;
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
    case PEN_MESSAGE_TRUNCATE:
        spooling->has_changes = true;
        return true;
    default:
        return true; /* what it holds is looked at when it is applied */
    }
    pen_message msg;
    const pen_message_context context = {.arrival = spooling->arrival,
                                         .abort_has_lsn = pen_pgoutput_abort_tells_lsn(bytes)};
    if (!pen_pgoutput_decode(spooling->decoder, bytes, &context, &msg, err)) {
        return pen_error_context(err, "source: the stream cannot be read");
    }
    switch (msg.kind) {
    case PEN_MESSAGE_COMMIT:
        spooling->in_txn = false;
        note_end(spooling, msg.commit.end_lsn, spooling->has_changes);
        return true;
    case PEN_MESSAGE_STREAM_START:
        spooling->in_block = msg.stream_start.xid;
        return true;
    case PEN_MESSAGE_STREAM_COMMIT:
        note_end(spooling, msg.stream_commit.end_lsn, true);
        return commit_pending(spooling, msg.stream_commit.xid, err);
    case PEN_MESSAGE_STREAM_ABORT:
        if (msg.stream_abort.xid == msg.stream_abort.subxid) {
            forget_pending(spooling, msg.stream_abort.xid);
        }
        return true;
    default:
        return true;
    }
}

/* Segments */

static void append_relation(void *arg, pen_slice message)
{
    pen_spooling *spooling = arg;
    const pen_spool_record record = {
        .kind = PEN_SPOOL_RELATION, .wal_end = spooling->received, .payload = message};
    (void)pen_spool_append(spooling->spool, &record);
}

static void append_message(pen_spooling *spooling, pen_slice message)
{
    const pen_spool_record record = {
        .kind = PEN_SPOOL_MESSAGE, .wal_end = spooling->received, .payload = message};
    (void)pen_spool_append(spooling->spool, &record);
}

/* Whether the `at`th pending Relation message will be in force once its transaction commits, as far
 * as one can know now. */
static bool will_be_in_force(const pen_spooling *spooling, size_t at)
{
    const pending_relation *it = &spooling->pending[at];
    const uint8_t *oid = it->data + STREAMED_OID_AT;
    for (size_t i = at + 1; i < spooling->pending_count; i++) {
        if (spooling->pending[i].xid == it->xid &&
            memcmp(spooling->pending[i].data + STREAMED_OID_AT, oid, 4) == 0) {
            return false;
        }
    }
    uint32_t number =
        (uint32_t)oid[0] << 24 | (uint32_t)oid[1] << 16 | (uint32_t)oid[2] << 8 | oid[3];
    return it->arrival > pen_pgoutput_relation_arrival(spooling->decoder, number);
}

/* Tells again, in a block of its own, what was told in the blocks of a transaction in progress. The
 * source will not tell it again once that has committed; and by then the segments with those blocks
 * may be gone, when the target has the transaction durably. */
static void append_pending(pen_spooling *spooling)
{
    for (size_t i = 0; i < spooling->pending_count; i++) {
        const pending_relation *it = &spooling->pending[i];
        if (!will_be_in_force(spooling, i)) {
            continue;
        }
        const uint8_t start[] = {PEN_MESSAGE_STREAM_START, (uint8_t)(it->xid >> 24),
                                 (uint8_t)(it->xid >> 16), (uint8_t)(it->xid >> 8),
                                 (uint8_t)it->xid,         0};
        const uint8_t stop[] = {PEN_MESSAGE_STREAM_STOP};
        append_message(spooling, (pen_slice){start, sizeof(start)});
        append_message(spooling, (pen_slice){it->data, it->len});
        append_message(spooling, (pen_slice){stop, sizeof(stop)});
    }
}

/* What must be known without the segments before, beside what the header says. */
static void begin_segment(pen_spooling *spooling)
{
    /* A proof for whoever waits for a position before it, though no message may come. */
    const pen_spool_record position = {.kind = PEN_SPOOL_KEEPALIVE, .wal_end = spooling->received};
    (void)pen_spool_append(spooling->spool, &position);
    pen_pgoutput_each_relation(spooling->decoder, append_relation, spooling);
    append_pending(spooling);
}

bool pen_spooling_is_ready(pen_spooling *spooling, bool *ready, pen_error *err)
{
    *ready = false;
    if (at_boundary(spooling) && pen_spool_wants_segment(spooling->spool)) {
        bool made = false;
        if (!pen_spool_begin_segment(spooling->spool, spooling->end_lsn, &made, err)) {
            return false;
        }
        if (!made) {
            return true;
        }
        begin_segment(spooling);
    }
    *ready = pen_spool_has_room(spooling->spool);
    return true;
}

bool pen_spooling_take(pen_spooling *spooling, const pen_event *event, pen_error *err)
{
    bool keepalive = event->kind == PEN_EVENT_KEEPALIVE;
    /* A keepalive inside a transaction, or one that says nothing new, proves nothing. */
    if (keepalive && (!at_boundary(spooling) || event->wal_end <= spooling->received)) {
        return true;
    }
    const pen_spool_record record = pen_event_record(event);
    (void)pen_spool_append(spooling->spool, &record);
    if (keepalive) {
        spooling->received = event->wal_end;
    } else if (!follow(spooling, event->data, err)) {
        return false;
    }
    if (at_boundary(spooling)) {
        pen_spool_mark(spooling->spool, spooling->received);
    }
    return true;
}

/* A loss */

/* From here on everything comes anew that is not whole. */
static void append_session(pen_spooling *spooling)
{
    const pen_spool_record session = {.kind = PEN_SPOOL_SESSION, .wal_end = spooling->received};
    (void)pen_spool_append(spooling->spool, &session);
    pen_spool_mark(spooling->spool, spooling->received);
}

static void forget_open(pen_spooling *spooling)
{
    spooling->in_txn = false;
    spooling->in_block = 0;
    forget_pending(spooling, 0);
}

void pen_spooling_lose(pen_spooling *spooling)
{
    forget_open(spooling);
    if (pen_spool_last_header(spooling->spool) != NULL) {
        append_session(spooling);
    }
}

/* Recovery */

/* Follows the records of the last segment; *boundary is behind the last one that ends outside of
 * every transaction and block. */
static bool follow_segment(pen_spooling *spooling, pen_spool_cursor *cursor,
                           pen_spool_pos *boundary, pen_error *err)
{
    for (;;) {
        pen_spool_record record;
        pen_spool_pos at;
        switch (pen_spool_cursor_next(cursor, &record, &at, err)) {
        case PEN_SPOOL_READ_NOTHING:
            return true;
        case PEN_SPOOL_READ_FAILED:
            return false;
        case PEN_SPOOL_READ_RECORD:
            break;
        }
        switch (record.kind) {
        case PEN_SPOOL_MESSAGE:
            if (!follow(spooling, record.payload, err)) {
                return false;
            }
            break;
        case PEN_SPOOL_KEEPALIVE:
            if (record.wal_end > spooling->received) {
                spooling->received = record.wal_end;
            }
            break;
        case PEN_SPOOL_RELATION: {
            pen_message msg;
            const pen_message_context context = {.arrival = 0};
            if (!pen_pgoutput_decode(spooling->decoder, record.payload, &context, &msg, err)) {
                return pen_error_context(err, "the spool cannot be read");
            }
            break;
        }
        case PEN_SPOOL_SESSION:
            forget_open(spooling);
            break;
        }
        if (at_boundary(spooling)) {
            *boundary = pen_spool_cursor_pos(cursor);
        }
    }
}

bool pen_spooling_recover(pen_spooling *spooling, pen_error *err)
{
    pen_spool *spool = spooling->spool;
    pen_spool_pos end = pen_spool_end(spool);
    pen_spool_pos boundary = {.segment = end.segment, .offset = PEN_SPOOL_HEADER_SIZE};
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, boundary);
    pen_lsn start_lsn = pen_spool_last_header(spool)->start_lsn;
    pen_spooling_begin(spooling, start_lsn);
    spooling->received = pen_spool_last_header(spool)->received_lsn;
    /* What the segments before it hold is not looked at: they may hold changes. */
    spooling->changes_end_lsn =
        pen_spool_first(spool).segment < end.segment ? start_lsn : PEN_LSN_NONE;
    bool ok = follow_segment(spooling, cursor, &boundary, err);
    pen_spool_cursor_destroy(cursor);
    if (!ok) {
        return false;
    }
    forget_open(spooling); /* what is in progress comes again */
    if (pen_spool_pos_before(boundary, end)) {
        pen_log(PEN_LOG_DEBUG,
                "%" PRIu64 " bytes of a transaction that had not come whole are cut off the spool",
                end.offset - boundary.offset);
        if (!pen_spool_truncate(spool, boundary, err)) {
            return false;
        }
    }
    PEN_KILL_POINT("spool-session");
    append_session(spooling);
    return true;
}
