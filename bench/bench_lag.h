/* Purpose: the end-to-end bench's yardstick: marker transactions at random times, and when each is seen on the target.
 * Thread:  one.
 * Owns:    its connections to both servers while it runs.
 * Flow:    `penstock-bench lag FLAGS`; one line a marker into a file, for bench/endtoend to read.
 */
#ifndef PEN_BENCH_LAG_H
#define PEN_BENCH_LAG_H

/* Runs with the arguments behind "lag". Returns an exit code: 1 with a line on standard error when
 * a server or the file fails, 2 for arguments that are not understood. Markers that were not seen
 * are no failure: they are in the file, with 0 for the time. */
int bench_lag(int argc, char **argv);

#endif
