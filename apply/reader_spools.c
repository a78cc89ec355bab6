#include "apply/reader_internal.h"
#include "core/log.h"

#include <inttypes.h>

/* Between two barriers of the spool, while there is something new. */
#define SYNC_EVERY_US (50 * 1000)
/* Between two looks at the spool's size. */
#define SIZE_EVERY_US (500 * 1000)

/* Segments whose transactions are all durable on the target are not needed any more. */
static bool trim(pen_reader *reader, pen_error *err)
{
    /* [DURABLE-1] acquire: pairs with the release in the progress thread. */
    pen_lsn durable = pen_cell_read(&reader->stream->durable_lsn);
    uint64_t needed = pen_intake_needed_segment(reader->intake, durable);
    if (needed <= pen_spool_first(reader->spool).segment) {
        return true;
    }
    bool ok = pen_spool_trim(reader->spool, needed, err);
    pen_cell_publish(&reader->stream->spool_start_lsn, pen_spool_start_lsn(reader->spool));
    return ok;
}

static void sync_now_and_then(pen_reader *reader)
{
    int64_t now_us = pen_now_us();
    if (now_us - reader->synced_us >= SYNC_EVERY_US &&
        pen_spool_pos_before(pen_spool_synced(reader->spool), pen_spool_end(reader->spool))) {
        reader->synced_us = now_us;
        pen_spool_sync(reader->spool);
    }
}

/* Says once that the disk is full, and once that it is not any more. */
static void look_at_disk(pen_reader *reader, const pen_spool *spool)
{
    bool full = pen_spool_disk_is_full(spool);
    if (full && !reader->disk_full) {
        pen_log(PEN_LOG_ERROR,
                "the disk with the state directory %s is full (%" PRIu64
                " MB of it are the spool): nothing more is received until there is room, and "
                "nothing is lost; the source keeps its WAL meanwhile. Make room there",
                reader->stream->options->dir, pen_spool_size(spool) >> 20);
    } else if (!full && reader->disk_full) {
        pen_log(PEN_LOG_INFO, "there is room again in %s: receiving goes on",
                reader->stream->options->dir);
    }
    reader->disk_full = full;
    pen_cell_publish(&reader->stream->disk_full, full);
}

/* For whoever asks; a large spool has thousands of segments to be added up. */
static void tell_spool_size(pen_reader *reader, const pen_spool *spool)
{
    int64_t now_us = pen_now_us();
    if (now_us - reader->size_told_us >= SIZE_EVERY_US) {
        reader->size_told_us = now_us;
        pen_cell_publish(&reader->stream->spool_bytes, pen_spool_size(spool));
    }
}

bool pen_reader_poll_spools(pen_reader *reader, pen_error *err)
{
    pen_spool *spool = reader->spool != NULL ? reader->spool : reader->streamed;
    if (spool == NULL) {
        return true;
    }
    if (!pen_spool_poll(spool, err)) {
        return false;
    }
    look_at_disk(reader, spool);
    tell_spool_size(reader, spool);
    if (reader->spool == NULL) {
        return true;
    }
    pen_cell_publish(&reader->stream->spool_end_lsn, pen_spool_synced_lsn(spool));
    sync_now_and_then(reader);
    return reader->intake == NULL || trim(reader, err);
}

bool pen_reader_finish_spool(pen_reader *reader, pen_error *err)
{
    while (pen_spool_pos_before(pen_spool_synced(reader->spool), pen_spool_end(reader->spool)) &&
           !pen_spool_disk_is_full(reader->spool)) {
        pen_spool_sync(reader->spool);
        pen_parker_prepare(&reader->stream->reader_parker);
        if (!pen_spool_poll(reader->spool, err) || !pen_reader_report(reader, false, err)) {
            pen_parker_cancel(&reader->stream->reader_parker);
            return false;
        }
        (void)pen_parker_park(&reader->stream->reader_parker, -1, 0, LOOK_AGAIN_MS);
    }
    return true;
}
