/* Purpose: what the micro benches share: how one is described, how its work is timed.
 * Thread:  main; a bench may start others for as long as it runs.
 * Owns:    nothing.
 * Flow:    bench/main.c's table calls a bench; its numbers, in the units that the table says, out.
 */
#ifndef PEN_BENCH_BENCH_H
#define PEN_BENCH_BENCH_H

#include "core/error.h"

#include <stddef.h>

enum { PEN_BENCH_METRICS = 3 };

typedef enum pen_bench_bar { PEN_BAR_NONE, PEN_BAR_AT_LEAST, PEN_BAR_AT_MOST } pen_bench_bar;

/* One number that a bench gives. */
typedef struct pen_bench_metric {
    const char *name; /* NULL ends the list */
    const char *unit;
    pen_bench_bar sense; /* which side of `bar` is wanted */
    double bar;
} pen_bench_metric;

typedef struct pen_bench {
    const char *name;
    const char *what;
    /* Runs once, with `share` of the usual amount of work, and writes a number for each metric.
     * False: not to be had on this machine. What fails otherwise ends the process. */
    bool (*run)(double share, double *values);
    pen_bench_metric metrics[PEN_BENCH_METRICS + 1];
} pen_bench;

/* bench_core.c */
bool bench_ring(double share, double *values);
bool bench_key_hash_text(double share, double *values);
bool bench_key_hash_binary(double share, double *values);
bool bench_key_hash_wide(double share, double *values);
bool bench_conflict(double share, double *values);
bool bench_conflict_wide(double share, double *values);

/* bench_tpcb.c */
bool bench_decode_tpcb(double share, double *values);
bool bench_dispatch(double share, double *values);
bool bench_former(double share, double *values);

/* bench_statement.c */
bool bench_statement_build(double share, double *values);
bool bench_statement_bind(double share, double *values);

/* bench_checkpoint.c */
bool bench_checkpoint_uring(double share, double *values);
bool bench_checkpoint_thread(double share, double *values);
bool bench_checkpoint_direct(double share, double *values);

/* bench_spool.c */
bool bench_spool_append_60(double share, double *values);
bool bench_spool_append_8k(double share, double *values);
bool bench_spool_durable_60(double share, double *values);
bool bench_spool_durable_8k(double share, double *values);
bool bench_spool_read_60(double share, double *values);
bool bench_spool_read_8k(double share, double *values);
bool bench_thread_append_60(double share, double *values);
bool bench_thread_append_8k(double share, double *values);
bool bench_thread_durable_60(double share, double *values);
bool bench_thread_durable_8k(double share, double *values);
bool bench_thread_read_60(double share, double *values);
bool bench_thread_read_8k(double share, double *values);

/* ---- for the benches, in bench_common.c ---- */

/* Ends the process, in words, unless `ok`. */
void bench_check(bool ok, const pen_error *err);

/* `share` of `usual`, at least 1. */
size_t bench_count(size_t usual, double share);

/* Nanoseconds of processor time that this thread has had: what others do on the machine shows less
 * in it than in the time that passed. */
double bench_cpu_ns(void);
/* Nanoseconds that have passed, since some point of time. */
double bench_wall_ns(void);

/* xorshift64 (Marsaglia 2003): the same numbers in each run. */
uint64_t bench_random(uint64_t *state);

/* Keeps what was computed from being optimised away. */
void bench_keep(uint64_t value);

/* Sorts `count` numbers; the smallest first. */
void bench_sort(double *values, size_t count);

/* A path of this process's own below TMPDIR, or /tmp, that ends in `name`. */
void bench_path(char *path, size_t size, const char *name);

#endif
