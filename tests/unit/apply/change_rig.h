/* Purpose: a source table as the target has it, and changes of its rows, made without servers.
 * Thread:  one test.
 * Owns:    the relation and its descriptor, inside the struct; nothing on the heap.
 * Flow:    columns and rows as words in; a pen_change as the dispatcher hands it on, out. */
#ifndef PEN_TESTS_CHANGE_RIG_H
#define PEN_TESTS_CHANGE_RIG_H

#include "apply/relation.h"

#include <string.h>

enum { RIG_COLUMNS = 16 };

typedef struct rig {
    pen_relation rel;
    pen_rel_column rel_columns[RIG_COLUMNS];
    pen_target target;
    pen_target_column columns[RIG_COLUMNS];
    pen_key_column key[RIG_COLUMNS];
} rig;

/* A row: values separated by blanks; "NULL" and "-" (unchanged TOAST) are what they say. */
typedef struct row {
    pen_value values[RIG_COLUMNS];
    char text[RIG_COLUMNS][32];
} row;

static inline char *rig_text(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* shop.item without columns. The rig stays where it is. */
static inline void rig_init(rig *at)
{
    memset(at, 0, sizeof(*at));
    at->rel = (pen_relation){.oid = 1,
                             .version = 1,
                             .replica_identity = 'd',
                             .schema = pen_slice_of("shop"),
                             .table = pen_slice_of("item"),
                             .columns = at->rel_columns,
                             .target = &at->target};
    at->target = (pen_target){.rel = &at->rel,
                              .oid = 1,
                              .name = rig_text("shop.item"),
                              .columns = at->columns,
                              .extra_columns = rig_text(""),
                              .key = at->key};
}

/* Adds a column that is written as `name`; give the rest to what this returns. */
static inline pen_target_column *rig_column(rig *at, const char *name)
{
    uint16_t i = at->rel.column_count++;
    at->rel_columns[i] =
        (pen_rel_column){.name = pen_slice_of(name), .type_oid = 25, .type_modifier = -1};
    at->columns[i] = (pen_target_column){.name = rig_text(name), .bytes_equal = true};
    return &at->columns[i];
}

static inline pen_target_column *rig_key_column(rig *at, const char *name)
{
    pen_target_column *column = rig_column(at, name);
    uint16_t i = (uint16_t)(at->rel.column_count - 1);
    at->rel_columns[i].is_key = true;
    column->is_key = true;
    column->equals = rig_text("OPERATOR(pg_catalog.=)");
    at->key[at->target.key_count++] = (pen_key_column){.index = i, .form = PEN_KEY_BYTES};
    return column;
}

static inline pen_tuple row_of(row *out, const char *words)
{
    size_t count = 0;
    memset(out, 0, sizeof(*out));
    while (*words != '\0') {
        size_t len = strcspn(words, " ");
        pen_value *value = &out->values[count];
        memcpy(out->text[count], words, len);
        if (strcmp(out->text[count], "NULL") == 0) {
            value->kind = PEN_VALUE_NULL;
        } else if (strcmp(out->text[count], "-") == 0) {
            value->kind = PEN_VALUE_UNCHANGED;
        } else {
            *value = (pen_value){
                .data = (uint8_t *)out->text[count], .len = (uint32_t)len, .kind = PEN_VALUE_TEXT};
        }
        count++;
        words += len + (words[len] == ' ');
    }
    return (pen_tuple){out->values};
}

/* `old_words` NULL: no old tuple, whatever `old_kind` says. */
static inline pen_change change_of(const rig *at, char kind, char old_kind, row *old_row,
                                   const char *old_words, row *new_row, const char *new_words)
{
    pen_change chg = {.rel = &at->rel, .kind = (uint8_t)kind};
    if (old_words != NULL) {
        chg.old_kind = old_kind;
        chg.old_tuple = row_of(old_row, old_words);
    }
    if (new_words != NULL) {
        chg.new_tuple = row_of(new_row, new_words);
    }
    return chg;
}

#endif
