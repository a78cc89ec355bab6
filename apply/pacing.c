#include "apply/pacing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

/* By so much the pause changes from one look to the next. */
#define STEP_US      25u
#define STEP_AWAY_US 1000u
/* In which a walsender sends what a small transaction has. */
#define NAP_US 50u
/* Longer ones count as that, so that one does not outweigh many short ones. */
#define LONG_SILENCE_US 10000u
/* The part of the newest silence in the mean. */
#define NEWEST_PART 8

/* True when both ends of a TCP connection have the same address. */
static bool is_one_machine(int socket)
{
    struct sockaddr_storage here = {.ss_family = AF_UNSPEC};
    struct sockaddr_storage there = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(here);
    if (getsockname(socket, (struct sockaddr *)&here, &size) != 0) {
        return false;
    }
    size = sizeof(there);
    if (getpeername(socket, (struct sockaddr *)&there, &size) != 0 ||
        here.ss_family != there.ss_family) {
        return false;
    }
    if (here.ss_family == AF_INET) {
        return ((struct sockaddr_in *)&here)->sin_addr.s_addr ==
               ((struct sockaddr_in *)&there)->sin_addr.s_addr;
    }
    return here.ss_family == AF_INET6 &&
           memcmp(&((struct sockaddr_in6 *)&here)->sin6_addr,
                  &((struct sockaddr_in6 *)&there)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

void pen_pacing_begin(pen_pacing *pacing, int socket)
{
    *pacing = (pen_pacing){.one_machine = is_one_machine(socket), .silence_us = LONG_SILENCE_US};
}

static void step(uint32_t *pause_us, bool longer, uint32_t by_us, uint32_t most_us)
{
    if (longer) {
        *pause_us = *pause_us + by_us < most_us ? *pause_us + by_us : most_us;
    } else {
        *pause_us -= *pause_us < by_us ? *pause_us : by_us;
    }
}

/* Stays away until there is a stock. */
static uint32_t stay_away(pen_pacing *pacing, size_t queued)
{
    if (queued >= PEN_PACING_READ) {
        return 0;
    }
    if (pacing->taken < PEN_PACING_STOCK) {
        step(&pacing->pause_us, true, STEP_AWAY_US, PEN_PACING_MOST_AWAY_US);
    } else if (pacing->taken >= 2 * (size_t)PEN_PACING_STOCK && pacing->pause_us > STEP_AWAY_US) {
        step(&pacing->pause_us, false, STEP_AWAY_US, PEN_PACING_MOST_AWAY_US);
    }
    pacing->taken = 0;
    return pacing->pause_us;
}

uint32_t pen_pacing_choose(pen_pacing *pacing, size_t queued)
{
    if (pacing->one_machine) {
        return stay_away(pacing, queued);
    }
    bool too_little = queued < PEN_PACING_QUEUE;
    step(&pacing->pause_us, too_little, STEP_US, PEN_PACING_MOST_US);
    return too_little ? pacing->pause_us : 0;
}

/* Bytes that wait in `socket`; false when that cannot be told, and only the pace is lost. */
static bool look_into(int socket, size_t *queued)
{
    int bytes = 0;
    bool ok = ioctl(socket, FIONREAD, &bytes) == 0 && bytes >= 0;
    *queued = ok ? (size_t)bytes : 0;
    return ok;
}

bool pen_pacing_takes_more(pen_pacing *pacing, int socket)
{
    size_t queued;
    if (!pacing->one_machine || !look_into(socket, &queued) || queued < PEN_PACING_READ) {
        return false;
    }
    pacing->taken += queued;
    return true;
}

static void wait_us(uint32_t pause_us)
{
    const struct timespec pause = {.tv_nsec = (long)pause_us * 1000};
    (void)nanosleep(&pause, NULL);
}

uint32_t pen_pacing_pause(pen_pacing *pacing, int socket)
{
    size_t queued;
    if (!look_into(socket, &queued)) {
        return 0;
    }
    uint32_t pause_us = pen_pacing_choose(pacing, queued);
    if (pause_us > 0) {
        wait_us(pause_us);
    }
    return pause_us;
}

static void wait_exactly_us(uint32_t pause_us)
{
    /* The kernel's own slack is as long as a nap. */
    static _Thread_local bool exact;
    if (!exact) {
        exact = true;
        (void)prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
    }
    wait_us(pause_us);
}

void pen_pacing_heard(pen_pacing *pacing, int64_t silence_us)
{
    uint32_t now_us = silence_us < LONG_SILENCE_US ? (uint32_t)silence_us : LONG_SILENCE_US;
    pacing->silence_us = (pacing->silence_us * (NEWEST_PART - 1) + now_us) / NEWEST_PART;
}

bool pen_pacing_may_rest(const pen_pacing *pacing)
{
    return pacing->silence_us < 2 * PEN_PACING_REST_US;
}

void pen_pacing_rest(void)
{
    wait_exactly_us(PEN_PACING_REST_US);
}

void pen_pacing_nap(void)
{
    wait_exactly_us(NAP_US);
}
