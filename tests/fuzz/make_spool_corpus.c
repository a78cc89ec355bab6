#include "core/spool_format.h"
#include "io/checkpoint.h"
#include "tests/unit/core/wire_samples.h"

#include <errno.h>
#include <stdio.h>

/* Writes the seeds of fuzz_spool into the folder named on the command line: each form of a message
 * behind the relations that it needs, all of them with keepalives and sessions between them, whole
 * files as they are on disk, and what is torn. Run by hand when a form is added. */

/* As fuzz_spool.c reads them. */
enum { RAW = 1, IN_BLOCK = 2, KIND_SHIFT = 2 };
enum { ITEM_RELATION = 3, EMPTY_RELATION = 4 };

static const char *folder;

static bool save(const char *name, const wire *input)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    bool ok = file != NULL && fwrite(input->data, 1, input->len, file) == input->len;
    if (file == NULL || fclose(file) != 0 || !ok) {
        fprintf(stderr, "cannot write %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

static void append(wire *input, pen_spool_record_kind kind, const wire *msg)
{
    wire_u8(input, kind);
    wire_u16(input, msg == NULL ? 0 : (unsigned)msg->len);
    if (msg != NULL) {
        wire_bytes(input, msg->data, msg->len);
    }
}

static void append_relations(wire *input)
{
    wire msg = {0};
    (void)wire_sample(ITEM_RELATION, &msg);
    append(input, PEN_SPOOL_RELATION, &msg);
    (void)wire_sample(EMPTY_RELATION, &msg);
    append(input, PEN_SPOOL_RELATION, &msg);
    wire_free(&msg);
}

static bool save_forms(void)
{
    wire all = {0};
    wire one = {0};
    wire msg = {0};
    bool ok = true;
    wire_u8(&all, 0);
    append_relations(&all);
    for (size_t i = 0; ok && i < WIRE_FORMS; i++) {
        wire_form form = wire_form_of(i, &msg);
        one.len = 0;
        wire_u8(&one, form.streamed ? IN_BLOCK : 2u << KIND_SHIFT);
        append_relations(&one);
        append(&one, PEN_SPOOL_MESSAGE, &msg);
        append(&all, PEN_SPOOL_MESSAGE, &msg);
        if (i % 8 == 7) {
            append(&all, i % 16 == 7 ? PEN_SPOOL_KEEPALIVE : PEN_SPOOL_SESSION, NULL);
        }
        char name[32];
        snprintf(name, sizeof(name), "form-%02zu", i);
        ok = save(name, &one);
    }
    ok = ok && save("stream", &all);
    all.len--; /* the last record is torn */
    ok = ok && save("torn", &all);
    wire_free(&all);
    wire_free(&one);
    wire_free(&msg);
    return ok;
}

static bool save_files(void)
{
    pen_spool_header header = {
        .kind = PEN_SPOOL_CAPTURE, .id = 1, .segment = 1, .database = "shop"};
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&header, image);
    wire file = {0};
    wire_u8(&file, RAW);
    bool ok = save("raw-nothing", &file);
    wire_bytes(&file, image, sizeof(image));
    ok = ok && save("raw-header", &file);
    wire msg = {0};
    (void)wire_sample(ITEM_RELATION, &msg);
    pen_spool_record record = {PEN_SPOOL_MESSAGE, 1, 2, wire_slice(&msg)};
    uint8_t bytes[256];
    PEN_ASSERT(pen_spool_record_size(msg.len) <= sizeof(bytes));
    pen_spool_record_encode(&header, PEN_SPOOL_HEADER_SIZE, &record, bytes);
    wire_bytes(&file, bytes, pen_spool_record_size(msg.len));
    ok = ok && save("raw-record", &file);
    file.len -= 10;
    ok = ok && save("raw-torn", &file);
    uint8_t slot[PEN_CHECKPOINT_SLOT_SIZE];
    pen_checkpoint cp = {.generation = 3, .database = "shop", .slot = "penstock"};
    pen_checkpoint_encode(&cp, slot);
    file.len = 1;
    wire_bytes(&file, slot, sizeof(slot));
    ok = ok && save("raw-checkpoint", &file);
    wire_free(&file);
    wire_free(&msg);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: make_spool_corpus FOLDER\n");
        return 2;
    }
    folder = argv[1];
    return save_forms() && save_files() ? 0 : 1;
}
