/* Purpose: PostgreSQL's built-in types: whose binary form means the same on every server, and how
 *          it reads.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    type OIDs in, whether their values may travel in binary out; a binary value in, words
 *          for a message out.
 * Source:  pg_type.dat and the types' send and receive functions, PostgreSQL 14 to 18. */
#ifndef PEN_CORE_PGTYPE_H
#define PEN_CORE_PGTYPE_H

#include "core/change.h"
#include "core/text.h"

/* OIDs of pg_type.dat, the same on every server. */
enum {
    PEN_TYPE_CHAR = 18,
    PEN_TYPE_CHAR_ARRAY = 1002,
    PEN_TYPE_INTERVAL = 1186,
    PEN_TYPE_INTERVAL_ARRAY = 1187
};

/* True for a built-in type whose binary form, sent by one server, is the same value for another,
 * whatever the versions; but for intervals, see pen_pgtype_is_interval. The type of a domain's
 * values is its base type. */
bool pen_pgtype_portable(uint32_t type);

/* OID of the array type whose elements are of this portable type, which is itself no array; 0:
 * there is none. */
uint32_t pen_pgtype_array(uint32_t type);

/* interval and its array: since PostgreSQL 17 a value can be infinite, and the form of that is an
 * ordinary value to an older server, which would take it silently. */
bool pen_pgtype_is_interval(uint32_t type);

/* "char" and its array: since PostgreSQL 16 the text of a value beyond ASCII is four characters
 * (\310), of which an older server takes the first one, silently. In binary it is one byte. */
bool pen_pgtype_is_char(uint32_t type);

/* True when each value of `source` is the same value of `target`, and equal ones stay equal: the
 * same type, or one that only widens it. */
bool pen_pgtype_widens(uint32_t source, uint32_t target);

/* Appends a value that came in binary as a person would read it, where that is simple, else in
 * hexadecimal; cut when long. */
void pen_pgtype_describe(uint32_t type, const pen_value *value, pen_text *out);

#endif
