#include "core/escape.h"

#include "core/text.h"

#include <stdio.h>

/* Reads one character of UTF-8 (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF) from
 * the front of `bytes`. Returns its length in bytes, 0 when there is none. */
static size_t read_utf8(pen_slice bytes, uint32_t *code)
{
    const uint8_t *byte = bytes.data;
    uint32_t least;
    size_t len;
    if (byte[0] < 0x80) {
        *code = byte[0];
        return 1;
    } else if ((byte[0] & 0xe0) == 0xc0) {
        len = 2;
        least = 0x80;
        *code = byte[0] & 0x1f;
    } else if ((byte[0] & 0xf0) == 0xe0) {
        len = 3;
        least = 0x800;
        *code = byte[0] & 0x0f;
    } else if ((byte[0] & 0xf8) == 0xf0) {
        len = 4;
        least = 0x10000;
        *code = byte[0] & 0x07;
    } else {
        return 0;
    }
    if (len > bytes.len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((byte[i] & 0xc0) != 0x80) {
            return 0;
        }
        *code = *code << 6 | (byte[i] & 0x3f);
    }
    bool surrogate = *code >= 0xd800 && *code <= 0xdfff;
    return *code < least || *code > 0x10ffff || surrogate ? 0 : len;
}

/* What a terminal acts on, or a program that splits text into lines would split at. */
static bool is_unprintable(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029;
}

static bool needs_backslash(pen_escape_style style, uint32_t code)
{
    switch (style) {
    case PEN_ESCAPE_TEXT:
        return false;
    case PEN_ESCAPE_LITERAL:
        return code == '\'' || code == '\\';
    case PEN_ESCAPE_QUOTED:
    case PEN_ESCAPE_JSON:
        return code == '"' || code == '\\';
    }
    return false;
}

size_t pen_escape_next(pen_escape_style style, pen_slice bytes, char out[PEN_ESCAPE_SIZE])
{
    uint32_t code;
    size_t len = read_utf8(bytes, &code);
    if (len == 0) {
        snprintf(out, PEN_ESCAPE_SIZE, style == PEN_ESCAPE_JSON ? "\\ufffd" : "\\x%02x",
                 (unsigned)bytes.data[0]);
        return 1;
    }
    if (code == '\n' || code == '\r' || code == '\t') {
        snprintf(out, PEN_ESCAPE_SIZE, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    } else if (is_unprintable(code)) {
        snprintf(out, PEN_ESCAPE_SIZE, "\\u%04x", (unsigned)code & 0xffffU);
    } else if (needs_backslash(style, code)) {
        snprintf(out, PEN_ESCAPE_SIZE, "\\%c", (char)code);
    } else {
        memcpy(out, bytes.data, len);
        out[len] = '\0';
    }
    return len;
}

char *pen_escape_text(const char *text)
{
    char piece[PEN_ESCAPE_SIZE];
    pen_text shown = {0};
    pen_slice left = pen_slice_of(text);
    while (left.len > 0) {
        size_t taken = pen_escape_next(PEN_ESCAPE_TEXT, left, piece);
        left = (pen_slice){left.data + taken, left.len - taken};
        pen_text_append(&shown, piece);
    }
    return pen_text_take(&shown);
}
