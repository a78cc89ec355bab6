/* Purpose: writes pgoutput messages as a source would.
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

/* Makes the message in `out` one that came inside a streamed block. */
static inline void wire_add_xid(wire *out, uint32_t xid)
{
    wire_u32(out, 0);
    memmove(out->data + 5, out->data + 1, out->len - 5);
    for (unsigned i = 0; i < 4; i++) {
        out->data[1 + i] = (uint8_t)(xid >> (24 - 8 * i));
    }
}

static inline void wire_stream_start(wire *out, uint32_t xid, bool first)
{
    wire_u8(out, 'S');
    wire_u32(out, xid);
    wire_u8(out, first);
}

static inline void wire_stream_stop(wire *out)
{
    wire_u8(out, 'E');
}

static inline void wire_stream_commit(wire *out, uint32_t xid, uint64_t commit_lsn,
                                      uint64_t end_lsn, int64_t commit_time)
{
    wire_u8(out, 'c');
    wire_u32(out, xid);
    wire_u8(out, 0);
    wire_u64(out, commit_lsn);
    wire_u64(out, end_lsn);
    wire_u64(out, (uint64_t)commit_time);
}

/* Without LSN and time, which streaming 'parallel' puts behind it. */
static inline void wire_stream_abort(wire *out, uint32_t xid, uint32_t subxid)
{
    wire_u8(out, 'A');
    wire_u32(out, xid);
    wire_u32(out, subxid);
}

/* Any of the five of two-phase decoding; `prepare_time` only in Rollback Prepared. */
static inline void wire_prepared(wire *out, char kind, uint64_t prepare_lsn, uint64_t end_lsn,
                                 int64_t prepare_time, int64_t time, uint32_t xid, const char *gid)
{
    wire_u8(out, (uint8_t)kind);
    if (kind != 'b') {
        wire_u8(out, 0);
    }
    wire_u64(out, prepare_lsn);
    wire_u64(out, end_lsn);
    if (kind == 'r') {
        wire_u64(out, (uint64_t)prepare_time);
    }
    wire_u64(out, (uint64_t)time);
    wire_u32(out, xid);
    wire_string(out, gid);
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

#endif
