#include "core/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_room(pen_text *text, size_t more)
{
    size_t needed = text->len + more + 1;
    if (needed > text->capacity) {
        text->capacity = needed * 2 < 64 ? 64 : needed * 2;
        text->data = pen_realloc(text->data, text->capacity);
    }
    PEN_ASSERT(text->data != NULL);
}

void pen_text_append(pen_text *text, const char *piece)
{
    size_t len = strlen(piece);
    make_room(text, len);
    memcpy(text->data + text->len, piece, len + 1);
    text->len += len;
}

void pen_text_appendf(pen_text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    va_list again;
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    PEN_ASSERT(len >= 0);
    make_room(text, (size_t)len);
    vsnprintf(text->data + text->len, (size_t)len + 1, fmt, again);
    va_end(again);
    text->len += (size_t)len;
}

char *pen_text_take(pen_text *text)
{
    if (text->data == NULL) {
        pen_text_append(text, "");
    }
    char *data = text->data;
    *text = (pen_text){0};
    return data;
}

void pen_text_deinit(pen_text *text)
{
    free(text->data);
    *text = (pen_text){0};
}

const char *pen_group_digits(uint64_t number, char text[PEN_GROUPED_SIZE])
{
    char digits[PEN_GROUPED_SIZE];
    int len = snprintf(digits, sizeof(digits), "%" PRIu64, number);
    size_t at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            text[at++] = ',';
        }
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}
