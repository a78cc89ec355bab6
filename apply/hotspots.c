#include "apply/hotspots.h"

#include "core/text.h"

#include <inttypes.h>
#include <stdlib.h>

/* Keys that are told apart; of more, the half that mattered least is forgotten. */
enum { MOST = 65536, VALUE_SHOWN = 40 };

/* Which batch touched a key last. */
typedef struct touched {
    uint64_t hash; /* 0: no entry */
    uint64_t write;
    uint64_t read;
} touched;

struct pen_hotspots {
    pen_simulation_watcher watcher;
    /* open addressing, never more than half full */
    touched *touches;
    size_t touch_size;
    size_t touch_count;
    pen_hotspot *spots;
    size_t spot_count;
    uint32_t *places; /* spot + 1 by hash, of 2 * MOST places; 0: none */
    pen_table_waits *tables;
    uint32_t table_count;
};

/* ---- names ---- */

static void append_slice(pen_text *text, pen_slice bytes)
{
    pen_text_appendf(text, "%.*s", (int)bytes.len, (const char *)bytes.data);
}

static void append_table(pen_text *text, const pen_relation *rel)
{
    append_slice(text, rel->schema);
    pen_text_append(text, ".");
    append_slice(text, rel->table);
}

static int64_t read_int(const pen_value *value)
{
    uint64_t number = value->data[0] >= 0x80 ? UINT64_MAX : 0;
    for (uint32_t i = 0; i < value->len; i++) {
        number = number << 8 | value->data[i];
    }
    return (int64_t)number;
}

/* Types whose binary form is the text itself. */
static bool is_text(uint32_t oid)
{
    enum { OID_TEXT = 25, OID_BPCHAR = 1042, OID_VARCHAR = 1043 };
    return oid == OID_TEXT || oid == OID_BPCHAR || oid == OID_VARCHAR;
}

static void append_value(pen_text *text, const pen_value *value, const pen_rel_column *column,
                         pen_key_form form)
{
    uint32_t shown = value->len < VALUE_SHOWN ? value->len : VALUE_SHOWN;
    const char *cut = shown < value->len ? "..." : "";
    if (value->kind == PEN_VALUE_NULL) {
        pen_text_append(text, "NULL");
    } else if (value->kind == PEN_VALUE_TEXT || is_text(column->type_oid)) {
        pen_text_appendf(text, "%.*s%s", (int)shown, (const char *)value->data, cut);
    } else if (form == PEN_KEY_INT) {
        pen_text_appendf(text, "%" PRId64, read_int(value));
    } else {
        pen_text_append(text, "\\x");
        for (uint32_t i = 0; i < shown; i++) {
            pen_text_appendf(text, "%02x", value->data[i]);
        }
        pen_text_append(text, cut);
    }
}

/* " (a, b) = (1, 2)" */
static void append_key(pen_text *text, const pen_relation *rel, const pen_key_spec *spec,
                       const pen_value *values)
{
    for (uint16_t i = 0; i < spec->column_count; i++) {
        pen_text_append(text, i == 0 ? " (" : ", ");
        append_slice(text, rel->columns[spec->columns[i].index].name);
    }
    for (uint16_t i = 0; i < spec->column_count; i++) {
        pen_text_append(text, i == 0 ? ") = (" : ", ");
        uint16_t column = spec->columns[i].index;
        append_value(text, &values[column], &rel->columns[column], spec->columns[i].form);
    }
    pen_text_append(text, ")");
}

/* The row of `chg` whose key hashes so, or NULL. */
static const pen_value *find_row(const pen_target_key *key, const pen_change *chg, uint64_t wanted)
{
    const pen_value *const rows[] = {chg->new_tuple.values, chg->old_tuple.values};
    for (size_t i = 0; i < PEN_COUNTOF(rows); i++) {
        uint64_t hash = 0;
        if (rows[i] != NULL && key->spec.column_count > 0 &&
            pen_keyhash_row(&key->spec, rows[i], i == 0 ? rows[1] : NULL, &hash) ==
                PEN_KEY_HASHED &&
            hash == wanted) {
            /* A key column that came unchanged can only be shown from the old row. */
            bool whole = true;
            for (uint16_t c = 0; c < key->spec.column_count; c++) {
                whole &= rows[i][key->spec.columns[c].index].kind != PEN_VALUE_UNCHANGED;
            }
            return whole ? rows[i] : rows[1];
        }
    }
    return NULL;
}

static bool name_row(pen_text *text, const pen_change *chg, uint64_t hash)
{
    const pen_target *target = chg->rel->target;
    for (uint16_t i = 0; i < target->unique_count + target->referenced_count; i++) {
        const pen_target_key *key = i < target->unique_count
                                        ? &target->uniques[i]
                                        : &target->referenced[i - target->unique_count];
        const pen_value *row = find_row(key, chg, hash);
        if (row != NULL) {
            append_table(text, chg->rel);
            append_key(text, chg->rel, &key->spec, row);
            return true;
        }
    }
    for (uint16_t i = 0; i < target->reference_count; i++) {
        const pen_value *row = find_row(&target->references[i].key, chg, hash);
        if (row != NULL) {
            pen_text_append(text, "the row that is referenced by ");
            append_table(text, chg->rel);
            append_key(text, chg->rel, &target->references[i].key.spec, row);
            return true;
        }
    }
    return false;
}

static char *name_key(const pen_change *chg, uint64_t hash)
{
    pen_text text = {0};
    const pen_relation *rel = chg->rel != NULL ? chg->rel : chg->truncated[0];
    const pen_target *target = rel->target;
    if (hash == pen_keyhash_table(0)) {
        pen_text_append(&text, "everything: a trigger fires that may read anything");
    } else if (hash == target->table_hash) {
        append_table(&text, rel);
        pen_text_appendf(&text, " as a whole%s%s", target->scope == PEN_SCOPE_ROW ? "" : ": ",
                         target->scope == PEN_SCOPE_ROW ? "" : target->scope_reason);
    } else if (chg->rel == NULL || !name_row(&text, chg, hash)) {
        pen_text_append(&text, "a whole table that ");
        append_table(&text, rel);
        pen_text_append(&text, " is tied to");
    }
    return pen_text_take(&text);
}

/* ---- who touched a key last ---- */

static touched *find_touch(const pen_hotspots *hot, uint64_t hash)
{
    size_t at = hash & (hot->touch_size - 1);
    while (hot->touches[at].hash != 0 && hot->touches[at].hash != hash) {
        at = (at + 1) & (hot->touch_size - 1);
    }
    return &hot->touches[at];
}

/* Forgets what has committed, and grows when that is not enough. */
static void make_room(pen_hotspots *hot, uint64_t committed)
{
    touched *old = hot->touches;
    size_t old_size = hot->touch_size;
    size_t live = 0;
    for (size_t i = 0; i < old_size; i++) {
        live += old[i].hash != 0 && (old[i].write > committed || old[i].read > committed);
    }
    if (live * 4 > old_size) {
        hot->touch_size *= 2;
    }
    hot->touches = pen_calloc(hot->touch_size, sizeof(*hot->touches));
    hot->touch_count = live;
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].hash != 0 && (old[i].write > committed || old[i].read > committed)) {
            *find_touch(hot, old[i].hash) = old[i];
        }
    }
    free(old);
}

/* A hash that can be told from no entry. */
static uint64_t never_zero(uint64_t hash)
{
    return hash == 0 ? 1 : hash;
}

/* The newest batch that touched the key so that a touch with `access` must wait. */
static uint64_t conflicting(const touched *it, pen_access access)
{
    return access == PEN_ACCESS_WRITE && it->read > it->write ? it->read : it->write;
}

/* The key for which the change is bound to `bound`: one that this batch touched, or else one that
 * its own batch did, which inherits. Its number, or `key_count` for none. */
static uint32_t find_reason(const pen_hotspots *hot, const pen_key *keys, uint32_t key_count,
                            uint64_t batch, uint64_t bound)
{
    uint32_t own = key_count;
    for (uint32_t i = 0; i < key_count; i++) {
        const touched *it = find_touch(hot, never_zero(keys[i].hash));
        uint64_t last = it->hash == 0 ? 0 : conflicting(it, keys[i].access);
        if (last == bound) {
            return i;
        }
        own = own == key_count && last == batch ? i : own;
    }
    return own;
}

/* ---- counting ---- */

static uint32_t *find_place(const pen_hotspots *hot, uint64_t hash)
{
    size_t at = hash & (2 * MOST - 1);
    while (hot->places[at] != 0 && hot->spots[hot->places[at] - 1].hash != hash) {
        at = (at + 1) & (2 * MOST - 1);
    }
    return &hot->places[at];
}

static void place_all(pen_hotspots *hot)
{
    for (size_t i = 0; i < (size_t)2 * MOST; i++) {
        hot->places[i] = 0;
    }
    for (size_t i = 0; i < hot->spot_count; i++) {
        *find_place(hot, hot->spots[i].hash) = (uint32_t)i + 1;
    }
}

static int compare(const void *a, const void *b)
{
    const pen_hotspot *left = a;
    const pen_hotspot *right = b;
    if (left->ns != right->ns) {
        return left->ns < right->ns ? 1 : -1;
    }
    return (left->hash > right->hash) - (left->hash < right->hash);
}

/* Forgets the half that mattered least. */
static void forget_half(pen_hotspots *hot)
{
    qsort(hot->spots, hot->spot_count, sizeof(hot->spots[0]), compare);
    while (hot->spot_count > MOST / 2) {
        free(hot->spots[--hot->spot_count].name);
    }
    place_all(hot);
}

static uint64_t note(void *arg, const pen_change *chg, const pen_key *keys, uint32_t key_count,
                     uint64_t batch, uint64_t bound, uint64_t committed)
{
    pen_hotspots *hot = arg;
    uint64_t tag = 0;
    if ((hot->touch_count + key_count) * 2 > hot->touch_size) {
        make_room(hot, committed);
    }
    uint32_t reason =
        bound > committed ? find_reason(hot, keys, key_count, batch, bound) : key_count;
    if (reason < key_count) {
        tag = keys[reason].hash;
        uint32_t *place = find_place(hot, tag);
        if (*place == 0) {
            hot->spots[hot->spot_count] = (pen_hotspot){.hash = tag, .name = name_key(chg, tag)};
            *place = (uint32_t)++hot->spot_count;
            if (hot->spot_count == MOST) {
                forget_half(hot);
            }
        }
    }
    for (uint32_t i = 0; i < key_count; i++) {
        touched *it = find_touch(hot, never_zero(keys[i].hash));
        hot->touch_count += it->hash == 0;
        it->hash = never_zero(keys[i].hash);
        *(keys[i].access == PEN_ACCESS_WRITE ? &it->write : &it->read) = batch;
    }
    return tag;
}

static void wait_seen(void *arg, uint64_t tag, uint32_t table, double ns)
{
    pen_hotspots *hot = arg;
    if (table >= hot->table_count) {
        hot->tables = pen_realloc(hot->tables, (table + 1) * sizeof(*hot->tables));
        for (uint32_t i = hot->table_count; i <= table; i++) {
            hot->tables[i] = (pen_table_waits){0};
        }
        hot->table_count = table + 1;
    }
    hot->tables[table].waits++;
    hot->tables[table].ns += ns;
    uint32_t place = tag == 0 ? 0 : *find_place(hot, tag);
    if (place != 0) {
        hot->spots[place - 1].waits++;
        hot->spots[place - 1].ns += ns;
    }
}

pen_hotspots *pen_hotspots_create(void)
{
    pen_hotspots *hot = pen_calloc(1, sizeof(*hot));
    hot->watcher = (pen_simulation_watcher){.arg = hot, .note = note, .waits = wait_seen};
    hot->touch_size = 4096;
    hot->touches = pen_calloc(hot->touch_size, sizeof(*hot->touches));
    hot->spots = pen_calloc(MOST, sizeof(*hot->spots));
    hot->places = pen_calloc((size_t)2 * MOST, sizeof(*hot->places));
    return hot;
}

void pen_hotspots_destroy(pen_hotspots *hot)
{
    if (hot == NULL) {
        return;
    }
    for (size_t i = 0; i < hot->spot_count; i++) {
        free(hot->spots[i].name);
    }
    free(hot->spots);
    free(hot->places);
    free(hot->touches);
    free(hot->tables);
    free(hot);
}

const pen_simulation_watcher *pen_hotspots_watcher(pen_hotspots *hot)
{
    return &hot->watcher;
}

size_t pen_hotspots_sort(pen_hotspots *hot, const pen_hotspot **worst)
{
    size_t count = 0;
    qsort(hot->spots, hot->spot_count, sizeof(hot->spots[0]), compare);
    while (count < hot->spot_count && hot->spots[count].waits > 0) {
        count++;
    }
    place_all(hot);
    *worst = hot->spots;
    return count;
}

pen_table_waits pen_hotspots_table(const pen_hotspots *hot, uint32_t table)
{
    return table < hot->table_count ? hot->tables[table] : (pen_table_waits){0};
}
