#include "core/kill_point.h"

#ifdef PEN_KILL_POINTS

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char wanted[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long passes_left = 1; /* under lock */

static void read_environment(void)
{
    const char *text = getenv("PENSTOCK_KILL_AT");
    if (text == NULL) {
        return;
    }
    snprintf(wanted, sizeof(wanted), "%s", text);
    char *colon = strchr(wanted, ':');
    if (colon != NULL) {
        *colon = '\0';
        passes_left = strtoul(colon + 1, NULL, 10);
    }
}

bool pen_kill_point_is_due(const char *name)
{
    pthread_once(&once, read_environment);
    if (strcmp(name, wanted) != 0) {
        return false;
    }
    pthread_mutex_lock(&lock);
    bool due = passes_left > 0 && --passes_left == 0;
    pthread_mutex_unlock(&lock);
    return due;
}

void pen_kill_point_die(void)
{
    const char *how = getenv("PENSTOCK_KILL_BY");
    kill(getpid(), how == NULL ? SIGKILL : atoi(how));
}

#else

/* ISO C wants something in every file. */
typedef int pen_no_kill_points;

#endif
