#include "core/pgoutput_reading.h"

#include <stdlib.h>

/* The least that a column takes in a Relation message: flags, an empty name's NUL, type OID,
 * modifier; and a value in a tuple: its kind. Counts in a message are held against these before
 * anything is allocated, so that a few bytes cannot ask for much memory. */
#define REL_COLUMN_MIN 10u
#define VALUE_MIN      1u

enum { TRUNCATE_CASCADE = 1, TRUNCATE_RESTART_IDENTITY = 2 };
enum { COLUMN_IS_KEY = 1 };

/* Relation messages */

/* Reads the columns, which are all that is left of `in`, which reads the version's own copy. */
static bool read_columns(pen_reading *in, pen_rel_column *columns, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++) {
        uint8_t flags = pen_cursor_u8(&in->cur);
        if ((flags & ~COLUMN_IS_KEY) != 0) {
            return pen_reading_malformed(in, "column %u has the unknown flags 0x%02X", i + 1u,
                                         flags);
        }
        columns[i].is_key = (flags & COLUMN_IS_KEY) != 0;
        columns[i].name = pen_cursor_cstring(&in->cur);
        columns[i].type_oid = pen_cursor_u32(&in->cur);
        columns[i].type_modifier = (int32_t)pen_cursor_u32(&in->cur);
    }
    return pen_reading_whole(in);
}

static bool read_relation(pen_reading *in, const pen_relation **rel)
{
    uint32_t oid = pen_cursor_u32(&in->cur);
    pen_slice body = {in->cur.next, pen_cursor_left(&in->cur)};
    pen_rel_version *known = *pen_rel_versions_slot(&in->decoder->versions, oid);
    if (!in->cur.failed && known != NULL && pen_slice_equal(known->body, body)) {
        pen_rel_version_renew(known, in->context->arrival);
        *rel = &known->rel;
        return true;
    }
    (void)pen_cursor_cstring(&in->cur);
    (void)pen_cursor_cstring(&in->cur);
    uint8_t identity = pen_cursor_u8(&in->cur);
    if (!in->cur.failed && (identity == 0 || strchr("dnfi", identity) == NULL)) {
        return pen_reading_malformed(in, "the replica identity 0x%02X is none of d, n, f, i",
                                     identity);
    }
    uint16_t count = pen_cursor_u16(&in->cur);
    if (in->cur.failed) {
        return pen_reading_whole(in);
    }
    if (count * REL_COLUMN_MIN > pen_cursor_left(&in->cur)) {
        return pen_reading_malformed(in, "%u columns do not fit into what follows", count);
    }
    /* All is read once more out of the copy, so that the names point there. */
    pen_rel_version *made = pen_rel_version_create(oid, count, body);
    pen_reading copy = *in;
    copy.cur = pen_cursor_over(made->body);
    made->rel.schema = pen_reading_schema(pen_cursor_cstring(&copy.cur));
    made->rel.table = pen_cursor_cstring(&copy.cur);
    made->rel.replica_identity = (char)pen_cursor_u8(&copy.cur);
    (void)pen_cursor_u16(&copy.cur);
    if (!read_columns(&copy, pen_rel_version_columns(made), count)) {
        free(made);
        return false;
    }
    made->arrival = in->context->arrival;
    *rel = &pen_rel_versions_add(&in->decoder->versions, made)->rel;
    return true;
}

/* Row changes */

/* The part of a message that was copied into the arena, read and edited in place: whatever byte
 * follows a value (the next one's kind, or the next tuple's) is overwritten with the NUL that the
 * value's readers are promised, as soon as it was read. */
typedef struct row_copy {
    uint8_t *next;
    uint8_t *end; /* one more byte stands here, for the last value's NUL */
} row_copy;

/* `in` reports offsets in the message; the copy ends where the message ends. */
static void set_offset(pen_reading *in, const row_copy *row)
{
    in->cur.next = in->cur.end - (row->end - row->next);
}

/* An UPDATE by which a row comes into a publication's row filter is sent as an INSERT, without what
 * is stored out of line and did not change (pgoutput_row_filter, PostgreSQL 15 to 18). */
static bool refuse_unchanged(const pen_reading *in, uint32_t column)
{
    return pen_error_set(
        in->err, PEN_ERROR_FATAL,
        "Insert message from the source at offset %zu: the value of column %u is left out. "
        "PostgreSQL does so when an UPDATE brings a row into the publication's row filter (WHERE) "
        "and the value is large and did not change, unless the table has REPLICA IDENTITY FULL. "
        "Set that, or take the filter off; what was written before cannot be followed: copy the "
        "data again and start again under another --name",
        in->bytes.len - pen_cursor_left(&in->cur), column + 1);
}

/* Values that are not sent ('u') make sense only where the target has the row already. */
static bool read_tuple(pen_reading *in, row_copy *row, pen_value *values, uint32_t count,
                       bool may_be_unchanged)
{
    uint8_t *next = row->next;
    uint8_t *const end = row->end;
    uint32_t i;
    for (i = 0; i < count; i++) {
        if (next == end) {
            goto short_message;
        }
        uint8_t kind = *next;
        *next++ = 0;
        uint32_t len = 0;
        const uint8_t *data = NULL;
        if (kind == PEN_VALUE_TEXT || kind == PEN_VALUE_BINARY) {
            if (end - next < 4) {
                goto short_message;
            }
            len = (uint32_t)next[0] << 24 | (uint32_t)next[1] << 16 | (uint32_t)next[2] << 8 |
                  next[3];
            next += 4;
            if (len > (size_t)(end - next)) {
                goto short_message;
            }
            data = next;
            next += len;
        } else if (kind != PEN_VALUE_NULL && (kind != PEN_VALUE_UNCHANGED || !may_be_unchanged)) {
            row->next = next - 1;
            set_offset(in, row);
            if (kind == PEN_VALUE_UNCHANGED) {
                return refuse_unchanged(in, i);
            }
            return pen_reading_malformed(
                in, "column %u has the kind 0x%02X, which it may not have here", i + 1, kind);
        }
        values[i] = (pen_value){.data = data, .len = len, .kind = kind};
    }
    row->next = next;
    return true;

short_message:
    row->next = next;
    set_offset(in, row);
    return pen_reading_malformed(in, "column %u of %u ends behind the message", i + 1, count);
}

/* Only what the relation's own Relation message told may come: the value arrays are sized by it. */
static bool check_count(const pen_reading *in, const pen_relation *rel, uint32_t count)
{
    if (count != rel->column_count) {
        return pen_reading_malformed(
            in, "%u columns, but the Relation message of %.80s.%.80s told %u", count,
            (const char *)rel->schema.data, (const char *)rel->table.data, rel->column_count);
    }
    return true;
}

/* Reads the header of a row message up to its first tuple's values: relation OID, tuple kind,
 * column count. */
static bool read_row_header(pen_reading *in, const pen_relation **rel, uint8_t *tuple_kind)
{
    uint32_t oid = pen_cursor_u32(&in->cur);
    *tuple_kind = pen_cursor_u8(&in->cur);
    uint16_t count = pen_cursor_u16(&in->cur);
    if (in->cur.failed) {
        return pen_reading_whole(in);
    }
    const pen_rel_version *known = pen_rel_versions_find(&in->decoder->versions, oid);
    if (known == NULL) {
        return pen_reading_malformed(
            in, "no Relation message told what the relation with OID %u is", oid);
    }
    *rel = &known->rel;
    return check_count(in, *rel, count);
}

/* Finds room for a change with `extra` bytes behind it and, behind all, a segment header (see
 * PEN_CHANGE_TAIL). The room is not taken yet: a message that turns out malformed leaves the arena
 * as it is. */
static pen_change *reserve_change(const pen_reading *in, size_t extra)
{
    pen_block *block =
        pen_arena_reserve(in->decoder->arena, sizeof(pen_change) + extra + PEN_CHANGE_TAIL);
    return (pen_change *)(void *)(block->data + block->used);
}

static void take_change(const pen_reading *in, const pen_change *chg, size_t extra)
{
    const void *taken = pen_arena_alloc(in->decoder->arena, sizeof(pen_change) + extra);
    PEN_ASSERT(taken == chg);
}

/* Between the tuples of an Update: the new one's kind and its count. */
static bool read_second_header(pen_reading *in, row_copy *row, const pen_relation *rel)
{
    if (row->end - row->next < 3) {
        set_offset(in, row);
        return pen_reading_malformed(in, "the new tuple is missing");
    }
    uint8_t kind = row->next[0];
    uint32_t count = (uint32_t)row->next[1] << 8 | row->next[2];
    set_offset(in, row);
    if (kind != 'N') {
        return pen_reading_malformed(in, "tuple kind 0x%02X in the place of N", kind);
    }
    row->next[0] = 0; /* behind the old tuple's last value */
    row->next += 3;
    return check_count(in, rel, count);
}

static bool read_row(pen_reading *in, pen_change_kind kind, pen_change **made)
{
    const pen_relation *rel = NULL;
    uint8_t tuple_kind = 0;
    if (!read_row_header(in, &rel, &tuple_kind)) {
        return false;
    }
    PEN_ASSERT(rel != NULL);
    bool has_old = tuple_kind == 'K' || tuple_kind == 'O';
    if (has_old ? kind == PEN_CHANGE_INSERT : tuple_kind != 'N' || kind == PEN_CHANGE_DELETE) {
        return pen_reading_malformed(in, "tuple kind 0x%02X is not one that this message may have",
                                     tuple_kind);
    }
    bool has_new = kind != PEN_CHANGE_DELETE;
    size_t count = rel->column_count;
    size_t value_count = count * ((size_t)has_old + (size_t)has_new);
    size_t left = pen_cursor_left(&in->cur);
    if (value_count * VALUE_MIN > left) {
        return pen_reading_malformed(in, "%zu values do not fit into what follows", value_count);
    }
    size_t extra = value_count * sizeof(pen_value) + left + 1;
    pen_change *chg = reserve_change(in, extra);
    pen_value *values = (pen_value *)(chg + 1);
    row_copy row = {.next = (uint8_t *)(values + value_count)};
    row.end = row.next + left;
    memcpy(row.next, in->cur.next, left);
    *row.end = 0;

    *chg = (pen_change){.rel = rel, .kind = (uint8_t)kind};
    if (has_old) {
        chg->old_kind = (char)tuple_kind;
        chg->old_tuple.values = values;
        if (!read_tuple(in, &row, values, rel->column_count, true)) {
            return false;
        }
        values += count;
    }
    if (has_new) {
        chg->new_tuple.values = values;
        if ((has_old && !read_second_header(in, &row, rel)) ||
            !read_tuple(in, &row, values, rel->column_count, kind == PEN_CHANGE_UPDATE)) {
            return false;
        }
    }
    set_offset(in, &row);
    if (!pen_reading_whole(in)) {
        return false;
    }
    take_change(in, chg, extra);
    *made = chg;
    return true;
}

static bool read_truncate(pen_reading *in, pen_change **made)
{
    uint32_t count = pen_cursor_u32(&in->cur);
    uint8_t flags = pen_cursor_u8(&in->cur);
    if (in->cur.failed) {
        return pen_reading_whole(in);
    }
    if ((flags & ~(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY)) != 0) {
        return pen_reading_malformed(in, "unknown flags 0x%02X", flags);
    }
    size_t left = pen_cursor_left(&in->cur);
    if (count == 0 || left % 4 != 0 || count != left / 4) {
        return pen_reading_malformed(in, "%u relations told, and %zu bytes of OIDs", count, left);
    }
    size_t extra = count * sizeof(const pen_relation *);
    pen_change *chg = reserve_change(in, extra);
    const pen_relation **rels = (const pen_relation **)(chg + 1);
    *chg = (pen_change){
        .kind = PEN_CHANGE_TRUNCATE,
        .truncated = rels,
        .truncated_count = count,
        .truncate_cascade = (flags & TRUNCATE_CASCADE) != 0,
        .truncate_restart_identity = (flags & TRUNCATE_RESTART_IDENTITY) != 0,
    };
    for (uint32_t i = 0; i < count; i++) {
        uint32_t oid = pen_cursor_u32(&in->cur);
        rels[i] = pen_pgoutput_relation(in->decoder, oid);
        if (rels[i] == NULL) {
            return pen_reading_malformed(
                in, "no Relation message told what the relation with OID %u is", oid);
        }
    }
    take_change(in, chg, extra);
    *made = chg;
    return true;
}

/* The decoder */

pen_pgoutput *pen_pgoutput_create(pen_arena *arena)
{
    pen_pgoutput *decoder = pen_calloc(1, sizeof(*decoder));
    decoder->arena = arena;
    pen_rel_versions_init(&decoder->versions);
    return decoder;
}

void pen_pgoutput_destroy(pen_pgoutput *decoder)
{
    if (decoder == NULL) {
        return;
    }
    pen_rel_versions_deinit(&decoder->versions);
    free(decoder);
}

uint64_t pen_pgoutput_relation_arrival(const pen_pgoutput *decoder, uint32_t oid)
{
    const pen_rel_version *known = pen_rel_versions_find(&decoder->versions, oid);
    return known == NULL ? 0 : known->arrival;
}

void pen_pgoutput_each_relation(const pen_pgoutput *decoder,
                                void (*give)(void *arg, pen_slice message), void *arg)
{
    const pen_rel_versions *versions = &decoder->versions;
    for (size_t i = 0; i < (size_t)1 << versions->slots_log2; i++) {
        const pen_rel_version *it = versions->slots[i];
        if (it == NULL) {
            continue;
        }
        size_t len = 5 + it->body.len;
        uint8_t *message = pen_malloc(len);
        message[0] = PEN_MESSAGE_RELATION;
        for (int byte = 0; byte < 4; byte++) {
            message[1 + byte] = (uint8_t)(it->rel.oid >> (24 - 8 * byte));
        }
        memcpy(message + 5, it->body.data, it->body.len);
        give(arg, (pen_slice){message, len});
        free(message);
    }
}

pen_relation_news pen_pgoutput_compare_relation(const pen_pgoutput *decoder, pen_slice bytes,
                                                uint32_t *oid)
{
    pen_cursor cur = pen_cursor_over(bytes);
    (void)pen_cursor_u8(&cur);
    (void)pen_cursor_u32(&cur); /* the transaction */
    *oid = pen_cursor_u32(&cur);
    if (cur.failed) {
        *oid = 0;
        return PEN_RELATION_OTHER;
    }
    const pen_rel_version *known = pen_rel_versions_find(&decoder->versions, *oid);
    pen_slice body = {cur.next, pen_cursor_left(&cur)};
    return known == NULL                        ? PEN_RELATION_FIRST
           : pen_slice_equal(known->body, body) ? PEN_RELATION_KNOWN
                                                : PEN_RELATION_OTHER;
}

const pen_relation *pen_pgoutput_relation(const pen_pgoutput *decoder, uint32_t oid)
{
    const pen_rel_version *known = pen_rel_versions_find(&decoder->versions, oid);
    return known == NULL ? NULL : &known->rel;
}

void pen_pgoutput_begin_replay(pen_pgoutput *decoder)
{
    pen_rel_versions_begin_replay(&decoder->versions);
}

void pen_pgoutput_end_replay(pen_pgoutput *decoder)
{
    pen_rel_versions_end_replay(&decoder->versions);
}

/* Inside a streamed block these have their transaction's xid behind the kind (proto.c of
 * PostgreSQL 14 to 18). Origin has none: it stands for the whole block. */
static bool carries_xid(uint8_t kind)
{
    switch (kind) {
    case PEN_MESSAGE_RELATION:
    case PEN_MESSAGE_TYPE:
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
    case PEN_MESSAGE_TRUNCATE:
    case PEN_MESSAGE_MESSAGE:
        return true;
    default:
        return false;
    }
}

bool pen_pgoutput_peek(pen_slice bytes, bool streamed, uint8_t *kind, uint32_t *xid)
{
    pen_cursor cur = pen_cursor_over(bytes);
    *kind = pen_cursor_u8(&cur);
    *xid = 0;
    if (streamed && carries_xid(*kind)) {
        *xid = pen_cursor_u32(&cur);
        return *xid != 0;
    }
    return !cur.failed;
}

bool pen_pgoutput_decode(pen_pgoutput *decoder, pen_slice bytes, const pen_message_context *context,
                         pen_message *msg, pen_error *err)
{
    pen_reading in = {
        .decoder = decoder,
        .bytes = bytes,
        .cur = pen_cursor_over(bytes),
        .context = context,
        .err = err,
    };
    uint8_t kind = pen_cursor_u8(&in.cur);
    if (in.cur.failed) {
        return pen_reading_malformed(&in, "it has no kind");
    }
    msg->kind = kind;
    msg->xid = 0;
    if (context->streamed && carries_xid(kind)) {
        msg->xid = pen_cursor_u32(&in.cur);
        if (in.cur.failed) {
            return pen_reading_whole(&in);
        }
        if (msg->xid == 0) {
            return pen_reading_malformed(&in, "it came inside a streamed block, and names no "
                                              "transaction");
        }
    }
    switch (kind) {
    case PEN_MESSAGE_INSERT:
        return read_row(&in, PEN_CHANGE_INSERT, &msg->change);
    case PEN_MESSAGE_UPDATE:
        return read_row(&in, PEN_CHANGE_UPDATE, &msg->change);
    case PEN_MESSAGE_DELETE:
        return read_row(&in, PEN_CHANGE_DELETE, &msg->change);
    case PEN_MESSAGE_TRUNCATE:
        return read_truncate(&in, &msg->change);
    case PEN_MESSAGE_RELATION:
        return read_relation(&in, &msg->relation);
    default:
        return pen_reading_other(&in, msg);
    }
}
