/* Purpose: 64-bit hashes of keys, by which the conflict table finds dependencies.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    (table, constraint, key columns' bytes) in, one number out. Equal keys must give equal
 *          hashes; different ones that collide only add a dependency. */
#ifndef PEN_CORE_KEYHASH_H
#define PEN_CORE_KEYHASH_H

#include "core/change.h"

/* How a key column's bytes are made comparable before they are hashed. */
typedef enum pen_key_form {
    PEN_KEY_BYTES,      /* equal means same bytes */
    PEN_KEY_TRIM_BLANKS /* char(n): trailing blanks do not count */
} pen_key_form;

typedef struct pen_key_column {
    uint16_t index; /* into the tuple's values */
    pen_key_form form;
} pen_key_column;

/* The key of a whole table (or of a group of tables): `seed` names it. */
uint64_t pen_keyhash_table(uint64_t seed);

/* Hashes the key columns of `values`. Returns false when one of them is NULL or unchanged TOAST,
 * that is when there is no key to hash; *hash is then left alone. `seed` names table and
 * constraint. */
PEN_MUST_CHECK bool pen_keyhash_row(uint64_t seed, const pen_value *values,
                                    const pen_key_column *columns, size_t column_count,
                                    uint64_t *hash);

#endif
