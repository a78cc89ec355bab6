#include "apply/relation.h"

#include <stdlib.h>

void pen_target_destroy(pen_target *target)
{
    if (target == NULL) {
        return;
    }
    for (uint16_t i = 0; target->columns != NULL && i < target->rel->column_count; i++) {
        free(target->columns[i].name);
        free(target->columns[i].equals);
    }
    free(target->columns);
    free(target->extra_columns);
    free(target->key);
    free(target->name);
    free(target);
}
