/* Purpose: what the spool does by itself: appending with and without syncs, reading back.
 * Thread:  one.
 * Owns:    a directory below TMPDIR, deleted at the end of each run.
 * Flow:    called by bench_core.c's table; gives records or megabytes of payload a second. */
#ifndef PEN_BENCH_SPOOL_H
#define PEN_BENCH_SPOOL_H

double bench_spool_append_60(void);
double bench_spool_append_8k(void);
double bench_spool_durable_60(void);
double bench_spool_durable_8k(void);
double bench_spool_read_60(void);
double bench_spool_read_8k(void);
double bench_thread_append_60(void);
double bench_thread_append_8k(void);
double bench_thread_durable_60(void);
double bench_thread_durable_8k(void);
double bench_thread_read_60(void);
double bench_thread_read_8k(void);

#endif
