#include "core/pgoutput.h"

#include "core/rel_versions.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The least that a column takes in a Relation message: flags, an empty name's NUL, type OID,
 * modifier; and a value in a tuple: its kind. Counts in a message are held against these before
 * anything is allocated, so that a few bytes cannot ask for much memory. */
#define REL_COLUMN_MIN 10u
#define VALUE_MIN      1u

enum { TRUNCATE_CASCADE = 1, TRUNCATE_RESTART_IDENTITY = 2 };
enum { COLUMN_IS_KEY = 1 };
enum { MESSAGE_TRANSACTIONAL = 1 };

struct pen_pgoutput {
    pen_arena *arena; /* borrowed */
    pen_rel_versions versions;
};

/* One message while it is read. */
typedef struct reading {
    pen_pgoutput *decoder;
    pen_slice bytes;
    pen_cursor cur;
    const char *name; /* the message's, for errors */
    pen_error *err;
} reading;

static bool malformed(const reading *in, const char *fmt, ...) PEN_PRINTF(2, 3);

static bool malformed(const reading *in, const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return pen_error_set(in->err, PEN_ERROR_FATAL,
                         "malformed %s message from the source (%zu bytes) at offset %zu: %s; "
                         "check that the source is a PostgreSQL server that speaks pgoutput "
                         "protocol version 1, with no proxy that changes the stream",
                         in->name, in->bytes.len, in->bytes.len - pen_cursor_left(&in->cur), what);
}

/* The check at the end of each message: every byte read, and none missing. */
static bool whole(const reading *in)
{
    if (in->cur.failed) {
        return malformed(in, "the message ends early");
    }
    if (pen_cursor_left(&in->cur) > 0) {
        return malformed(in, "%zu bytes are left over", pen_cursor_left(&in->cur));
    }
    return true;
}

/* The protocol sends "" for pg_catalog. */
static pen_slice schema_name(pen_slice sent)
{
    return sent.len == 0 ? pen_slice_of("pg_catalog") : sent;
}

/* Relation messages */

/* Reads the columns, which are all that is left of `in`, which reads the version's own copy. */
static bool read_columns(reading *in, pen_rel_column *columns, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++) {
        uint8_t flags = pen_cursor_u8(&in->cur);
        if ((flags & ~COLUMN_IS_KEY) != 0) {
            return malformed(in, "column %u has the unknown flags 0x%02X", i + 1u, flags);
        }
        columns[i].is_key = (flags & COLUMN_IS_KEY) != 0;
        columns[i].name = pen_cursor_cstring(&in->cur);
        columns[i].type_oid = pen_cursor_u32(&in->cur);
        columns[i].type_modifier = (int32_t)pen_cursor_u32(&in->cur);
    }
    return whole(in);
}

static bool read_relation(reading *in, const pen_relation **rel)
{
    uint32_t oid = pen_cursor_u32(&in->cur);
    pen_slice body = {in->cur.next, pen_cursor_left(&in->cur)};
    const pen_rel_version *known = pen_rel_versions_find(&in->decoder->versions, oid);
    if (!in->cur.failed && known != NULL && pen_slice_equal(known->body, body)) {
        *rel = &known->rel;
        return true;
    }
    (void)pen_cursor_cstring(&in->cur);
    (void)pen_cursor_cstring(&in->cur);
    uint8_t identity = pen_cursor_u8(&in->cur);
    if (!in->cur.failed && (identity == 0 || strchr("dnfi", identity) == NULL)) {
        return malformed(in, "the replica identity 0x%02X is none of d, n, f, i", identity);
    }
    uint16_t count = pen_cursor_u16(&in->cur);
    if (in->cur.failed) {
        return whole(in);
    }
    if (count * REL_COLUMN_MIN > pen_cursor_left(&in->cur)) {
        return malformed(in, "%u columns do not fit into what follows", count);
    }
    /* All is read once more out of the copy, so that the names point there. */
    pen_rel_version *made = pen_rel_version_create(oid, count, body);
    reading copy = *in;
    copy.cur = pen_cursor_over(made->body);
    made->rel.schema = schema_name(pen_cursor_cstring(&copy.cur));
    made->rel.table = pen_cursor_cstring(&copy.cur);
    made->rel.replica_identity = (char)pen_cursor_u8(&copy.cur);
    (void)pen_cursor_u16(&copy.cur);
    if (!read_columns(&copy, pen_rel_version_columns(made), count)) {
        free(made);
        return false;
    }
    pen_rel_versions_add(&in->decoder->versions, made);
    *rel = &made->rel;
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
static void set_offset(reading *in, const row_copy *row)
{
    in->cur.next = in->cur.end - (row->end - row->next);
}

/* Values that are not sent ('u') make sense only where the target has the row already. */
static bool read_tuple(reading *in, row_copy *row, pen_value *values, uint32_t count,
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
            return malformed(in, "column %u has the kind 0x%02X, which it may not have here", i + 1,
                             kind);
        }
        values[i] = (pen_value){.data = data, .len = len, .kind = kind};
    }
    row->next = next;
    return true;

short_message:
    row->next = next;
    set_offset(in, row);
    return malformed(in, "column %u of %u ends behind the message", i + 1, count);
}

/* Only what the relation's own Relation message told may come: the value arrays are sized by it. */
static bool check_count(const reading *in, const pen_relation *rel, uint32_t count)
{
    if (count != rel->column_count) {
        return malformed(in, "%u columns, but the Relation message of %.80s.%.80s told %u", count,
                         (const char *)rel->schema.data, (const char *)rel->table.data,
                         rel->column_count);
    }
    return true;
}

/* Reads the header of a row message up to its first tuple's values: relation OID, tuple kind,
 * column count. */
static bool read_row_header(reading *in, const pen_relation **rel, uint8_t *tuple_kind)
{
    uint32_t oid = pen_cursor_u32(&in->cur);
    *tuple_kind = pen_cursor_u8(&in->cur);
    uint16_t count = pen_cursor_u16(&in->cur);
    if (in->cur.failed) {
        return whole(in);
    }
    const pen_rel_version *known = pen_rel_versions_find(&in->decoder->versions, oid);
    if (known == NULL) {
        return malformed(in, "no Relation message told what the relation with OID %u is", oid);
    }
    *rel = &known->rel;
    return check_count(in, *rel, count);
}

/* Finds room for a change with `extra` bytes behind it and, behind all, a segment header (see
 * PEN_CHANGE_TAIL). The room is not taken yet: a message that turns out malformed leaves the arena
 * as it is. */
static pen_change *reserve_change(const reading *in, size_t extra)
{
    pen_block *block =
        pen_arena_reserve(in->decoder->arena, sizeof(pen_change) + extra + PEN_CHANGE_TAIL);
    return (pen_change *)(void *)(block->data + block->used);
}

static void take_change(const reading *in, const pen_change *chg, size_t extra)
{
    const void *taken = pen_arena_alloc(in->decoder->arena, sizeof(pen_change) + extra);
    PEN_ASSERT(taken == chg);
}

/* Between the tuples of an Update: the new one's kind and its count. */
static bool read_second_header(reading *in, row_copy *row, const pen_relation *rel)
{
    if (row->end - row->next < 3) {
        set_offset(in, row);
        return malformed(in, "the new tuple is missing");
    }
    uint8_t kind = row->next[0];
    uint32_t count = (uint32_t)row->next[1] << 8 | row->next[2];
    set_offset(in, row);
    if (kind != 'N') {
        return malformed(in, "tuple kind 0x%02X in the place of N", kind);
    }
    row->next[0] = 0; /* behind the old tuple's last value */
    row->next += 3;
    return check_count(in, rel, count);
}

static bool read_row(reading *in, pen_change_kind kind, pen_change **made)
{
    const pen_relation *rel = NULL;
    uint8_t tuple_kind = 0;
    if (!read_row_header(in, &rel, &tuple_kind)) {
        return false;
    }
    PEN_ASSERT(rel != NULL);
    bool has_old = tuple_kind == 'K' || tuple_kind == 'O';
    if (has_old ? kind == PEN_CHANGE_INSERT : tuple_kind != 'N' || kind == PEN_CHANGE_DELETE) {
        return malformed(in, "tuple kind 0x%02X is not one that this message may have", tuple_kind);
    }
    bool has_new = kind != PEN_CHANGE_DELETE;
    size_t count = rel->column_count;
    size_t value_count = count * ((size_t)has_old + (size_t)has_new);
    size_t left = pen_cursor_left(&in->cur);
    if (value_count * VALUE_MIN > left) {
        return malformed(in, "%zu values do not fit into what follows", value_count);
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
    if (!whole(in)) {
        return false;
    }
    take_change(in, chg, extra);
    *made = chg;
    return true;
}

static bool read_truncate(reading *in, pen_change **made)
{
    uint32_t count = pen_cursor_u32(&in->cur);
    uint8_t flags = pen_cursor_u8(&in->cur);
    if (in->cur.failed) {
        return whole(in);
    }
    if ((flags & ~(TRUNCATE_CASCADE | TRUNCATE_RESTART_IDENTITY)) != 0) {
        return malformed(in, "unknown flags 0x%02X", flags);
    }
    size_t left = pen_cursor_left(&in->cur);
    if (count == 0 || left % 4 != 0 || count != left / 4) {
        return malformed(in, "%u relations told, and %zu bytes of OIDs", count, left);
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
            return malformed(in, "no Relation message told what the relation with OID %u is", oid);
        }
    }
    take_change(in, chg, extra);
    *made = chg;
    return true;
}

/* The other messages */

static bool read_begin(reading *in, pen_message *msg)
{
    msg->begin.commit_lsn = pen_cursor_u64(&in->cur);
    msg->begin.commit_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    msg->begin.xid = pen_cursor_u32(&in->cur);
    return whole(in);
}

static bool read_commit(reading *in, pen_message *msg)
{
    uint8_t flags = pen_cursor_u8(&in->cur);
    if (flags != 0) {
        return malformed(in, "unknown flags 0x%02X", flags);
    }
    msg->commit.commit_lsn = pen_cursor_u64(&in->cur);
    msg->commit.end_lsn = pen_cursor_u64(&in->cur);
    msg->commit.commit_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    return whole(in);
}

static bool read_origin(reading *in, pen_message *msg)
{
    msg->origin.lsn = pen_cursor_u64(&in->cur);
    msg->origin.name = pen_cursor_cstring(&in->cur);
    return whole(in);
}

static bool read_type(reading *in, pen_message *msg)
{
    msg->type.oid = pen_cursor_u32(&in->cur);
    msg->type.schema = schema_name(pen_cursor_cstring(&in->cur));
    msg->type.name = pen_cursor_cstring(&in->cur);
    return whole(in);
}

static bool read_message(reading *in, pen_message *msg)
{
    uint8_t flags = pen_cursor_u8(&in->cur);
    if ((flags & ~MESSAGE_TRANSACTIONAL) != 0) {
        return malformed(in, "unknown flags 0x%02X", flags);
    }
    msg->message.transactional = (flags & MESSAGE_TRANSACTIONAL) != 0;
    msg->message.lsn = pen_cursor_u64(&in->cur);
    msg->message.prefix = pen_cursor_cstring(&in->cur);
    uint32_t len = pen_cursor_u32(&in->cur);
    msg->message.content = pen_cursor_bytes(&in->cur, len);
    return whole(in);
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

const pen_relation *pen_pgoutput_relation(const pen_pgoutput *decoder, uint32_t oid)
{
    const pen_rel_version *known = pen_rel_versions_find(&decoder->versions, oid);
    return known == NULL ? NULL : &known->rel;
}

bool pen_pgoutput_decode(pen_pgoutput *decoder, pen_slice bytes, pen_message *msg, pen_error *err)
{
    reading in = {.decoder = decoder, .bytes = bytes, .err = err};
    if (bytes.len == 0) {
        in.name = "empty";
        return malformed(&in, "it has no kind");
    }
    in.cur = pen_cursor_over(bytes);
    msg->kind = pen_cursor_u8(&in.cur);
    switch (msg->kind) {
    case PEN_MESSAGE_INSERT:
        in.name = "Insert";
        return read_row(&in, PEN_CHANGE_INSERT, &msg->change);
    case PEN_MESSAGE_UPDATE:
        in.name = "Update";
        return read_row(&in, PEN_CHANGE_UPDATE, &msg->change);
    case PEN_MESSAGE_DELETE:
        in.name = "Delete";
        return read_row(&in, PEN_CHANGE_DELETE, &msg->change);
    case PEN_MESSAGE_TRUNCATE:
        in.name = "Truncate";
        return read_truncate(&in, &msg->change);
    case PEN_MESSAGE_BEGIN:
        in.name = "Begin";
        return read_begin(&in, msg);
    case PEN_MESSAGE_COMMIT:
        in.name = "Commit";
        return read_commit(&in, msg);
    case PEN_MESSAGE_RELATION:
        in.name = "Relation";
        return read_relation(&in, &msg->relation);
    case PEN_MESSAGE_TYPE:
        in.name = "Type";
        return read_type(&in, msg);
    case PEN_MESSAGE_ORIGIN:
        in.name = "Origin";
        return read_origin(&in, msg);
    case PEN_MESSAGE_MESSAGE:
        in.name = "Message";
        return read_message(&in, msg);
    }
    in.name = "unknown";
    return malformed(&in, "no message of this protocol version begins with the byte 0x%02X",
                     bytes.data[0]);
}
