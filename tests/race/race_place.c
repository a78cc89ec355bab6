/* The open batch as it is handed over: one thread fills a place, takes it back to add more, and
 * fills it again; several steal from it. Every number is seen exactly once, each batch holds a run
 * of them, and a thief's batches come in the order of numbers. */
#include "core/sync.h"
#include "core/thread.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define THIEVES 3
#define NUMBERS 200000
#define BATCHES 64 /* that can be in use at once: more than a filler and the thieves hold */

/* Nothing in it is atomic but `in_use`: the place alone orders it. */
typedef struct batch {
    pen_cell in_use;
    uint64_t first;
    uint64_t count;
    uint64_t sum; /* of its numbers, written one by one */
} batch;

static pen_place place;
static pen_cell done;
static batch batches[BATCHES];
static uint8_t seen[NUMBERS]; /* each byte is written by whoever stole its number */
static pen_counter wrong;
static pen_counter stolen; /* batches */
static uint64_t taken_back;

static batch *new_batch(uint64_t first)
{
    for (size_t i = 0;; i = (i + 1) % BATCHES) {
        if (pen_cell_read(&batches[i].in_use) == 0) {
            pen_cell_publish(&batches[i].in_use, 1);
            batches[i].first = first;
            batches[i].count = 0;
            batches[i].sum = 0;
            return &batches[i];
        }
    }
}

static void fill(void)
{
    for (uint64_t number = 0; number < NUMBERS; number++) {
        /* All of it could be over before a thief has come to run. */
        while (number == NUMBERS / 2 && pen_counter_get(&stolen) == 0) {
            sched_yield();
        }
        batch *open = pen_place_take(&place);
        if (open == NULL) {
            open = new_batch(number);
        } else {
            taken_back++;
        }
        open->count++;
        open->sum += number;
        pen_place_put(&place, open);
        if (number % 64 == 0) {
            sched_yield();
        }
    }
}

static void check(const batch *mine, uint64_t not_before)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < mine->count; i++) {
        sum += mine->first + i;
        seen[mine->first + i]++;
    }
    if (mine->count == 0 || sum != mine->sum || mine->first < not_before) {
        pen_counter_add(&wrong, 1);
    }
}

static void steal(void *arg)
{
    (void)arg;
    uint64_t not_before = 0;
    for (;;) {
        bool last = pen_cell_read(&done) != 0; /* read before: nothing is put after it */
        batch *mine = pen_place_take(&place);
        if (mine != NULL) {
            check(mine, not_before);
            not_before = mine->first + mine->count;
            pen_counter_add(&stolen, 1);
            pen_cell_publish(&mine->in_use, 0);
        } else if (last) {
            return;
        } else {
            sched_yield();
        }
    }
}

int main(void)
{
    pen_error err;
    pen_thread threads[THIEVES] = {{.started = false}};
    for (size_t i = 0; i < THIEVES; i++) {
        if (!pen_thread_start(&threads[i], PEN_ROLE_WORKER, "thief", steal, NULL, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return EXIT_FAILURE;
        }
    }
    fill();
    pen_cell_publish(&done, 1);
    for (size_t i = 0; i < THIEVES; i++) {
        pen_thread_join(&threads[i]);
    }
    uint64_t once = 0;
    for (size_t i = 0; i < NUMBERS; i++) {
        once += seen[i] == 1;
    }
    printf("%lu batches stolen, %lu times taken back, %lu of %d numbers seen once, %lu wrong\n",
           pen_counter_get(&stolen), taken_back, once, NUMBERS, pen_counter_get(&wrong));
    return once == NUMBERS && pen_counter_get(&wrong) == 0 && pen_counter_get(&stolen) > 1 &&
                   taken_back > 0
               ? EXIT_SUCCESS
               : EXIT_FAILURE;
}
