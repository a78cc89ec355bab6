#include "apply/pacing.h"

#include "core/thread.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* The mean of what is there after a pause, from a source that sends so many bytes a millisecond. */
static size_t mean_stock(size_t bytes_per_ms)
{
    enum { LOOKS = 400 };
    pen_pacing pacing = {.one_machine = true};
    size_t found = 0;
    for (int i = 0; i < LOOKS; i++) {
        size_t queued = bytes_per_ms * pen_pacing_choose(&pacing, 0) / 1000;
        cr_assert_eq(pen_pacing_choose(&pacing, PEN_PACING_READ), 0);
        pacing.taken += queued;
        found += i >= LOOKS / 2 ? queued : 0;
    }
    return found / (LOOKS / 2);
}

Test(pacing, stays_away_on_one_machine_until_there_is_a_stock)
{
    /* As long as it can from a slow source, but not for ever. */
    cr_assert_eq(mean_stock(5 * 1024), (size_t)5 * 1024 * PEN_PACING_MOST_AWAY_US / 1000);
    for (size_t rate = 30; rate <= 500; rate += 10) {
        size_t stock = mean_stock(rate * 1024);
        cr_assert(stock >= PEN_PACING_STOCK / 2 && stock <= 2 * PEN_PACING_STOCK + rate * 1024,
                  "%zu at %zu", stock, rate);
    }
    /* A source that is faster than that is looked at every millisecond. */
    cr_assert_eq(mean_stock(4 * 1024 * 1024), 4 * 1024 * 1024);
}

/* Both ends of a new TCP connection, with the buffer of one to hold all that the tests send. */
static void connect_tcp(int domain, int ends[2])
{
    struct sockaddr_storage address = {0};
    socklen_t size;
    if (domain == AF_INET) {
        *(struct sockaddr_in *)&address =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        size = sizeof(struct sockaddr_in);
    } else {
        *(struct sockaddr_in6 *)&address =
            (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        size = sizeof(struct sockaddr_in6);
    }
    int listener = socket(domain, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0) {
        close(listener);
        cr_skip("no such addresses here");
    }
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ends[0] = socket(domain, SOCK_STREAM, 0);
    cr_assert_eq(connect(ends[0], (struct sockaddr *)&address, size), 0);
    ends[1] = accept(listener, NULL, NULL);
    cr_assert_geq(ends[1], 0);
    close(listener);
}

/* A busy machine may bring them late, even over the loopback interface. */
static void wait_for_bytes(int socket, size_t count)
{
    int queued = 0;
    for (int i = 0; i < 2000 && (size_t)queued < count; i++) {
        cr_assert_eq(ioctl(socket, FIONREAD, &queued), 0);
        usleep(1000);
    }
    cr_assert_geq((size_t)queued, count);
}

static void takes_all_of_a_tcp_connection(int domain)
{
    int ends[2];
    pen_pacing pacing;
    connect_tcp(domain, ends);
    pen_pacing_begin(&pacing, ends[0]);
    cr_assert(pacing.one_machine);
    cr_assert_gt(pen_pacing_pause(&pacing, ends[0]), PEN_PACING_MOST_US);
    cr_assert_not(pen_pacing_takes_more(&pacing, ends[0]), "nothing is there");
    static char bytes[PEN_PACING_READ];
    cr_assert_eq(write(ends[1], bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    wait_for_bytes(ends[0], sizeof(bytes));
    cr_assert_eq(pen_pacing_pause(&pacing, ends[0]), 0);
    cr_assert(pen_pacing_takes_more(&pacing, ends[0]));
    cr_assert_geq(pacing.taken, sizeof(bytes));
    close(ends[0]);
    close(ends[1]);
}

Test(pacing, knows_one_machine_by_its_addresses)
{
    takes_all_of_a_tcp_connection(AF_INET);
}

Test(pacing, knows_one_machine_by_its_addresses_of_version_6)
{
    takes_all_of_a_tcp_connection(AF_INET6);
}

Test(pacing, takes_a_unix_socket_for_one_with_a_small_buffer)
{
    int ends[2];
    pen_pacing pacing;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pen_pacing_begin(&pacing, ends[0]);
    cr_assert_not(pacing.one_machine);
    cr_assert_not(pen_pacing_takes_more(&pacing, ends[0]));
    close(ends[0]);
    close(ends[1]);
}

Test(pacing, naps_for_as_long_as_a_small_transaction_takes)
{
    int64_t since_us = pen_now_us();
    pen_pacing_nap();
    cr_assert_geq(pen_now_us() - since_us, 40);
}

Test(pacing, rests_only_while_something_comes_again_and_again)
{
    pen_pacing pacing;
    pen_pacing_begin(&pacing, -1);
    cr_assert_not(pen_pacing_may_rest(&pacing));
    for (int i = 0; i < 1000; i++) {
        pen_pacing_heard(&pacing, 1000);
        cr_assert_not(pen_pacing_may_rest(&pacing));
    }
    unsigned short_ones = 0;
    while (!pen_pacing_may_rest(&pacing)) {
        pen_pacing_heard(&pacing, 200);
        short_ones++;
    }
    cr_assert(short_ones > 2 && short_ones < 20, "%u", short_ones);
    /* What it finds after a rest or two tells no more than that, and must not end it. */
    for (int i = 0; i < 1000; i++) {
        pen_pacing_heard(&pacing, i % 3 == 0 ? 2 * PEN_PACING_REST_US : PEN_PACING_REST_US);
        cr_assert(pen_pacing_may_rest(&pacing));
    }
    /* One long silence, however long: somebody may only wait for its single transaction now. */
    pen_pacing_heard(&pacing, (int64_t)3600 * 1000000);
    cr_assert_not(pen_pacing_may_rest(&pacing));
    for (int i = 0; i < 50; i++) {
        pen_pacing_heard(&pacing, 200);
    }
    cr_assert(pen_pacing_may_rest(&pacing));
}
