#include "apply/pacing.h"

#include "core/thread.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

Test(pacing, grows_while_the_queue_is_short_and_shrinks_while_it_is_long)
{
    pen_pacing pacing = {0};
    uint32_t before = 0;
    for (int i = 0; i < 100; i++) {
        uint32_t pause_us = pen_pacing_choose(&pacing, 0);
        cr_assert_geq(pause_us, before);
        cr_assert_leq(pause_us, PEN_PACING_MOST_US);
        before = pause_us;
    }
    cr_assert_eq(before, PEN_PACING_MOST_US);
    /* Enough is there: at once, and less the next time. */
    cr_assert_eq(pen_pacing_choose(&pacing, PEN_PACING_QUEUE), 0);
    cr_assert_eq(pen_pacing_choose(&pacing, 10 * PEN_PACING_QUEUE), 0);
    cr_assert_lt(pen_pacing_choose(&pacing, PEN_PACING_QUEUE - 1), PEN_PACING_MOST_US);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(pen_pacing_choose(&pacing, PEN_PACING_QUEUE), 0);
    }
    cr_assert_leq(pen_pacing_choose(&pacing, 0), PEN_PACING_MOST_US / 2);
}

/* A source that sends so many bytes a millisecond, and a reader that takes 16 kB at a time and
 * needs 50 us for it: how many bytes a look finds, in the mean of the later ones. */
static size_t mean_found(size_t bytes_per_ms)
{
    enum { LOOKS = 4000, CHUNK = 16 * 1024 };
    pen_pacing pacing = {0};
    size_t queued = 0;
    size_t found = 0;
    for (int i = 0; i < LOOKS; i++) {
        queued += bytes_per_ms * (50 + pen_pacing_choose(&pacing, queued)) / 1000;
        size_t taken = queued < CHUNK ? queued : CHUNK;
        found += i >= LOOKS / 2 ? queued : 0;
        queued -= taken;
    }
    return found / (LOOKS / 2);
}

Test(pacing, keeps_the_queue_filled_whatever_the_source_sends)
{
    /* The longest pause is too short for a slow source: what came in it is found. */
    size_t slow = mean_found(10 * 1024);
    cr_assert(slow >= 3 * 1024 && slow <= 4 * 1024, "%zu", slow);
    /* Between that and what the reader can take it is near what is wanted. */
    for (size_t rate = 60; rate <= 250; rate += 10) {
        size_t found = mean_found(rate * 1024);
        cr_assert(found > PEN_PACING_QUEUE / 2 && found < 2 * PEN_PACING_QUEUE, "%zu at %zu", found,
                  rate);
    }
}

Test(pacing, looks_at_the_socket)
{
    int ends[2];
    pen_pacing pacing = {.pause_us = PEN_PACING_MOST_US};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    int64_t since_us = pen_now_us();
    cr_assert_eq(pen_pacing_pause(&pacing, ends[0]), PEN_PACING_MOST_US);
    cr_assert_geq(pen_now_us() - since_us, (int64_t)PEN_PACING_MOST_US - 1);
    static char bytes[PEN_PACING_QUEUE];
    cr_assert_eq(write(ends[1], bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert_eq(pen_pacing_pause(&pacing, ends[0]), 0);
    close(ends[0]);
    close(ends[1]);
    cr_assert_eq(pen_pacing_pause(&pacing, -1), 0);
}
