#include "core/crc32c.h"
#include "core/le.h"
#include "core/spool_format.h"

#include <criterion/criterion.h>

static pen_spool_header sample_header(void)
{
    return (pen_spool_header){
        .kind = PEN_SPOOL_STREAM,
        .id = 0x0123456789ABCDEFU,
        .segment = 7,
        .system_identifier = 0xFEDCBA9876543210U,
        .timeline = 3,
        .server_version = 160004,
        .protocol = 4,
        .binary = true,
        .database = "shop",
        .slot = "penstock_shop",
        .encoding = "UTF8",
        .start_lsn = 0x1A2B3C8,
        .received_lsn = 0x1A2B4D9,
    };
}

static pen_spool_record sample_record(void)
{
    return (pen_spool_record){
        .kind = PEN_SPOOL_MESSAGE,
        .wal_end = 0x1122334455667788U,
        .sent = -5,
        .payload = pen_slice_of("Bsome message"),
    };
}

/* At an address that is aligned to nothing. */
static pen_slice encode(const pen_spool_header *header, uint64_t offset,
                        const pen_spool_record *record, uint8_t room[128])
{
    size_t size = pen_spool_record_size(record->payload.len);
    cr_assert_leq(size, 127);
    pen_spool_record_encode(header, offset, record, room + 1);
    return (pen_slice){room + 1, size};
}

static bool header_holds(const uint8_t *image, size_t len)
{
    pen_spool_header read;
    pen_error err = {0};
    bool holds = pen_spool_header_decode((pen_slice){image, len}, &read, &err);
    cr_assert(holds || (err.kind == PEN_ERROR_FATAL && err.text[0] != '\0'));
    return holds;
}

Test(spool_format, a_header_comes_back_as_it_was)
{
    pen_spool_header header = sample_header();
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&header, image);
    pen_spool_header read;
    pen_error err;
    cr_assert(pen_spool_header_decode((pen_slice){image, sizeof(image)}, &read, &err));
    cr_assert_eq(read.kind, header.kind);
    cr_assert_eq(read.id, header.id);
    cr_assert_eq(read.segment, header.segment);
    cr_assert_eq(read.system_identifier, header.system_identifier);
    cr_assert_eq(read.timeline, header.timeline);
    cr_assert_eq(read.server_version, header.server_version);
    cr_assert_eq(read.protocol, header.protocol);
    cr_assert_eq(read.binary, header.binary);
    cr_assert_str_eq(read.database, header.database);
    cr_assert_str_eq(read.slot, header.slot);
    cr_assert_str_eq(read.encoding, header.encoding);
    cr_assert_eq(read.start_lsn, header.start_lsn);
    cr_assert_eq(read.received_lsn, header.received_lsn);
}

Test(spool_format, names_of_full_length_fit)
{
    pen_spool_header header = sample_header();
    memset(header.database, 'd', 63);
    memset(header.slot, 's', 63);
    memset(header.encoding, 'e', 31);
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&header, image);
    pen_spool_header read;
    pen_error err;
    cr_assert(pen_spool_header_decode((pen_slice){image, sizeof(image)}, &read, &err));
    cr_assert_str_eq(read.database, header.database);
    cr_assert_str_eq(read.slot, header.slot);
    cr_assert_str_eq(read.encoding, header.encoding);
}

/* The bytes on disk are a promise: files of an older penstock must stay readable. */
Test(spool_format, the_layout_stays)
{
    pen_spool_header header = sample_header();
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&header, image);
    cr_assert_eq(memcmp(image, "PENSPOO\xCC\1\0\0\0\1\0\0\0\xEF\xCD\xAB\x89\x67\x45\x23\x01", 24),
                 0);
    cr_assert_eq(pen_le_get32(image + 508), pen_crc32c(0, image, 508));
    pen_spool_record record = sample_record();
    uint8_t room[128];
    pen_slice bytes = encode(&header, 512, &record, room);
    cr_assert_eq(bytes.len, 25 + 13);
    cr_assert_eq(memcmp(bytes.data + 4,
                        "\x0D\0\0\0m\x88\x77\x66\x55\x44\x33\x22\x11\xFB\xFF\xFF\xFF\xFF\xFF\xFF"
                        "\xFF"
                        "Bsome message",
                        34),
                 0);
}

Test(spool_format, each_flipped_bit_and_each_cut_of_a_header_is_noticed)
{
    pen_spool_header header = sample_header();
    uint8_t image[PEN_SPOOL_HEADER_SIZE];
    pen_spool_header_encode(&header, image);
    cr_assert(header_holds(image, sizeof(image)));
    for (size_t bit = 0; bit < sizeof(image) * 8; bit++) {
        image[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        cr_assert_not(header_holds(image, sizeof(image)), "bit %zu", bit);
        image[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    for (size_t len = 0; len < sizeof(image); len++) {
        cr_assert_not(header_holds(image, len), "%zu bytes", len);
    }
    cr_assert_not(header_holds(NULL, 0));
}

/* With the CRC made right again, what must not be is refused by itself. */
Test(spool_format, a_header_with_a_good_crc_is_still_checked)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *words;
    } bad[] = {
        {0, 'X', "does not begin as one"},
        {8, 2, "format version 2"},
        {12, 0, "kind 0"},
        {12, 4, "kind 4"},
        {24, 0, "segment 0"},
        {58, 2, "cannot be"},
        {60, 64, "cannot be"},
        {62, 200, "cannot be"},
        {64, 32, "cannot be"},
        {65, 1, "cannot be"},
        {66, 0, "cannot be"},
    };
    pen_spool_header header = sample_header();
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        uint8_t image[PEN_SPOOL_HEADER_SIZE];
        pen_spool_header_encode(&header, image);
        image[bad[i].at] = bad[i].byte;
        pen_le_put32(image + 508, pen_crc32c(0, image, 508));
        pen_spool_header read;
        pen_error err;
        cr_assert_not(pen_spool_header_decode((pen_slice){image, sizeof(image)}, &read, &err),
                      "%zu", i);
        cr_assert(strstr(err.text, bad[i].words) != NULL, "%zu: %s", i, err.text);
    }
}

Test(spool_format, a_record_of_each_kind_comes_back_as_it_was)
{
    pen_spool_header header = sample_header();
    pen_spool_record records[] = {
        sample_record(),
        {PEN_SPOOL_KEEPALIVE, 1, INT64_MAX, {NULL, 0}},
        {PEN_SPOOL_RELATION, 0, 0, pen_slice_of("R")},
        {PEN_SPOOL_SESSION, UINT64_MAX, INT64_MIN, {NULL, 0}},
        {PEN_SPOOL_MESSAGE, 2, 3, {NULL, 0}},
    };
    for (size_t i = 0; i < PEN_COUNTOF(records); i++) {
        uint8_t room[128];
        pen_slice bytes = encode(&header, 1ULL << 40, &records[i], room);
        size_t whole = bytes.len;
        bytes.len += 3; /* what follows does not matter */
        pen_spool_record read;
        size_t size;
        cr_assert_eq(pen_spool_record_decode(&header, 1ULL << 40, bytes, &read, &size),
                     PEN_SPOOL_WHOLE);
        cr_assert_eq(size, whole);
        cr_assert_eq(read.kind, records[i].kind);
        cr_assert_eq(read.wal_end, records[i].wal_end);
        cr_assert_eq(read.sent, records[i].sent);
        cr_assert(pen_slice_equal(read.payload, records[i].payload));
    }
}

Test(spool_format, each_flipped_bit_of_a_record_is_noticed)
{
    pen_spool_header header = sample_header();
    pen_spool_record record = sample_record();
    uint8_t room[128];
    pen_slice bytes = encode(&header, 512, &record, room);
    for (size_t bit = 0; bit < bytes.len * 8; bit++) {
        room[1 + bit / 8] ^= (uint8_t)(1U << (bit % 8));
        pen_spool_record read;
        size_t size;
        cr_assert_neq(pen_spool_record_decode(&header, 512, bytes, &read, &size), PEN_SPOOL_WHOLE,
                      "bit %zu", bit);
        room[1 + bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
}

Test(spool_format, a_record_cut_anywhere_is_short_and_tells_what_it_needs)
{
    pen_spool_header header = sample_header();
    pen_spool_record record = sample_record();
    uint8_t room[128];
    pen_slice bytes = encode(&header, 512, &record, room);
    for (size_t len = 0; len < bytes.len; len++) {
        pen_spool_record read;
        size_t size = 0;
        cr_assert_eq(
            pen_spool_record_decode(&header, 512, (pen_slice){bytes.data, len}, &read, &size),
            PEN_SPOOL_SHORT, "%zu bytes", len);
        cr_assert_eq(size, len < 25 ? 25 : bytes.len, "%zu bytes", len);
    }
    pen_spool_record read;
    size_t size = 0;
    cr_assert_eq(pen_spool_record_decode(&header, 512, (pen_slice){NULL, 0}, &read, &size),
                 PEN_SPOOL_SHORT);
    cr_assert_eq(size, 25);
}

Test(spool_format, a_record_holds_only_in_its_own_place)
{
    pen_spool_header header = sample_header();
    pen_spool_record record = sample_record();
    uint8_t room[128];
    pen_slice bytes = encode(&header, 512, &record, room);
    pen_spool_record read;
    size_t size;
    for (uint64_t shift = 0; shift < 64; shift++) {
        cr_assert_eq(pen_spool_record_decode(&header, 512 ^ (1ULL << shift), bytes, &read, &size),
                     PEN_SPOOL_TORN, "offset, bit %d", (int)shift);
        pen_spool_header other = header;
        other.id ^= 1ULL << shift;
        cr_assert_eq(pen_spool_record_decode(&other, 512, bytes, &read, &size), PEN_SPOOL_TORN,
                     "id, bit %d", (int)shift);
        other = header;
        other.segment ^= 1ULL << shift;
        cr_assert_eq(pen_spool_record_decode(&other, 512, bytes, &read, &size), PEN_SPOOL_TORN,
                     "segment, bit %d", (int)shift);
    }
    /* What else the header says does not matter: a later session may have another timeline. */
    pen_spool_header later = header;
    later.timeline++;
    later.protocol = 1;
    cr_assert_eq(pen_spool_record_decode(&later, 512, bytes, &read, &size), PEN_SPOOL_WHOLE);
}

Test(spool_format, a_length_that_cannot_be_is_torn_at_once)
{
    pen_spool_header header = sample_header();
    pen_spool_record record = sample_record();
    static const struct {
        uint8_t kind;
        uint32_t len;
        pen_spool_decoded decoded;
    } lies[] = {
        {'m', 14, PEN_SPOOL_SHORT},
        {'m', PEN_SPOOL_PAYLOAD_MAX, PEN_SPOOL_SHORT},
        {'r', PEN_SPOOL_PAYLOAD_MAX, PEN_SPOOL_SHORT},
        {'m', PEN_SPOOL_PAYLOAD_MAX + 1, PEN_SPOOL_TORN},
        {'r', UINT32_MAX, PEN_SPOOL_TORN},
        {'m', 12, PEN_SPOOL_TORN},
        {'k', 1, PEN_SPOOL_TORN},
        {'s', 13, PEN_SPOOL_TORN},
        {0, 0, PEN_SPOOL_TORN},
        {'x', 13, PEN_SPOOL_TORN},
    };
    for (size_t i = 0; i < PEN_COUNTOF(lies); i++) {
        uint8_t room[128];
        pen_slice bytes = encode(&header, 512, &record, room);
        pen_le_put32(room + 1 + 4, lies[i].len);
        room[1 + 8] = lies[i].kind;
        pen_spool_record read;
        size_t size;
        cr_assert_eq(pen_spool_record_decode(&header, 512, bytes, &read, &size), lies[i].decoded,
                     "%zu", i);
        cr_assert(lies[i].decoded != PEN_SPOOL_SHORT || size == 25 + (size_t)lies[i].len);
    }
}

/* What a filesystem leaves behind a crash: a hole. */
Test(spool_format, zeros_are_torn)
{
    pen_spool_header header = sample_header();
    static const uint8_t zeros[4096];
    pen_spool_record read;
    size_t size;
    cr_assert_eq(
        pen_spool_record_decode(&header, 512, (pen_slice){zeros, sizeof(zeros)}, &read, &size),
        PEN_SPOOL_TORN);
    pen_spool_header blank = {.kind = PEN_SPOOL_CAPTURE};
    cr_assert_eq(
        pen_spool_record_decode(&blank, 0, (pen_slice){zeros, sizeof(zeros)}, &read, &size),
        PEN_SPOOL_TORN);
}
