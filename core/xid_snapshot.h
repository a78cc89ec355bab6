/* Purpose: a snapshot of the source, as pg_current_snapshot() tells it: which transactions it sees.
 * Thread:  any; immutable once parsed.
 * Owns:    the list of the transactions that were in progress.
 * Flow:    "100:110:101,105" in; whether it sees a transaction that has committed since out.
 * Source:  PostgreSQL's documentation, "Transaction ID and Snapshot Information Functions". */
#ifndef PEN_CORE_XID_SNAPSHOT_H
#define PEN_CORE_XID_SNAPSHOT_H

#include "core/base.h"

typedef struct pen_xid_snapshot {
    uint64_t xmin;  /* all before it had ended */
    uint64_t xmax;  /* it and all behind it had not begun, or not been seen */
    uint64_t *xips; /* in progress in between, rising */
    size_t xip_count;
} pen_xid_snapshot;

/* Reads `text`; false when it is not a snapshot. The caller calls pen_xid_snapshot_deinit. */
PEN_MUST_CHECK bool pen_xid_snapshot_parse(pen_xid_snapshot *snapshot, const char *text);
void pen_xid_snapshot_deinit(pen_xid_snapshot *snapshot);

/* Whether it sees the transaction `xid`, one of those that have committed, less than 2^31
 * transactions before or behind the snapshot: xids in the stream have only their lower half. */
bool pen_xid_snapshot_sees(const pen_xid_snapshot *snapshot, uint32_t xid);

#endif
