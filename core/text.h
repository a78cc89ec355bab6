/* Purpose: text that grows, for SQL and messages, and numbers as people read them.
 * Thread:  one for a text.
 * Owns:    its buffer; pen_text_take gives it away.
 * Flow:    pieces in, one NUL-terminated string out. */
#ifndef PEN_CORE_TEXT_H
#define PEN_CORE_TEXT_H

#include "core/base.h"

typedef struct pen_text {
    char *data; /* NULL while empty */
    size_t len;
    size_t capacity;
} pen_text;

void pen_text_append(pen_text *text, const char *piece);
void pen_text_appendf(pen_text *text, const char *fmt, ...) PEN_PRINTF(2, 3);
/* Gives the string (free() it), never NULL, and leaves `text` empty. */
char *pen_text_take(pen_text *text);
void pen_text_deinit(pen_text *text);

/* 20 digits, the commas between them, and the NUL. */
#define PEN_GROUPED_SIZE 28
/* "1,234,567"; gives `text`. */
const char *pen_group_digits(uint64_t number, char text[PEN_GROUPED_SIZE]);

#endif
