/* Purpose: what lives while one stream runs beside the state that its threads share: connections,
 *          files, and each part that has a thread.
 * Thread:  main.
 * Owns:    all of it; some for the whole time, the rest from one loss of a connection to the next.
 * Flow:    apply/run.c drives it, apply/parts.c makes the parts, apply/show.c tells about them. */
#ifndef PEN_APPLY_RUN_H
#define PEN_APPLY_RUN_H

#include "apply/dispatcher.h"
#include "apply/progress.h"
#include "apply/reader.h"
#include "apply/regain.h"
#include "apply/statedir.h"

typedef struct pen_run {
    pen_stream *stream;
    /* for the whole time */
    pen_statedir *statedir; /* borrowed */
    pen_capture *capture;   /* or NULL */
    int signal_fd;
    int signals; /* taken so far */
    bool began;  /* it has run already: what is lost from now on is made anew */
    unsigned recoveries;
    pen_lsn
        refused_lsn; /* commit LSN of the change that ended the run before with an internal error */
    unsigned refusals; /* so many times in a row */
    int64_t started_us;
    int64_t shown_us;
    uint64_t shown_txns;
    bool source_asked; /* an answer is still to come on `source` */
    bool source_lost;  /* it gives none any more */
    int64_t source_asked_us;
    uint64_t messages[256]; /* received, by kind, by intakes that have ended */
    uint64_t losses;        /* of the source that were seen to, while the reader went on */
    pen_error refused;      /* the source has come back as one that cannot be gone on with */
    /* until a connection is lost; the reader also over a loss of the other, with --ack spooled */
    pen_pgconn *source; /* an ordinary session: catalog at the start, the source's position later */
    pen_reader *reader;
    pen_spool_header header; /* what the reader's stream is */
    pen_regain *regain;      /* brings its source back, or NULL */
    pen_intake *intake;
    pen_dispatchers *dispatchers;
    pen_progress *progress;
} pen_run;

/* While there is nothing to finish, a signal ends the process at once, with the exit code of a
 * stop; pen_stream_run does otherwise while its threads run. */
void pen_run_stop_early_on_signals(void);

/* Takes the state directory's lock, which the caller keeps for as long as it does anything; with
 * `hands_over` a signal of a cutover that asks for it is no stop from then on, but an end with exit
 * code 0, until pen_run_let_go. Errors: as pen_statedir_open's. */
PEN_MUST_CHECK bool pen_run_hold(const pen_options *options, bool hands_over, pen_statedir **dir,
                                 pen_error *err);
void pen_run_let_go(pen_statedir *dir); /* NULL is nothing */

/* Runs one stream to its end: connects, checks, resumes, starts the threads, makes lost connections
 * anew, and returns when the stream was drained or has failed for good. *reason tells which end it
 * was; on false *err says what failed. */
PEN_MUST_CHECK bool pen_stream_run(const pen_options *options, pen_stop_reason *reason,
                                   pen_error *err);
/* The same in a state directory that the caller holds. */
PEN_MUST_CHECK bool pen_stream_run_in(const pen_options *options, pen_statedir *dir,
                                      pen_stop_reason *reason, pen_error *err);

#endif
