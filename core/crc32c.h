/* Purpose: CRC-32C (Castagnoli), the checksum of everything that penstock writes to disk.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    bytes in, a number out; the processor's instruction where it has one.
 * Source:  RFC 3720, appendix B.4 (check values). */
#ifndef PEN_CORE_CRC32C_H
#define PEN_CORE_CRC32C_H

#include "core/base.h"

/* CRC of `size` bytes at `data`, going on from `crc` (0 to begin). */
uint32_t pen_crc32c(uint32_t crc, const void *data, size_t size);

/* The same by table, whatever the processor: what pen_crc32c takes where there is no instruction,
 * and what the tests compare it with. */
uint32_t pen_crc32c_portable(uint32_t crc, const void *data, size_t size);

#endif
