#include "core/eager.h"

#include <stdlib.h>

pen_eager *pen_eager_create(uint32_t xid, uint64_t number)
{
    pen_eager *eager = pen_alloc_lines(sizeof(*eager));
    eager->xid = xid;
    eager->number = number;
    pen_cell_init(&eager->dropped, 0);
    pen_cell_init(&eager->ended, 0);
    pen_cell_init(&eager->failed, 0);
    pen_cell_init(&eager->done, 0);
    atomic_init(&eager->refs, 1);
    return eager;
}

void pen_eager_acquire(pen_eager *eager)
{
    atomic_fetch_add_explicit(&eager->refs, 1, memory_order_relaxed);
}

void pen_eager_release(pen_eager *eager)
{
    /* [EAGER-2] release and acquire in one: the last holder sees all that the others did. */
    if (atomic_fetch_sub_explicit(&eager->refs, 1, memory_order_acq_rel) == 1) {
        free(eager);
    }
}
