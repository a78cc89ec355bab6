#include "apply/eager_giving.h"

#include "apply/eager.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A part: so much that its statements are worth it, so little that other transactions in the stream
 * do not wait long for it to be read. */
#define PART_CHANGES 1000
#define PART_BYTES   (256u * 1024u)
/* Parts on the way, of which the dispatcher and the eager worker have one each at work. */
#define PARTS_AT_ONCE 8

/* A Relation message of the transaction, and the version that it told. */
typedef struct pen_eager_relation {
    uint32_t oid;
    const pen_relation *rel;
    uint64_t arrival;
    uint8_t *data;
    size_t len;
} told;

void pen_eager_giving_init(pen_eager_giving *giving, pen_stream *stream, pen_streamed *streamed,
                           pen_pgoutput *decoder, pen_arena *arena)
{
    *giving = (pen_eager_giving){.stream = stream, .streamed = streamed, .decoder = decoder};
    pen_assembler_init(&giving->assembler, arena);
}

/* Leaves the transaction, whatever becomes of it. */
static void leave(pen_eager_giving *giving)
{
    pen_assembler_discard(&giving->assembler);
    if (giving->part != NULL) {
        pen_txn_release(giving->part);
        giving->part = NULL;
    }
    for (size_t i = 0; i < giving->relation_count; i++) {
        free(giving->relations[i].data);
    }
    giving->relation_count = 0;
    giving->last_relation = NULL;
    pen_streamed_end_reading(&giving->reading);
    pen_eager_release(giving->eager);
    giving->eager = NULL;
}

void pen_eager_giving_drop(pen_eager_giving *giving)
{
    if (giving->eager == NULL) {
        return;
    }
    /* [EAGER-1] release: pairs with the acquire in pen_eager_is_alive. */
    pen_cell_publish(&giving->eager->dropped, 1);
    leave(giving);
    pen_eager_worker_wake(giving->stream->eager);
}

void pen_eager_giving_deinit(pen_eager_giving *giving)
{
    if (giving->eager != NULL) {
        leave(giving);
    }
    free(giving->relations);
}

/* It is applied at its Commit. */
static void give_up(pen_eager_giving *giving, const char *why)
{
    uint32_t xid = giving->eager->xid;
    pen_log(PEN_LOG_DEBUG,
            "transaction %" PRIu32 " is not applied while it is in progress any more, but when it "
            "commits: %s",
            xid, why);
    pen_meter_add(PEN_METRIC_EAGER_GIVEN_UP, 1);
    pen_eager_giving_drop(giving);
    pen_streamed_refuse_reading(giving->streamed, xid);
}

void pen_eager_giving_consider(pen_eager_giving *giving, uint32_t xid)
{
    pen_stream *stream = giving->stream;
    /* [EAGER-10] acquire: pairs with the release in the eager worker. */
    if (giving->eager != NULL || pen_cell_read(&stream->eager_failures) >= PEN_EAGER_FAILURES ||
        !pen_streamed_begin_reading(giving->streamed, &giving->reading, xid)) {
        return;
    }
    giving->eager = pen_eager_create(xid, ++giving->made);
    giving->given = 0;
    giving->change_count = 0;
    giving->bytes = 0;
    pen_log(PEN_LOG_DEBUG, "transaction %" PRIu32 " is applied while it is in progress", xid);
}

void pen_eager_giving_abort(pen_eager_giving *giving, uint32_t xid, uint32_t subxid)
{
    if (giving->eager == NULL || giving->eager->xid != xid) {
        return;
    }
    if (xid == subxid) {
        pen_eager_giving_drop(giving);
    } else {
        give_up(giving, "a subtransaction of it was rolled back");
    }
}

void pen_eager_giving_leave(pen_eager_giving *giving, uint32_t xid)
{
    if (giving->eager != NULL && giving->eager->xid == xid) {
        give_up(giving, "it could not be applied so early");
    }
}

/* The relation that it told last under this OID, or NULL. */
static const told *find_told(const pen_eager_giving *giving, uint32_t oid)
{
    for (size_t i = 0; i < giving->relation_count; i++) {
        if (giving->relations[i].oid == oid) {
            return &giving->relations[i];
        }
    }
    return NULL;
}

static void keep_told(pen_eager_giving *giving, uint32_t oid, pen_slice bytes, uint64_t arrival)
{
    if (giving->relation_count == giving->relation_capacity) {
        giving->relation_capacity =
            giving->relation_capacity == 0 ? 16 : giving->relation_capacity * 2;
        giving->relations =
            pen_realloc(giving->relations, giving->relation_capacity * sizeof(*giving->relations));
    }
    uint8_t *copy = pen_malloc(bytes.len);
    memcpy(copy, bytes.data, bytes.len);
    giving->relations[giving->relation_count++] =
        (told){.oid = oid,
               .rel = pen_pgoutput_relation(giving->decoder, oid),
               .arrival = arrival,
               .data = copy,
               .len = bytes.len};
}

/* A Relation message. That it tells a version for the first time is kept in force even if the
 * transaction is rolled back: nobody changes a row by it before the source has told it again. */
static void take_relation(pen_eager_giving *giving, pen_slice bytes, uint64_t arrival)
{
    uint32_t oid = 0;
    pen_message msg;
    pen_error err;
    const pen_message_context first = {.arrival = 0, .streamed = true};
    switch (pen_pgoutput_compare_relation(giving->decoder, bytes, &oid)) {
    case PEN_RELATION_OTHER:
        give_up(giving, "it has changed a table's definition");
        return;
    case PEN_RELATION_FIRST:
        if (!pen_pgoutput_decode(giving->decoder, bytes, &first, &msg, &err)) {
            give_up(giving, err.text);
            return;
        }
        break;
    case PEN_RELATION_KNOWN:
        break;
    }
    if (find_told(giving, oid) == NULL) {
        keep_told(giving, oid, bytes, arrival);
    }
}

/* True for a row message by the version that the transaction itself has told, which must still be
 * in force for it to be read. */
static bool is_as_told(pen_eager_giving *giving, pen_slice bytes)
{
    pen_cursor cur = pen_cursor_over(bytes);
    (void)pen_cursor_u8(&cur);
    (void)pen_cursor_u32(&cur); /* the transaction */
    uint32_t oid = pen_cursor_u32(&cur);
    const pen_relation *now = pen_pgoutput_relation(giving->decoder, oid);
    if (cur.failed || now == NULL) {
        return false;
    }
    if (now != giving->last_relation) {
        const told *its = find_told(giving, oid);
        if (its == NULL || its->rel != now) {
            return false;
        }
        giving->last_relation = now;
    }
    return true;
}

/* A message that is not a Relation message. What cannot be read may yet be rolled back. */
static void take_message(pen_eager_giving *giving, pen_slice bytes, uint64_t arrival)
{
    pen_error err;
    const pen_message_context context = {.arrival = arrival, .streamed = true};
    pen_message msg;
    pen_txn *none;
    uint8_t kind = bytes.data[0];
    if (kind == PEN_MESSAGE_TRUNCATE) {
        give_up(giving, "it empties a table");
        return;
    }
    bool is_row =
        kind == PEN_MESSAGE_INSERT || kind == PEN_MESSAGE_UPDATE || kind == PEN_MESSAGE_DELETE;
    if (is_row && !is_as_told(giving, bytes)) {
        give_up(giving, "a table's definition has changed");
        return;
    }
    if (!pen_pgoutput_decode(giving->decoder, bytes, &context, &msg, &err) ||
        !pen_assembler_add(&giving->assembler, &msg, bytes.len, &none, &err)) {
        give_up(giving, err.text);
    }
}

/* Reads as much as makes a part, or as there is. */
static bool read_part(pen_eager_giving *giving, pen_error *err)
{
    const pen_message begin = {.kind = PEN_MESSAGE_BEGIN, .begin = {.xid = giving->eager->xid}};
    const pen_message commit = {.kind = PEN_MESSAGE_COMMIT};
    pen_assembler *assembler = &giving->assembler;
    pen_txn *txn = NULL;
    if (!pen_assembler_add(assembler, &begin, 0, &txn, err)) {
        return false;
    }
    while (assembler->open->change_count < PART_CHANGES && assembler->open->bytes < PART_BYTES) {
        pen_slice bytes;
        uint64_t arrival = 0;
        pen_streamed_result result =
            pen_streamed_read(giving->streamed, &giving->reading, &bytes, &arrival, err);
        if (result == PEN_STREAMED_END) {
            break;
        }
        if (result == PEN_STREAMED_FAILED) {
            return false;
        }
        if (bytes.data[0] == PEN_MESSAGE_RELATION) {
            take_relation(giving, bytes, arrival);
        } else {
            take_message(giving, bytes, arrival);
        }
        if (giving->eager == NULL) {
            return true; /* given up */
        }
    }
    if (!pen_assembler_add(assembler, &commit, 0, &txn, err)) {
        return false;
    }
    if (txn->change_count == 0) {
        pen_txn_release(txn);
        return true;
    }
    txn->eager = giving->eager;
    pen_eager_acquire(giving->eager);
    giving->change_count += txn->change_count;
    giving->bytes += txn->bytes;
    giving->part = txn;
    return true;
}

static uint64_t in_flight(const pen_eager_giving *giving)
{
    /* [EAGER-3] acquire: pairs with the release in the eager worker. */
    return giving->given - pen_cell_read(&giving->eager->done);
}

/* Whether a part is to be read now. */
static bool wants_part(const pen_eager_giving *giving, bool ended)
{
    uint64_t parts = in_flight(giving);
    if (parts >= PARTS_AT_ONCE) {
        return false;
    }
    /* Before its Commit nobody waits for it. */
    if ((parts > 0 || !ended) && pen_budget_exhausted(&giving->stream->budget)) {
        return false;
    }
    /* The rest of a block that is still coming waits until that makes a part. */
    uint64_t left = pen_streamed_left(giving->streamed, &giving->reading);
    return left >= PART_CHANGES ||
           (left > 0 && (ended || !pen_streamed_in_block(giving->streamed)));
}

bool pen_eager_giving_poll(pen_eager_giving *giving, bool ended, pen_error *err)
{
    while (giving->eager != NULL) {
        if (!pen_eager_is_alive(giving->eager)) {
            give_up(giving, "it could not be applied so early");
            return true;
        }
        if (giving->part != NULL) {
            if (!pen_dealing_deal(&giving->stream->dealing, giving->part)) {
                return true;
            }
            giving->part = NULL;
            giving->given++;
        }
        if (!wants_part(giving, ended)) {
            return true;
        }
        if (!read_part(giving, err)) {
            return false;
        }
    }
    return true;
}

void pen_eager_giving_end(pen_eager_giving *giving)
{
    /* [EAGER-12] release: pairs with the acquire in the eager worker. */
    pen_cell_publish(&giving->eager->ended, 1);
}

bool pen_eager_giving_has(const pen_eager_giving *giving, uint32_t xid)
{
    return giving->eager != NULL && giving->eager->xid == xid && pen_eager_is_alive(giving->eager);
}

bool pen_eager_giving_is_done(const pen_eager_giving *giving)
{
    return giving->part == NULL && pen_streamed_left(giving->streamed, &giving->reading) == 0 &&
           in_flight(giving) == 0;
}

bool pen_eager_giving_is_in_flight(const pen_eager_giving *giving)
{
    return giving->eager != NULL && in_flight(giving) > 0;
}

/* What it has told of relations holds for others, too, from its Commit on. */
static bool put_in_force(pen_eager_giving *giving, pen_error *err)
{
    bool ok = true;
    pen_pgoutput_begin_replay(giving->decoder);
    for (size_t i = 0; ok && i < giving->relation_count; i++) {
        const told *it = &giving->relations[i];
        const pen_message_context context = {.arrival = it->arrival, .streamed = true};
        pen_message msg;
        ok = pen_pgoutput_decode(giving->decoder, (pen_slice){it->data, it->len}, &context, &msg,
                                 err);
    }
    pen_pgoutput_end_replay(giving->decoder);
    return ok;
}

bool pen_eager_giving_finish(pen_eager_giving *giving, const pen_message *commit, pen_txn **txn,
                             pen_error *err)
{
    PEN_ASSERT(pen_eager_giving_is_done(giving));
    const pen_message begin = {.kind = PEN_MESSAGE_BEGIN,
                               .begin = {.commit_lsn = commit->stream_commit.commit_lsn,
                                         .commit_time = commit->stream_commit.commit_time,
                                         .xid = giving->eager->xid}};
    const pen_message end = {.kind = PEN_MESSAGE_COMMIT,
                             .commit = {.commit_lsn = commit->stream_commit.commit_lsn,
                                        .end_lsn = commit->stream_commit.end_lsn,
                                        .commit_time = commit->stream_commit.commit_time}};
    pen_txn *made = NULL;
    if (!put_in_force(giving, err) || !pen_assembler_add(&giving->assembler, &begin, 0, txn, err) ||
        !pen_assembler_add(&giving->assembler, &end, 0, &made, err)) {
        return false;
    }
    made->change_count = giving->change_count;
    made->bytes = giving->bytes;
    made->eager = giving->eager;
    pen_eager_acquire(giving->eager);
    leave(giving);
    *txn = made;
    return true;
}
