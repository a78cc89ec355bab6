/* Purpose: what a relation version of the source became on the target: columns by name, identity,
 *          scope.
 * Thread:  made by the dispatcher, immutable afterwards; workers read it once they hold a batch.
 * Owns:    its strings and arrays; lives as long as the stream.
 * Flow:    the catalog fills it, key extraction and statements read it. */
#ifndef PEN_APPLY_RELATION_H
#define PEN_APPLY_RELATION_H

#include "core/change.h"
#include "core/keyhash.h"

/* How the changes of a table are told apart. What is not tracked by key is serialised, never
 * risked: apply/keys.c says what each means. */
typedef enum pen_scope {
    PEN_SCOPE_ROW,    /* every change by its keys */
    PEN_SCOPE_APPEND, /* inserts by their keys, other changes as the whole table: no key finds rows
                       */
    PEN_SCOPE_TABLE,  /* the whole table: two changes can meet in what is not hashable */
    PEN_SCOPE_ALL     /* a trigger that fires and may read anything */
} pen_scope;

/* A key of the target that two changes can meet in. */
typedef struct pen_target_key {
    pen_key_spec spec; /* its columns are this struct's own */
    bool is_identity;  /* rows are found by it: without a hash of it nothing is known */
    bool in_identity;  /* the source's identity has all of its columns: the old row tells them */
} pen_target_key;

/* An enforced foreign key of the table. */
typedef struct pen_target_reference {
    pen_target_key key;  /* hashed as the referenced key is; without columns: not hashable */
    uint64_t table_hash; /* of the referenced table */
    bool whole_table;    /* writes table_hash: what is referenced here cannot be known */
} pen_target_reference;

/* One column of the source's relation, as the target has it. */
typedef struct pen_target_column {
    char *name;           /* quoted as an identifier */
    bool generated;       /* computed on the target: never written */
    bool identity_always; /* GENERATED ALWAYS AS IDENTITY: can be inserted, not updated */
    bool is_key;          /* part of the identity that rows are found by */
    bool bytes_equal;     /* equal by `=` means the same bytes */
    uint32_t binary_type; /* built-in type whose form its values come in; 0: as text */
    bool hashable;        /* as far as its type and the source's go; see pen_catalog_key_form */
    pen_key_form form;    /* how, then */
    char *equals;         /* for key columns, and those of an index that leads to a row which only
                             all of its columns tell: the operator, OPERATOR(schema.=) */
    /* as one of many values in an array */
    uint32_t array_type;  /* OID of the array's type; 0: its values cannot be elements */
    char array_delimiter; /* between them as text */
    char *array_cast;     /* type that an element, a text, becomes; NULL: it is what it must be */
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
    uint64_t table_hash;      /* key of the table, the same for all of a partition tree */
    pen_target_key
        *uniques; /* the unique indexes, the leaves' own too; the identity's among them */
    pen_target_key *referenced;       /* those that enforced foreign keys of other tables name */
    pen_target_reference *references; /* the table's own enforced foreign keys */
    uint64_t *cascades; /* table_hash of each table whose rows the target changes by itself when
                           one is deleted here or its key changes */
    uint16_t unique_count;
    uint16_t referenced_count;
    uint16_t reference_count;
    uint16_t cascade_count;
    uint64_t
        group_hash;    /* names all tables that enforced foreign keys or inheritance tie together */
    bool remakes_rows; /* an update may be a DELETE and an INSERT here: see build_identity_update */
    bool deferrable;   /* has a constraint that can be checked at COMMIT */
    bool cascades_from; /* an enforced FK deletes rows elsewhere when one is deleted here */
    bool delete_acts;   /* the same, or it sets them to NULL or their default */
    bool cascades_to;   /* an enforced FK deletes rows here when one is deleted elsewhere */
    bool moves_from; /* an enforced FK changes rows elsewhere when one is deleted or changed here */
    bool moves_to;   /* the same from there: its action changes columns of rows here */
    bool fresh;      /* dispatcher: no change has used this version yet */
} pen_target;

void pen_target_destroy(pen_target *target); /* NULL is nothing */

#endif
