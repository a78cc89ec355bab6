/* Purpose: little-endian numbers at any address, as the files of penstock hold them.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    numbers in, bytes out, and back; each is one load or store where the machine allows. */
#ifndef PEN_CORE_LE_H
#define PEN_CORE_LE_H

#include "core/base.h"

#include <endian.h>
#include <string.h>

static inline void pen_le_put16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void pen_le_put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void pen_le_put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static inline uint16_t pen_le_get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return le16toh(value);
}

static inline uint32_t pen_le_get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static inline uint64_t pen_le_get64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

#endif
