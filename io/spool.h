/* Purpose: the spool: a log of what came off the replication connection, in segment files under the
 *          state directory.
 * Thread:  the reader; only the kernel (or the fallback's thread) works beside it.
 * Owns:    the segment files, a few fixed buffers (registered with io_uring), the ring.
 * Flow:    records in at the end; out again at any position by a cursor; segments that nobody needs
 *          any more are deleted.
 *
 * Appending never waits and never fails: bytes go into a buffer, full buffers to the kernel. What
 * is still in a buffer is read from there, the rest from the file. A position is a segment and an
 * offset in it, and grows.
 *
 * Two are in use: "stream", durable, the whole stream with --ack spooled; and "streamed", not
 * durable, the blocks of transactions in progress with --streaming on. */
#ifndef PEN_IO_SPOOL_H
#define PEN_IO_SPOOL_H

#include "core/spool_format.h"
#include "core/thread.h"

typedef struct pen_spool pen_spool;

typedef struct pen_spool_pos {
    uint64_t segment; /* from 1; 0 is before all */
    uint64_t offset;  /* bytes, in the segment's file */
} pen_spool_pos;

static inline bool pen_spool_pos_before(pen_spool_pos a, pen_spool_pos b)
{
    return a.segment != b.segment ? a.segment < b.segment : a.offset < b.offset;
}

typedef struct pen_spool_options {
    const char *dir;         /* directory of the segments, made (0700) where it is missing */
    const char *name;        /* segments are DIR/NAME-<16 hex digits>.spool, mode 0600 */
    pen_spool_header header; /* identity; id, segment and start_lsn are the spool's to fill */
    bool durable;            /* kept over restarts, and made durable by pen_spool_sync */
    bool use_uring;          /* false: pwrite and fdatasync by a thread at once */
    size_t segment_size;     /* bytes after which a segment counts as full */
    size_t buffer_size;      /* bytes of one buffer */
    unsigned buffer_count;   /* at least 2 */
    pen_parker *parker;      /* borrowed: the reader's, woken when a write or a sync is done; then
                                pen_spool_poll is to be called. NULL: none */
} pen_spool_options;

/* Opens it. A durable one is read whole: every record of every segment is checked; behind the last
 * whole record of the last segment a torn tail is cut off, which is logged as a warning with its
 * size. *found tells whether there was one. One that is not durable begins empty, what is left of
 * an earlier one is deleted. Errors: PEN_ERROR_FATAL, in words: a segment that is missing, damaged
 * before its end, of another identity (system identifier, database, slot, encoding; not timeline,
 * server version, protocol or binary), or that cannot be read or made. */
PEN_MUST_CHECK bool pen_spool_open(const pen_spool_options *options, pen_spool **spool, bool *found,
                                   pen_error *err);
/* What the first segment of the spool `name` in `dir` says of itself; false when there is none that
 * can be read. */
PEN_MUST_CHECK bool pen_spool_peek(const char *dir, const char *name, pen_spool_header *header);
/* Waits for writes in flight; what was not handed to the disk yet is dropped, so pen_spool_sync and
 * waiting for it come before. All cursors are to be destroyed first. With `remove` the segments are
 * deleted. NULL is nothing. */
void pen_spool_close(pen_spool *spool, bool remove);

/* "io_uring" or "thread", to show. */
const char *pen_spool_method(const pen_spool *spool);

/* Where the first record is or would be, and where the next one will go. */
pen_spool_pos pen_spool_first(const pen_spool *spool);
pen_spool_pos pen_spool_end(const pen_spool *spool);
/* The header's start_lsn of the first segment. */
pen_lsn pen_spool_start_lsn(const pen_spool *spool);
/* The header of the last segment, borrowed until the next one is begun; NULL when there is none. */
const pen_spool_header *pen_spool_last_header(const pen_spool *spool);
/* Bytes of all segments that are there. */
uint64_t pen_spool_size(const pen_spool *spool);

/* True when the next record should begin a new segment: there is none yet, it is full, or its
 * header says another timeline, server version, protocol or format. Then pen_spool_begin_segment
 * comes before the next append. It waits until all that was appended is written and, where the
 * spool is durable, a barrier for all of it has passed, and makes the file and its directory entry
 * durable: so only the last segment can ever be torn, and it takes as long as a sync now and then.
 * The header says as received_lsn what was noted by pen_spool_mark. A full disk is a result here:
 * *made is false, appending may go on in the segment that is there,
 * and the same is to be tried again later (sooner than after a second it says so at once). Errors:
 * PEN_ERROR_FATAL, as pen_spool_poll, or when the file cannot be made. */
PEN_MUST_CHECK bool pen_spool_wants_segment(const pen_spool *spool);
PEN_MUST_CHECK bool pen_spool_begin_segment(pen_spool *spool, pen_lsn start_lsn, bool *made,
                                            pen_error *err);

/* What is appended from now on comes from a server of that version, in that protocol: the next
 * segment says so, and the one that is there ends where it may. */
void pen_spool_describe(pen_spool *spool, uint32_t server_version, uint16_t protocol);

/* False while nothing more should be received: all buffers wait for the disk, or it is full. Where
 * only a new segment found it full, true again after a second, so that it is tried. */
bool pen_spool_has_room(const pen_spool *spool);
/* True from a write, or a new segment, that found the disk full until one succeeds. */
bool pen_spool_disk_is_full(const pen_spool *spool);

/* Appends a record, whole, whatever its size and whether there is room; there must be a segment.
 * Returns where it stands. What the buffers cannot hold lies in memory of its own until written. */
pen_spool_pos pen_spool_append(pen_spool *spool, const pen_spool_record *record);

/* Notes that the source may forget everything up to `lsn` once all that was appended so far is
 * durable. Does not go back. */
void pen_spool_mark(pen_spool *spool, pen_lsn lsn);
/* Nothing in one that is not durable. Asks for what was appended so far to be made durable: a
 * partly filled buffer goes out, then one fdatasync follows when all writes before it are done. One
 * barrier is under way at a time; what is asked for meanwhile is one more barrier behind it.
 * Nothing to do costs nothing. */
void pen_spool_sync(pen_spool *spool);
/* The mark that is durable; PEN_LSN_NONE when there is none yet. */
pen_lsn pen_spool_synced_lsn(const pen_spool *spool);
pen_spool_pos pen_spool_synced(const pen_spool *spool);

/* Takes in what is done and goes on with what waits; never waits itself. A write that found the
 * disk full is tried again here, at most each second. Errors: PEN_ERROR_FATAL for any other failed
 * write and any failed sync, after which the spool must not be used. */
PEN_MUST_CHECK bool pen_spool_poll(pen_spool *spool, pen_error *err);

/* Deletes the segments before `segment`, but never the one that is written. A cursor must not stand
 * in them. Errors: PEN_ERROR_FATAL when a file cannot be deleted. */
PEN_MUST_CHECK bool pen_spool_trim(pen_spool *spool, uint64_t segment, pen_error *err);

/* Right after opening, before anything is appended: cuts off what stands at and behind `at`, a
 * record of the last segment. Errors: PEN_ERROR_FATAL when the file cannot be cut. */
PEN_MUST_CHECK bool pen_spool_truncate(pen_spool *spool, pen_spool_pos at, pen_error *err);

typedef struct pen_spool_cursor pen_spool_cursor;

pen_spool_cursor *pen_spool_cursor_create(pen_spool *spool, pen_spool_pos at);
void pen_spool_cursor_destroy(pen_spool_cursor *cursor); /* NULL is nothing */
/* Goes to the record at `at`, which was returned by pen_spool_append or is pen_spool_first. */
void pen_spool_cursor_seek(pen_spool_cursor *cursor, pen_spool_pos at);
/* Where the next record stands: behind the last one of a full segment that is the next segment's
 * beginning, once that is there. */
pen_spool_pos pen_spool_cursor_pos(const pen_spool_cursor *cursor);

typedef enum pen_spool_read {
    PEN_SPOOL_READ_RECORD,
    PEN_SPOOL_READ_NOTHING, /* the cursor is at the end */
    PEN_SPOOL_READ_FAILED   /* *err, PEN_ERROR_FATAL: cannot be read, or is not what was written */
} pen_spool_read;

/* Gives the next record, borrowed until the next call for this cursor or an append. Every record
 * that is read from disk is checked again. */
PEN_MUST_CHECK pen_spool_read pen_spool_cursor_next(pen_spool_cursor *cursor,
                                                    pen_spool_record *record, pen_spool_pos *at,
                                                    pen_error *err);

#endif
