#include "core/spool_format.h"

#include "core/crc32c.h"
#include "core/le.h"

/* The header; all that is not named is zero and counts in the CRC.
 *
 *     0  magic             8 bytes
 *     8  format version    u32
 *    12  kind              u32
 *    16  id                u64
 *    24  segment           u64
 *    32  system identifier u64
 *    40  start LSN         u64
 *    48  timeline          u32
 *    52  server version    u32
 *    56  protocol          u16
 *    58  binary            u8, 0 or 1
 *    60  length of the database's name, of the slot's name, of the encoding's name, u16 each
 *    66  the database's name 64 bytes, the slot's 64, the encoding's 32, padded with zeros
 *   226  received LSN      u64
 *   508  CRC32C of everything before it, u32 */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_KIND = 12,
    AT_ID = 16,
    AT_SEGMENT = 24,
    AT_SYSTEM_IDENTIFIER = 32,
    AT_START = 40,
    AT_TIMELINE = 48,
    AT_SERVER_VERSION = 52,
    AT_PROTOCOL = 56,
    AT_BINARY = 58,
    AT_DATABASE_LEN = 60,
    AT_SLOT_LEN = 62,
    AT_ENCODING_LEN = 64,
    AT_DATABASE = 66,
    AT_SLOT = 130,
    AT_ENCODING = 194,
    AT_RECEIVED = 226,
    AT_HEADER_CRC = PEN_SPOOL_HEADER_SIZE - 4
};

/* A record.
 *
 *     0  CRC32C of the spool's id, the segment's number and the record's offset (u64 each), then of
 *        the record from the next byte on, u32
 *     4  length of the payload u32
 *     8  kind                  u8
 *     9  WAL end               u64
 *    17  sent                  i64
 *    25  payload */
enum { AT_CRC = 0, AT_LEN = 4, AT_RECORD_KIND = 8, AT_WAL_END = 9, AT_SENT = 17, AT_PAYLOAD = 25 };

/* The last byte is not text, so that no text file begins like this. */
static const uint8_t magic[8] = {'P', 'E', 'N', 'S', 'P', 'O', 'O', 0xCC};

#define VERSION 1U

static void put_name(uint8_t *image, int at_len, int at_name, const char *name, size_t size)
{
    size_t len = strnlen(name, size);
    PEN_ASSERT(len < size);
    pen_le_put16(image + at_len, (uint16_t)len);
    memcpy(image + at_name, name, len);
}

static bool get_name(const uint8_t *image, int at_len, int at_name, char *name, size_t size)
{
    size_t len = pen_le_get16(image + at_len);
    if (len >= size || memchr(image + at_name, 0, len) != NULL) {
        return false;
    }
    memcpy(name, image + at_name, len);
    memset(name + len, 0, size - len);
    return true;
}

void pen_spool_header_encode(const pen_spool_header *header, uint8_t image[PEN_SPOOL_HEADER_SIZE])
{
    memset(image, 0, PEN_SPOOL_HEADER_SIZE);
    memcpy(image + AT_MAGIC, magic, sizeof(magic));
    pen_le_put32(image + AT_VERSION, VERSION);
    pen_le_put32(image + AT_KIND, (uint32_t)header->kind);
    pen_le_put64(image + AT_ID, header->id);
    pen_le_put64(image + AT_SEGMENT, header->segment);
    pen_le_put64(image + AT_SYSTEM_IDENTIFIER, header->system_identifier);
    pen_le_put64(image + AT_START, header->start_lsn);
    pen_le_put64(image + AT_RECEIVED, header->received_lsn);
    pen_le_put32(image + AT_TIMELINE, header->timeline);
    pen_le_put32(image + AT_SERVER_VERSION, header->server_version);
    pen_le_put16(image + AT_PROTOCOL, header->protocol);
    image[AT_BINARY] = header->binary;
    put_name(image, AT_DATABASE_LEN, AT_DATABASE, header->database, sizeof(header->database));
    put_name(image, AT_SLOT_LEN, AT_SLOT, header->slot, sizeof(header->slot));
    put_name(image, AT_ENCODING_LEN, AT_ENCODING, header->encoding, sizeof(header->encoding));
    pen_le_put32(image + AT_HEADER_CRC, pen_crc32c(0, image, AT_HEADER_CRC));
}

bool pen_spool_begins(pen_slice start)
{
    return start.len >= sizeof(magic) && memcmp(start.data + AT_MAGIC, magic, sizeof(magic)) == 0;
}

bool pen_spool_header_decode(pen_slice image, pen_spool_header *header, pen_error *err)
{
    const uint8_t *at = image.data;
    if (!pen_spool_begins(image)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "not a spool segment or a captured stream: it does not begin as one");
    }
    if (image.len < PEN_SPOOL_HEADER_SIZE) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the header is cut off: %zu of %u bytes are there", image.len,
                             PEN_SPOOL_HEADER_SIZE);
    }
    /* Nothing else is believed before the CRC. */
    if (pen_le_get32(at + AT_HEADER_CRC) != pen_crc32c(0, at, AT_HEADER_CRC)) {
        return pen_error_set(err, PEN_ERROR_FATAL, "the header is damaged: its CRC does not hold");
    }
    if (pen_le_get32(at + AT_VERSION) != VERSION) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the file has format version %u, this penstock reads version %u; use "
                             "the penstock that wrote it",
                             (unsigned)pen_le_get32(at + AT_VERSION), VERSION);
    }
    uint32_t kind = pen_le_get32(at + AT_KIND);
    pen_spool_header read = {
        .kind = (pen_spool_kind)kind,
        .id = pen_le_get64(at + AT_ID),
        .segment = pen_le_get64(at + AT_SEGMENT),
        .system_identifier = pen_le_get64(at + AT_SYSTEM_IDENTIFIER),
        .start_lsn = pen_le_get64(at + AT_START),
        .received_lsn = pen_le_get64(at + AT_RECEIVED),
        .timeline = pen_le_get32(at + AT_TIMELINE),
        .server_version = pen_le_get32(at + AT_SERVER_VERSION),
        .protocol = pen_le_get16(at + AT_PROTOCOL),
        .binary = at[AT_BINARY] == 1,
    };
    if (kind < PEN_SPOOL_STREAM || kind > PEN_SPOOL_CAPTURE || read.segment == 0 ||
        at[AT_BINARY] > 1 ||
        !get_name(at, AT_DATABASE_LEN, AT_DATABASE, read.database, sizeof(read.database)) ||
        !get_name(at, AT_SLOT_LEN, AT_SLOT, read.slot, sizeof(read.slot)) ||
        !get_name(at, AT_ENCODING_LEN, AT_ENCODING, read.encoding, sizeof(read.encoding))) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the header is whole but says what cannot be: kind %u, segment %llu",
                             (unsigned)kind, (unsigned long long)read.segment);
    }
    *header = read;
    return true;
}

size_t pen_spool_record_size(size_t len)
{
    return AT_PAYLOAD + len;
}

/* Also over where it stands, so that a record is only itself in its own place. */
static uint32_t record_crc(const pen_spool_header *header, uint64_t offset, const uint8_t *record,
                           size_t len)
{
    uint8_t place[24];
    pen_le_put64(place, header->id);
    pen_le_put64(place + 8, header->segment);
    pen_le_put64(place + 16, offset);
    uint32_t crc = pen_crc32c(0, place, sizeof(place));
    return pen_crc32c(crc, record + AT_LEN, AT_PAYLOAD - AT_LEN + len);
}

static bool may_be_record(unsigned kind, uint32_t len)
{
    switch (kind) {
    case PEN_SPOOL_MESSAGE:
    case PEN_SPOOL_RELATION:
        return len <= PEN_SPOOL_PAYLOAD_MAX;
    case PEN_SPOOL_KEEPALIVE:
    case PEN_SPOOL_SESSION:
        return len == 0;
    default:
        return false;
    }
}

void pen_spool_record_encode(const pen_spool_header *header, uint64_t offset,
                             const pen_spool_record *record, uint8_t *out)
{
    size_t len = record->payload.len;
    PEN_ASSERT(len <= PEN_SPOOL_PAYLOAD_MAX && may_be_record(record->kind, (uint32_t)len));
    pen_le_put32(out + AT_LEN, (uint32_t)len);
    out[AT_RECORD_KIND] = (uint8_t)record->kind;
    pen_le_put64(out + AT_WAL_END, record->wal_end);
    pen_le_put64(out + AT_SENT, (uint64_t)record->sent);
    if (len > 0) {
        memcpy(out + AT_PAYLOAD, record->payload.data, len);
    }
    pen_le_put32(out + AT_CRC, record_crc(header, offset, out, len));
}

pen_spool_decoded pen_spool_record_decode(const pen_spool_header *header, uint64_t offset,
                                          pen_slice bytes, pen_spool_record *record, size_t *size)
{
    const uint8_t *at = bytes.data;
    *size = AT_PAYLOAD;
    if (bytes.len < AT_PAYLOAD) {
        return PEN_SPOOL_SHORT;
    }
    uint32_t len = pen_le_get32(at + AT_LEN);
    if (!may_be_record(at[AT_RECORD_KIND], len)) {
        return PEN_SPOOL_TORN;
    }
    *size = pen_spool_record_size(len);
    if (bytes.len < *size) {
        return PEN_SPOOL_SHORT;
    }
    if (pen_le_get32(at + AT_CRC) != record_crc(header, offset, at, len)) {
        return PEN_SPOOL_TORN;
    }
    *record = (pen_spool_record){
        .kind = (pen_spool_record_kind)at[AT_RECORD_KIND],
        .wal_end = pen_le_get64(at + AT_WAL_END),
        .sent = (pen_pgtime)pen_le_get64(at + AT_SENT),
        .payload = {at + AT_PAYLOAD, len},
    };
    return PEN_SPOOL_WHOLE;
}
