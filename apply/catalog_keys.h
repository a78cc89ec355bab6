/* Purpose: reads from the target's catalogs what two changes of a table can meet in: unique
 *          indexes, of which one finds the rows, and enforced foreign keys.
 * Thread:  the dispatcher.
 * Owns:    nothing; fills the descriptor that pen_catalog_resolve makes.
 * Flow:    a descriptor whose table and columns are known, and the server's answers, in; its
 *          identity, keys and scope out.
 * Source:  PostgreSQL, "System Catalogs"; btree support function 4 (equalimage) says whether equal
 *          means same bytes. */
#ifndef PEN_APPLY_CATALOG_KEYS_H
#define PEN_APPLY_CATALOG_KEYS_H

#include "apply/relation.h"
#include "io/pgconn.h"

/* Says how a column of `target`'s type is hashed when the source's values go into it; false when it
 * is not proven that equal on the target means equal hashes. */
PEN_MUST_CHECK bool pen_catalog_key_form(const pen_rel_column *source, uint32_t type_oid,
                                         int32_t type_modifier, bool is_enum, pen_key_form *form);

/* Widens what changes of `target` are serialised with; the first reason of the widest is kept. */
void pen_catalog_widen(pen_target *target, pen_scope scope, const char *reason);

/* What is asked for them: $1 is the table's OID; for references $2 are the states of
 * pg_trigger.tgenabled in which triggers fire in the workers' sessions, for a foreign key is
 * enforced there when its triggers do. */
extern const char *const pen_catalog_uniques_sql;
extern const char *const pen_catalog_references_sql;

/* Finds the identity and every other unique key in the answer. */
void pen_catalog_read_uniques(pen_target *target, const pen_pgresult *res);

/* Finds the foreign keys from and to the table in the answer. */
void pen_catalog_read_references(pen_target *target, const pen_pgresult *res);

#endif
