/* Purpose: reads from the target's catalogs what two changes of a table can meet in: unique
 *          indexes, of which one finds the rows, and enforced foreign keys.
 * Thread:  the dispatcher.
 * Owns:    nothing; borrows the connection, fills the descriptor that pen_catalog_resolve makes.
 * Flow:    a descriptor whose table and columns are known in; its identity, keys and scope out.
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

/* Finds the identity and every other unique key. */
PEN_MUST_CHECK bool pen_catalog_read_uniques(pen_pgconn *conn, pen_target *target, pen_error *err);

/* Finds the foreign keys from and to the table. `firing`: the states of pg_trigger.tgenabled in
 * which triggers fire in the workers' sessions; a foreign key is enforced there when its triggers
 * do. */
PEN_MUST_CHECK bool pen_catalog_read_references(pen_pgconn *conn, pen_target *target,
                                                const char *firing, pen_error *err);

#endif
