/* Purpose: PostgreSQL's one-dimensional arrays, as text and in binary, straight from values as they
 *          came in the stream.
 * Thread:  one.
 * Owns:    its bytes, which it uses again for the next arrays.
 * Flow:    values in, none of them parsed; the parameter of a statement out.
 * Source:  PostgreSQL, "Array Input and Output Syntax"; array_recv for the binary form. */
#ifndef PEN_CORE_PGARRAY_H
#define PEN_CORE_PGARRAY_H

#include "core/change.h"

/* Several arrays, one behind the other in one run of bytes. Zeroed is empty. */
typedef struct pen_arrays {
    uint8_t *data;
    size_t len;
    size_t capacity;
    size_t begun;          /* where the array at hand begins */
    uint32_t count;        /* of its elements */
    uint32_t element_type; /* OID, for binary; 0: as text */
    bool has_null;
    char delimiter; /* between elements as text */
} pen_arrays;

void pen_arrays_deinit(pen_arrays *arrays);
/* Forgets all arrays; gives memory back when it has become unusually much. */
void pen_arrays_clear(pen_arrays *arrays);

/* Begins an array as text; `delimiter` is the element type's (pg_type.typdelim). */
void pen_arrays_begin_text(pen_arrays *arrays, char delimiter);
/* Begins an array in binary of elements of the type with this OID. */
void pen_arrays_begin_binary(pen_arrays *arrays, uint32_t element_type);
/* Adds an element, which is NULL or came as the array is: as text or in binary. Text is taken as it
 * is, in an encoding in which no character holds the byte of another ASCII one, as all of a
 * server's are. */
void pen_arrays_add(pen_arrays *arrays, const pen_value *value);
/* Ends it: *offset and *len are where it lies in arrays->data, whose address may change with the
 * next one. A NUL follows it. */
void pen_arrays_end(pen_arrays *arrays, size_t *offset, size_t *len);

#endif
