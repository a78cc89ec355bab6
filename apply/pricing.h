/* Purpose: what it costs to send changes, in the simulation of a drain.
 * Thread:  one.
 * Owns:    what it needs to tell rows apart, grown to what it once needed.
 * Flow:    changes of a batch in; processor time, waiting, rows and statements out. */
#ifndef PEN_APPLY_PRICING_H
#define PEN_APPLY_PRICING_H

#include "apply/playback.h"
#include "apply/waves.h"

/* Nanoseconds. */
typedef struct pen_costs {
    double receive;            /* of a change before a worker has it: source, reader, dispatcher */
    double row;                /* processor time of a row, on both ends of the connection */
    double statement;          /* of a statement, whatever its rows */
    double batch;              /* of a batch: BEGIN, the progress row, COMMIT, waking others */
    double round_trip;         /* waiting */
    const double *row_latency; /* waiting for each row, by table; NULL: none */
    uint32_t table_count;      /* of row_latency; later tables have none */
    unsigned cores;            /* shared by all; 0: enough */
    bool sets; /* rows of one table and kind are one statement, and a row that changes often one
                  row, as a run has it unless told otherwise; else each change is a statement */
} pen_costs;

/* One change of a batch. */
typedef struct pen_priced_change {
    uint64_t bound;
    uint64_t row_hash; /* 0: not known */
    uint64_t tag;      /* for a watcher */
    uint32_t table;
    uint8_t kind;
} pen_priced_change;

typedef struct pen_price {
    double cpu;  /* nanoseconds */
    double wait; /* nanoseconds */
    uint64_t rows;
    uint64_t sent; /* rows, when changes of one row have become one */
    uint64_t statements;
} pen_price;

typedef struct pen_pricer pen_pricer;

/* Borrows `costs`. */
pen_pricer *pen_pricer_create(const pen_costs *costs);
void pen_pricer_destroy(pen_pricer *pricer); /* NULL is nothing */

/* One wave of a batch that has these changes. */
pen_price pen_pricer_wave(pen_pricer *pricer, const pen_priced_change *changes, size_t count,
                          pen_wave wave);
/* A large transaction, of which only the number of rows for each table is known. */
pen_price pen_pricer_large(const pen_pricer *pricer, const pen_played *played);
/* A change that is told of by itself: processor time and waiting. */
double pen_pricer_one(const pen_pricer *pricer, const pen_priced_change *chg);

#endif
