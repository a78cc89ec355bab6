/* Purpose: what a decoded change is: relation version, tuple, change, segment, transaction.
 * Thread:  built by the reader, immutable once handed over; only the fields named "dispatcher" are
 *          written later, before the next handover.
 * Owns:    all of it lies in arena blocks; a segment keeps one reference on its block, relation
 *          versions live as long as the stream.
 * Flow:    pgoutput fills these, the dispatcher hashes their keys, a worker turns them into SQL. */
#ifndef PEN_CORE_CHANGE_H
#define PEN_CORE_CHANGE_H

#include "core/arena.h"
#include "core/lsn.h"
#include "core/slice.h"
#include "core/sync.h"

/* One column of a Relation message. `name` points into the relation's own copy. */
typedef struct pen_rel_column {
    pen_slice name; /* NUL behind it */
    uint32_t type_oid;
    int32_t type_modifier;
    bool is_key; /* part of the replica identity */
} pen_rel_column;

/* One version of a published table, as a Relation message told it. Immutable; each change points at
 * the version it was decoded with. */
typedef struct pen_relation {
    uint32_t oid;          /* on the source */
    uint32_t version;      /* counts the versions of all relations of the stream, from 1 */
    char replica_identity; /* pg_class.relreplident: d, n, f, i */
    uint16_t column_count;
    pen_slice schema; /* NUL behind it */
    pen_slice table;  /* NUL behind it */
    const pen_rel_column *columns;
    void *target;     /* dispatcher: what this version became on the target, or NULL */
    pen_cell settled; /* dispatcher: 1 once `target` does not change any more */
} pen_relation;

/* How a column's value came: the protocol's own letters. */
typedef enum pen_value_kind {
    PEN_VALUE_NULL = 'n',
    PEN_VALUE_UNCHANGED = 'u', /* unchanged TOAST: not sent, the target's value stays */
    PEN_VALUE_TEXT = 't',
    PEN_VALUE_BINARY = 'b'
} pen_value_kind;

typedef struct pen_value {
    const uint8_t
        *data;    /* not NULL for t and b; followed by a NUL byte that `len` does not count */
    uint32_t len; /* bytes */
    uint8_t kind; /* pen_value_kind */
} pen_value;

typedef struct pen_tuple {
    const pen_value *values; /* column_count of the relation; NULL when there is no such tuple */
} pen_tuple;

typedef enum pen_change_kind {
    PEN_CHANGE_INSERT = 'I',
    PEN_CHANGE_UPDATE = 'U',
    PEN_CHANGE_DELETE = 'D',
    PEN_CHANGE_TRUNCATE = 'T'
} pen_change_kind;

typedef struct pen_change {
    struct pen_change *next; /* in the same segment, or NULL */
    const pen_relation *rel; /* NULL for TRUNCATE */
    pen_tuple old_tuple;     /* identity before the change; values NULL when not sent */
    pen_tuple new_tuple;     /* values NULL for DELETE and TRUNCATE */
    /* TRUNCATE only */
    const pen_relation *const *truncated;
    uint32_t truncated_count;
    uint8_t kind;  /* pen_change_kind */
    char old_kind; /* 'K': only the identity's columns of old_tuple count (the others are sent
                      as NULL whatever they hold); 'O': the whole old row; 0: none */
    bool truncate_cascade;
    bool truncate_restart_identity;
    bool may_be_missing; /* dispatcher: an action of a foreign key on the target may have taken the
                            row already (DELETE), or moved it to where it goes (UPDATE) */
    uint64_t bound;      /* dispatcher: batch number that must have committed first; 0: free */
} pen_change;

/* A run of a transaction's changes that lie in one block. */
typedef struct pen_segment {
    struct pen_segment *next;
    pen_block *block; /* one reference on it is held until the segment is released */
    pen_change *first;
    pen_change *last;
    uint32_t change_count;
} pen_segment;

struct pen_feed;
struct pen_eager;

/* A source transaction. It lies in its first segment's block. It is complete, but for a large one,
 * which has a feed: more segments and the fields of its Commit come by that; and for one that is
 * applied while it is in progress, which comes as several of these. */
typedef struct pen_txn {
    struct pen_txn *next; /* dispatcher: in the same batch, or NULL */
    uint32_t xid;
    pen_lsn commit_lsn;     /* its name: position of the commit record */
    pen_lsn end_lsn;        /* position behind the commit record */
    pen_pgtime commit_time; /* the source's clock, microseconds */
    pen_segment *first;
    pen_segment *last;
    uint64_t change_count;
    uint64_t bytes;          /* received for it, payload */
    struct pen_feed *feed;   /* one reference on it; NULL when the transaction is complete */
    struct pen_eager *eager; /* one reference on it; NULL for any other than these: a part of a
                                transaction in progress, without commit_lsn, or (without changes of
                                its own) its Commit, with the counts of all parts */
    uint64_t after;          /* dispatcher: batch that must have committed before such a part */
    bool behind; /* reader: the source was far behind with it, so its batch may wait for more */
} pen_txn;

/* True for one that is a batch of its own. */
static inline bool pen_txn_is_alone(const pen_txn *txn)
{
    return txn->feed != NULL || txn->eager != NULL;
}

/* True for a part of a transaction in progress. */
static inline bool pen_txn_is_part(const pen_txn *txn)
{
    return txn->eager != NULL && txn->commit_lsn == PEN_LSN_NONE;
}

/* Gives back what it has a reference on, every segment of `txn`, and with the last of them `txn`
 * itself. Any thread, once. */
void pen_txn_release(pen_txn *txn);

#endif
