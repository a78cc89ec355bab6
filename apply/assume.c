#include "apply/assume.h"

#include "apply/catalog_keys.h"
#include "core/text.h"

#include <stdlib.h>

/* As PostgreSQL quotes an identifier that needs it. */
static void append_quoted(pen_text *text, pen_slice name)
{
    pen_text_append(text, "\"");
    for (size_t i = 0; i < name.len; i++) {
        pen_text_appendf(text, "%s%c", name.data[i] == '"' ? "\"" : "", name.data[i]);
    }
    pen_text_append(text, "\"");
}

static char *quote(pen_slice name)
{
    pen_text text = {0};
    append_quoted(&text, name);
    return pen_text_take(&text);
}

static char *quote_table(const pen_relation *rel)
{
    pen_text text = {0};
    append_quoted(&text, rel->schema);
    pen_text_append(&text, ".");
    append_quoted(&text, rel->table);
    return pen_text_take(&text);
}

static void assume_columns(pen_target *target)
{
    const pen_relation *rel = target->rel;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const pen_rel_column *from = &rel->columns[i];
        pen_target_column *column = &target->columns[i];
        column->name = quote(from->name);
        column->bytes_equal = true;
        column->hashable = true;
        /* Of a type that is not built in nothing is known: most compare byte by byte. */
        if (!pen_catalog_key_form(from, from->type_oid, from->type_modifier, false,
                                  &column->form)) {
            column->form = PEN_KEY_BYTES;
        }
    }
}

/* The identity as the one unique index. */
static void assume_key(pen_target *target, uint16_t key_count)
{
    const pen_relation *rel = target->rel;
    pen_key_column *columns = pen_calloc(key_count, sizeof(*columns));
    target->key = pen_calloc(key_count, sizeof(*target->key));
    for (uint16_t i = 0; i < rel->column_count; i++) {
        if (rel->columns[i].is_key) {
            pen_target_column *column = &target->columns[i];
            column->is_key = true;
            column->equals = pen_strdup("OPERATOR(pg_catalog.=)");
            columns[target->key_count] = (pen_key_column){.index = i, .form = column->form};
            target->key[target->key_count] = columns[target->key_count];
            target->key_count++;
        }
    }
    target->uniques = pen_calloc(1, sizeof(*target->uniques));
    target->uniques[0] = (pen_target_key){
        /* The source's OIDs name tables here, and a table's own key has the seed without the bit.
         */
        .spec = {.seed = UINT64_C(1) << 32 | rel->oid,
                 .columns = columns,
                 .column_count = key_count},
        .is_identity = true,
        .in_identity = true,
    };
    target->unique_count = 1;
}

pen_target *pen_target_assume(const pen_relation *rel)
{
    pen_target *target = pen_calloc(1, sizeof(*target));
    uint16_t key_count = 0;
    for (uint16_t i = 0; i < rel->column_count; i++) {
        key_count = (uint16_t)(key_count + rel->columns[i].is_key);
    }
    target->rel = rel;
    target->oid = rel->oid;
    target->name = quote_table(rel);
    target->columns = pen_calloc((size_t)rel->column_count + 1, sizeof(*target->columns));
    target->extra_columns = pen_strdup("");
    target->table_hash = pen_keyhash_table(rel->oid);
    target->group_hash = target->table_hash;
    target->fresh = true;
    assume_columns(target);
    if (rel->replica_identity == 'f' || key_count == 0) {
        target->whole_row = rel->replica_identity == 'f';
        pen_catalog_widen(target, PEN_SCOPE_APPEND,
                          "the captured stream tells no key of it by which rows are found");
    } else {
        assume_key(target, key_count);
    }
    return target;
}
