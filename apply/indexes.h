/* Purpose: builds the indexes: unique ones before the stream, the others beside it.
 * Thread:  main; pen_index_beside_start gives threads of its own, until pen_index_beside_join.
 * Owns:    the builders' connections to the target.
 * Flow:    penstock.schema_item in; indexes on the target out, the largest first, several at once.
 *
 * Beside the stream an index is built CONCURRENTLY, so that rows can be written meanwhile; of a
 * partitioned table the topmost one is made ON ONLY, which takes a moment, and those of the
 * partitions are attached to it. A build that was interrupted leaves an invalid index: that is
 * dropped before the next try. */
#ifndef PEN_APPLY_INDEXES_H
#define PEN_APPLY_INDEXES_H

#include "apply/migration.h"

/* Builds primary keys and unique indexes, and waits. */
PEN_MUST_CHECK bool pen_index_unique(pen_migration *migration, pen_error *err);

typedef struct pen_index_beside pen_index_beside;

/* Begins to build what else there is, and then to watch the stream until everything is ready for
 * the cutover, which it records and says. `owner` is the state directory's id. */
PEN_MUST_CHECK bool pen_index_beside_start(const pen_options *options, uint64_t owner,
                                           pen_index_beside **beside, pen_error *err);
/* Waits until all indexes are built, or with `cancel` stops what is under way. On false *err is the
 * first failure. Frees it. */
PEN_MUST_CHECK bool pen_index_beside_join(pen_index_beside *beside, bool cancel, pen_error *err);

#endif
