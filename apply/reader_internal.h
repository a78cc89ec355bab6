/* Purpose: what the files of the reader share: its state, and what each does for the others.
 * Thread:  the reader; only apply/reader*.c include this.
 * Owns:    nothing by itself.
 * Flow:    apply/reader_receive.c takes in what comes, apply/reader_spools.c sees to the disk,
 *          apply/reader_status.c tells the source how far it is; apply/reader.c goes round, and
 *          sleeps when there is nothing for any of them. */
#ifndef PEN_APPLY_READER_INTERNAL_H
#define PEN_APPLY_READER_INTERNAL_H

#include "apply/pacing.h"
#include "apply/reader.h"

/* While an end of the stream is waited for, the source is asked for its position this often. */
#define ASK_EVERY_MS 100
/* While something is waited for that nobody wakes us for. */
#define LOOK_AGAIN_MS 10

struct pen_reader {
    pen_stream *stream;
    pen_replication *rep;     /* NULL while the source is away, with a spool */
    pen_spool *spool;         /* the whole stream; NULL without --ack spooled */
    pen_spooling *spooling;   /* the same */
    pen_spool *streamed;      /* blocks of transactions in progress, or NULL */
    pen_capture *capture;     /* borrowed, or NULL */
    pen_intake *intake;       /* borrowed; NULL while there is no target to apply to */
    pen_spool_cursor *cursor; /* of the spool: what the intake takes next */
    bool receiving;           /* until the stop */
    bool disk_full;           /* as said in the log */
    pen_lsn stop_lsn;         /* the stream's, which is known when there is an intake */
    pen_lsn reported_lsn;     /* the flush position last sent; never goes back */
    int64_t reported_us;      /* when */
    int64_t size_told_us;     /* when the spool's size was last published */
    int64_t synced_us;        /* when the spool's last barrier was asked for */
    int64_t heard_us;         /* when something last came from the source, or could not be taken */
    bool heard;               /* something has come since then */
    bool was_dry;             /* nothing has come for a while: what comes next may be on time */
    pen_pacing pacing;
    bool napped;             /* since something came */
    int64_t silent_us;       /* since when the socket is empty; 0: something came last */
    pen_pgtime source_clock; /* what the source's clock said when it last sent something, or 0 */
    int64_t clock_read_us;   /* when that came here; only with a spool */
    bool send_now;           /* the source asked for a status */
    bool pending;            /* bytes are queued that the socket did not take */
    bool source_failed;      /* what failed last was the connection */
};

/* It is the source that is lost. Returns false always. */
static inline bool pen_reader_source_failed(pen_reader *reader)
{
    reader->source_failed = true;
    return false;
}

/* Takes in what there is, up to a bound; *idle: there is nothing to do before the socket, a wake or
 * the clock says so. */
PEN_MUST_CHECK bool pen_reader_receive(pen_reader *reader, bool *idle, pen_error *err);

/* Looks after what the spools have written and may forget. */
PEN_MUST_CHECK bool pen_reader_poll_spools(pen_reader *reader, pen_error *err);
/* Waits until everything in the spool is durable, still sending status. */
PEN_MUST_CHECK bool pen_reader_finish_spool(pen_reader *reader, pen_error *err);

/* What the source may forget. */
pen_lsn pen_reader_safe_lsn(const pen_reader *reader);
/* Everything before it has arrived. */
pen_lsn pen_reader_received_lsn(const pen_reader *reader);
/* Publishes how far it is, and sends the source a status when one is due, or it is the last. */
PEN_MUST_CHECK bool pen_reader_report(pen_reader *reader, bool last, pen_error *err);

#endif
