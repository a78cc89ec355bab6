/* Purpose: threads with names and roles, and the parker by which an idle one sleeps.
 * Thread:  as each function says.
 * Owns:    a parker owns its eventfd; a thread's handle belongs to whoever started it.
 * Flow:    a thread that finds nothing to do prepares, looks once more, and parks; whoever makes
 *          something to do publishes it and wakes. */
#ifndef PEN_CORE_THREAD_H
#define PEN_CORE_THREAD_H

#include "core/error.h"

#include <pthread.h>
#include <stdatomic.h>

typedef enum pen_role {
    PEN_ROLE_MAIN,
    PEN_ROLE_READER,
    PEN_ROLE_DISPATCHER,
    PEN_ROLE_WORKER,
    PEN_ROLE_PROGRESS,
    PEN_ROLE_DISK,
    PEN_ROLE_COPY,
    PEN_ROLE_INDEX,
    PEN_ROLE_STATUS,
    PEN_ROLE_SOURCE
} pen_role;

/* What the calling thread is; asserted at the entries of what only one role may call. */
pen_role pen_thread_role(void);
/* The calling thread's name ("worker 3"), for log lines. */
const char *pen_thread_name(void);

typedef struct pen_thread {
    pthread_t handle;
    pen_role role;
    char name[16];
    void (*run)(void *arg);
    void *arg;
    bool started;
} pen_thread;

/* Starts run(arg) in a thread of that role and name, with all signals blocked: main takes them.
 * `thread` must stay where it is until it was joined. */
PEN_MUST_CHECK bool pen_thread_start(pen_thread *thread, pen_role role, const char *name,
                                     void (*run)(void *), void *arg, pen_error *err);
/* Waits for its end; nothing when it was never started. */
void pen_thread_join(pen_thread *thread);

/* Never waits for its end: nothing of it is looked at any more. `thread` may be a copy. */
void pen_thread_leave(pen_thread *thread);
/* Whether any was left; then the process is to end by _exit, because what exit takes down, in our
 * libraries too, may be in use. Main, or whoever has joined those that left some. */
bool pen_thread_any_left(void);

/* The calling thread, when it is woken, no longer takes the processor from whoever is running: it
 * waits until that one sleeps or has used up its time, unless a processor is idle. Its share stays
 * the same. For who takes in what others make: on a machine with few processors those are mostly
 * who runs, and has more for it in a moment. */
void pen_thread_be_patient(void);

/* Where one thread sleeps. It can sleep for a wake, a file descriptor and a timeout at once. */
typedef struct pen_parker {
    int event_fd;
    _Atomic(uint32_t) state;
} pen_parker;

PEN_MUST_CHECK bool pen_parker_init(pen_parker *parker, pen_error *err);
void pen_parker_deinit(pen_parker *parker);

/* Owner: says that it is about to sleep. After this the condition must be looked at once more; then
 * either pen_parker_park or pen_parker_cancel. */
void pen_parker_prepare(pen_parker *parker);
void pen_parker_cancel(pen_parker *parker);

#define PEN_PARK_WOKEN    1 /* somebody woke, or did so before the sleep began */
#define PEN_PARK_READABLE 2
#define PEN_PARK_WRITABLE 4
#define PEN_PARK_FOREVER  (-1)

/* Owner, after prepare: sleeps until woken, until `fd` (-1: none) is ready for `events` (of
 * PEN_PARK_READABLE and PEN_PARK_WRITABLE; an error on it counts as readable), or for `timeout_ms`.
 * Returns what happened as a mask, 0 for the timeout. May return early: always look again. */
int pen_parker_park(pen_parker *parker, int fd, int events, int timeout_ms);

/* Any thread: wakes the owner, or keeps it from falling asleep. Costs a system call only when the
 * owner sleeps. What was published before is seen by the owner after its prepare or park. */
void pen_parker_wake(pen_parker *parker);

/* Monotonic time in microseconds, for intervals. */
int64_t pen_now_us(void);

#endif
