/* Purpose: decoding a captured stream from memory, as the reader does: changes a second, and how often it allocates.
 * Thread:  one.
 * Owns:    the capture's messages while it runs.
 * Flow:    a file of penstock stream --capture in; lines on standard output. */
#ifndef PEN_BENCH_DECODE_H
#define PEN_BENCH_DECODE_H

/* Decodes the stream captured in `path` over and over and prints what that took. Returns an exit
 * code: 1 with a line on standard error when the file cannot be used, or a row cost an allocation.
 */
int bench_decode(const char *path);

#endif
