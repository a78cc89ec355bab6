/* Any bytes into the reader of JSON. What it takes for JSON must come out again when one walks through
 * it: every member is inside of the text, and is JSON itself. */
#include "core/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(pen_slice text)
{
    pen_slice at = text;
    pen_slice key;
    pen_slice value;
    pen_error err;
    while (pen_json_next(&at, &key, &value)) {
        PEN_ASSERT(key.data > text.data && key.data + key.len < text.data + text.len);
        PEN_ASSERT(value.data > key.data && value.data + value.len < text.data + text.len);
        bool ok = pen_json_check(value, &err);
        PEN_ASSERT(ok);
        free(pen_json_text(value));
        walk(value);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pen_error err;
    /* In memory of its own, so that a byte too many is seen. */
    uint8_t *copy = pen_malloc(size + 1);
    memcpy(copy, data, size);
    pen_slice text = {copy, size};
    if (pen_json_check(text, &err)) {
        walk(text);
        free(pen_json_text(text));
    }
    free(copy);
    return 0;
}
