/* Purpose: the bytes of a spool segment and of a captured stream: one header, then records.
 * Thread:  any.
 * Owns:    nothing; a decoded record borrows from the bytes that it was read from.
 * Flow:    what came off the replication connection in, bytes that prove themselves out, and back.
 *
 * A file is a header of PEN_SPOOL_HEADER_SIZE bytes and then records, one behind the other, to its
 * end. All numbers are little-endian. Each record carries a CRC32C over itself, seeded by the
 * spool's id, the segment's number and the record's own offset, so that neither a torn write nor a
 * record left from another file or moved within one is ever taken for good. */
#ifndef PEN_CORE_SPOOL_FORMAT_H
#define PEN_CORE_SPOOL_FORMAT_H

#include "core/error.h"
#include "core/slice.h"

#define PEN_SPOOL_HEADER_SIZE 512u

typedef enum pen_spool_kind {
    PEN_SPOOL_STREAM = 1,   /* the whole stream, durable: --ack spooled */
    PEN_SPOOL_STREAMED = 2, /* blocks of transactions in progress; of no use after a restart */
    PEN_SPOOL_CAPTURE = 3   /* --capture: one file, to be read by tests, benches and people */
} pen_spool_kind;

/* What a file says of itself. */
typedef struct pen_spool_header {
    pen_spool_kind kind;
    uint64_t id;      /* random; the same in all segments of one spool */
    uint64_t segment; /* counts from 1 without gaps; 1 in a capture */
    uint64_t system_identifier;
    uint32_t timeline;
    uint32_t server_version; /* the source's, such as 160004 */
    uint16_t protocol;       /* pgoutput's protocol version */
    bool binary;             /* the stream was asked for in binary */
    char database[64];
    char slot[64];
    char encoding[32];    /* of all text in the records */
    pen_lsn received_lsn; /* STREAM: everything up to it had come when the segment began, and the
                             source may have been told so; at least start_lsn */
    pen_lsn start_lsn; /* STREAM: every transaction that ends at or before it lies whole in earlier
                          segments (or was durable before the spool began) */
} pen_spool_header;

typedef enum pen_spool_record_kind {
    PEN_SPOOL_MESSAGE = 'm',   /* one message of the output plugin */
    PEN_SPOOL_KEEPALIVE = 'k', /* no payload: the source had reached wal_end */
    PEN_SPOOL_RELATION = 'r',  /* at a segment's start: a Relation message that is in force there */
    PEN_SPOOL_SESSION = 's'    /* no payload: a new connection begins; what had come in part before
                                  comes again from its beginning */
} pen_spool_record_kind;

typedef struct pen_spool_record {
    pen_spool_record_kind kind;
    pen_lsn wal_end; /* as the replication protocol's header told */
    pen_pgtime sent; /* the source's clock in that header, microseconds; 0 where there was none */
    pen_slice payload;
} pen_spool_record;

/* Size of a record with a payload of `len` bytes, which is less than 2^30 + 2^20. */
size_t pen_spool_record_size(size_t len);
/* The largest payload that a record may say it has. */
#define PEN_SPOOL_PAYLOAD_MAX ((size_t)(1u << 30) + (1u << 20))

/* True when `start`, the beginning of a file, is that of this format, however damaged the rest. */
bool pen_spool_begins(pen_slice start);

void pen_spool_header_encode(const pen_spool_header *header, uint8_t image[PEN_SPOOL_HEADER_SIZE]);
/* False, with *err saying what is wrong (PEN_ERROR_FATAL), when `image` is not a header of this
 * format: magic, version, kind, length of names, CRC. `image` may be any bytes at all. */
PEN_MUST_CHECK bool pen_spool_header_decode(pen_slice image, pen_spool_header *header,
                                            pen_error *err);

/* Writes all of the record into `out`, which has pen_spool_record_size bytes of room. `offset` is
 * where in the file it will stand. */
void pen_spool_record_encode(const pen_spool_header *header, uint64_t offset,
                             const pen_spool_record *record, uint8_t *out);

typedef enum pen_spool_decoded {
    PEN_SPOOL_WHOLE, /* *record is it, *size its size */
    PEN_SPOOL_SHORT, /* *size bytes are needed to know more (the whole record, where its length is
                        plausible), and there are fewer */
    PEN_SPOOL_TORN   /* these bytes are no record of this file at this offset */
} pen_spool_decoded;

/* Reads the record at the front of `bytes`, which stands at `offset` in the file. Any bytes at all
 * may be given; no length in them is believed beyond PEN_SPOOL_PAYLOAD_MAX. An empty `bytes` is
 * PEN_SPOOL_SHORT. */
PEN_MUST_CHECK pen_spool_decoded pen_spool_record_decode(const pen_spool_header *header,
                                                         uint64_t offset, pen_slice bytes,
                                                         pen_spool_record *record, size_t *size);

#endif
