#include "core/crc32c.h"

#include <criterion/criterion.h>
#include <string.h>

typedef uint32_t (*crc_function)(uint32_t crc, const void *data, size_t size);

static const crc_function ways[] = {pen_crc32c, pen_crc32c_portable};

Test(crc32c, has_the_check_values_of_rfc_3720)
{
    uint8_t zeros[32];
    uint8_t ones[32];
    uint8_t up[32];
    uint8_t down[32];
    memset(zeros, 0, sizeof(zeros));
    memset(ones, 0xFF, sizeof(ones));
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    /* The last vector of B.4: an iSCSI SCSI Read (10) command PDU. */
    static const uint8_t pdu[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    for (size_t i = 0; i < PEN_COUNTOF(ways); i++) {
        cr_assert_eq(ways[i](0, zeros, 32), 0x8A9136AAU);
        cr_assert_eq(ways[i](0, ones, 32), 0x62A8AB43U);
        cr_assert_eq(ways[i](0, up, 32), 0x46DD794EU);
        cr_assert_eq(ways[i](0, down, 32), 0x113FDB5CU);
        cr_assert_eq(ways[i](0, pdu, sizeof(pdu)), 0xD9963A56U);
        cr_assert_eq(ways[i](0, "123456789", 9), 0xE3069283U);
        cr_assert_eq(ways[i](0, "", 0), 0U);
    }
}

/* Any bytes will do, as long as they differ: a small linear congruential sequence. */
static void fill(uint8_t *bytes, size_t size)
{
    uint32_t state = 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525U + 1013904223U;
        bytes[i] = (uint8_t)(state >> 24);
    }
}

Test(crc32c, table_and_instruction_agree_at_every_length_and_alignment)
{
    uint8_t bytes[512];
    fill(bytes, sizeof(bytes));
    for (size_t start = 0; start < 16; start++) {
        for (size_t size = 0; start + size <= sizeof(bytes); size++) {
            cr_assert_eq(pen_crc32c(7, bytes + start, size),
                         pen_crc32c_portable(7, bytes + start, size), "at %zu, %zu bytes", start,
                         size);
        }
    }
}

Test(crc32c, goes_on_from_where_it_was)
{
    uint8_t bytes[100];
    fill(bytes, sizeof(bytes));
    for (size_t way = 0; way < PEN_COUNTOF(ways); way++) {
        uint32_t whole = ways[way](0, bytes, sizeof(bytes));
        for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
            uint32_t first = ways[way](0, bytes, cut);
            cr_assert_eq(ways[way](first, bytes + cut, sizeof(bytes) - cut), whole);
        }
    }
}
