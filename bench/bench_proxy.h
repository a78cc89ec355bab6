/* Purpose: the end-to-end bench's network: passes TCP connections on, each byte a fixed time after it came.
 * Thread:  one.
 * Owns:    its sockets, and the bytes that are on their way.
 * Flow:    `penstock-bench proxy --to PORT --delay-us N`; prints the port that it listens on, and
 * runs until it is killed. */
#ifndef PEN_BENCH_PROXY_H
#define PEN_BENCH_PROXY_H

/* Runs with the arguments behind "proxy". Returns an exit code, with a line on standard error. */
int bench_proxy(int argc, char **argv);

#endif
