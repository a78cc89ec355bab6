/* Purpose: what --on-conflict did, table by table: counted, and the first of each table logged.
 * Thread:  one list per worker for the transaction under way; the stream's own is shared, under its
 *          lock, by the workers and main.
 * Owns:    its entries and their texts.
 * Flow:    a change left out or put right in; once its transaction has committed, the worker's list
 *          goes into the stream's, and from there into the log and the summary. */
#ifndef PEN_APPLY_ONCONFLICT_H
#define PEN_APPLY_ONCONFLICT_H

#include "core/change.h"
#include "core/sync.h"

#include <pthread.h>

/* Of each table so many are logged one by one. */
#define PEN_CONFLICTS_LOGGED 10

typedef struct pen_conflict_entry {
    char *table;
    uint64_t skipped;
    uint64_t overwritten;
    char *texts[PEN_CONFLICTS_LOGGED];
    unsigned text_count; /* in the stream's list: how many were logged */
    int64_t logged_us;   /* in the stream's list: when its counts were last logged */
} pen_conflict_entry;

/* A few tables at most: looked through from the first. All zero is an empty one. */
typedef struct pen_conflict_list {
    pen_conflict_entry *entries;
    size_t count;
    size_t capacity;
} pen_conflict_list;

typedef struct pen_conflicts {
    pthread_mutex_t lock;
    pen_conflict_list list; /* under the lock */
    pen_counter skipped;
    pen_counter overwritten;
} pen_conflicts;

void pen_conflicts_init(pen_conflicts *conflicts);
void pen_conflicts_deinit(pen_conflicts *conflicts);

/* Worker, on a list of its own: a change of `rel` was left out (`skipped`) or put right; `text`
 * says which, and why. */
void pen_conflict_list_add(pen_conflict_list *list, const pen_relation *rel, bool skipped,
                           const char *text);
/* Forgets what it holds: the transaction was rolled back. Also at the end. */
void pen_conflict_list_clear(pen_conflict_list *list);

/* Worker: puts what is in `from` behind what is in `list`, and empties `from`. */
void pen_conflict_list_join(pen_conflict_list *list, pen_conflict_list *from);

/* Worker: the transaction has committed; counts and logs what is in `list`, and empties it. */
void pen_conflicts_commit(pen_conflicts *conflicts, pen_conflict_list *list);
/* Main, at the end: a line for each table. */
void pen_conflicts_report(pen_conflicts *conflicts);

#endif
