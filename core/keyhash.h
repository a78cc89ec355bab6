/* Purpose: 64-bit hashes of keys, by which the conflict table finds dependencies.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    (what the key is of, its columns' values) in, one number out. Keys that are equal on the
 *          target must give equal hashes; different ones that collide only add a dependency. */
#ifndef PEN_CORE_KEYHASH_H
#define PEN_CORE_KEYHASH_H

#include "core/change.h"

/* How a key column's value is made comparable before it is hashed. All of them take values that
 * came as text and values that came in binary. Only integers hash alike in both; of the others, a
 * column comes as one of the two throughout a stream, and so do columns of the same type. */
typedef enum pen_key_form {
    PEN_KEY_BYTES,       /* equal means same bytes */
    PEN_KEY_TRIM_BLANKS, /* char(n): trailing blanks do not count */
    PEN_KEY_INT,         /* int2, int4, int8: equal across the three */
    PEN_KEY_NUMERIC,     /* 1.0 is 1.00 */
    PEN_KEY_FLOAT        /* float4 or float8: -0 is 0, NaN is NaN */
} pen_key_form;

typedef struct pen_key_column {
    uint16_t index; /* into the tuple's values */
    pen_key_form form;
} pen_key_column;

/* What a row is hashed by. */
typedef struct pen_key_spec {
    uint64_t seed; /* names the constraint */
    const pen_key_column *columns;
    uint16_t column_count;
    bool nulls_equal; /* UNIQUE NULLS NOT DISTINCT: a NULL is a value like any other */
} pen_key_spec;

typedef enum pen_key_state {
    PEN_KEY_HASHED,
    PEN_KEY_NULL,   /* a column is NULL: no key, it is equal to nothing */
    PEN_KEY_UNKNOWN /* a column came as unchanged TOAST, or is not what its type promises */
} pen_key_state;

/* The key of a whole table: `seed` names it. */
uint64_t pen_keyhash_table(uint64_t seed);

/* Hashes the key columns of `values`. A column that is unchanged TOAST is taken from `before`, the
 * old row, where that is given: then all of the key's columns must be known there. *hash is left
 * alone unless this gives PEN_KEY_HASHED. */
PEN_MUST_CHECK pen_key_state pen_keyhash_row(const pen_key_spec *spec, const pen_value *values,
                                             const pen_value *before, uint64_t *hash);

/* True when the two rows' keys, both of which were hashed without `before`, are the same and not
 * only their hashes. */
bool pen_keyhash_same(const pen_key_spec *spec, const pen_value *a, const pen_value *b);

#endif
