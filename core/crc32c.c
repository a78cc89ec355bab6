#include "core/crc32c.h"

#include <pthread.h>
#include <string.h>

/* The polynomial 0x1EDC6F41 with its bits reversed, because the CRC takes the lowest bit first. */
#define REVERSED_POLYNOMIAL 0x82F63B78U

/* slices[k][b]: what byte b does to the CRC when k more bytes follow it; so that eight bytes are
 * eight independent look-ups instead of a chain of eight. */
static uint32_t slices[8][256];
static pthread_once_t slices_once = PTHREAD_ONCE_INIT;

static void make_slices(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? crc >> 1 ^ REVERSED_POLYNOMIAL : crc >> 1;
        }
        slices[0][byte] = crc;
    }
    for (int follow = 1; follow < 8; follow++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = slices[follow - 1][byte];
            slices[follow][byte] = crc >> 8 ^ slices[0][crc & 0xFF];
        }
    }
}

/* Byte by byte, so that it means the same on a big-endian machine; compilers make one load of it
 * on the others. */
static uint32_t load_le32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

uint32_t pen_crc32c_portable(uint32_t crc, const void *data, size_t size)
{
    pthread_once(&slices_once, make_slices);
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 8; at += 8, size -= 8) {
        uint32_t low = crc ^ load_le32(at);
        uint32_t high = load_le32(at + 4);
        crc = slices[7][low & 0xFF] ^ slices[6][low >> 8 & 0xFF] ^ slices[5][low >> 16 & 0xFF] ^
              slices[4][low >> 24] ^ slices[3][high & 0xFF] ^ slices[2][high >> 8 & 0xFF] ^
              slices[1][high >> 16 & 0xFF] ^ slices[0][high >> 24];
    }
    for (; size > 0; at++, size--) {
        crc = crc >> 8 ^ slices[0][(crc ^ *at) & 0xFF];
    }
    return ~crc;
}

#if defined(__x86_64__)

/* One chain of crc32q, 8 bytes in 3 cycles: 4 KiB in half a microsecond is far below the write that
 * follows, so the interleaving of three chains that hides the latency is not worth its code. */
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const void *data,
                                                                 size_t size)
{
    const uint8_t *at = data;
    uint64_t wide = ~crc;
    for (; size >= 8; at += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; size > 0; at++, size--) {
        crc = __builtin_ia32_crc32qi(crc, *at);
    }
    return ~crc;
}

uint32_t pen_crc32c(uint32_t crc, const void *data, size_t size)
{
    if (__builtin_cpu_supports("sse4.2")) {
        return by_instruction(crc, data, size);
    }
    return pen_crc32c_portable(crc, data, size);
}

#else

uint32_t pen_crc32c(uint32_t crc, const void *data, size_t size)
{
    return pen_crc32c_portable(crc, data, size);
}

#endif
