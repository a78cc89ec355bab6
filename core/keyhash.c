#include "core/keyhash.h"

#include <string.h>

/* Inlined, so that the state may lie on the stack whatever version of the library is installed, and
 * so that the compiler cuts the hash down to its short form where the length is known. */
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Bytes of a key that are gathered on the stack and hashed at once; a longer key is streamed. Both
 * ways give the same hash of the same bytes. */
#define SHORT_KEY 256

/* A value without what does not count in a comparison. */
static pen_slice significant(const pen_value *value, pen_key_form form)
{
    size_t len = value->len;
    if (form == PEN_KEY_TRIM_BLANKS) {
        while (len > 0 && value->data[len - 1] == ' ') {
            len--;
        }
    }
    return (pen_slice){value->data, len};
}

uint64_t pen_keyhash_table(uint64_t seed)
{
    /* A row key's bytes are runs of a four-byte length and as many bytes, so eight bytes of which
     * the last four are a length of 2^32 - 1 are never one. */
    static const uint8_t name[8] = {0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    return XXH3_64bits_withSeed(name, sizeof(name), seed);
}

static uint64_t hash_long(uint64_t seed, const pen_value *values, const pen_key_column *columns,
                          size_t column_count)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    for (size_t i = 0; i < column_count; i++) {
        pen_slice bytes = significant(&values[columns[i].index], columns[i].form);
        uint32_t len = (uint32_t)bytes.len;
        XXH3_64bits_update(&state, &len, sizeof(len));
        if (len > 0) {
            XXH3_64bits_update(&state, bytes.data, len);
        }
    }
    return XXH3_64bits_digest(&state);
}

bool pen_keyhash_row(uint64_t seed, const pen_value *values, const pen_key_column *columns,
                     size_t column_count, uint64_t *hash)
{
    /* Each column's length goes before its bytes: ('ab', 'c') is not ('a', 'bc'). */
    uint8_t key[SHORT_KEY];
    size_t used = 0;
    bool fits = true;
    for (size_t i = 0; i < column_count; i++) {
        const pen_value *value = &values[columns[i].index];
        if (value->kind == PEN_VALUE_NULL || value->kind == PEN_VALUE_UNCHANGED) {
            return false;
        }
        if (!fits) {
            continue; /* only looking for a NULL by now */
        }
        pen_slice bytes = significant(value, columns[i].form);
        uint32_t len = (uint32_t)bytes.len;
        fits = sizeof(len) + bytes.len <= sizeof(key) - used;
        if (fits) {
            memcpy(key + used, &len, sizeof(len));
            used += sizeof(len);
            if (len > 0) {
                memcpy(key + used, bytes.data, len);
                used += len;
            }
        }
    }
    *hash = fits ? XXH3_64bits_withSeed(key, used, seed)
                 : hash_long(seed, values, columns, column_count);
    return true;
}
