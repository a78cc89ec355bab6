/* Purpose: reads JSON (RFC 8259) that a program wrote: looks for a member, walks through an object.
 * Thread:  any.
 * Owns:    nothing; borrows the text.
 * Flow:    a whole text in, checked once; slices of its values out. */
#ifndef PEN_CORE_JSON_H
#define PEN_CORE_JSON_H

#include "core/error.h"
#include "core/slice.h"

/* How deep arrays and objects may stand in each other. */
#define PEN_JSON_DEPTH 64

/* True when `text` is one JSON value. Errors: PEN_ERROR_CONFIG, with the offset of what is wrong.
 * That strings are UTF-8 is not looked at. */
PEN_MUST_CHECK bool pen_json_check(pen_slice text, pen_error *err);

/* Gives the value of the member `key` of `object`, a checked text; of several the first. False when
 * it is no object, or has none. Names are compared as they are written: one with escapes is never
 * found. */
PEN_MUST_CHECK bool pen_json_find(pen_slice object, const char *key, pen_slice *value);

/* Walks through the members of an object, a checked text: begin with *at as the object. False at
 * the end, or when it is none. */
PEN_MUST_CHECK bool pen_json_next(pen_slice *at, pen_slice *key, pen_slice *value);

/* Gives (free() it) what a string without escapes, a number, true or false says; NULL for anything
 * else. */
char *pen_json_text(pen_slice value);

#endif
