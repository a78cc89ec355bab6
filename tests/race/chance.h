/* Purpose: what the race tests draw by lot, the delays between two steps of a protocol, and the
 *          watchdog that ends a test in which somebody waits for ever.
 * Thread:  any; each has its own state.
 * Owns:    nothing.
 * Flow:    included by tests/race/race_*.c, in front of the product's source that they compile. */
#ifndef PEN_TESTS_CHANCE_H
#define PEN_TESTS_CHANCE_H

#include "core/sync.h"

#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Not a single step in so long means that somebody waits for ever, however busy the machine is. */
#define WATCHDOG_SECONDS 60

/* What threads begin with that nobody has given a state: those of the product. */
static uint64_t chance_seed = 1;
static _Thread_local uint64_t random_state;

/* xorshift64 (Marsaglia 2003), one for each thread. */
static uint64_t next_random(void)
{
    if (random_state == 0) {
        random_state = chance_seed * 7919 + (uintptr_t)&random_state;
    }
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 20;
}

/* Mostly nothing, each `yields`th time the processor given away, each `sleeps`th time a real sleep
 * of less than `most_us`. */
static int delay_by_chance(unsigned yields, unsigned sleeps, unsigned most_us)
{
    uint64_t draw = next_random();
    if (draw % yields == 0) {
        sched_yield();
    } else if (draw % sleeps == 1) {
        usleep((unsigned)(draw >> 12) % most_us);
    }
    return 0;
}

/* What the test has done so far; whoever does something adds to it. */
static pen_counter steps;

static void look_for_steps(int signal_number)
{
    static const char words[] = "somebody waits for ever\n";
    static uint64_t seen = UINT64_MAX;
    uint64_t now = pen_counter_get(&steps);
    (void)signal_number;
    if (now == seen) {
        (void)!write(STDERR_FILENO, words, sizeof(words) - 1);
        _exit(EXIT_FAILURE);
    }
    seen = now;
    alarm(WATCHDOG_SECONDS);
}

/* The product's threads take no signals, so this interrupts the main thread alone. */
static void begin_watchdog(void)
{
    signal(SIGALRM, look_for_steps);
    alarm(WATCHDOG_SECONDS);
}

/* How many times the test is done, with other draws each time: PENSTOCK_RACES, or once. */
static uint64_t races(void)
{
    const char *asked = getenv("PENSTOCK_RACES");
    return asked == NULL ? 1 : strtoull(asked, NULL, 10);
}

#endif
