#include "apply/relation.h"

#include <stdlib.h>

static void free_key(pen_target_key *key)
{
    /* Const for those who read the key. */
    free((pen_key_column *)(uintptr_t)key->spec.columns);
}

void pen_target_destroy(pen_target *target)
{
    if (target == NULL) {
        return;
    }
    for (uint16_t i = 0; target->columns != NULL && i < target->rel->column_count; i++) {
        free(target->columns[i].name);
        free(target->columns[i].equals);
        free(target->columns[i].array_cast);
    }
    for (uint16_t i = 0; i < target->unique_count; i++) {
        free_key(&target->uniques[i]);
    }
    for (uint16_t i = 0; i < target->referenced_count; i++) {
        free_key(&target->referenced[i]);
    }
    for (uint16_t i = 0; i < target->reference_count; i++) {
        free_key(&target->references[i].key);
    }
    free(target->uniques);
    free(target->referenced);
    free(target->references);
    free(target->cascades);
    free(target->columns);
    free(target->extra_columns);
    free(target->key);
    free(target->name);
    free(target);
}
