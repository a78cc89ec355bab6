#include "io/checkpoint.h"

#include "core/crc32c.h"
#include "core/le.h"

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
 *   192  start of the spool LSN, end of it LSN, u64 each; zero without one
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
    AT_SPOOL_START = 192,
    AT_SPOOL_END = 200,
    AT_CRC = PEN_CHECKPOINT_SLOT_SIZE - 4
};

/* The last byte is not text, so that no text file begins like this. */
static const uint8_t magic[8] = {'P', 'E', 'N', 'S', 'T', 'O', 'C', 0xCB};

#define VERSION 1U

static void put_name(uint8_t *image, int at_len, int at_name, const char name[64])
{
    size_t len = strnlen(name, 64);
    PEN_ASSERT(len < 64);
    pen_le_put16(image + at_len, (uint16_t)len);
    memcpy(image + at_name, name, len);
}

static bool get_name(const uint8_t *image, int at_len, int at_name, char name[64])
{
    size_t len = pen_le_get16(image + at_len);
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
    pen_le_put32(image + AT_VERSION, VERSION);
    pen_le_put32(image + AT_TIMELINE, cp->timeline);
    pen_le_put64(image + AT_GENERATION, cp->generation);
    pen_le_put64(image + AT_SYSTEM_IDENTIFIER, cp->system_identifier);
    pen_le_put64(image + AT_COMMITTED, cp->committed_lsn);
    pen_le_put64(image + AT_DURABLE, cp->durable_lsn);
    pen_le_put64(image + AT_SPOOL_START, cp->spool_start_lsn);
    pen_le_put64(image + AT_SPOOL_END, cp->spool_end_lsn);
    put_name(image, AT_DATABASE_LEN, AT_DATABASE, cp->database);
    put_name(image, AT_SLOT_LEN, AT_SLOT, cp->slot);
    pen_le_put32(image + AT_CRC, pen_crc32c(0, image, AT_CRC));
}

bool pen_checkpoint_begins(pen_slice image)
{
    return image.len >= sizeof(magic) && memcmp(image.data + AT_MAGIC, magic, sizeof(magic)) == 0;
}

bool pen_checkpoint_decode(pen_slice image, pen_checkpoint *cp)
{
    const uint8_t *at = image.data;
    /* The CRC before everything else but the size: nothing else is believed without it. */
    if (image.len != PEN_CHECKPOINT_SLOT_SIZE ||
        pen_le_get32(at + AT_CRC) != pen_crc32c(0, at, AT_CRC) ||
        memcmp(at + AT_MAGIC, magic, sizeof(magic)) != 0 ||
        pen_le_get32(at + AT_VERSION) != VERSION) {
        return false;
    }
    pen_checkpoint read = {
        .generation = pen_le_get64(at + AT_GENERATION),
        .system_identifier = pen_le_get64(at + AT_SYSTEM_IDENTIFIER),
        .timeline = pen_le_get32(at + AT_TIMELINE),
        .committed_lsn = pen_le_get64(at + AT_COMMITTED),
        .durable_lsn = pen_le_get64(at + AT_DURABLE),
        .spool_start_lsn = pen_le_get64(at + AT_SPOOL_START),
        .spool_end_lsn = pen_le_get64(at + AT_SPOOL_END),
    };
    if (!get_name(at, AT_DATABASE_LEN, AT_DATABASE, read.database) ||
        !get_name(at, AT_SLOT_LEN, AT_SLOT, read.slot)) {
        return false;
    }
    *cp = read;
    return true;
}
