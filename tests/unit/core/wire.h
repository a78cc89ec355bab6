/* Purpose: writes pgoutput messages as a source would, and one sample of each form of each.
 * Thread:  any; a wire belongs to one caller.
 * Owns:    its buffer, until wire_free.
 * Flow:    fields in, one message's bytes out, for the decoder's tests and the fuzzer's corpus. */
#ifndef PEN_TESTS_WIRE_H
#define PEN_TESTS_WIRE_H

#include "core/slice.h"

#include <stdlib.h>

typedef struct wire {
    uint8_t *data;
    size_t len;
    size_t size;
} wire;

static inline void wire_free(wire *out)
{
    free(out->data);
    *out = (wire){0};
}

static inline pen_slice wire_slice(const wire *out)
{
    return (pen_slice){out->data, out->len};
}

static inline void wire_bytes(wire *out, const void *bytes, size_t len)
{
    if (out->size - out->len < len || out->data == NULL) {
        out->size = (out->len + len) * 2 + 64;
        out->data = pen_realloc(out->data, out->size);
    }
    if (len > 0) {
        memcpy(out->data + out->len, bytes, len);
        out->len += len;
    }
}

/* The low `len` bytes of `number`, the highest of them first. */
static inline void wire_number(wire *out, uint64_t number, unsigned len)
{
    for (unsigned shift = len * 8; shift > 0; shift -= 8) {
        uint8_t byte = (uint8_t)(number >> (shift - 8));
        wire_bytes(out, &byte, 1);
    }
}

static inline void wire_u8(wire *out, unsigned number)
{
    wire_number(out, number, 1);
}

static inline void wire_u16(wire *out, unsigned number)
{
    wire_number(out, number, 2);
}

static inline void wire_u32(wire *out, uint32_t number)
{
    wire_number(out, number, 4);
}

static inline void wire_u64(wire *out, uint64_t number)
{
    wire_number(out, number, 8);
}

static inline void wire_string(wire *out, const char *text)
{
    wire_bytes(out, text, strlen(text) + 1);
}

/* One value each: text, binary, NULL, unchanged. */
static inline void wire_text(wire *out, const char *text)
{
    wire_u8(out, 't');
    wire_u32(out, (uint32_t)strlen(text));
    wire_bytes(out, text, strlen(text));
}

static inline void wire_binary(wire *out, const void *bytes, uint32_t len)
{
    wire_u8(out, 'b');
    wire_u32(out, len);
    wire_bytes(out, bytes, len);
}

static inline void wire_null(wire *out)
{
    wire_u8(out, 'n');
}

static inline void wire_unchanged(wire *out)
{
    wire_u8(out, 'u');
}

/* A tuple's header; the values follow. */
static inline void wire_tuple(wire *out, char kind, unsigned columns)
{
    wire_u8(out, (uint8_t)kind);
    wire_u16(out, columns);
}

/* A row message up to its first tuple. */
static inline void wire_row(wire *out, char kind, uint32_t oid)
{
    wire_u8(out, (uint8_t)kind);
    wire_u32(out, oid);
}

static inline void wire_begin(wire *out, uint64_t commit_lsn, int64_t commit_time, uint32_t xid)
{
    wire_u8(out, 'B');
    wire_u64(out, commit_lsn);
    wire_u64(out, (uint64_t)commit_time);
    wire_u32(out, xid);
}

static inline void wire_commit(wire *out, uint64_t commit_lsn, uint64_t end_lsn,
                               int64_t commit_time)
{
    wire_u8(out, 'C');
    wire_u8(out, 0);
    wire_u64(out, commit_lsn);
    wire_u64(out, end_lsn);
    wire_u64(out, (uint64_t)commit_time);
}

/* A Relation message up to its columns. */
static inline void wire_relation(wire *out, uint32_t oid, const char *schema, const char *table,
                                 char identity, unsigned columns)
{
    wire_u8(out, 'R');
    wire_u32(out, oid);
    wire_string(out, schema);
    wire_string(out, table);
    wire_u8(out, (uint8_t)identity);
    wire_u16(out, columns);
}

static inline void wire_column(wire *out, unsigned flags, const char *name, uint32_t type,
                               int32_t modifier)
{
    wire_u8(out, flags);
    wire_string(out, name);
    wire_u32(out, type);
    wire_u32(out, (uint32_t)modifier);
}

/* The table of the samples: shop.item (id int8 key, name text, price numeric(10,2)). */
#define WIRE_ITEM 16385U

/* A second one without columns: pg_catalog.empty. */
#define WIRE_EMPTY 16386U

static inline void wire_item_relation(wire *out)
{
    wire_relation(out, WIRE_ITEM, "shop", "item", 'd', 3);
    wire_column(out, 1, "id", 20, -1);
    wire_column(out, 0, "name", 25, -1);
    wire_column(out, 0, "price", 1700, 655366);
}

static inline void wire_empty_relation(wire *out)
{
    wire_relation(out, WIRE_EMPTY, "", "empty", 'n', 0);
}

static inline void wire_item_insert(wire *out, const char *id, const char *name)
{
    wire_row(out, 'I', WIRE_ITEM);
    wire_tuple(out, 'N', 3);
    wire_text(out, id);
    wire_text(out, name);
    wire_null(out);
}

/* Each message in each of its forms, in an order that a source could send: sample `at`, or false
 * behind the last. */
static inline bool wire_sample(size_t at, wire *out)
{
    out->len = 0;
    switch (at) {
    case 0:
        wire_begin(out, 0x16B374D848, 812345678901234, 4242);
        return true;
    case 1: /* Origin */
        wire_u8(out, 'O');
        wire_u64(out, 0x0123456789ABCDEF);
        wire_string(out, "upstream");
        return true;
    case 2: /* Type */
        wire_u8(out, 'Y');
        wire_u32(out, 16400);
        wire_string(out, "shop");
        wire_string(out, "mood");
        return true;
    case 3:
        wire_item_relation(out);
        return true;
    case 4:
        wire_empty_relation(out);
        return true;
    case 5: /* text, empty text, NULL */
        wire_item_insert(out, "17", "");
        return true;
    case 6: /* binary, a NUL byte inside */
        wire_row(out, 'I', WIRE_ITEM);
        wire_tuple(out, 'N', 3);
        wire_binary(out, "\0\0\0\0\0\0\0\x11", 8);
        wire_null(out);
        wire_binary(out, "\0\1\2", 3);
        return true;
    case 7: /* no columns */
        wire_row(out, 'I', WIRE_EMPTY);
        wire_tuple(out, 'N', 0);
        return true;
    case 8: /* Update, identity unchanged */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'N', 3);
        wire_text(out, "17");
        wire_unchanged(out);
        wire_text(out, "9.99");
        return true;
    case 9: /* Update of a key */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'K', 3);
        wire_text(out, "17");
        wire_null(out);
        wire_null(out);
        wire_tuple(out, 'N', 3);
        wire_text(out, "18");
        wire_text(out, "hammer");
        wire_text(out, "9.99");
        return true;
    case 10: /* Update with the full old row, whose last value ends where the new tuple begins */
        wire_row(out, 'U', WIRE_ITEM);
        wire_tuple(out, 'O', 3);
        wire_text(out, "18");
        wire_text(out, "hammer");
        wire_text(out, "9.99");
        wire_tuple(out, 'N', 3);
        wire_text(out, "18");
        wire_unchanged(out);
        wire_null(out);
        return true;
    case 11:
        wire_row(out, 'D', WIRE_ITEM);
        wire_tuple(out, 'K', 3);
        wire_text(out, "18");
        wire_null(out);
        wire_null(out);
        return true;
    case 12:
        wire_row(out, 'D', WIRE_ITEM);
        wire_tuple(out, 'O', 3);
        wire_text(out, "19");
        wire_text(out, "nail");
        wire_text(out, "0.01");
        return true;
    case 13: /* Truncate of two, CASCADE and RESTART IDENTITY */
        wire_u8(out, 'T');
        wire_u32(out, 2);
        wire_u8(out, 3);
        wire_u32(out, WIRE_ITEM);
        wire_u32(out, WIRE_EMPTY);
        return true;
    case 14: /* transactional Message */
        wire_u8(out, 'M');
        wire_u8(out, 1);
        wire_u64(out, 0x16B374D800);
        wire_string(out, "penstock");
        wire_u32(out, 4);
        wire_bytes(out, "mark", 4);
        return true;
    case 15: /* and one that is not, empty */
        wire_u8(out, 'M');
        wire_u8(out, 0);
        wire_u64(out, 0x16B374D900);
        wire_string(out, "");
        wire_u32(out, 0);
        return true;
    case 16:
        wire_commit(out, 0x16B374D848, 0x16B374D878, 812345678901234);
        return true;
    default:
        return false;
    }
}

#endif
