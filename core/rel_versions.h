/* Purpose: the versions of the source's relations: which is in force, and all that ever were.
 * Thread:  the reader; the versions themselves are immutable and may be read by any thread.
 * Owns:    every version, until deinit, because changes of any age point at theirs.
 * Flow:    bodies of Relation messages in; the version in force of an OID out. */
#ifndef PEN_CORE_REL_VERSIONS_H
#define PEN_CORE_REL_VERSIONS_H

#include "core/change.h"

/* A version and what it was made from, in one allocation: the columns lie behind the struct, and
 * behind them the copy of the message, into which all names point. */
typedef struct pen_rel_version {
    pen_relation rel;
    struct pen_rel_version *older;   /* made before this one, of whatever relation */
    pen_slice body;                  /* the copy: the Relation message behind its OID */
    uint64_t arrival;                /* of the newest message that told this version */
    struct pen_rel_version *outside; /* made in a replay: what was in force before it, or NULL */
} pen_rel_version;

typedef struct pen_rel_versions {
    /* The versions in force, hashed by OID: open addressing, never more than half full. */
    pen_rel_version **slots;
    unsigned slots_log2;
    size_t relation_count; /* OIDs known */
    uint32_t version_count;
    pen_rel_version *newest;
    bool replaying;
    uint32_t replay_after; /* version_count when the replay began */
} pen_rel_versions;

void pen_rel_versions_init(pen_rel_versions *versions);
/* Frees all versions. */
void pen_rel_versions_deinit(pen_rel_versions *versions);

/* Gives a version, not yet in force, with room for `column_count` columns and a copy of `body`; all
 * but oid, column_count and columns is for the caller to fill, the arrival too. free() takes it, or
 * _add. */
pen_rel_version *pen_rel_version_create(uint32_t oid, uint16_t column_count, pen_slice body);

/* The columns of a version that is still being filled. */
static inline pen_rel_column *pen_rel_version_columns(pen_rel_version *made)
{
    return (pen_rel_column *)(made + 1);
}

/* Takes `made` and numbers it. Puts it in force, but where a message that arrived later told the
 * version in force, outside of a replay. Gives the version in force. */
const pen_rel_version *pen_rel_versions_add(pen_rel_versions *versions, pen_rel_version *made);

/* A message that arrived as number `arrival` told the same as `version`, which is in force. */
static inline void pen_rel_version_renew(pen_rel_version *version, uint64_t arrival)
{
    if (arrival > version->arrival) {
        version->arrival = arrival;
    }
}

/* Between these two each version that is added is in force at once. At the end each relation goes
 * back to the version from before the replay where that one's message arrived later. */
void pen_rel_versions_begin_replay(pen_rel_versions *versions);
void pen_rel_versions_end_replay(pen_rel_versions *versions);

/* The slot that holds `oid`'s version in force, or the empty one where it belongs. */
static inline pen_rel_version **pen_rel_versions_slot(const pen_rel_versions *versions,
                                                      uint32_t oid)
{
    size_t mask = ((size_t)1 << versions->slots_log2) - 1;
    /* Fibonacci hashing (Knuth, TAOCP 6.4), because OIDs made together are neighbours. */
    size_t at = (oid * 2654435769U) >> (32 - versions->slots_log2);
    while (versions->slots[at] != NULL && versions->slots[at]->rel.oid != oid) {
        at = (at + 1) & mask;
    }
    return &versions->slots[at];
}

/* The version in force, or NULL when there was none yet. Called for each row, hence inline. */
static inline const pen_rel_version *pen_rel_versions_find(const pen_rel_versions *versions,
                                                           uint32_t oid)
{
    return *pen_rel_versions_slot(versions, oid);
}

#endif
