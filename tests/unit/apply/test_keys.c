#include "apply/keys.h"

#include "tests/unit/apply/change_rig.h"

#include <criterion/criterion.h>

enum { ID, CODE, UP, NOTE };

/* Seeds as the catalog gives them. */
enum { PRIMARY_OF_ITEM = 11, CODE_OF_ITEM = 12, PRIMARY_OF_BOX = 21, REFERENCE_TO_BOX = 22 };

static rig item; /* id, code, up, note; up references box */
static rig box;  /* id, code, up, note */
static row rows[4];
static pen_key_list left;
static pen_key_list right;
static bool barriers;

static const pen_key_column id_column[] = {{ID, PEN_KEY_INT}};
static const pen_key_column code_column[] = {{CODE, PEN_KEY_BYTES}};
static const pen_key_column up_column[] = {{UP, PEN_KEY_INT}};
static const pen_key_column code_and_up[] = {{CODE, PEN_KEY_BYTES}, {UP, PEN_KEY_INT}};

static pen_target_key item_uniques[2];
static pen_target_key box_uniques[2];
static pen_target_key box_referenced[1];
static pen_target_reference item_references[1];
static uint64_t box_cascades[1];

static pen_target_key key_on(uint64_t seed, const pen_key_column *columns, uint16_t count)
{
    return (pen_target_key){.spec = {.seed = seed, .columns = columns, .column_count = count}};
}

static void four_columns(rig *at, uint64_t table)
{
    rig_init(at);
    rig_key_column(at, "id");
    rig_column(at, "code");
    rig_column(at, "up");
    rig_column(at, "note");
    at->target.table_hash = pen_keyhash_table(table);
}

static void set_up(void)
{
    four_columns(&item, 10);
    four_columns(&box, 20);
    item_uniques[0] = key_on(PRIMARY_OF_ITEM, id_column, 1);
    item_uniques[0].is_identity = item_uniques[0].in_identity = true;
    item.target.uniques = item_uniques;
    item.target.unique_count = 1;
    box_uniques[0] = key_on(PRIMARY_OF_BOX, id_column, 1);
    box_uniques[0].is_identity = box_uniques[0].in_identity = true;
    box.target.uniques = box_uniques;
    box.target.unique_count = 1;
    barriers = false;
}

static void tear_down(void)
{
    pen_key_list_deinit(&left);
    pen_key_list_deinit(&right);
}

TestSuite(keys, .init = set_up, .fini = tear_down, .timeout = 60);

static void with_unique_code(const pen_key_column *columns, uint16_t count)
{
    item_uniques[1] = key_on(CODE_OF_ITEM, columns, count);
    item.target.unique_count = 2;
}

static void with_foreign_key(void)
{
    item_references[0] = (pen_target_reference){.key = key_on(REFERENCE_TO_BOX, up_column, 1),
                                                .table_hash = box.target.table_hash};
    item.target.references = item_references;
    item.target.reference_count = 1;
    box_referenced[0] = key_on(REFERENCE_TO_BOX, id_column, 1);
    box_referenced[0].in_identity = true;
    box.target.referenced = box_referenced;
    box.target.referenced_count = 1;
}

static void with_cascade(void)
{
    with_foreign_key();
    box_cascades[0] = item.target.table_hash;
    box.target.cascades = box_cascades;
    box.target.cascade_count = 1;
}

/* REPLICA IDENTITY FULL. */
static void with_whole_old_rows(rig *at)
{
    at->rel.replica_identity = 'f';
    for (uint16_t i = 0; i < at->rel.column_count; i++) {
        at->rel_columns[i].is_key = true;
    }
}

static pen_change insert(const rig *at, int slot, const char *words)
{
    return change_of(at, 'I', 0, NULL, NULL, &rows[slot], words);
}

static pen_change update(const rig *at, int slot, const char *old_words, const char *words)
{
    char kind = at->rel.replica_identity == 'f' ? 'O' : 'K';
    return change_of(at, 'U', kind, &rows[slot], old_words, &rows[slot + 2], words);
}

static pen_change delete_of(const rig *at, int slot, const char *words)
{
    char kind = at->rel.replica_identity == 'f' ? 'O' : 'K';
    return change_of(at, 'D', kind, &rows[slot], words, NULL, NULL);
}

static bool keys_of(pen_key_list *list, const pen_change *chg, bool with_barriers)
{
    list->count = 0;
    return pen_keys_extract(list, chg, with_barriers);
}

static bool meet(const pen_change *a, const pen_change *b)
{
    cr_assert_not(keys_of(&left, a, barriers));
    cr_assert_not(keys_of(&right, b, barriers));
    for (size_t i = 0; i < left.count; i++) {
        for (size_t j = 0; j < right.count; j++) {
            if (left.keys[i].hash == right.keys[j].hash &&
                (left.keys[i].access == PEN_ACCESS_WRITE ||
                 right.keys[j].access == PEN_ACCESS_WRITE)) {
                return true;
            }
        }
    }
    return false;
}

static void expect_meet(pen_change a, pen_change b)
{
    cr_assert(meet(&a, &b));
    cr_assert(meet(&b, &a));
}

static void expect_apart(pen_change a, pen_change b)
{
    cr_assert_not(meet(&a, &b));
    cr_assert_not(meet(&b, &a));
}

Test(keys, changes_of_one_row_meet)
{
    expect_meet(insert(&item, 0, "1 a NULL x"), delete_of(&item, 1, "1 NULL NULL NULL"));
    expect_meet(insert(&item, 0, "1 a NULL x"), update(&item, 1, NULL, "1 a NULL y"));
    expect_meet(update(&item, 0, "2 NULL NULL NULL", "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, "2 NULL NULL NULL", "1 a NULL x"), insert(&item, 1, "1 a NULL x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(update(&item, 0, NULL, "1 a NULL x"), delete_of(&item, 1, "2 NULL NULL NULL"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&box, 1, "1 a NULL x"));
}

Test(keys, an_identity_that_came_as_unchanged_toast_is_taken_from_the_old_row)
{
    expect_meet(update(&item, 0, "1 NULL NULL NULL", "- a NULL x"),
                update(&item, 1, NULL, "1 a NULL y"));
    expect_apart(update(&item, 0, "1 NULL NULL NULL", "- a NULL x"),
                 update(&item, 1, NULL, "2 a NULL y"));
}

Test(keys, without_an_identity_nothing_is_known)
{
    expect_meet(insert(&item, 0, "NULL a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, NULL, "- a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(insert(&item, 0, "one a NULL x"), insert(&item, 1, "2 a NULL x"));
}

Test(keys, a_unique_value_that_two_rows_take)
{
    with_unique_code(code_column, 1);
    expect_meet(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, NULL, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 b NULL x"));
    /* What was given up is not in the stream, so the target itself has to say. */
    expect_apart(delete_of(&item, 0, "1 NULL NULL NULL"), insert(&item, 1, "2 a NULL x"));
}

Test(keys, a_unique_value_that_an_old_row_tells)
{
    with_unique_code(code_column, 1);
    with_whole_old_rows(&item);
    expect_meet(delete_of(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, "1 a NULL x", "1 b NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(update(&item, 0, "1 c NULL x", "1 b NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, "1 a NULL x", "1 - NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(update(&item, 0, "1 b NULL x", "1 - NULL x"), insert(&item, 1, "2 a NULL x"));
}

Test(keys, a_unique_value_within_the_identity_is_known)
{
    with_unique_code(code_column, 1);
    item_uniques[1].in_identity = true;
    expect_meet(delete_of(&item, 0, "1 a NULL NULL"), insert(&item, 1, "2 a NULL x"));
    expect_apart(delete_of(&item, 0, "1 a NULL NULL"), insert(&item, 1, "2 b NULL x"));
}

Test(keys, nulls_do_not_meet_unless_they_are_not_distinct)
{
    with_unique_code(code_and_up, 2);
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(insert(&item, 0, "1 NULL NULL x"), insert(&item, 1, "2 NULL NULL x"));
    expect_meet(insert(&item, 0, "1 a 5 x"), insert(&item, 1, "2 a 5 x"));
    expect_apart(insert(&item, 0, "1 a 5 x"), insert(&item, 1, "2 a 6 x"));
    item_uniques[1].spec.nulls_equal = true;
    expect_meet(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(insert(&item, 0, "1 NULL NULL x"), insert(&item, 1, "2 NULL NULL x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 NULL NULL x"));
}

Test(keys, a_unique_value_that_did_not_come_is_the_whole_table)
{
    with_unique_code(code_column, 1);
    expect_meet(update(&item, 0, NULL, "1 - NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_meet(update(&item, 0, "3 NULL NULL NULL", "1 - NULL x"), insert(&item, 1, "2 a NULL x"));
    expect_apart(update(&item, 0, NULL, "1 - NULL x"), insert(&box, 1, "2 a NULL x"));
}

Test(keys, children_read_what_the_parent_writes)
{
    with_foreign_key();
    expect_meet(insert(&box, 0, "5 a NULL x"), insert(&item, 1, "1 a 5 x"));
    expect_meet(insert(&box, 0, "5 a NULL x"), update(&item, 1, NULL, "1 a 5 x"));
    expect_meet(insert(&item, 0, "1 a 5 x"), delete_of(&box, 1, "5 NULL NULL NULL"));
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 NULL NULL NULL", "6 a NULL x"));
    expect_meet(insert(&item, 0, "1 a 6 x"), update(&box, 1, "5 NULL NULL NULL", "6 a NULL x"));
    expect_apart(insert(&item, 0, "1 a 6 x"), delete_of(&box, 1, "5 NULL NULL NULL"));
    expect_apart(insert(&item, 0, "1 a 5 x"), insert(&item, 1, "2 a 5 x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), delete_of(&box, 1, "5 NULL NULL NULL"));
}

Test(keys, a_childs_old_reference_is_read_where_it_is_known)
{
    with_foreign_key();
    expect_apart(delete_of(&item, 0, "1 NULL NULL NULL"), delete_of(&box, 1, "5 NULL NULL NULL"));
    with_whole_old_rows(&item);
    expect_meet(delete_of(&item, 0, "1 a 5 x"), delete_of(&box, 1, "5 NULL NULL NULL"));
    expect_meet(update(&item, 0, "1 a 5 x", "1 a NULL x"), delete_of(&box, 1, "5 NULL NULL NULL"));
    expect_apart(update(&item, 0, "1 a 6 x", "1 a NULL x"), delete_of(&box, 1, "5 NULL NULL NULL"));
}

/* An update that could touch a unique column locks the row against those who look at it. */
Test(keys, children_do_not_wait_for_a_parent_whose_keys_stay)
{
    with_foreign_key();
    expect_apart(insert(&item, 0, "1 a 5 x"), update(&box, 1, NULL, "5 a NULL y"));
    box_uniques[1] = key_on(23, code_column, 1);
    box.target.unique_count = 2;
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, NULL, "5 a NULL y"));
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 NULL NULL NULL", "- a NULL y"));
    with_whole_old_rows(&box);
    expect_apart(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 a NULL x", "5 a NULL y"));
    expect_apart(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 a NULL x", "5 - NULL y"));
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 a NULL x", "5 b NULL y"));
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 NULL NULL x", "5 b NULL y"));
    box.target.remakes_rows = true;
    expect_meet(insert(&item, 0, "1 a 5 x"), update(&box, 1, "5 a NULL x", "5 a NULL y"));
}

Test(keys, a_table_that_references_itself)
{
    with_foreign_key();
    item.target.referenced = box_referenced;
    item.target.referenced_count = 1;
    expect_meet(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 a 1 x"));
    expect_meet(insert(&item, 0, "2 a 1 x"), delete_of(&item, 1, "1 NULL NULL NULL"));
    expect_apart(insert(&item, 0, "2 a 1 x"), insert(&item, 1, "3 a 1 x"));
    expect_apart(insert(&item, 0, "2 a 2 x"), insert(&item, 1, "3 a 3 x"));
}

Test(keys, either_side_that_cannot_hash_takes_the_parents_table)
{
    with_foreign_key();
    item_references[0].key = (pen_target_key){0};
    box.target.scope = PEN_SCOPE_TABLE;
    expect_meet(insert(&item, 0, "1 a 5 x"), delete_of(&box, 1, "6 NULL NULL NULL"));
    expect_apart(insert(&item, 0, "1 a 5 x"), insert(&item, 1, "2 a 5 x"));
    with_foreign_key();
    expect_meet(insert(&item, 0, "1 a 5 x"), delete_of(&box, 1, "6 NULL NULL NULL"));
    box.target.scope = PEN_SCOPE_ROW;
    expect_apart(insert(&item, 0, "1 a 5 x"), delete_of(&box, 1, "6 NULL NULL NULL"));
    item_references[0].whole_table = true;
    expect_meet(insert(&item, 0, "1 a 5 x"), delete_of(&box, 1, "6 NULL NULL NULL"));
    expect_meet(delete_of(&item, 0, "1 NULL NULL NULL"), update(&box, 1, NULL, "6 a NULL x"));
    with_foreign_key();
    expect_meet(update(&item, 0, NULL, "1 a - x"), delete_of(&box, 1, "6 NULL NULL NULL"));
}

Test(keys, what_a_parents_change_does_to_its_children_is_their_whole_table)
{
    with_cascade();
    expect_meet(delete_of(&box, 0, "5 NULL NULL NULL"), update(&item, 1, NULL, "1 a 6 x"));
    expect_meet(delete_of(&box, 0, "5 NULL NULL NULL"), delete_of(&item, 1, "1 NULL NULL NULL"));
    expect_meet(update(&box, 0, "5 NULL NULL NULL", "6 a NULL x"),
                delete_of(&item, 1, "1 NULL NULL NULL"));
    expect_apart(update(&box, 0, NULL, "5 a NULL y"), update(&item, 1, NULL, "1 a 6 x"));
    expect_apart(insert(&box, 0, "5 a NULL x"), update(&item, 1, NULL, "1 a 6 x"));
    box.target.scope = PEN_SCOPE_TABLE;
    item.target.reference_count = 0;
    expect_meet(update(&box, 0, NULL, "5 a NULL y"), insert(&item, 1, "1 a 6 x"));
}

Test(keys, what_is_not_tracked_is_the_whole_table)
{
    item.target.scope = PEN_SCOPE_TABLE;
    expect_meet(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "2 b NULL x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&box, 1, "2 b NULL x"));
    item.target.scope = PEN_SCOPE_APPEND;
    item.target.unique_count = 0;
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "1 a NULL x"));
    expect_meet(insert(&item, 0, "1 a NULL x"), delete_of(&item, 1, "2 b NULL x"));
    expect_meet(update(&item, 0, NULL, "1 a NULL x"), delete_of(&item, 1, "2 b NULL x"));
    with_unique_code(code_column, 1);
    item_uniques[0] = item_uniques[1];
    expect_meet(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "1 a NULL x"));
    expect_apart(insert(&item, 0, "1 a NULL x"), insert(&item, 1, "1 b NULL x"));
}

Test(keys, truncate_takes_whole_tables)
{
    with_foreign_key();
    const pen_relation *const one[] = {&item.rel};
    const pen_relation *const both[] = {&item.rel, &box.rel};
    pen_change chg = {.kind = PEN_CHANGE_TRUNCATE, .truncated = one, .truncated_count = 1};
    expect_meet(chg, insert(&item, 1, "1 a NULL x"));
    expect_meet(chg, delete_of(&box, 1, "5 NULL NULL NULL")); /* it lets go of its parents */
    with_foreign_key();
    item.target.reference_count = 0;
    expect_apart(chg, insert(&box, 1, "1 a NULL x"));
    chg.truncated = both;
    chg.truncated_count = 2;
    expect_meet(chg, insert(&box, 1, "1 a NULL x"));
}

Test(keys, the_first_change_of_a_version_waits_for_all_and_takes_the_table)
{
    pen_change first = insert(&item, 0, "1 a NULL x");
    pen_change second = insert(&item, 1, "2 a NULL x");
    item.target.fresh = true;
    cr_assert(keys_of(&left, &first, false));
    cr_assert_not(keys_of(&right, &second, false));
    cr_assert_eq(left.keys[0].hash, item.target.table_hash);
    cr_assert_eq(left.keys[0].access, PEN_ACCESS_WRITE);
    bool read = false;
    for (size_t i = 0; i < right.count; i++) {
        read |=
            right.keys[i].hash == item.target.table_hash && right.keys[i].access == PEN_ACCESS_READ;
    }
    cr_assert(read);
    expect_apart(first, second);
}

Test(keys, a_barrier_meets_everything_and_waits_for_all)
{
    item.target.scope = PEN_SCOPE_ALL;
    pen_change barrier = insert(&item, 0, "1 a NULL x");
    pen_change other = insert(&box, 1, "2 a NULL x");
    cr_assert(keys_of(&left, &barrier, true));
    cr_assert_not(keys_of(&right, &other, true));
    bool shared = false;
    for (size_t i = 0; i < left.count; i++) {
        for (size_t j = 0; j < right.count; j++) {
            shared |=
                left.keys[i].hash == right.keys[j].hash && left.keys[i].access == PEN_ACCESS_WRITE;
        }
    }
    cr_assert(shared);
    barriers = true;
    item.target.scope = PEN_SCOPE_ROW;
    expect_apart(barrier, other);
}

/* A leaf by its own name and its root's: the same indexes, by the topmost's name, the same table.
 */
Test(keys, a_row_meets_itself_by_the_names_of_leaf_and_root)
{
    box_uniques[0] = key_on(PRIMARY_OF_ITEM, id_column, 1);
    box_uniques[0].in_identity = box_uniques[0].is_identity = true;
    box.target.table_hash = item.target.table_hash;
    expect_meet(insert(&item, 0, "1 a NULL x"), delete_of(&box, 1, "1 NULL NULL NULL"));
    expect_apart(insert(&item, 0, "1 a NULL x"), delete_of(&box, 1, "2 NULL NULL NULL"));
    const pen_relation *const one[] = {&item.rel};
    pen_change chg = {.kind = PEN_CHANGE_TRUNCATE, .truncated = one, .truncated_count = 1};
    expect_meet(chg, insert(&box, 1, "1 a NULL x"));
}
