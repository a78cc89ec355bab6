/* Purpose: the checkpoint file: where the stream stands, in two slots of which one is always whole.
 * Thread:  the progress thread; open and read also main, before it starts.
 * Owns:    the file, and the asynchronous writer (io_uring, or a thread where that is refused).
 * Flow:    a pen_checkpoint from the progress thread in, 4 KiB to disk out; at start the newest
 *          valid slot back.
 *
 * The file is two slots, A and B, of 4096 bytes. Each holds magic, format version, identity, slot
 * name, generation, positions and a CRC32C over the whole slot, little-endian. The older slot is
 * overwritten, so a torn write leaves the newer one; the highest valid generation wins. With a
 * PostgreSQL target the file is a hint: losing it costs time, never data. */
#ifndef PEN_IO_CHECKPOINT_H
#define PEN_IO_CHECKPOINT_H

#include "core/error.h"
#include "core/slice.h"

#define PEN_CHECKPOINT_SLOT_SIZE 4096u

typedef struct pen_checkpoint {
    uint64_t generation; /* set by the writer */
    uint64_t system_identifier;
    uint32_t timeline;
    char database[64]; /* the source's */
    char slot[64];
    pen_lsn committed_lsn; /* end of the newest transaction visible on the target */
    pen_lsn durable_lsn;   /* everything before it survives a crash of the target */
    /* --ack spooled: what ends behind the first and at or before the second lies in the spool, and
     * the source may have forgotten it; else both are PEN_LSN_NONE */
    pen_lsn spool_start_lsn;
    pen_lsn spool_end_lsn;
} pen_checkpoint;

/* Writes the slot image of `cp` into `image`. */
void pen_checkpoint_encode(const pen_checkpoint *cp, uint8_t image[PEN_CHECKPOINT_SLOT_SIZE]);
/* Reads one slot image; false when magic, version, length of names or CRC do not hold (*cp is then
 * left alone). `image` may be any bytes at all. */
PEN_MUST_CHECK bool pen_checkpoint_decode(pen_slice image, pen_checkpoint *cp);

/* True when `image` begins as a slot, however damaged the rest. */
bool pen_checkpoint_begins(pen_slice image);

typedef struct pen_checkpoint_file pen_checkpoint_file;

/* Opens or creates the file at `path` (mode 0600; a new one is made durable with its directory
 * entry) and reads it: *found tells whether a valid slot was there, *newest is it. A file that is
 * torn, truncated or not ours is not an error: nothing is found, and that is logged as a warning.
 * `use_uring` false takes the thread with pwrite and fdatasync at once; true falls back to it,
 * saying so once in the log, where io_uring is refused. Errors: PEN_ERROR_FATAL when the file
 * cannot be opened, read or made. */
PEN_MUST_CHECK bool pen_checkpoint_open(const char *path, bool use_uring,
                                        pen_checkpoint_file **file, bool *found,
                                        pen_checkpoint *newest, pen_error *err);

/* Hands `cp` to the writer and returns at once; one write is in flight, and of newer states only
 * the last is kept. Errors: an earlier write or fsync that failed; then the file must not be used
 * any more. */
PEN_MUST_CHECK bool pen_checkpoint_submit(pen_checkpoint_file *file, const pen_checkpoint *cp,
                                          pen_error *err);

/* Takes in a finished write and starts a waiting one; never waits. To be called now and then. */
PEN_MUST_CHECK bool pen_checkpoint_poll(pen_checkpoint_file *file, pen_error *err);

/* Waits until everything submitted is on disk. */
PEN_MUST_CHECK bool pen_checkpoint_flush(pen_checkpoint_file *file, pen_error *err);

/* Generation of the newest state that is on disk; 0 when none is. */
uint64_t pen_checkpoint_written(const pen_checkpoint_file *file);
/* "io_uring" or "thread", to show. */
const char *pen_checkpoint_method(const pen_checkpoint_file *file);

/* Closes without waiting for anything but the write in flight; NULL is nothing. */
void pen_checkpoint_close(pen_checkpoint_file *file);

#endif
