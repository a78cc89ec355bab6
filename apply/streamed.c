#include "apply/streamed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    pen_spool_pos first; /* of its first message */
    uint64_t arrival;    /* of its first message; the others follow without gaps */
    uint64_t count;
} block;

/* A set of xids: open addressing, never more than half full; 0, which no transaction has, is an
 * empty place. */
typedef struct xid_set {
    uint32_t *places;
    size_t capacity; /* 0 or a power of two */
    size_t count;
} xid_set;

/* A transaction in progress. */
typedef struct progressing {
    uint32_t xid;
    bool headless;  /* its first blocks are gone */
    bool refused;   /* it is not to be read before it commits */
    uint64_t count; /* messages */
    block *blocks;
    size_t block_count;
    size_t block_capacity;
    xid_set aborted; /* subtransactions */
} progressing;

struct pen_streamed {
    pen_spool *spool;
    bool trimmed;
    progressing *txns; /* unordered: the source has few of them at a time */
    size_t count;
    size_t capacity;
    uint32_t open; /* xid of the block that is being received, 0 for none */
    pen_streamed_reading replay;
};

static uint32_t *find_place(const xid_set *set, uint32_t xid)
{
    size_t at = (xid * 2654435769U) & (set->capacity - 1);
    while (set->places[at] != 0 && set->places[at] != xid) {
        at = (at + 1) & (set->capacity - 1);
    }
    return &set->places[at];
}

static bool contains(const xid_set *set, uint32_t xid)
{
    return xid != 0 && set->count > 0 && *find_place(set, xid) == xid;
}

static void insert(xid_set *set, uint32_t xid)
{
    if (set->count * 2 >= set->capacity) {
        xid_set larger = {.capacity = set->capacity == 0 ? 16 : set->capacity * 2};
        larger.places = pen_calloc(larger.capacity, sizeof(*larger.places));
        for (size_t i = 0; i < set->capacity; i++) {
            if (set->places[i] != 0) {
                *find_place(&larger, set->places[i]) = set->places[i];
            }
        }
        larger.count = set->count;
        free(set->places);
        *set = larger;
    }
    uint32_t *place = find_place(set, xid);
    set->count += *place == 0;
    *place = xid;
}

pen_streamed *pen_streamed_create(pen_spool *spool, bool trimmed)
{
    pen_streamed *streamed = pen_calloc(1, sizeof(*streamed));
    streamed->spool = spool;
    streamed->trimmed = trimmed;
    return streamed;
}

static void deinit_txn(progressing *txn)
{
    free(txn->blocks);
    free(txn->aborted.places);
}

void pen_streamed_destroy(pen_streamed *streamed)
{
    if (streamed != NULL) {
        pen_streamed_forget_all(streamed);
        free(streamed->txns);
        free(streamed);
    }
}

bool pen_streamed_in_block(const pen_streamed *streamed)
{
    return streamed->open != 0;
}

static progressing *find(const pen_streamed *streamed, uint32_t xid)
{
    for (size_t i = 0; i < streamed->count; i++) {
        if (streamed->txns[i].xid == xid) {
            return &streamed->txns[i];
        }
    }
    return NULL;
}

static bool refuse(pen_error *err, const char *what, uint32_t xid)
{
    return pen_error_set(err, PEN_ERROR_FATAL,
                         "the source %s (transaction %" PRIu32
                         "), which the protocol does not allow; check that the source is a "
                         "PostgreSQL server, with no proxy that changes the stream",
                         what, xid);
}

bool pen_streamed_start(pen_streamed *streamed, uint32_t xid, bool first, pen_error *err)
{
    progressing *known = find(streamed, xid);
    if (streamed->open != 0 || xid == 0) {
        return refuse(err, "began a block of a streamed transaction inside another one", xid);
    }
    bool headless = known == NULL && !first && streamed->trimmed;
    if ((known == NULL) != first && !headless) {
        return refuse(err,
                      first ? "began a streamed transaction twice"
                            : "went on with a streamed transaction that it did not begin",
                      xid);
    }
    streamed->open = xid;
    if (known != NULL) {
        return true;
    }
    if (streamed->count == streamed->capacity) {
        streamed->capacity = streamed->capacity == 0 ? 8 : streamed->capacity * 2;
        streamed->txns = pen_realloc(streamed->txns, streamed->capacity * sizeof(*streamed->txns));
    }
    streamed->txns[streamed->count++] = (progressing){.xid = xid, .headless = headless};
    return true;
}

void pen_streamed_add(pen_streamed *streamed, pen_spool_pos at, uint64_t arrival)
{
    progressing *txn = find(streamed, streamed->open);
    PEN_ASSERT(txn != NULL);
    txn->count++;
    block *last = txn->block_count == 0 ? NULL : &txn->blocks[txn->block_count - 1];
    if (last != NULL && last->arrival + last->count == arrival) {
        last->count++;
        return;
    }
    if (txn->blocks == NULL || txn->block_count == txn->block_capacity) {
        txn->block_capacity = txn->block_capacity == 0 ? 4 : txn->block_capacity * 2;
        txn->blocks = pen_realloc(txn->blocks, txn->block_capacity * sizeof(*txn->blocks));
    }
    txn->blocks[txn->block_count++] = (block){.first = at, .arrival = arrival, .count = 1};
}

bool pen_streamed_stop(pen_streamed *streamed, pen_error *err)
{
    if (streamed->open == 0) {
        return refuse(err, "ended a block of a streamed transaction that it did not begin", 0);
    }
    streamed->open = 0;
    return true;
}

bool pen_streamed_abort(pen_streamed *streamed, uint32_t xid, uint32_t subxid, pen_error *err)
{
    if (streamed->open != 0) {
        return refuse(err, "rolled a streamed transaction back inside a block", xid);
    }
    progressing *txn = find(streamed, xid);
    if (txn != NULL && subxid == xid) {
        pen_streamed_forget(streamed, xid);
    } else if (txn != NULL && subxid != 0) {
        insert(&txn->aborted, subxid);
    }
    return true;
}

void pen_streamed_forget(pen_streamed *streamed, uint32_t xid)
{
    progressing *txn = find(streamed, xid);
    if (txn != NULL) {
        deinit_txn(txn);
        *txn = streamed->txns[--streamed->count];
    }
    if (streamed->replay.xid == xid) {
        pen_streamed_end_reading(&streamed->replay);
    }
    if (streamed->open == xid) {
        streamed->open = 0;
    }
}

void pen_streamed_forget_all(pen_streamed *streamed)
{
    while (streamed->count > 0) {
        pen_streamed_forget(streamed, streamed->txns[0].xid);
    }
    streamed->open = 0;
}

static uint64_t first_segment(const progressing *txn)
{
    return txn->block_count == 0 ? UINT64_MAX : txn->blocks[0].first.segment;
}

uint64_t pen_streamed_first_segment(const pen_streamed *streamed)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < streamed->count; i++) {
        uint64_t its = first_segment(&streamed->txns[i]);
        first = its < first ? its : first;
    }
    return first;
}

uint64_t pen_streamed_segment_of(const pen_streamed *streamed, uint32_t xid)
{
    const progressing *txn = find(streamed, xid);
    return txn == NULL ? 0 : first_segment(txn);
}

bool pen_streamed_begin_reading(pen_streamed *streamed, pen_streamed_reading *reading, uint32_t xid)
{
    const progressing *txn = find(streamed, xid);
    if (txn == NULL || txn->headless || txn->refused) {
        return false;
    }
    *reading = (pen_streamed_reading){.xid = xid};
    return true;
}

void pen_streamed_end_reading(pen_streamed_reading *reading)
{
    /* A cursor keeps segments from being deleted. */
    pen_spool_cursor_destroy(reading->cursor);
    *reading = (pen_streamed_reading){0};
}

void pen_streamed_refuse_reading(pen_streamed *streamed, uint32_t xid)
{
    progressing *txn = find(streamed, xid);
    if (txn != NULL) {
        txn->refused = true;
    }
}

uint64_t pen_streamed_left(const pen_streamed *streamed, const pen_streamed_reading *reading)
{
    const progressing *txn = find(streamed, reading->xid);
    return txn == NULL ? 0 : txn->count - reading->read;
}

bool pen_streamed_replay(pen_streamed *streamed, uint32_t xid, bool relations_only)
{
    PEN_ASSERT(streamed->replay.xid == 0 && streamed->open == 0);
    const progressing *txn = find(streamed, xid);
    if (txn == NULL || (txn->headless && !relations_only)) {
        return false;
    }
    streamed->replay = (pen_streamed_reading){.xid = xid, .relations_only = relations_only};
    return true;
}

/* Takes the next message off the spool, whether it counts or not. */
static pen_streamed_result read_message(const pen_streamed *streamed, const progressing *txn,
                                        pen_streamed_reading *reading, pen_slice *bytes,
                                        pen_error *err)
{
    const block *at = &txn->blocks[reading->block];
    if (reading->cursor == NULL) {
        reading->cursor = pen_spool_cursor_create(streamed->spool, at->first);
    } else if (reading->given == 0) {
        pen_spool_cursor_seek(reading->cursor, at->first);
    }
    for (;;) {
        pen_spool_record record;
        pen_spool_pos pos;
        switch (pen_spool_cursor_next(reading->cursor, &record, &pos, err)) {
        case PEN_SPOOL_READ_RECORD:
            if (record.kind != PEN_SPOOL_MESSAGE) {
                continue; /* a keepalive that came in between */
            }
            *bytes = record.payload;
            return PEN_STREAMED_MESSAGE;
        case PEN_SPOOL_READ_NOTHING:
            pen_error_set(err, PEN_ERROR_FATAL,
                          "the spool ends before the streamed transaction %" PRIu32
                          " does; somebody has changed the files in the state directory",
                          txn->xid);
            return PEN_STREAMED_FAILED;
        case PEN_SPOOL_READ_FAILED:
            return PEN_STREAMED_FAILED;
        }
    }
}

/* Whether a message of (sub)transaction `xid` is to be given. */
static bool counts(const pen_streamed_reading *reading, const progressing *txn, uint8_t kind,
                   uint32_t xid)
{
    return kind == PEN_MESSAGE_RELATION ||
           (!reading->relations_only &&
            (kind == PEN_MESSAGE_TYPE || !contains(&txn->aborted, xid)));
}

/* True when there is one; else all that has come was given. */
static bool find_next(const progressing *txn, pen_streamed_reading *reading)
{
    while (reading->block < txn->block_count) {
        if (reading->given < txn->blocks[reading->block].count) {
            return true;
        }
        if (reading->block + 1 == txn->block_count) {
            break; /* it may still grow */
        }
        reading->block++;
        reading->given = 0;
    }
    return false;
}

pen_streamed_result pen_streamed_read(const pen_streamed *streamed, pen_streamed_reading *reading,
                                      pen_slice *bytes, uint64_t *arrival, pen_error *err)
{
    const progressing *txn = find(streamed, reading->xid);
    PEN_ASSERT(reading->xid != 0 && txn != NULL);
    while (find_next(txn, reading)) {
        if (read_message(streamed, txn, reading, bytes, err) == PEN_STREAMED_FAILED) {
            return PEN_STREAMED_FAILED;
        }
        *arrival = txn->blocks[reading->block].arrival + reading->given++;
        reading->read++;
        uint8_t kind = 0;
        uint32_t xid = 0;
        if (!pen_pgoutput_peek(*bytes, true, &kind, &xid)) {
            pen_error_set(err, PEN_ERROR_FATAL,
                          "a message of the streamed transaction %" PRIu32 " is too short",
                          txn->xid);
            return PEN_STREAMED_FAILED;
        }
        if (counts(reading, txn, kind, xid)) {
            return PEN_STREAMED_MESSAGE;
        }
    }
    return PEN_STREAMED_END;
}

pen_streamed_result pen_streamed_next(pen_streamed *streamed, pen_slice *bytes, uint64_t *arrival,
                                      pen_error *err)
{
    pen_streamed_result result =
        pen_streamed_read(streamed, &streamed->replay, bytes, arrival, err);
    if (result == PEN_STREAMED_END) {
        pen_streamed_forget(streamed, streamed->replay.xid);
    }
    return result;
}
