#include "core/rel_versions.h"

#include <stdlib.h>

enum { FIRST_SLOTS_LOG2 = 6 };

void pen_rel_versions_init(pen_rel_versions *versions)
{
    *versions = (pen_rel_versions){.slots_log2 = FIRST_SLOTS_LOG2};
    versions->slots = pen_calloc((size_t)1 << FIRST_SLOTS_LOG2, sizeof(pen_rel_version *));
}

void pen_rel_versions_deinit(pen_rel_versions *versions)
{
    for (pen_rel_version *each = versions->newest; each != NULL;) {
        pen_rel_version *older = each->older;
        free(each);
        each = older;
    }
    free(versions->slots);
    *versions = (pen_rel_versions){0};
}

pen_rel_version *pen_rel_version_create(uint32_t oid, uint16_t column_count, pen_slice body)
{
    size_t columns_size = column_count * sizeof(pen_rel_column);
    pen_rel_version *made = pen_malloc(sizeof(*made) + columns_size + body.len);
    memset(made, 0, sizeof(*made));
    pen_rel_column *columns = pen_rel_version_columns(made);
    uint8_t *copy = (uint8_t *)(columns + column_count);
    memcpy(copy, body.data, body.len);
    made->body = (pen_slice){copy, body.len};
    made->rel.oid = oid;
    made->rel.column_count = column_count;
    made->rel.columns = columns;
    return made;
}

static void grow(pen_rel_versions *versions)
{
    pen_rel_version **old = versions->slots;
    size_t count = (size_t)1 << versions->slots_log2;
    versions->slots_log2++;
    versions->slots = pen_calloc(count * 2, sizeof(pen_rel_version *));
    for (size_t i = 0; i < count; i++) {
        if (old[i] != NULL) {
            *pen_rel_versions_slot(versions, old[i]->rel.oid) = old[i];
        }
    }
    free(old);
}

const pen_rel_version *pen_rel_versions_add(pen_rel_versions *versions, pen_rel_version *made)
{
    made->rel.version = ++versions->version_count;
    made->older = versions->newest;
    versions->newest = made;
    pen_rel_version **slot = pen_rel_versions_slot(versions, made->rel.oid);
    pen_rel_version *known = *slot;
    if (known != NULL && versions->replaying) {
        bool replayed = known->rel.version > versions->replay_after;
        made->outside = replayed ? known->outside : known;
    } else if (known != NULL && known->arrival > made->arrival) {
        return known;
    }
    *slot = made;
    if (known == NULL && ++versions->relation_count * 2 > (size_t)1 << versions->slots_log2) {
        grow(versions);
    }
    return made;
}

void pen_rel_versions_begin_replay(pen_rel_versions *versions)
{
    PEN_ASSERT(!versions->replaying);
    versions->replaying = true;
    versions->replay_after = versions->version_count;
}

void pen_rel_versions_end_replay(pen_rel_versions *versions)
{
    PEN_ASSERT(versions->replaying);
    versions->replaying = false;
    for (pen_rel_version *each = versions->newest;
         each != NULL && each->rel.version > versions->replay_after; each = each->older) {
        pen_rel_version **slot = pen_rel_versions_slot(versions, each->rel.oid);
        if (*slot == each && each->outside != NULL && each->outside->arrival > each->arrival) {
            *slot = each->outside;
        }
    }
}
