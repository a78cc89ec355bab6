/* Purpose: what a running penstock says of itself: plain facts of one moment, and how they are written.
 * Thread:  any; a report belongs to who asked for it.
 * Owns:    its texts are inside, or constants; the lists are its own, until pen_report_deinit.
 * Flow:    filled by apply/status.c; a JSON document, or Prometheus' text format, out.
 *
 * A credential never comes into it: of a connection string there are host, port, database and user.
 */
#ifndef PEN_APPLY_REPORT_H
#define PEN_APPLY_REPORT_H

#include "apply/stages.h"
#include "core/log.h"
#include "core/metrics.h"
#include "io/pgconn.h"

typedef enum pen_state {
    PEN_STATE_STARTING,   /* nothing was reached yet */
    PEN_STATE_PREPARING,  /* what comes before a stream, and a cutover's steps */
    PEN_STATE_STREAMING,  /* changes are applied as they come */
    PEN_STATE_RECOVERING, /* a connection was lost, and is made anew */
    PEN_STATE_STOPPING    /* what is in flight is finished */
} pen_state;

const char *pen_state_word(pen_state state);

#define PEN_REASON_SIZE 400

typedef struct pen_report_thread {
    pen_activity activity;
    uint64_t batch; /* a worker's; 0: none */
} pen_report_thread;

typedef struct pen_report_stream {
    bool there;         /* there was a stream already */
    pen_lsn source_lsn; /* where the source's WAL was flushed to moments ago, as far as is known */
    pen_lsn received_lsn;
    pen_lsn dispatched_lsn;
    pen_lsn applied_lsn;
    pen_lsn durable_lsn;
    pen_lsn confirmed_lsn;
    pen_lsn stop_lsn;   /* PEN_LSN_NONE: no end */
    double lag_seconds; /* age of the oldest transaction under way */
    bool disk_full;
    uint64_t spool_bytes;
    uint64_t memory_limit;
    uint64_t skipped;
    uint64_t overwritten;
    char blocker[320];               /* "" for nobody */
    uint64_t sums[PEN_METRIC_COUNT]; /* counters never go back from one report to the next */
    pen_histogram distributions[PEN_DISTRIBUTION_COUNT];
    pen_limit limit; /* of the last seconds */
    double seconds;  /* so many, that the rates are of; 0: there are none yet */
    double transactions_per_s;
    double changes_per_s;
    double received_bytes_per_s;
    pen_report_thread *threads; /* reader, dispatchers, workers, eager worker */
    size_t thread_count;
    unsigned dispatcher_count;
    unsigned worker_count;
    bool has_eager; /* --streaming parallel */
} pen_report_stream;

/* Tables in work that are told one by one. */
#define PEN_REPORT_TABLES 16

typedef struct pen_report_copy {
    bool there; /* a round of the copy is under way */
    int round;
    double part; /* 0 to 1 */
    uint64_t tables;
    uint64_t tables_left;
    uint64_t rows; /* in this round */
    uint64_t bytes;
    double seconds; /* of the rates */
    double rows_per_s;
    double bytes_per_s;
    unsigned jobs;
    unsigned in_work;
    struct {
        char name[200];
        double part;
        uint64_t rows;
        uint64_t bytes;
    } work[PEN_REPORT_TABLES];
} pen_report_copy;

typedef struct pen_report {
    const char *command;
    const char *name;
    int pid;
    int64_t now_us; /* of the UNIX epoch, as the next two */
    int64_t started_us;
    int64_t phase_us;
    const char *phase;
    pen_state state;
    char reason[PEN_REASON_SIZE]; /* of a recovery, in words; or "" */
    bool healthy;
    char trouble[PEN_REASON_SIZE + 64]; /* why not */
    pen_pgplace source;
    pen_pgplace target;
    uint64_t recoveries;
    pen_report_stream stream;
    pen_report_copy copy;
    bool has_indexes; /* some are being built */
    uint64_t indexes;
    uint64_t indexes_left;
    pen_log_note notes[PEN_LOG_NOTES];
    size_t note_count;
} pen_report;

/* What the source has and the target does not; of positions that are known. */
uint64_t pen_report_lag_bytes(const pen_report_stream *stream);

pen_report *pen_report_create(void);
void pen_report_destroy(pen_report *report); /* NULL is nothing */

/* Fills in `healthy` and `trouble` by what else stands there. */
void pen_report_judge(pen_report *report);

/* One JSON object on one line; free() it. docs/STATUS.md says what its members mean. */
char *pen_report_json(const pen_report *report);
/* Prometheus' text format 0.0.4; free() it. What is counted comes from core/metrics.def. */
char *pen_report_metrics(const pen_report *report);

#endif
