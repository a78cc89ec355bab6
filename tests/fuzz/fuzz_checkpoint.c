/* Any bytes into the checkpoint decoder: once as they are, and once with the right size and CRC,
 * because without those nothing behind the CRC is ever reached. */
#include "core/crc32c.h"
#include "io/checkpoint.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was decoded must be well formed, and encode to something that decodes to the same. */
static void check(pen_slice image)
{
    pen_checkpoint cp;
    if (!pen_checkpoint_decode(image, &cp)) {
        return;
    }
    PEN_ASSERT(memchr(cp.database, 0, sizeof(cp.database)) != NULL);
    PEN_ASSERT(memchr(cp.slot, 0, sizeof(cp.slot)) != NULL);
    uint8_t again[PEN_CHECKPOINT_SLOT_SIZE];
    pen_checkpoint_encode(&cp, again);
    pen_checkpoint read;
    bool decoded = pen_checkpoint_decode((pen_slice){again, sizeof(again)}, &read);
    PEN_ASSERT(decoded);
    PEN_ASSERT(read.generation == cp.generation && read.timeline == cp.timeline &&
               read.system_identifier == cp.system_identifier &&
               read.committed_lsn == cp.committed_lsn && read.durable_lsn == cp.durable_lsn);
    PEN_ASSERT(strcmp(read.database, cp.database) == 0 && strcmp(read.slot, cp.slot) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check((pen_slice){data, size});

    size_t body = PEN_CHECKPOINT_SLOT_SIZE - 4;
    uint8_t sealed[PEN_CHECKPOINT_SLOT_SIZE];
    memset(sealed, 0, sizeof(sealed));
    if (size > 0) {
        memcpy(sealed, data, size < body ? size : body);
    }
    uint32_t crc = pen_crc32c(0, sealed, body);
    for (unsigned i = 0; i < 4; i++) {
        sealed[body + i] = (uint8_t)(crc >> (8 * i));
    }
    check((pen_slice){sealed, sizeof(sealed)});
    return 0;
}
