#include "tests/unit/core/wire_samples.h"

#include <errno.h>
#include <stdio.h>

/* Writes the seeds of fuzz_pgoutput into the folder named on the command line: each sample behind
 * the relations that it needs, all of them as one stream, and all of them again with the last byte
 * missing. Run by hand when a form is added. */

static void append(wire *stream, const wire *msg)
{
    wire_u16(stream, (unsigned)msg->len);
    wire_bytes(stream, msg->data, msg->len);
}

static bool save(const char *folder, const char *name, const wire *stream)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL && fwrite(stream->data, 1, stream->len, file) == stream->len;
    if (file == NULL || fclose(file) != 0 || !ok) {
        fprintf(stderr, "cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    enum { BEGIN = 0, ITEM_RELATION = 3, EMPTY_RELATION = 4, COMMIT = 16 };
    if (argc != 2) {
        fprintf(stderr, "usage: make_pgoutput_corpus FOLDER\n");
        return 2;
    }
    wire all = {0};
    wire one = {0};
    wire cut = {0};
    wire msg = {0};
    bool ok = true;
    for (size_t i = 0; ok && wire_sample(i, &msg); i++) {
        append(&all, &msg);
        msg.len--;
        append(&cut, &msg);
        const size_t needed[] = {BEGIN, ITEM_RELATION, EMPTY_RELATION, i, COMMIT};
        one.len = 0;
        for (size_t at = 0; at < PEN_COUNTOF(needed); at++) {
            (void)wire_sample(needed[at], &msg);
            append(&one, &msg);
        }
        char name[32];
        snprintf(name, sizeof(name), "sample-%02zu", i);
        ok = save(argv[1], name, &one);
    }
    ok = ok && save(argv[1], "stream", &all) && save(argv[1], "cut", &cut);
    wire_free(&all);
    wire_free(&one);
    wire_free(&cut);
    wire_free(&msg);
    return ok ? 0 : 1;
}
