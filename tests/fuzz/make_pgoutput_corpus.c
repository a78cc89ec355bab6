#include "tests/unit/core/wire_samples.h"

#include <errno.h>
#include <stdio.h>

/* Writes the seeds of fuzz_pgoutput into the folder named on the command line: each form of a
 * message behind the relations that it needs, all of them as one stream, and all of them again with
 * the last byte missing; and replays of the same relation, told earlier and later than outside. Run
 * by hand when a form is added. */

/* As fuzz_pgoutput.c reads them. */
enum { ABORT_HAS_LSN = 1, STREAMED = 1, REPLAY = 2, EARLIER_SHIFT = 2 };

static void append(wire *stream, const wire *msg, unsigned control)
{
    wire_u8(stream, control);
    wire_u16(stream, (unsigned)msg->len);
    wire_bytes(stream, msg->data, msg->len);
}

static void append_sample(wire *stream, size_t sample)
{
    wire msg = {0};
    (void)wire_sample(sample, &msg);
    append(stream, &msg, 0);
    wire_free(&msg);
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

enum { BEGIN = 0, ITEM_RELATION = 3, EMPTY_RELATION = 4, INSERT = 5, COMMIT = 16 };

/* A version of the item relation told within a replay, `earlier` than one outside of it. */
static void make_replay(wire *stream, unsigned earlier)
{
    wire msg = {0};
    stream->len = 0;
    wire_u8(stream, 0);
    append_sample(stream, ITEM_RELATION);
    append_sample(stream, BEGIN);
    wire_relation(&msg, WIRE_ITEM, "shop", "item", 'f', 1);
    wire_column(&msg, 1, "id", 23, -1);
    wire_add_xid(&msg, 4244);
    append(stream, &msg, STREAMED | REPLAY | earlier << EARLIER_SHIFT);
    msg.len = 0;
    wire_row(&msg, 'I', WIRE_ITEM);
    wire_tuple(&msg, 'N', 1);
    wire_text(&msg, "1");
    wire_add_xid(&msg, 4244);
    append(stream, &msg, STREAMED | REPLAY);
    append_sample(stream, INSERT);
    append_sample(stream, COMMIT);
    wire_free(&msg);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_pgoutput_corpus FOLDER\n");
        return 2;
    }
    wire all = {0};
    wire one = {0};
    wire cut = {0};
    wire msg = {0};
    bool ok = true;
    wire_u8(&all, 0);
    wire_u8(&cut, 0);
    for (size_t i = 0; ok && i < WIRE_FORMS; i++) {
        wire_form form = wire_form_of(i, &msg);
        unsigned control = form.streamed ? STREAMED : 0;
        one.len = 0;
        wire_u8(&one, form.abort_has_lsn ? ABORT_HAS_LSN : 0);
        append_sample(&one, BEGIN);
        append_sample(&one, ITEM_RELATION);
        append_sample(&one, EMPTY_RELATION);
        append(&one, &msg, control);
        append_sample(&one, COMMIT);
        append(&all, &msg, control);
        msg.len--;
        append(&cut, &msg, control);
        char name[32];
        snprintf(name, sizeof(name), "form-%02zu", i);
        ok = save(argv[1], name, &one);
    }
    ok = ok && save(argv[1], "stream", &all) && save(argv[1], "cut", &cut);
    make_replay(&one, 0);
    ok = ok && save(argv[1], "replay-later", &one);
    make_replay(&one, 3);
    ok = ok && save(argv[1], "replay-earlier", &one);
    wire_free(&all);
    wire_free(&one);
    wire_free(&cut);
    wire_free(&msg);
    return ok ? 0 : 1;
}
