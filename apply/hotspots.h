/* Purpose: by their names, the keys and tables whose changes had to wait for an earlier batch in a
 *          simulation.
 * Thread:  one.
 * Owns:    its counts, of bounded number: one that seldom comes may be forgotten for one that does.
 * Flow:    watches a simulation; a list of names, the worst first, out. */
#ifndef PEN_APPLY_HOTSPOTS_H
#define PEN_APPLY_HOTSPOTS_H

#include "apply/simulate.h"

typedef struct pen_hotspots pen_hotspots;

typedef struct pen_hotspot {
    uint64_t hash;
    char *name;     /* such as public.t (id) = (7); bytes of values as they are */
    uint64_t waits; /* changes that were sent at their batch's turn because of it */
    double ns;      /* what sending these took */
} pen_hotspot;

typedef struct pen_table_waits {
    uint64_t waits;
    double ns;
} pen_table_waits;

pen_hotspots *pen_hotspots_create(void);
void pen_hotspots_destroy(pen_hotspots *hot); /* NULL is nothing */

/* To be given to one simulation; lives as long as `hot`. */
const pen_simulation_watcher *pen_hotspots_watcher(pen_hotspots *hot);

/* Sorts, and gives how many keys there are; afterwards nothing may be watched any more. */
size_t pen_hotspots_sort(pen_hotspots *hot, const pen_hotspot **worst);
/* Of one table; zeros for one where nothing waited. */
pen_table_waits pen_hotspots_table(const pen_hotspots *hot, uint32_t table);

#endif
