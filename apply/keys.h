/* Purpose: the keys that a change touches on the target, by which dependencies are found.
 * Thread:  any dispatcher, each with a list of its own.
 * Owns:    nothing; a list belongs to its caller, and is only ever grown.
 * Flow:    a change whose relations have target descriptors in, hashes with their access out. */
#ifndef PEN_APPLY_KEYS_H
#define PEN_APPLY_KEYS_H

#include "apply/relation.h"
#include "core/conflict.h"

typedef struct pen_key_list {
    pen_key *keys;
    size_t count;
    size_t capacity;
} pen_key_list;

/* Appends the keys of `chg`, and returns whether it must wait for everything before its batch as
 * well. `barriers`: some table is of PEN_SCOPE_ALL. The first change of a descriptor clears its
 * `fresh`; so with several dispatchers only who holds the baton comes with such a one. */
PEN_MUST_CHECK bool pen_keys_extract(pen_key_list *list, const pen_change *chg, bool barriers);

void pen_key_list_deinit(pen_key_list *list);

#endif
