#include "core/thread.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* What a parker's owner does. A wake that finds AWAKE leaves NOTIFIED, so that the next prepare
 * knows; one that finds PARKED writes the eventfd. */
enum { AWAKE, PARKED, NOTIFIED };

static _Thread_local pen_thread *current;
static bool any_left;

pen_role pen_thread_role(void)
{
    return current == NULL ? PEN_ROLE_MAIN : current->role;
}

const char *pen_thread_name(void)
{
    return current == NULL ? "main" : current->name;
}

static void *thread_main(void *arg)
{
    pen_thread *thread = arg;
    current = thread;
    pthread_setname_np(pthread_self(), thread->name);
    thread->run(thread->arg);
    return NULL;
}

bool pen_thread_start(pen_thread *thread, pen_role role, const char *name, void (*run)(void *),
                      void *arg, pen_error *err)
{
    thread->started = false; /* so that a join after a failed start does nothing */
    thread->role = role;
    thread->run = run;
    thread->arg = arg;
    snprintf(thread->name, sizeof(thread->name), "%s", name);
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    /* A fault is the thread's own; blocked, it would kill without a word from a handler or a
     * sanitizer. */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&thread->handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, rc, "cannot start the thread \"%s\"",
                                   name);
    }
    thread->started = true;
    return true;
}

void pen_thread_be_patient(void)
{
    /* Needs no privilege; where a sandbox refuses it, all stays as it is. */
    const struct sched_param none = {0};
    (void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
}

void pen_thread_join(pen_thread *thread)
{
    if (thread->started) {
        pthread_join(thread->handle, NULL);
        thread->started = false;
    }
}

void pen_thread_leave(pen_thread *thread)
{
    if (thread->started) {
        pthread_detach(thread->handle);
        thread->started = false;
        any_left = true;
    }
}

bool pen_thread_any_left(void)
{
    return any_left;
}

bool pen_parker_init(pen_parker *parker, pen_error *err)
{
    atomic_init(&parker->state, AWAKE);
    parker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (parker->event_fd < 0) {
        return pen_error_set_errno(err, PEN_ERROR_FATAL, errno,
                                   "cannot make an eventfd; raise the limit of open files");
    }
    return true;
}

void pen_parker_deinit(pen_parker *parker)
{
    if (parker->event_fd >= 0) {
        close(parker->event_fd);
        parker->event_fd = -1;
    }
}

void pen_parker_prepare(pen_parker *parker)
{
    /* [PARK-1] acquire: of two exchanges on `state` one comes first. If it was the waker's, this
     * one sees what it published; if it was this one, the waker finds PARKED and writes the
     * eventfd. */
    (void)atomic_exchange_explicit(&parker->state, PARKED, memory_order_acq_rel);
}

void pen_parker_cancel(pen_parker *parker)
{
    /* A wake in between has written the eventfd; that costs one early return of a later park. */
    (void)atomic_exchange_explicit(&parker->state, AWAKE, memory_order_acq_rel);
}

int pen_parker_park(pen_parker *parker, int fd, int events, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = parker->event_fd, .events = POLLIN}, {.fd = fd}};
    if (events & PEN_PARK_READABLE) {
        fds[1].events |= POLLIN;
    }
    if (events & PEN_PARK_WRITABLE) {
        fds[1].events |= POLLOUT;
    }
    int ready = poll(fds, fd < 0 ? 1 : 2, timeout_ms);
    int happened = 0;
    if (ready > 0 && fds[0].revents != 0) {
        uint64_t count;
        (void)!read(parker->event_fd, &count, sizeof(count));
        happened |= PEN_PARK_WOKEN;
    }
    if (ready > 0 && fd >= 0) {
        happened |=
            (fds[1].revents & (POLLIN | POLLERR | POLLHUP | POLLNVAL)) ? PEN_PARK_READABLE : 0;
        happened |= (fds[1].revents & POLLOUT) ? PEN_PARK_WRITABLE : 0;
    }
    /* [PARK-1] acquire: sees what was published before the wake that ended the sleep. */
    if (atomic_exchange_explicit(&parker->state, AWAKE, memory_order_acq_rel) == NOTIFIED) {
        happened |= PEN_PARK_WOKEN;
    }
    return happened;
}

void pen_parker_wake(pen_parker *parker)
{
    /* [PARK-1] release: publishes what the caller did before; pairs with the acquire in
     * pen_parker_prepare and pen_parker_park. */
    if (atomic_exchange_explicit(&parker->state, NOTIFIED, memory_order_acq_rel) == PARKED) {
        uint64_t one = 1;
        (void)!write(parker->event_fd, &one, sizeof(one));
    }
}

int64_t pen_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
