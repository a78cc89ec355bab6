#include "io/spool_file.h"
#include "tools/describe.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The reader of spool files and the describing of what is in them. The first byte says what the
 * rest is: the bytes of a file (RAW), or a run of records, each a kind, a length of two bytes in
 * network order and a payload, of which a file is made here with every CRC right; a random file
 * would hardly ever get so far. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAW = 1, IN_BLOCK = 2, KIND_SHIFT = 2 };

/* A file that is one only in memory. */
static int file_fd = -1;
static char file_path[64];

static void save(pen_slice bytes)
{
    if (file_fd < 0) {
        file_fd = memfd_create("fuzz_spool", MFD_CLOEXEC);
        PEN_ASSERT(file_fd >= 0);
        snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file_fd);
    }
    PEN_ASSERT(ftruncate(file_fd, 0) == 0);
    PEN_ASSERT(pwrite(file_fd, bytes.data, bytes.len, 0) == (ssize_t)bytes.len);
}

/* Gives (free it) the file whose records the input names; it ends where a record is cut off, the
 * last byte of which is left out of the file, too. */
static uint8_t *make_file(pen_slice input, unsigned kind, size_t *len)
{
    pen_spool_header header = {
        .kind = (pen_spool_kind)(1 + kind % 3),
        .id = 5,
        .segment = 2,
        .server_version = 170002,
        .protocol = 4,
        .database = "shop",
        .slot = "penstock",
        .encoding = "UTF8",
    };
    pen_cursor cur = pen_cursor_over(input);
    uint8_t *bytes = pen_malloc(PEN_SPOOL_HEADER_SIZE);
    pen_spool_header_encode(&header, bytes);
    *len = PEN_SPOOL_HEADER_SIZE;
    while (pen_cursor_left(&cur) >= 3) {
        pen_spool_record record = {
            .kind = pen_cursor_u8(&cur), .wal_end = *len, .sent = (pen_pgtime)(*len % 3)};
        size_t wanted = pen_cursor_u16(&cur);
        bool cut = wanted > pen_cursor_left(&cur);
        pen_slice payload = pen_cursor_bytes(&cur, cut ? pen_cursor_left(&cur) : wanted);
        if (record.kind != PEN_SPOOL_KEEPALIVE && record.kind != PEN_SPOOL_SESSION) {
            record.kind =
                record.kind == PEN_SPOOL_RELATION ? PEN_SPOOL_RELATION : PEN_SPOOL_MESSAGE;
            record.payload = payload;
        }
        size_t size = pen_spool_record_size(record.payload.len);
        bytes = pen_realloc(bytes, *len + size);
        pen_spool_record_encode(&header, *len, &record, bytes + *len);
        *len += size - cut;
    }
    return bytes;
}

/* One line a call, and nothing in it that a terminal acts on. */
static void check_text(const char *text, size_t len)
{
    PEN_ASSERT(len > 0 && text[len - 1] == '\n');
    for (size_t i = 0; i + 1 < len; i++) {
        uint8_t byte = (uint8_t)text[i];
        PEN_ASSERT(byte >= 0x20 && byte != 0x7f);
        PEN_ASSERT(byte != 0xc2 || (uint8_t)text[i + 1] >= 0xa0);
    }
}

static void describe(pen_describer *describer, FILE *out, char **text, const size_t *len,
                     uint64_t offset, const pen_spool_record *record)
{
    rewind(out);
    pen_describe_record(describer, offset, record);
    fflush(out);
    check_text(*text, *len);
}

/* Reads the file and, beside it, the bytes themselves: both must tell the same. */
static void check(pen_slice bytes, bool in_block)
{
    pen_spool_file *file;
    pen_error err;
    save(bytes);
    pen_spool_header header;
    pen_slice front = {bytes.data,
                       bytes.len < PEN_SPOOL_HEADER_SIZE ? bytes.len : PEN_SPOOL_HEADER_SIZE};
    bool decoded = pen_spool_header_decode(front, &header, &err);
    bool opened = pen_spool_file_open(file_path, &file, &err);
    PEN_ASSERT(opened == decoded);
    if (!opened) {
        return;
    }
    char *texts[2];
    size_t lens[2];
    FILE *outs[2];
    pen_describer *describers[2];
    for (int style = 0; style < 2; style++) {
        outs[style] = open_memstream(&texts[style], &lens[style]);
        PEN_ASSERT(outs[style] != NULL);
        pen_describe_options options = {.style = (pen_describe_style)style, .in_block = in_block};
        describers[style] = pen_describer_create(&options, &header, outs[style]);
        pen_describe_header(describers[style], "x");
    }
    uint64_t offset = PEN_SPOOL_HEADER_SIZE;
    pen_spool_record record;
    pen_spool_file_result result;
    size_t size;
    pen_spool_record same;
    while ((result = pen_spool_file_next(file, &record, &err)) == PEN_SPOOL_FILE_RECORD) {
        PEN_ASSERT(pen_spool_file_offset(file) == offset);
        pen_slice left = {bytes.data + offset, bytes.len - offset};
        pen_spool_decoded whole = pen_spool_record_decode(&header, offset, left, &same, &size);
        PEN_ASSERT(whole == PEN_SPOOL_WHOLE && same.kind == record.kind &&
                   same.wal_end == record.wal_end && same.sent == record.sent &&
                   pen_slice_equal(same.payload, record.payload));
        /* As long as the payload is, for AddressSanitizer. */
        uint8_t *copy = pen_malloc(record.payload.len);
        memcpy(copy, record.payload.data, record.payload.len);
        record.payload.data = copy;
        for (int style = 0; style < 2; style++) {
            describe(describers[style], outs[style], &texts[style], &lens[style], offset, &record);
        }
        free(copy);
        offset += size;
    }
    PEN_ASSERT(result == (offset == bytes.len ? PEN_SPOOL_FILE_END : PEN_SPOOL_FILE_TORN));
    PEN_ASSERT(pen_spool_file_offset(file) == offset);
    for (int style = 0; style < 2; style++) {
        pen_describe_summary(describers[style],
                             &(pen_describe_end){.offset = offset, .left = bytes.len - offset});
        pen_describer_destroy(describers[style]);
        fclose(outs[style]);
        free(texts[style]);
    }
    pen_spool_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    unsigned control = data[0];
    pen_slice rest = {data + 1, size - 1};
    if ((control & RAW) != 0) {
        check(rest, (control & IN_BLOCK) != 0);
        char *text;
        size_t len;
        FILE *out = open_memstream(&text, &len);
        PEN_ASSERT(out != NULL);
        (void)pen_describe_checkpoint(PEN_DESCRIBE_JSON, "x", rest, rest.len, out);
        (void)pen_describe_checkpoint(PEN_DESCRIBE_TEXT, "x", rest, rest.len, out);
        fclose(out);
        free(text);
        return 0;
    }
    size_t len;
    uint8_t *bytes = make_file(rest, control >> KIND_SHIFT, &len);
    uint8_t *exact = pen_malloc(len);
    memcpy(exact, bytes, len);
    free(bytes);
    check((pen_slice){exact, len}, (control & IN_BLOCK) != 0);
    free(exact);
    return 0;
}
