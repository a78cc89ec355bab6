#include "io/checkpoint.h"

#include "core/crc32c.h"

#include <string.h>

/* One slot, little-endian; all that is not named is zero and counts in the CRC.
 *
 *     0  magic            8 bytes
 *     8  format version   u32
 *    12  timeline         u32
 *    16  generation       u64
 *    24  system identifier u64
 *    32  committed LSN    u64
 *    40  durable LSN      u64
 *    48  length of the database's name u16, of the slot's name u16
 *    64  database's name  64 bytes, padded with zeros
 *   128  slot's name      64 bytes, padded with zeros
 *  4092  CRC32C of everything before it, u32 */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_TIMELINE = 12,
    AT_GENERATION = 16,
    AT_SYSTEM_IDENTIFIER = 24,
    AT_COMMITTED = 32,
    AT_DURABLE = 40,
    AT_DATABASE_LEN = 48,
    AT_SLOT_LEN = 50,
    AT_DATABASE = 64,
    AT_SLOT = 128,
    AT_CRC = PEN_CHECKPOINT_SLOT_SIZE - 4
};

/* The last byte is not text, so that no text file begins like this. */
static const uint8_t magic[8] = {'P', 'E', 'N', 'S', 'T', 'O', 'C', 0xCB};

#define VERSION 1U

static void put_le(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_le(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) {
        value |= (uint64_t)at[i] << (8 * i);
    }
    return value;
}

static void put_name(uint8_t *image, int at_len, int at_name, const char name[64])
{
    size_t len = strnlen(name, 64);
    PEN_ASSERT(len < 64);
    put_le(image + at_len, len, 2);
    memcpy(image + at_name, name, len);
}

static bool get_name(const uint8_t *image, int at_len, int at_name, char name[64])
{
    size_t len = (size_t)get_le(image + at_len, 2);
    if (len >= 64 || memchr(image + at_name, 0, len) != NULL) {
        return false;
    }
    memcpy(name, image + at_name, len);
    memset(name + len, 0, 64 - len);
    return true;
}

void pen_checkpoint_encode(const pen_checkpoint *cp, uint8_t image[PEN_CHECKPOINT_SLOT_SIZE])
{
    memset(image, 0, PEN_CHECKPOINT_SLOT_SIZE);
    memcpy(image + AT_MAGIC, magic, sizeof(magic));
    put_le(image + AT_VERSION, VERSION, 4);
    put_le(image + AT_TIMELINE, cp->timeline, 4);
    put_le(image + AT_GENERATION, cp->generation, 8);
    put_le(image + AT_SYSTEM_IDENTIFIER, cp->system_identifier, 8);
    put_le(image + AT_COMMITTED, cp->committed_lsn, 8);
    put_le(image + AT_DURABLE, cp->durable_lsn, 8);
    put_name(image, AT_DATABASE_LEN, AT_DATABASE, cp->database);
    put_name(image, AT_SLOT_LEN, AT_SLOT, cp->slot);
    put_le(image + AT_CRC, pen_crc32c(0, image, AT_CRC), 4);
}

bool pen_checkpoint_decode(pen_slice image, pen_checkpoint *cp)
{
    const uint8_t *at = image.data;
    /* The CRC before everything else but the size: nothing else is believed without it. */
    if (image.len != PEN_CHECKPOINT_SLOT_SIZE ||
        get_le(at + AT_CRC, 4) != pen_crc32c(0, at, AT_CRC) ||
        memcmp(at + AT_MAGIC, magic, sizeof(magic)) != 0 || get_le(at + AT_VERSION, 4) != VERSION) {
        return false;
    }
    pen_checkpoint read = {
        .generation = get_le(at + AT_GENERATION, 8),
        .system_identifier = get_le(at + AT_SYSTEM_IDENTIFIER, 8),
        .timeline = (uint32_t)get_le(at + AT_TIMELINE, 4),
        .committed_lsn = get_le(at + AT_COMMITTED, 8),
        .durable_lsn = get_le(at + AT_DURABLE, 8),
    };
    if (!get_name(at, AT_DATABASE_LEN, AT_DATABASE, read.database) ||
        !get_name(at, AT_SLOT_LEN, AT_SLOT, read.slot)) {
        return false;
    }
    *cp = read;
    return true;
}
