/* Purpose: what a relation version of the source became on the target: columns by name, identity,
 *          scope.
 * Thread:  made by the dispatcher, immutable afterwards; workers read it once they hold a batch.
 * Owns:    its strings and arrays; lives as long as the stream.
 * Flow:    the catalog fills it, key extraction and statements read it. */
#ifndef PEN_APPLY_RELATION_H
#define PEN_APPLY_RELATION_H

#include "core/change.h"
#include "core/keyhash.h"

/* What a change of this table may conflict with, as far as it is tracked. What is not tracked by
 * key is serialised, never risked. */
typedef enum pen_scope {
    PEN_SCOPE_ROW,   /* the identity is the only thing two changes can meet in */
    PEN_SCOPE_TABLE, /* other unique indexes, enforced FKs, keys whose equality is not their bytes:
                        the whole table, with all tables that FKs or inheritance tie to it */
    PEN_SCOPE_ALL    /* a trigger that fires and may read anything */
} pen_scope;

/* One column of the source's relation, as the target has it. */
typedef struct pen_target_column {
    char *name;           /* quoted as an identifier */
    bool generated;       /* computed on the target: never written */
    bool identity_always; /* GENERATED ALWAYS AS IDENTITY: can be inserted, not updated */
    bool is_key;          /* part of the identity that rows are found by */
    bool bytes_equal;     /* equal by `=` means the same bytes */
    uint32_t binary_type; /* built-in type whose form its values come in; 0: as text */
    char *equals;         /* for key columns: the operator, OPERATOR(schema.=) */
} pen_target_column;

typedef struct pen_target {
    const pen_relation *rel;
    uint32_t oid;
    bool partitioned;
    char *name;                 /* "schema"."table", quoted */
    pen_target_column *columns; /* rel->column_count of them, in the source's order */
    char *extra_columns;        /* the target's own writable columns, quoted, each behind ", " */
    /* identity */
    bool whole_row;      /* no key at all: a row is found by all of its columns */
    pen_key_column *key; /* indexes into the source's columns */
    uint16_t key_count;
    /* dependencies */
    pen_scope scope;
    const char *scope_reason; /* for the log, when it is not PEN_SCOPE_ROW; static text */
    uint64_t row_seed;        /* names the identity constraint for key hashing */
    uint64_t group_hash;      /* key of the table and all that is tied to it */
    bool inserts_free;        /* no unique index, FK or trigger: two inserts cannot meet */
    bool deferrable;          /* has a constraint that can be checked at COMMIT */
    bool cascades_from;       /* an enforced FK deletes rows elsewhere when one is deleted here */
    bool delete_acts;         /* the same, or it sets them to NULL or their default */
    bool cascades_to;         /* an enforced FK deletes rows here when one is deleted elsewhere */
    bool fresh;               /* dispatcher: no change has used this version yet */
} pen_target;

void pen_target_destroy(pen_target *target); /* NULL is nothing */

#endif
