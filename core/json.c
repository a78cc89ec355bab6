#include "core/json.h"

#include <stdlib.h>
#include <string.h>

typedef struct scan {
    const uint8_t *at;
    const uint8_t *end;
} scan;

static bool is_one_of(uint8_t byte, const char *chars)
{
    return byte != 0 && strchr(chars, byte) != NULL;
}

static void skip_blanks(scan *it)
{
    while (it->at < it->end && is_one_of(*it->at, " \t\r\n")) {
        it->at++;
    }
}

static bool take(scan *it, char wanted)
{
    skip_blanks(it);
    if (it->at == it->end || *it->at != (uint8_t)wanted) {
        return false;
    }
    it->at++;
    return true;
}

static bool is_hex(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') ||
           (byte >= 'A' && byte <= 'F');
}

/* Behind a backslash. */
static bool skip_escape(scan *it)
{
    if (it->at == it->end) {
        return false;
    }
    uint8_t kind = *it->at++;
    if (kind != 'u') {
        return is_one_of(kind, "\"\\/bfnrt");
    }
    for (int i = 0; i < 4; i++) {
        if (it->at == it->end || !is_hex(*it->at)) {
            return false;
        }
        it->at++;
    }
    return true;
}

static bool skip_string(scan *it)
{
    if (!take(it, '"')) {
        return false;
    }
    while (it->at < it->end && *it->at >= 0x20) {
        uint8_t byte = *it->at++;
        if (byte == '"') {
            return true;
        }
        if (byte == '\\' && !skip_escape(it)) {
            return false;
        }
    }
    return false;
}

static size_t skip_digits(scan *it)
{
    const uint8_t *first = it->at;
    while (it->at < it->end && *it->at >= '0' && *it->at <= '9') {
        it->at++;
    }
    return (size_t)(it->at - first);
}

static bool skip_number(scan *it)
{
    if (it->at < it->end && *it->at == '-') {
        it->at++;
    }
    const uint8_t *first = it->at;
    size_t digits = skip_digits(it);
    if (digits == 0 || (digits > 1 && *first == '0')) {
        return false;
    }
    if (it->at < it->end && *it->at == '.') {
        it->at++;
        if (skip_digits(it) == 0) {
            return false;
        }
    }
    if (it->at < it->end && (*it->at == 'e' || *it->at == 'E')) {
        it->at++;
        if (it->at < it->end && (*it->at == '+' || *it->at == '-')) {
            it->at++;
        }
        return skip_digits(it) > 0;
    }
    return true;
}

static bool skip_word(scan *it)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < PEN_COUNTOF(words); i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(it->end - it->at) >= len && memcmp(it->at, words[i], len) == 0) {
            it->at += len;
            return true;
        }
    }
    return false;
}

/* A value without arrays and objects. */
static bool skip_scalar(scan *it)
{
    if (it->at == it->end) {
        return false;
    }
    if (*it->at == '"') {
        return skip_string(it);
    }
    return *it->at == '-' || (*it->at >= '0' && *it->at <= '9') ? skip_number(it) : skip_word(it);
}

/* One value, with all that is in it. `open` says of each array and object around the place whether
 * it is an object. */
static bool skip_value(scan *it)
{
    bool open[PEN_JSON_DEPTH];
    size_t depth = 0;
    for (;;) {
        /* Before a value. */
        bool is_object = take(it, '{');
        if (is_object || take(it, '[')) {
            if (depth == PEN_JSON_DEPTH) {
                return false;
            }
            open[depth++] = is_object;
            if (!take(it, is_object ? '}' : ']')) {
                if (is_object && (!skip_string(it) || !take(it, ':'))) {
                    return false;
                }
                continue;
            }
            depth--;
        } else if (!skip_scalar(it)) {
            return false;
        }
        /* Behind one: the end of what it stands in, as often as that ends too. */
        while (depth > 0 && take(it, open[depth - 1] ? '}' : ']')) {
            depth--;
        }
        if (depth == 0) {
            return true;
        }
        if (!take(it, ',') || (open[depth - 1] && (!skip_string(it) || !take(it, ':')))) {
            return false;
        }
    }
}

bool pen_json_check(pen_slice text, pen_error *err)
{
    const uint8_t *first = text.data == NULL ? (const uint8_t *)"" : text.data;
    scan it = {first, first + text.len};
    skip_blanks(&it);
    bool ok = skip_value(&it);
    skip_blanks(&it);
    if (ok && it.at == it.end) {
        return true;
    }
    return pen_error_set(err, PEN_ERROR_CONFIG, "it is no JSON at byte %zu",
                         (size_t)(it.at - first));
}

bool pen_json_next(pen_slice *at, pen_slice *key, pen_slice *value)
{
    scan it = {at->data, at->data + at->len};
    if (!take(&it, '{') && !take(&it, ',')) {
        return false;
    }
    skip_blanks(&it);
    const uint8_t *first = it.at;
    if (!skip_string(&it)) {
        return false; /* an object without members */
    }
    *key = (pen_slice){first + 1, (size_t)(it.at - first) - 2};
    if (!take(&it, ':')) {
        return false;
    }
    skip_blanks(&it);
    first = it.at;
    if (!skip_value(&it)) {
        return false;
    }
    *value = (pen_slice){first, (size_t)(it.at - first)};
    *at = (pen_slice){it.at, (size_t)(it.end - it.at)};
    return true;
}

bool pen_json_find(pen_slice object, const char *key, pen_slice *value)
{
    pen_slice name;
    while (pen_json_next(&object, &name, value)) {
        if (pen_slice_equal(name, pen_slice_of(key))) {
            return true;
        }
    }
    return false;
}

char *pen_json_text(pen_slice value)
{
    if (value.len == 0 || is_one_of(value.data[0], "[{n") ||
        memchr(value.data, '\\', value.len) != NULL) {
        return NULL;
    }
    bool quoted = value.data[0] == '"';
    size_t len = value.len - (quoted ? 2 : 0);
    char *text = pen_malloc(len + 1);
    memcpy(text, value.data + quoted, len);
    text[len] = '\0';
    return text;
}
