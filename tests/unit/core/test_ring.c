#include "core/ring.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>

/* The ring carries pointers; the tests send numbers from 1 in them. */
static void *item_of(uintptr_t number)
{
    return (void *)number;
}

Test(ring, empty_gives_null)
{
    pen_ring ring;
    pen_ring_init(&ring, 2);
    cr_assert_null(pen_ring_pop(&ring));
    cr_assert_eq(pen_ring_count(&ring), 0);
    pen_ring_deinit(&ring);
}

Test(ring, full_takes_no_more)
{
    pen_ring ring;
    pen_ring_init(&ring, 4);
    for (uintptr_t i = 1; i <= 4; i++) {
        cr_assert(pen_ring_push(&ring, item_of(i)));
        cr_assert_eq(pen_ring_count(&ring), i);
    }
    cr_assert_not(pen_ring_push(&ring, item_of(5)));
    cr_assert_eq(pen_ring_pop(&ring), item_of(1), "the refused item overwrote nothing");
    cr_assert(pen_ring_push(&ring, item_of(5)));
    cr_assert_not(pen_ring_push(&ring, item_of(6)));
    for (uintptr_t i = 2; i <= 5; i++) {
        cr_assert_eq(pen_ring_pop(&ring), item_of(i));
    }
    cr_assert_null(pen_ring_pop(&ring));
    pen_ring_deinit(&ring);
}

Test(ring, wraps_around_at_every_fill)
{
    pen_ring ring;
    pen_ring_init(&ring, 8);
    uintptr_t pushed = 0;
    uintptr_t popped = 0;
    for (size_t fill = 1; fill <= 8; fill++) {
        for (size_t round = 0; round < 20; round++) {
            while (pushed - popped < fill) {
                cr_assert(pen_ring_push(&ring, item_of(++pushed)));
            }
            while (popped < pushed) {
                cr_assert_eq(pen_ring_pop(&ring), item_of(++popped));
            }
            cr_assert_null(pen_ring_pop(&ring));
        }
    }
    pen_ring_deinit(&ring);
}

#define ITEMS 3000000

static void *produce(void *arg)
{
    pen_ring *ring = arg;
    for (uintptr_t i = 1; i <= ITEMS; i++) {
        while (!pen_ring_push(ring, item_of(i))) {
            sched_yield();
        }
    }
    return NULL;
}

static void send_all_in_order(size_t capacity)
{
    pen_ring ring;
    pen_ring_init(&ring, capacity);
    pthread_t producer;
    cr_assert_eq(pthread_create(&producer, NULL, produce, &ring), 0);
    for (uintptr_t i = 1; i <= ITEMS; i++) {
        void *item;
        while ((item = pen_ring_pop(&ring)) == NULL) {
            sched_yield();
        }
        if (item != item_of(i)) {
            cr_assert_fail("item %zu came instead of %zu", (uintptr_t)item, i);
        }
    }
    pthread_join(producer, NULL);
    cr_assert_null(pen_ring_pop(&ring));
    pen_ring_deinit(&ring);
}

Test(ring, two_threads_keep_the_order)
{
    send_all_in_order(1024);
}

Test(ring, two_threads_keep_the_order_in_a_small_ring)
{
    send_all_in_order(16);
}
