#include "core/sync.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

Test(sync, cell_gives_what_was_published)
{
    pen_cell cell;
    pen_cell_init(&cell, 5);
    cr_assert_eq(pen_cell_read(&cell), 5);
    pen_cell_publish(&cell, UINT64_MAX);
    cr_assert_eq(pen_cell_read(&cell), UINT64_MAX);
}

Test(sync, cell_swap_only_from_the_expected)
{
    pen_cell cell;
    pen_cell_init(&cell, 5);
    cr_assert_not(pen_cell_swap(&cell, 4, 6));
    cr_assert_eq(pen_cell_read(&cell), 5);
    cr_assert(pen_cell_swap(&cell, 5, 6));
    cr_assert_eq(pen_cell_read(&cell), 6);
}

Test(sync, place_gives_its_item_once)
{
    pen_place place = {NULL};
    int item;
    cr_assert_null(pen_place_take(&place));
    pen_place_put(&place, &item);
    cr_assert_eq(pen_place_take(&place), &item);
    cr_assert_null(pen_place_take(&place));
}

/* A baton: `turn` says whose turn it is, and whoever has it may touch `sum`, which is not atomic.
 */
typedef struct baton {
    pen_cell turn;
    uint64_t sum;
} baton;

typedef struct runner {
    baton *shared;
    uint64_t me;
} runner;

#define TURNS 20000

static void *run_turns(void *arg)
{
    runner *self = arg;
    for (uint64_t turn = self->me; turn < TURNS; turn += 2) {
        while (pen_cell_read(&self->shared->turn) != turn) {
            sched_yield();
        }
        self->shared->sum += turn;
        pen_cell_publish(&self->shared->turn, turn + 1);
    }
    return NULL;
}

Test(sync, cell_hands_a_turn_over)
{
    baton shared = {.sum = 0};
    pen_cell_init(&shared.turn, 0);
    runner other = {&shared, 1};
    runner self = {&shared, 0};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, run_turns, &other), 0);
    run_turns(&self);
    pthread_join(thread, NULL);
    cr_assert_eq(shared.sum, (uint64_t)TURNS * (TURNS - 1) / 2);
}

#define ADDS 500000

static void *add_many(void *arg)
{
    for (size_t i = 0; i < ADDS; i++) {
        pen_counter_add(arg, 1);
    }
    return NULL;
}

Test(sync, counter_loses_nothing)
{
    pen_counter counter = {0};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, add_many, &counter), 0);
    add_many(&counter);
    pthread_join(thread, NULL);
    cr_assert_eq(pen_counter_get(&counter), 2 * ADDS);
}

static void *swap_many(void *arg)
{
    uint64_t won = 0;
    while (won < ADDS / 4) {
        uint64_t value = pen_cell_read(arg);
        won += pen_cell_swap(arg, value, value + 1);
    }
    return NULL;
}

Test(sync, one_swap_wins)
{
    pen_cell cell;
    pen_cell_init(&cell, 0);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, swap_many, &cell), 0);
    swap_many(&cell);
    pthread_join(thread, NULL);
    cr_assert_eq(pen_cell_read(&cell), 2 * (ADDS / 4));
}
