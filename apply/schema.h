/* Purpose: makes the source's schema on the target, object by object, each once.
 * Thread:  main; all but pen_schema_record and pen_schema_make also whoever builds indexes.
 * Owns:    nothing; borrows the migration's sessions.
 * Flow:    the dump into the table schema_item; from there, step by step, into the target. */
#ifndef PEN_APPLY_SCHEMA_H
#define PEN_APPLY_SCHEMA_H

#include "apply/dump.h"
#include "apply/migration.h"

/* One object that is not made yet. */
typedef struct pen_schema_item {
    int n; /* its place in the dump */
    char *kind;
    char *object; /* for messages: kind, schema and name */
    char *sql;
    uint64_t bytes; /* of an index, on the source */
} pen_schema_item;

typedef struct pen_schema_items {
    pen_schema_item *items;
    size_t count;
} pen_schema_items;

/* Dumps the source's schema and records what is to be made; nothing when that was done before. */
PEN_MUST_CHECK bool pen_schema_record(pen_migration *migration, pen_error *err);

/* Dumps the source's schema once more and names what is not as it was recorded: nobody brings that
 * to the target. Nothing where nothing was recorded. */
PEN_MUST_CHECK bool pen_schema_warn_of_changes(pen_migration *migration, pen_error *err);

/* Makes what is not made yet of `step`, in the dump's order, in transactions of some hundred. What
 * may be missing without harm (comments, grants, event triggers) is a warning where the target
 * refuses it. Errors: the server's words, naming the object. */
PEN_MUST_CHECK bool pen_schema_make(pen_pgconn *target, const char *name, pen_schema_step step,
                                    pen_error *err);

/* What is not made yet of a step; the largest first where `by_size`, else in the dump's order. */
PEN_MUST_CHECK bool pen_schema_list(pen_pgconn *target, const char *name, pen_schema_step step,
                                    bool by_size, pen_schema_items *items, pen_error *err);
void pen_schema_items_deinit(pen_schema_items *items);

/* Makes one object, and records it in the same transaction. */
PEN_MUST_CHECK bool pen_schema_make_one(pen_pgconn *target, const char *name,
                                        const pen_schema_item *item, pen_error *err);
/* Records one that is made. */
PEN_MUST_CHECK bool pen_schema_done(pen_pgconn *target, const char *name,
                                    const pen_schema_item *item, pen_error *err);

#endif
