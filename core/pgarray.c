#include "core/pgarray.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* What is kept for the next arrays. */
#define KEPT_MOST (4u * 1024u * 1024u)

/* Words in front of a binary array's elements: dimensions, whether there are NULLs, the element
 * type, and of the only dimension its length and lower bound. */
enum { DIMENSIONS, HAS_NULL, ELEMENT_TYPE, LENGTH, LOWER_BOUND, HEADER_WORDS };

void pen_arrays_deinit(pen_arrays *arrays)
{
    free(arrays->data);
    *arrays = (pen_arrays){0};
}

void pen_arrays_clear(pen_arrays *arrays)
{
    if (arrays->capacity > KEPT_MOST) {
        pen_arrays_deinit(arrays);
    }
    arrays->len = 0;
}

static uint8_t *make_room(pen_arrays *arrays, size_t more)
{
    if (arrays->capacity - arrays->len < more) {
        arrays->capacity = (arrays->len + more) * 2;
        arrays->data = pen_realloc(arrays->data, arrays->capacity);
    }
    return arrays->data + arrays->len;
}

static void put_byte(pen_arrays *arrays, char byte)
{
    *make_room(arrays, 1) = (uint8_t)byte;
    arrays->len++;
}

static void put_word(uint8_t *at, uint32_t word)
{
    word = htobe32(word);
    memcpy(at, &word, sizeof(word));
}

static void begin(pen_arrays *arrays)
{
    arrays->begun = arrays->len;
    arrays->count = 0;
    arrays->has_null = false;
}

void pen_arrays_begin_text(pen_arrays *arrays, char delimiter)
{
    begin(arrays);
    arrays->element_type = 0;
    arrays->delimiter = delimiter;
    put_byte(arrays, '{');
}

void pen_arrays_begin_binary(pen_arrays *arrays, uint32_t element_type)
{
    PEN_ASSERT(element_type != 0);
    begin(arrays);
    arrays->element_type = element_type;
    (void)make_room(arrays, HEADER_WORDS * sizeof(uint32_t));
    arrays->len += HEADER_WORDS * sizeof(uint32_t);
}

/* Quoted always: what needs no quotes is not worth finding out. */
static void add_quoted(pen_arrays *arrays, const pen_value *value)
{
    uint8_t *out = make_room(arrays, 2 * (size_t)value->len + 2);
    const uint8_t *end = value->data + value->len;
    *out++ = '"';
    for (const uint8_t *at = value->data; at < end; at++) {
        if (*at == '"' || *at == '\\') {
            *out++ = '\\';
        }
        *out++ = *at;
    }
    *out++ = '"';
    arrays->len = (size_t)(out - arrays->data);
}

static void add_text(pen_arrays *arrays, const pen_value *value)
{
    if (arrays->count > 0) {
        put_byte(arrays, arrays->delimiter);
    }
    if (value->kind == PEN_VALUE_NULL) {
        memcpy(make_room(arrays, 4), "NULL", 4);
        arrays->len += 4;
    } else {
        add_quoted(arrays, value);
    }
}

static void add_binary(pen_arrays *arrays, const pen_value *value)
{
    bool is_null = value->kind == PEN_VALUE_NULL;
    size_t len = is_null ? 0 : value->len;
    uint8_t *out = make_room(arrays, sizeof(uint32_t) + len);
    put_word(out, is_null ? UINT32_MAX : value->len);
    if (len > 0) {
        memcpy(out + sizeof(uint32_t), value->data, len);
    }
    arrays->len += sizeof(uint32_t) + len;
    arrays->has_null |= is_null;
}

void pen_arrays_add(pen_arrays *arrays, const pen_value *value)
{
    bool binary = arrays->element_type != 0;
    PEN_ASSERT(value->kind == PEN_VALUE_NULL ||
               value->kind == (binary ? PEN_VALUE_BINARY : PEN_VALUE_TEXT));
    if (binary) {
        add_binary(arrays, value);
    } else {
        add_text(arrays, value);
    }
    arrays->count++;
}

void pen_arrays_end(pen_arrays *arrays, size_t *offset, size_t *len)
{
    if (arrays->element_type == 0) {
        put_byte(arrays, '}');
    } else {
        uint8_t *words = arrays->data + arrays->begun;
        put_word(words + DIMENSIONS * sizeof(uint32_t), 1);
        put_word(words + HAS_NULL * sizeof(uint32_t), arrays->has_null);
        put_word(words + ELEMENT_TYPE * sizeof(uint32_t), arrays->element_type);
        put_word(words + LENGTH * sizeof(uint32_t), arrays->count);
        put_word(words + LOWER_BOUND * sizeof(uint32_t), 1);
    }
    *offset = arrays->begun;
    *len = arrays->len - arrays->begun;
    put_byte(arrays, '\0');
}
