#include "apply/pacing.h"

#include <sys/ioctl.h>
#include <time.h>

/* By so much the pause changes from one look to the next. */
#define STEP_US 25u

uint32_t pen_pacing_choose(pen_pacing *pacing, size_t queued)
{
    if (queued >= PEN_PACING_QUEUE) {
        pacing->pause_us -= pacing->pause_us < STEP_US ? pacing->pause_us : STEP_US;
        return 0;
    }
    uint32_t left_us = PEN_PACING_MOST_US - pacing->pause_us;
    pacing->pause_us += left_us < STEP_US ? left_us : STEP_US;
    return pacing->pause_us;
}

uint32_t pen_pacing_pause(pen_pacing *pacing, int socket)
{
    int queued = 0;
    if (ioctl(socket, FIONREAD, &queued) != 0 || queued < 0) {
        return 0; /* only the pace is lost */
    }
    uint32_t pause_us = pen_pacing_choose(pacing, (size_t)queued);
    if (pause_us > 0) {
        const struct timespec pause = {.tv_nsec = (long)pause_us * 1000};
        (void)nanosleep(&pause, NULL);
    }
    return pause_us;
}
