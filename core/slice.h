/* Purpose: a run of bytes that somebody else owns, and a cursor that reads it with every bound
 *          checked.
 * Thread:  any; a cursor belongs to one caller.
 * Owns:    nothing; borrows the bytes.
 * Flow:    bytes from outside in; numbers, strings and slices out, or `failed`. */
#ifndef PEN_CORE_SLICE_H
#define PEN_CORE_SLICE_H

#include "core/base.h"

#include <string.h>

typedef struct pen_slice {
    const uint8_t *data;
    size_t len; /* bytes */
} pen_slice;

static inline pen_slice pen_slice_of(const char *text)
{
    return (pen_slice){(const uint8_t *)text, strlen(text)};
}

static inline bool pen_slice_equal(pen_slice a, pen_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Reads from the front. The first read beyond the end sets `failed`; from then on every read gives
 * zero or an empty slice, so that a decoder may check once, after a run of reads. Numbers are in
 * network byte order. */
typedef struct pen_cursor {
    const uint8_t *next;
    const uint8_t *end;
    bool failed;
} pen_cursor;

static inline pen_cursor pen_cursor_over(pen_slice bytes)
{
    /* Adding even 0 to NULL is undefined in C17. */
    const uint8_t *first = bytes.data == NULL ? (const uint8_t *)"" : bytes.data;
    return (pen_cursor){first, first + bytes.len, false};
}

static inline size_t pen_cursor_left(const pen_cursor *cur)
{
    return (size_t)(cur->end - cur->next);
}

/* Takes `len` bytes off the front, or NULL when there are not as many (or a read failed before). */
static inline const uint8_t *pen_cursor_take(pen_cursor *cur, size_t len)
{
    if (cur->failed || len > pen_cursor_left(cur)) {
        cur->failed = true;
        return NULL;
    }
    const uint8_t *at = cur->next;
    cur->next += len;
    return at;
}

static inline uint8_t pen_cursor_u8(pen_cursor *cur)
{
    const uint8_t *at = pen_cursor_take(cur, 1);
    return at == NULL ? 0 : at[0];
}

static inline uint16_t pen_cursor_u16(pen_cursor *cur)
{
    const uint8_t *at = pen_cursor_take(cur, 2);
    return (uint16_t)(at == NULL ? 0 : at[0] << 8 | at[1]);
}

static inline uint32_t pen_cursor_u32(pen_cursor *cur)
{
    const uint8_t *at = pen_cursor_take(cur, 4);
    return at == NULL
               ? 0
               : (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t pen_cursor_u64(pen_cursor *cur)
{
    if (pen_cursor_left(cur) < 8) {
        cur->failed = true; /* before the first half is read: it would be given for the whole */
    }
    uint64_t high = pen_cursor_u32(cur);
    return high << 32 | pen_cursor_u32(cur);
}

static inline pen_slice pen_cursor_bytes(pen_cursor *cur, size_t len)
{
    const uint8_t *at = pen_cursor_take(cur, len);
    return at == NULL ? (pen_slice){NULL, 0} : (pen_slice){at, len};
}

/* A NUL-terminated string, without its NUL; the NUL stands in the input right behind it. */
static inline pen_slice pen_cursor_cstring(pen_cursor *cur)
{
    size_t left = cur->failed ? 0 : pen_cursor_left(cur);
    const uint8_t *nul = left == 0 ? NULL : memchr(cur->next, 0, left);
    if (nul == NULL) {
        cur->failed = true;
        return (pen_slice){NULL, 0};
    }
    pen_slice text = {cur->next, (size_t)(nul - cur->next)};
    cur->next = nul + 1;
    return text;
}

/* True when all was read, no more and no less. */
static inline bool pen_cursor_done(const pen_cursor *cur)
{
    return !cur->failed && cur->next == cur->end;
}

#endif
