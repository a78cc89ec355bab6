/* Purpose: shows text of any origin so that no terminal acts on it and one line stays one line.
 * Thread:  any.
 * Owns:    nothing; writes into the caller's buffer, or gives a string away.
 * Flow:    bytes in, which may be no UTF-8 at all; printable UTF-8 out, character by character or
 *          whole. */
#ifndef PEN_CORE_ESCAPE_H
#define PEN_CORE_ESCAPE_H

#include "core/slice.h"

typedef enum pen_escape_style {
    PEN_ESCAPE_TEXT,    /* plain, on a text line: the backslash itself is left alone */
    PEN_ESCAPE_QUOTED,  /* inside double quotes, on a text line */
    PEN_ESCAPE_LITERAL, /* inside single quotes, on a text line */
    PEN_ESCAPE_JSON     /* inside a JSON string */
} pen_escape_style;

/* The longest that one character becomes, and its NUL. */
#define PEN_ESCAPE_SIZE 8

/* Takes one character off the front of `bytes`, which are not empty, and writes it into `out`,
 * NUL-terminated, escaped where `style` asks for it. A byte that is not UTF-8 is shown as \xff, in
 * JSON, which cannot hold it, as U+FFFD. Returns how many bytes were taken. */
size_t pen_escape_next(pen_escape_style style, pen_slice bytes, char out[PEN_ESCAPE_SIZE]);

/* All of `text` as PEN_ESCAPE_TEXT; gives the string (free() it). */
char *pen_escape_text(const char *text);

#endif
