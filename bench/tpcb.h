/* Purpose: TPC-B's transactions as pgbench makes them, as the source would send them, without one.
 * Thread:  one.
 * Owns:    the messages, the decoder and the target descriptors of its four tables.
 * Flow:    nothing in; whole transactions as the reader hands them on, out. */
#ifndef PEN_BENCH_TPCB_H
#define PEN_BENCH_TPCB_H

#include "core/change.h"

/* Changes of one transaction: three updates and an insert. */
enum { TPCB_CHANGES = 4 };

typedef struct tpcb tpcb;

tpcb *tpcb_create(void);
void tpcb_destroy(tpcb *it);

/* Decodes the next transaction; after the last of its own it begins again, with commit LSNs that go
 * on. The caller releases it. The targets of all relations are set. */
pen_txn *tpcb_next(tpcb *it);

/* Bytes that one transaction has on the wire, on average. */
double tpcb_bytes(const tpcb *it);

#endif
