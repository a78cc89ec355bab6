#include "core/thread.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/sync.h"

/* Long enough to tell a sleep from none, short enough to wait for. */
#define NAP_MS 30

static pen_parker parker;

static void set_up(void)
{
    pen_error err;
    cr_assert(pen_parker_init(&parker, &err));
}

static void tear_down(void)
{
    pen_parker_deinit(&parker);
}

TestSuite(parker, .init = set_up, .fini = tear_down, .timeout = 30);
TestSuite(thread, .timeout = 30);

static int prepare_and_park(int fd, int events, int timeout_ms)
{
    pen_parker_prepare(&parker);
    return pen_parker_park(&parker, fd, events, timeout_ms);
}

Test(parker, sleeps_for_its_timeout)
{
    int64_t began_us = pen_now_us();
    cr_assert_eq(prepare_and_park(-1, 0, NAP_MS), 0);
    cr_assert_geq(pen_now_us() - began_us, NAP_MS * 1000 - 1000);
}

Test(parker, a_wake_between_prepare_and_park_keeps_it_awake)
{
    pen_parker_prepare(&parker);
    pen_parker_wake(&parker);
    pen_parker_wake(&parker);
    cr_assert_eq(pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER), PEN_PARK_WOKEN);
    cr_assert_eq(prepare_and_park(-1, 0, 0), 0, "and is over with that");
}

/* Such a wake speaks of what the owner sees when it looks once more after prepare; the sleep that
 * follows is about what comes later. */
Test(parker, a_wake_before_prepare_is_used_up_by_it)
{
    pen_parker_wake(&parker);
    cr_assert_eq(prepare_and_park(-1, 0, 0), 0);
    pen_parker_wake(&parker);
    pen_parker_prepare(&parker);
    pen_parker_wake(&parker);
    cr_assert_eq(pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER), PEN_PARK_WOKEN);
}

Test(parker, wakes_cost_nothing_while_the_owner_is_awake)
{
    for (int i = 0; i < 10; i++) {
        pen_parker_wake(&parker);
    }
    uint64_t count;
    cr_assert_lt(read(parker.event_fd, &count, sizeof(count)), 0, "nothing was written");
}

Test(parker, after_cancel_a_wake_costs_one_early_return_at_most)
{
    pen_parker_prepare(&parker);
    pen_parker_wake(&parker);
    pen_parker_cancel(&parker);
    prepare_and_park(-1, 0, 0);
    cr_assert_eq(prepare_and_park(-1, 0, 0), 0);
}

Test(parker, sees_a_descriptor_become_ready)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    cr_assert_eq(prepare_and_park(ends[0], PEN_PARK_READABLE, 0), 0);
    int both = PEN_PARK_READABLE | PEN_PARK_WRITABLE;
    cr_assert_eq(prepare_and_park(ends[0], both, PEN_PARK_FOREVER), PEN_PARK_WRITABLE);
    cr_assert_eq(write(ends[1], "x", 1), 1);
    cr_assert_eq(prepare_and_park(ends[0], PEN_PARK_READABLE, PEN_PARK_FOREVER), PEN_PARK_READABLE);
    cr_assert_eq(prepare_and_park(ends[0], both, PEN_PARK_FOREVER), both);
    pen_parker_prepare(&parker);
    pen_parker_wake(&parker);
    cr_assert_eq(pen_parker_park(&parker, ends[0], PEN_PARK_READABLE, PEN_PARK_FOREVER),
                 PEN_PARK_READABLE | PEN_PARK_WOKEN);
    close(ends[0]);
    close(ends[1]);
}

Test(parker, an_error_on_the_descriptor_counts_as_readable)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    close(ends[0]);
    int happened = prepare_and_park(ends[1], PEN_PARK_WRITABLE, PEN_PARK_FOREVER);
    cr_assert(happened & PEN_PARK_READABLE);
    close(ends[1]);
    happened = prepare_and_park(ends[1], PEN_PARK_READABLE, PEN_PARK_FOREVER);
    cr_assert_eq(happened, PEN_PARK_READABLE, "a closed descriptor does not hang");
}

/* Two threads throw one number back and forth, and sleep while it is the other's. */
typedef struct player {
    pen_cell *ball;
    uint64_t parity; /* of the numbers at which it is this one's turn */
    pen_parker own;
    pen_parker *other;
} player;

#define THROWS 100000

static void play(void *arg)
{
    player *self = arg;
    for (;;) {
        uint64_t ball = pen_cell_read(self->ball);
        if (ball < THROWS && ball % 2 != self->parity) {
            pen_parker_prepare(&self->own);
            ball = pen_cell_read(self->ball);
            if (ball < THROWS && ball % 2 != self->parity) {
                pen_parker_park(&self->own, -1, 0, PEN_PARK_FOREVER);
            } else {
                pen_parker_cancel(&self->own);
            }
            continue;
        }
        if (ball < THROWS) {
            pen_cell_publish(self->ball, ball + 1);
        }
        pen_parker_wake(self->other);
        if (ball >= THROWS - 1) {
            return;
        }
    }
}

Test(thread, ping_pong_never_hangs)
{
    pen_error err;
    pen_cell ball;
    pen_cell_init(&ball, 0);
    player players[2] = {{.ball = &ball, .parity = 0}, {.ball = &ball, .parity = 1}};
    players[0].other = &players[1].own;
    players[1].other = &players[0].own;
    cr_assert(pen_parker_init(&players[0].own, &err));
    cr_assert(pen_parker_init(&players[1].own, &err));
    pen_thread other;
    cr_assert(pen_thread_start(&other, PEN_ROLE_WORKER, "other", play, &players[1], &err));
    play(&players[0]);
    pen_thread_join(&other);
    cr_assert_eq(pen_cell_read(&ball), THROWS);
    pen_parker_deinit(&players[0].own);
    pen_parker_deinit(&players[1].own);
}

typedef struct who {
    pen_role role;
    char name[32];
    bool interrupt_blocked;
    bool fault_blocked;
} who;

static void look_at_self(void *arg)
{
    who *self = arg;
    self->role = pen_thread_role();
    strcpy(self->name, pen_thread_name());
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    self->interrupt_blocked = sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGTERM);
    self->fault_blocked = sigismember(&blocked, SIGSEGV) || sigismember(&blocked, SIGBUS);
}

static void be_patient(void *arg)
{
    pen_thread_be_patient();
    *(int *)arg = sched_getscheduler(0);
}

Test(thread, is_patient_alone)
{
    pen_error err;
    pen_thread thread;
    int policy = -1;
    int before = sched_getscheduler(0);
    cr_assert(pen_thread_start(&thread, PEN_ROLE_READER, "reader", be_patient, &policy, &err));
    pen_thread_join(&thread);
    cr_assert_eq(policy, SCHED_BATCH);
    cr_assert_eq(sched_getscheduler(0), before, "and nobody else is");
}

Test(thread, knows_its_role_and_name)
{
    pen_error err;
    pen_thread thread;
    who seen;
    cr_assert(pen_thread_start(&thread, PEN_ROLE_PROGRESS, "worker 3 of a long name", look_at_self,
                               &seen, &err));
    pen_thread_join(&thread);
    cr_assert_eq(seen.role, PEN_ROLE_PROGRESS);
    cr_assert_str_eq(seen.name, "worker 3 of a l", "cut to what the kernel shows");
    cr_assert(seen.interrupt_blocked, "main takes the signals");
    cr_assert_not(seen.fault_blocked, "a fault in a thread reaches whoever reports it");
    cr_assert_eq(pen_thread_role(), PEN_ROLE_MAIN);
    cr_assert_str_eq(pen_thread_name(), "main");
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    cr_assert_not(sigismember(&blocked, SIGINT), "main's own mask is as before");
}

Test(thread, join_does_nothing_without_a_start)
{
    pen_thread thread = {.started = false};
    pen_thread_join(&thread);
    pen_thread_join(&thread);
}
