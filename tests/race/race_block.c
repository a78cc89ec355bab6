/* The reader fills blocks, several workers share each of them and release it; the reader sleeps
 * while the budget is used up. It is always woken, each byte is intact while a reference is held,
 * and in the end the budget is back at zero. */
#include "core/arena.h"
#include "core/ring.h"
#include "core/thread.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS  3
#define MESSAGES 20000
#define LIMIT    (4u * PEN_BLOCK_SIZE)

typedef struct message {
    pen_block *block; /* one reference for each worker that it is sent to */
    size_t len;
    uint8_t fill;
    uint8_t bytes[];
} message;

typedef struct worker {
    pen_ring ring;
    pen_parker parker;
    pen_thread thread;
    uint64_t received;
    bool right;
} worker;

static message last; /* tells a worker to end */
static worker workers[WORKERS];
static pen_parker reader;

static void release_all(void *arg)
{
    worker *self = arg;
    for (;;) {
        message *msg = pen_ring_pop(&self->ring);
        if (msg == NULL) {
            pen_parker_prepare(&self->parker);
            msg = pen_ring_pop(&self->ring);
            if (msg == NULL) {
                pen_parker_park(&self->parker, -1, 0, PEN_PARK_FOREVER);
                continue;
            }
            pen_parker_cancel(&self->parker);
        }
        if (msg == &last) {
            return;
        }
        for (size_t i = 0; i < msg->len; i += 97) {
            self->right = self->right && msg->bytes[i] == msg->fill;
        }
        self->received++;
        pen_block_release(msg->block);
    }
}

static void send(worker *to, message *msg)
{
    while (!pen_ring_push(&to->ring, msg)) {
        sched_yield();
    }
    pen_parker_wake(&to->parker);
}

static message *make(pen_arena *arena, uint32_t number)
{
    /* Every thousandth is larger than the whole budget, and many fill a block of their own. */
    size_t len = number % 1000 == 999 ? 2 * LIMIT : (size_t)number * 7919 % 40000;
    pen_block *block = pen_arena_reserve(arena, sizeof(message) + len);
    message *msg = pen_arena_alloc(arena, sizeof(*msg) + len);
    msg->block = block;
    msg->len = len;
    msg->fill = (uint8_t)number;
    memset(msg->bytes, msg->fill, len);
    return msg;
}

static uint64_t send_all(pen_budget *budget)
{
    uint64_t sleeps = 0;
    pen_arena arena;
    pen_arena_init(&arena, budget);
    for (uint32_t number = 0; number < MESSAGES; number++) {
        while (pen_budget_exhausted(budget)) {
            pen_arena_deinit(&arena); /* or its own block could keep the budget exhausted */
            pen_parker_prepare(&reader);
            if (!pen_budget_exhausted(budget)) {
                pen_parker_cancel(&reader);
                break;
            }
            sleeps++;
            pen_parker_park(&reader, -1, 0, PEN_PARK_FOREVER);
        }
        message *msg = make(&arena, number);
        for (size_t i = 0; i < WORKERS; i++) {
            pen_block_acquire(msg->block);
        }
        for (size_t i = 0; i < WORKERS; i++) {
            send(&workers[i], msg);
        }
    }
    pen_arena_deinit(&arena);
    return sleeps;
}

int main(void)
{
    pen_error err;
    pen_budget budget;
    if (!pen_parker_init(&reader, &err)) {
        goto fail;
    }
    pen_budget_init(&budget, LIMIT, &reader);
    for (size_t i = 0; i < WORKERS; i++) {
        worker *self = &workers[i];
        self->right = true;
        pen_ring_init(&self->ring, 64);
        if (!pen_parker_init(&self->parker, &err) ||
            !pen_thread_start(&self->thread, PEN_ROLE_WORKER, "worker", release_all, self, &err)) {
            goto fail;
        }
    }
    uint64_t sleeps = send_all(&budget);
    bool right = true;
    for (size_t i = 0; i < WORKERS; i++) {
        send(&workers[i], &last);
        pen_thread_join(&workers[i].thread);
        pen_ring_deinit(&workers[i].ring);
        pen_parker_deinit(&workers[i].parker);
        right = right && workers[i].right && workers[i].received == MESSAGES;
    }
    pen_parker_deinit(&reader);
    printf("slept for memory %lu times; peak %zu bytes, left %zu\n", sleeps,
           pen_budget_peak(&budget), pen_budget_used(&budget));
    return right && sleeps > 0 && pen_budget_used(&budget) == 0 &&
                   pen_budget_peak(&budget) <= LIMIT + 2 * LIMIT + 2 * PEN_BLOCK_SIZE
               ? EXIT_SUCCESS
               : EXIT_FAILURE;

fail:
    fprintf(stderr, "%s\n", err.text);
    return EXIT_FAILURE;
}
