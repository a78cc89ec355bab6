/* Purpose: a captured stream as the dispatcher would see it: whole transactions in commit order, with the
 *          keys of their changes.
 * Thread:  one.
 * Owns:    the file, the decoder, the tables' descriptors; what it gives holds until the next call.
 * Flow:    a file of penstock stream --capture in; transactions out, for simulations. */
#ifndef PEN_APPLY_PLAYBACK_H
#define PEN_APPLY_PLAYBACK_H

#include "apply/former.h"
#include "apply/relation.h"
#include "core/error.h"
#include "io/pgconn.h"

typedef struct pen_playback pen_playback;

/* Where a transaction is too large to wait for its Commit: as the reader decides. */
typedef struct pen_playback_limits {
    uint64_t rows;
    uint64_t bytes;
} pen_playback_limits;

/* One change as far as a simulation goes. */
typedef struct pen_played_change {
    uint64_t row_hash; /* of its row, by the identity; 0 where that is not known */
    uint32_t table;    /* see pen_playback_table */
    uint8_t kind;      /* pen_change_kind */
} pen_played_change;

/* A transaction. A large one (txn->feed is set, and is nothing but a sign here) has no changes: its
 * rows are only counted. */
typedef struct pen_played {
    pen_txn *txn;
    pen_txn_keys keys;
    const pen_played_change *changes; /* txn->change_count */
    const uint64_t *large_rows;       /* by table; NULL when it is no large one */
} pen_played;

typedef enum pen_playback_result {
    PEN_PLAYBACK_TXN,
    PEN_PLAYBACK_END,   /* the file ends; what is behind the last Commit was left out */
    PEN_PLAYBACK_TORN,  /* it cannot be read on from here: *err says where */
    PEN_PLAYBACK_FAILED /* *err */
} pen_playback_result;

/* Opens the capture at `path`. `catalog`: an ordinary session on the target whose catalogs tell the
 * keys, borrowed, and `replica_role` whether workers would have session_replication_role=replica;
 * NULL: they are taken from the stream alone (apply/assume.h). Errors: PEN_ERROR_FATAL when it
 * cannot be read, or is no capture. */
PEN_MUST_CHECK bool pen_playback_open(const char *path, const pen_playback_limits *limits,
                                      pen_pgconn *catalog, bool replica_role,
                                      pen_playback **playback, pen_error *err);
void pen_playback_close(pen_playback *playback); /* NULL is nothing */

/* Gives the next transaction with changes. Errors: PEN_ERROR_FATAL for messages that cannot be, a
 * capture with transactions in progress (--streaming on), and tables that the target lacks. */
PEN_MUST_CHECK pen_playback_result pen_playback_next(pen_playback *playback, pen_played *played,
                                                     pen_error *err);

/* Tables seen so far, numbered from 0. */
uint32_t pen_playback_table_count(const pen_playback *playback);
/* The newest descriptor of a table. */
const pen_target *pen_playback_table(const pen_playback *playback, uint32_t table);

#endif
