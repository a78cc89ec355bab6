#include "apply/positions.h"

#include <stdlib.h>
#include <string.h>

/* Up to where transactions that began in one segment of the spool go. */
typedef struct pen_segment_end {
    uint64_t segment;
    pen_lsn end_lsn; /* of the last of them that came whole */
} segment_end;

void pen_positions_init(pen_positions *positions, pen_stream *stream)
{
    *positions = (pen_positions){.stream = stream,
                                 .skip_lsn = stream->resume.commit_lsn,
                                 .received = stream->resume.start_lsn};
}

void pen_positions_deinit(pen_positions *positions)
{
    free(positions->segments);
}

bool pen_positions_was_here(const pen_positions *positions, pen_lsn commit_lsn)
{
    return commit_lsn <= positions->skip_lsn;
}

bool pen_positions_is_beyond_end(const pen_positions *positions, pen_lsn lsn)
{
    pen_lsn stop_lsn = positions->stream->stop_lsn;
    return stop_lsn != PEN_LSN_NONE && lsn > stop_lsn;
}

bool pen_positions_note_commit(pen_positions *positions, pen_lsn commit_lsn, bool *again,
                               pen_error *err)
{
    *again = pen_positions_was_here(positions, commit_lsn);
    if (*again) {
        return true;
    }
    if (commit_lsn <= positions->commit_lsn) {
        /* All that follows, dependencies, progress and resuming, stands on this order. */
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: a transaction committed at " PEN_LSN_FMT
            " came behind one committed at " PEN_LSN_FMT
            "; check that nothing between penstock and the source changes the stream",
            PEN_LSN_ARGS(commit_lsn), PEN_LSN_ARGS(positions->commit_lsn));
    }
    positions->commit_lsn = commit_lsn;
    return true;
}

void pen_positions_note_received(pen_positions *positions, pen_lsn end_lsn)
{
    positions->received = end_lsn;
}

void pen_positions_note_handed(pen_positions *positions, pen_lsn end_lsn)
{
    pen_meter_add(PEN_METRIC_RECEIVED_TRANSACTIONS, 1);
    /* [HANDED-1] release: published before any later idle_lsn; pairs with the acquire in the
     * progress thread, which reads idle_lsn first. */
    pen_cell_publish(&positions->stream->handed_lsn, end_lsn);
}

void pen_positions_note_idle(pen_positions *positions, pen_lsn lsn)
{
    if (lsn > positions->received) {
        positions->received = lsn;
    }
    /* [IDLE-1] release: pairs with the acquire in the progress thread. */
    pen_cell_publish(&positions->stream->idle_lsn, positions->received);
}

void pen_positions_note_session(pen_positions *positions)
{
    if (positions->commit_lsn > positions->skip_lsn) {
        positions->skip_lsn = positions->commit_lsn;
    }
}

/* Which segments are needed */

void pen_positions_note_segment(pen_positions *positions, uint64_t segment)
{
    if (positions->segment_count > 0 &&
        positions->segments[positions->segment_count - 1].segment >= segment) {
        return;
    }
    if (positions->segment_count == positions->segment_capacity) {
        positions->segment_capacity =
            positions->segment_capacity == 0 ? 16 : positions->segment_capacity * 2;
        positions->segments = pen_realloc(positions->segments, positions->segment_capacity *
                                                                   sizeof(*positions->segments));
    }
    positions->segments[positions->segment_count++] = (segment_end){.segment = segment};
}

void pen_positions_note_end(pen_positions *positions, uint64_t first, pen_lsn end_lsn)
{
    for (size_t i = 0; i < positions->segment_count; i++) {
        segment_end *it = &positions->segments[i];
        if (it->segment >= first) {
            it->end_lsn = end_lsn > it->end_lsn ? end_lsn : it->end_lsn;
            return;
        }
    }
}

uint64_t pen_positions_needed_segment(pen_positions *positions, uint64_t open, pen_lsn durable)
{
    if (positions->segment_count == 0) {
        return 0;
    }
    size_t gone = 0;
    /* The last one is where the next transaction may begin, and an open one has begun there: a
     * segment ends between transactions. */
    while (gone + 1 < positions->segment_count && positions->segments[gone].segment < open &&
           positions->segments[gone].end_lsn <= durable) {
        gone++;
    }
    positions->segment_count -= gone;
    memmove(positions->segments, positions->segments + gone,
            positions->segment_count * sizeof(*positions->segments));
    return positions->segments[0].segment;
}
