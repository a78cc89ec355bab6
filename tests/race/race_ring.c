/* Two threads and small rings: the payload behind each pointer arrives whole and in order, and both
 * sides sleep on their parkers, the producer while the ring is full, the consumer while empty. */
#include "core/ring.h"
#include "core/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ITEMS 100000

typedef struct parcel {
    uint64_t number;
    uint64_t check; /* not atomic: only the ring orders the write before the read */
} parcel;

static pen_ring ring;
static pen_parker producer;
static pen_parker consumer;
static parcel parcels[ITEMS];
static uint64_t producer_sleeps;
static uint64_t consumer_sleeps;

static void dawdle(uint64_t steps)
{
    for (volatile uint64_t i = 0; i < steps; i++) {
    }
}

static void produce(void *arg)
{
    (void)arg;
    for (uint64_t i = 0; i < ITEMS; i++) {
        parcels[i].number = i;
        parcels[i].check = i * 3 + 1;
        while (!pen_ring_push(&ring, &parcels[i])) {
            pen_parker_prepare(&producer);
            if (pen_ring_push(&ring, &parcels[i])) {
                pen_parker_cancel(&producer);
                break;
            }
            producer_sleeps++;
            pen_parker_park(&producer, -1, 0, PEN_PARK_FOREVER);
        }
        pen_parker_wake(&consumer);
        if (i / 1000 % 2 == 0) {
            dawdle(i % 600); /* now the one side is slower, now the other */
        }
    }
}

static parcel *receive(void)
{
    for (;;) {
        parcel *item = pen_ring_pop(&ring);
        if (item != NULL) {
            return item;
        }
        pen_parker_prepare(&consumer);
        item = pen_ring_pop(&ring);
        if (item != NULL) {
            pen_parker_cancel(&consumer);
            return item;
        }
        consumer_sleeps++;
        pen_parker_park(&consumer, -1, 0, PEN_PARK_FOREVER);
    }
}

static bool run(size_t capacity)
{
    pen_error err;
    pen_thread thread = {.started = false};
    memset(parcels, 0, sizeof(parcels));
    pen_ring_init(&ring, capacity);
    if (!pen_parker_init(&producer, &err) || !pen_parker_init(&consumer, &err) ||
        !pen_thread_start(&thread, PEN_ROLE_READER, "producer", produce, NULL, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return false;
    }
    bool right = true;
    for (uint64_t i = 0; i < ITEMS; i++) {
        parcel *item = receive();
        pen_parker_wake(&producer);
        if (item->number != i || item->check != i * 3 + 1) {
            fprintf(stderr, "item %lu came as %lu\n", i, item->number);
            right = false;
        }
        if (i / 1000 % 2 == 1) {
            dawdle(i % 600);
        }
    }
    pen_thread_join(&thread);
    right = right && pen_ring_pop(&ring) == NULL && pen_ring_count(&ring) == 0;
    pen_ring_deinit(&ring);
    pen_parker_deinit(&producer);
    pen_parker_deinit(&consumer);
    return right;
}

int main(void)
{
    bool right = run(2) && run(8);
    printf("slept while full: %lu, while empty: %lu\n", producer_sleeps, consumer_sleeps);
    return right && producer_sleeps > 0 && consumer_sleeps > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
