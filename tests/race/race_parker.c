/* Several threads publish numbers and wake one that sleeps: none of its sleeps, which have no
 * timeout, misses the last number, and what was written before a wake is seen. A lost wake-up shows
 * as a hang. */
#include "core/sync.h"
#include "core/thread.h"

#include <stdio.h>
#include <stdlib.h>

#define WAKERS 3
#define ROUNDS 60000

typedef struct post {
    PEN_ALIGNED pen_cell published; /* how many rounds this waker did */
    pen_cell seen;                  /* how many of them the sleeper saw */
    uint64_t payload;               /* not atomic: `published` orders it */
    pen_parker parker;
} post;

static post posts[WAKERS];
static pen_parker sleeper;

/* Each round waits, asleep too, until the one before was seen: so every wake counts, and every one
 * meets the sleeper at another point of its falling asleep. */
static void wake_often(void *arg)
{
    post *own = arg;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        own->payload = round * 7;
        pen_cell_publish(&own->published, round);
        pen_parker_wake(&sleeper);
        while (pen_cell_read(&own->seen) != round) {
            pen_parker_prepare(&own->parker);
            if (pen_cell_read(&own->seen) == round) {
                pen_parker_cancel(&own->parker);
            } else {
                pen_parker_park(&own->parker, -1, 0, PEN_PARK_FOREVER);
            }
        }
    }
}

/* Answers every new number; returns how many there were, and counts the finished wakers. */
static unsigned answer_all(unsigned *finished, bool *right)
{
    unsigned answered = 0;
    for (size_t i = 0; i < WAKERS; i++) {
        uint64_t seen = pen_cell_read(&posts[i].seen);
        uint64_t published = pen_cell_read(&posts[i].published);
        if (published == seen) {
            continue;
        }
        if (published != seen + 1 || posts[i].payload != published * 7) {
            fprintf(stderr, "waker %zu: round %lu came after %lu with %lu\n", i, published, seen,
                    posts[i].payload);
            *right = false;
        }
        answered++;
        *finished += published == ROUNDS;
        pen_cell_publish(&posts[i].seen, published);
        pen_parker_wake(&posts[i].parker);
    }
    return answered;
}

int main(void)
{
    pen_error err;
    pen_thread threads[WAKERS] = {{.started = false}};
    if (!pen_parker_init(&sleeper, &err)) {
        goto fail;
    }
    for (size_t i = 0; i < WAKERS; i++) {
        pen_cell_init(&posts[i].published, 0);
        pen_cell_init(&posts[i].seen, 0);
        if (!pen_parker_init(&posts[i].parker, &err)) {
            goto fail;
        }
    }
    for (size_t i = 0; i < WAKERS; i++) {
        if (!pen_thread_start(&threads[i], PEN_ROLE_WORKER, "waker", wake_often, &posts[i], &err)) {
            goto fail;
        }
    }
    bool right = true;
    uint64_t sleeps = 0;
    for (unsigned finished = 0; finished < WAKERS;) {
        if (answer_all(&finished, &right) > 0) {
            continue;
        }
        pen_parker_prepare(&sleeper);
        if (answer_all(&finished, &right) > 0) {
            pen_parker_cancel(&sleeper);
            continue;
        }
        sleeps++;
        pen_parker_park(&sleeper, -1, 0, PEN_PARK_FOREVER);
    }
    for (size_t i = 0; i < WAKERS; i++) {
        pen_thread_join(&threads[i]);
        pen_parker_deinit(&posts[i].parker);
    }
    pen_parker_deinit(&sleeper);
    printf("slept %lu times\n", sleeps);
    return right && sleeps > 0 ? EXIT_SUCCESS : EXIT_FAILURE;

fail:
    fprintf(stderr, "%s\n", err.text);
    return EXIT_FAILURE;
}
