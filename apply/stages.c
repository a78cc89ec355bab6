#include "apply/stages.h"

#include <stdio.h>

/* A wait below this share of the time is not worth a word. */
#define LEAST_PERCENT 0.5

#define WAITS_MOST 6

typedef struct wait {
    pen_metric metric;
    const char *words;
} wait;

typedef struct stage {
    const char *name;
    pen_metric time;
    wait waits[WAITS_MOST];
    size_t wait_count;
} stage;

static const stage stages[PEN_STAGE_COUNT] = {
    {"reader",
     PEN_METRIC_READER_TIME,
     {{PEN_METRIC_READER_SOURCE, "waiting for the source"},
      {PEN_METRIC_READER_PACED, "letting it go ahead"},
      {PEN_METRIC_READER_MEMORY, "waiting for memory"},
      {PEN_METRIC_READER_ROOM, "for a dispatcher"},
      {PEN_METRIC_READER_EAGER, "for the eager worker"},
      {PEN_METRIC_READER_DISK, "for the spool's disk"}},
     6},
    {"dispatchers",
     PEN_METRIC_DISPATCHER_TIME,
     {{PEN_METRIC_DISPATCHER_INPUT, "waiting for transactions"},
      {PEN_METRIC_DISPATCHER_BATON, "for their turn"},
      {PEN_METRIC_DISPATCHER_ROOM, "for a worker"}},
     3},
    {"workers",
     PEN_METRIC_WORKER_TIME,
     {{PEN_METRIC_WORKER_INPUT, "waiting for a batch"},
      {PEN_METRIC_WORKER_TURN, "for earlier batches"},
      {PEN_METRIC_WORKER_SERVER, "for the target"},
      {PEN_METRIC_WORKER_PAUSE, "to try again"}},
     4},
    {"eager worker",
     PEN_METRIC_EAGER_TIME,
     {{PEN_METRIC_EAGER_INPUT, "waiting for changes"},
      {PEN_METRIC_EAGER_TURN, "for earlier batches"},
      {PEN_METRIC_EAGER_SERVER, "for the target"}},
     3},
};

static uint64_t busy_of(const uint64_t sums[PEN_METRIC_COUNT], const stage *it)
{
    uint64_t waited = 0;
    for (size_t i = 0; i < it->wait_count; i++) {
        waited += sums[it->waits[i].metric];
    }
    /* Read while the thread runs, the numbers need not fit together. */
    return waited < sums[it->time] ? sums[it->time] - waited : 0;
}

/* Of those who apply only what they do with something to apply counts. */
static pen_limit limit_of_applying(uint64_t busy, uint64_t turn, uint64_t server)
{
    if (server >= turn && server >= busy) {
        return PEN_LIMIT_TARGET;
    }
    return turn >= busy ? PEN_LIMIT_ORDER : PEN_LIMIT_WORKER;
}

static pen_limit limit_of_workers(const uint64_t sums[PEN_METRIC_COUNT])
{
    return limit_of_applying(busy_of(sums, &stages[2]), sums[PEN_METRIC_WORKER_TURN],
                             sums[PEN_METRIC_WORKER_SERVER] + sums[PEN_METRIC_WORKER_PAUSE]);
}

static pen_limit limit_of_eager_worker(const uint64_t sums[PEN_METRIC_COUNT])
{
    return limit_of_applying(busy_of(sums, &stages[3]), sums[PEN_METRIC_EAGER_TURN],
                             sums[PEN_METRIC_EAGER_SERVER]);
}

/* A stage that waits for its input most of the time is not the one. */
static bool has_input(const uint64_t sums[PEN_METRIC_COUNT], pen_metric time, pen_metric input)
{
    return sums[time] > 0 && sums[input] < sums[time] / 2;
}

pen_limit pen_stages_limit(const uint64_t sums[PEN_METRIC_COUNT])
{
    if (has_input(sums, PEN_METRIC_WORKER_TIME, PEN_METRIC_WORKER_INPUT)) {
        return limit_of_workers(sums);
    }
    if (has_input(sums, PEN_METRIC_DISPATCHER_TIME, PEN_METRIC_DISPATCHER_INPUT)) {
        /* Of several one waits for a worker, and the others for that one. */
        return sums[PEN_METRIC_DISPATCHER_ROOM] > busy_of(sums, &stages[1]) ? limit_of_workers(sums)
                                                                            : PEN_LIMIT_DISPATCHER;
    }
    uint64_t source = sums[PEN_METRIC_READER_SOURCE] + sums[PEN_METRIC_READER_PACED];
    uint64_t memory = sums[PEN_METRIC_READER_MEMORY];
    uint64_t disk = sums[PEN_METRIC_READER_DISK];
    uint64_t eager = sums[PEN_METRIC_READER_EAGER];
    uint64_t busy = busy_of(sums, &stages[0]);
    if (eager > source && eager > memory && eager > disk && eager > busy) {
        return limit_of_eager_worker(sums);
    }
    if (source >= busy && source >= memory && source >= disk) {
        return PEN_LIMIT_SOURCE;
    }
    if (busy >= memory && busy >= disk) {
        return PEN_LIMIT_READER;
    }
    return memory >= disk ? PEN_LIMIT_MEMORY : PEN_LIMIT_DISK;
}

pen_limit pen_stages_limit_of_batch(pen_metric waits_for)
{
    switch (waits_for) {
    case PEN_METRIC_COUNT:
        return PEN_LIMIT_WORKER;
    case PEN_METRIC_WORKER_TURN:
        return PEN_LIMIT_ORDER;
    default:
        return PEN_LIMIT_TARGET;
    }
}

const char *pen_limit_word(pen_limit limit)
{
    static const char *const words[] = {
        [PEN_LIMIT_SOURCE] = "source",
        [PEN_LIMIT_READER] = "reader",
        [PEN_LIMIT_DISK] = "disk",
        [PEN_LIMIT_MEMORY] = "memory",
        [PEN_LIMIT_DISPATCHER] = "dispatcher",
        [PEN_LIMIT_TARGET] = "target",
        [PEN_LIMIT_ORDER] = "order",
        [PEN_LIMIT_WORKER] = "worker",
    };
    return words[limit];
}

const char *pen_limit_words(pen_limit limit)
{
    static const char *const words[] = {
        [PEN_LIMIT_SOURCE] = "the source, which sent no more",
        [PEN_LIMIT_READER] = "the reader, which receives and decodes",
        [PEN_LIMIT_DISK] = "the disk with the spool",
        [PEN_LIMIT_MEMORY] = "the memory (see --memory)",
        [PEN_LIMIT_DISPATCHER] = "the dispatchers (see --dispatchers)",
        [PEN_LIMIT_TARGET] = "the target, which was waited for (see --workers)",
        [PEN_LIMIT_ORDER] = "the order of commits: changes waited for earlier ones",
        [PEN_LIMIT_WORKER] = "the workers, which build the statements (see --workers)",
    };
    return words[limit];
}

bool pen_stages_describe(const uint64_t sums[PEN_METRIC_COUNT], unsigned number,
                         char text[PEN_STAGE_TEXT_SIZE])
{
    const stage *it = &stages[number];
    double whole = (double)sums[it->time];
    if (sums[it->time] == 0) {
        return false;
    }
    int used = snprintf(text, PEN_STAGE_TEXT_SIZE, "%s: busy %.0f %%", it->name,
                        100 * (double)busy_of(sums, it) / whole);
    for (size_t i = 0; i < it->wait_count; i++) {
        double percent = 100 * (double)sums[it->waits[i].metric] / whole;
        if (percent >= LEAST_PERCENT) {
            used += snprintf(text + used, PEN_STAGE_TEXT_SIZE - (size_t)used, ", %s %.0f %%",
                             it->waits[i].words, percent);
        }
    }
    return true;
}

const char *pen_stages_wait(pen_metric metric)
{
    switch (metric) {
    case PEN_METRIC_READER_SOURCE:
        return "waits for the source";
    case PEN_METRIC_READER_PACED:
        return "lets the source go ahead";
    case PEN_METRIC_READER_MEMORY:
        return "waits for memory";
    case PEN_METRIC_READER_ROOM:
        return "waits for a dispatcher";
    case PEN_METRIC_READER_EAGER:
        return "waits for the eager worker";
    case PEN_METRIC_READER_DISK:
        return "waits for the spool's disk";
    case PEN_METRIC_DISPATCHER_INPUT:
        return "waits for transactions";
    case PEN_METRIC_DISPATCHER_BATON:
        return "waits for its turn";
    case PEN_METRIC_DISPATCHER_ROOM:
        return "waits for a worker";
    case PEN_METRIC_WORKER_INPUT:
        return "waits for a batch";
    case PEN_METRIC_EAGER_INPUT:
        return "waits for changes";
    case PEN_METRIC_WORKER_TURN:
    case PEN_METRIC_EAGER_TURN:
        return "waits for earlier batches";
    case PEN_METRIC_WORKER_SERVER:
    case PEN_METRIC_EAGER_SERVER:
        return "waits for the target";
    case PEN_METRIC_WORKER_PAUSE:
        return "waits to try again";
    default:
        return "waits";
    }
}
