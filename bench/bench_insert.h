/* Purpose: what many new rows cost the target and penstock, by the statement that brings them: which one apply/ should
 *          use, and from how many rows on.
 * Thread:  one.
 * Owns:    two sessions on the target and, for as long as it runs, the schema penstock_bench there.
 * Flow:    `penstock-bench insert --target CONNINFO`; lines on standard output. */
#ifndef PEN_BENCH_INSERT_H
#define PEN_BENCH_INSERT_H

/* Runs with the arguments behind "insert". Returns an exit code, with a line on standard error. */
int bench_insert(int argc, char **argv);

#endif
