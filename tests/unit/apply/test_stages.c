#include "apply/stages.h"

#include <criterion/criterion.h>
#include <string.h>

static uint64_t sums[PEN_METRIC_COUNT];

/* A stream of ten seconds with four workers, in which nobody waited. */
static void set_up(void)
{
    memset(sums, 0, sizeof(sums));
    sums[PEN_METRIC_READER_TIME] = 10000000;
    sums[PEN_METRIC_DISPATCHER_TIME] = 10000000;
    sums[PEN_METRIC_WORKER_TIME] = 40000000;
}

TestSuite(stages, .init = set_up);

static void wait(pen_metric metric, double seconds)
{
    sums[metric] = (uint64_t)(seconds * 1e6);
}

Test(stages, a_stream_that_keeps_up_is_limited_by_the_source)
{
    wait(PEN_METRIC_READER_SOURCE, 6);
    wait(PEN_METRIC_READER_PACED, 1);
    wait(PEN_METRIC_DISPATCHER_INPUT, 9);
    wait(PEN_METRIC_WORKER_INPUT, 30);
    wait(PEN_METRIC_WORKER_SERVER, 9);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_SOURCE);
}

/* As above, but everybody behind the reader is idle. */
static void idle_behind_reader(void)
{
    wait(PEN_METRIC_DISPATCHER_INPUT, 9);
    wait(PEN_METRIC_WORKER_INPUT, 30);
}

Test(stages, a_reader_that_waits_for_nobody_limits)
{
    idle_behind_reader();
    wait(PEN_METRIC_READER_SOURCE, 2);
    wait(PEN_METRIC_READER_ROOM, 1);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_READER);
    wait(PEN_METRIC_READER_DISK, 7);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_DISK);
    wait(PEN_METRIC_READER_DISK, 1);
    wait(PEN_METRIC_READER_MEMORY, 5);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_MEMORY);
}

Test(stages, who_has_something_to_do_most_of_the_time_limits)
{
    /* Even when all of it is in memory already, and the reader has nothing to do. */
    wait(PEN_METRIC_READER_SOURCE, 9);
    wait(PEN_METRIC_DISPATCHER_INPUT, 9);
    wait(PEN_METRIC_WORKER_INPUT, 5);
    wait(PEN_METRIC_WORKER_SERVER, 25);
    wait(PEN_METRIC_WORKER_TURN, 5);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_TARGET);
    wait(PEN_METRIC_WORKER_SERVER, 5);
    wait(PEN_METRIC_WORKER_TURN, 25);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_ORDER);
    wait(PEN_METRIC_WORKER_TURN, 5);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_WORKER);
}

Test(stages, dispatchers_limit_when_they_are_busy)
{
    wait(PEN_METRIC_READER_ROOM, 7);
    wait(PEN_METRIC_DISPATCHER_ROOM, 1);
    wait(PEN_METRIC_WORKER_INPUT, 30);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_DISPATCHER);
    /* Of several one waits for the workers, and the others for that one. */
    sums[PEN_METRIC_DISPATCHER_TIME] = 40000000;
    wait(PEN_METRIC_DISPATCHER_ROOM, 8);
    wait(PEN_METRIC_DISPATCHER_BATON, 30);
    wait(PEN_METRIC_WORKER_TURN, 9);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_ORDER);
}

Test(stages, while_the_reader_waits_for_the_eager_worker_that_limits)
{
    idle_behind_reader();
    sums[PEN_METRIC_EAGER_TIME] = 10000000;
    wait(PEN_METRIC_READER_SOURCE, 3);
    wait(PEN_METRIC_READER_EAGER, 6);
    wait(PEN_METRIC_EAGER_INPUT, 3);
    wait(PEN_METRIC_EAGER_TURN, 1);
    wait(PEN_METRIC_EAGER_SERVER, 5);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_TARGET);
    wait(PEN_METRIC_EAGER_TURN, 5);
    wait(PEN_METRIC_EAGER_SERVER, 1);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_ORDER);
    wait(PEN_METRIC_EAGER_TURN, 1);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_WORKER);
    wait(PEN_METRIC_READER_EAGER, 2);
    cr_assert_eq(pen_stages_limit(sums), PEN_LIMIT_READER);
    char text[PEN_STAGE_TEXT_SIZE];
    cr_assert(pen_stages_describe(sums, 3, text));
    cr_assert_str_eq(text, "eager worker: busy 50 %, waiting for changes 30 %, for earlier batches "
                           "10 %, for the target 10 %");
    sums[PEN_METRIC_EAGER_TIME] = 0;
    cr_assert_not(pen_stages_describe(sums, 3, text), "a stream that has none");
}

Test(stages, says_how_each_spent_its_time)
{
    char text[PEN_STAGE_TEXT_SIZE];
    wait(PEN_METRIC_READER_SOURCE, 6);
    wait(PEN_METRIC_READER_ROOM, 2.5);
    wait(PEN_METRIC_READER_DISK, 0.01);
    cr_assert(pen_stages_describe(sums, 0, text));
    cr_assert_str_eq(text, "reader: busy 15 %, waiting for the source 60 %, for a dispatcher 25 %");
    wait(PEN_METRIC_WORKER_TURN, 20);
    wait(PEN_METRIC_WORKER_SERVER, 20.1); /* read a moment later than the time */
    cr_assert(pen_stages_describe(sums, 2, text));
    cr_assert_str_eq(text, "workers: busy 0 %, for earlier batches 50 %, for the target 50 %");
    for (unsigned i = 0; i < PEN_METRIC_COUNT; i++) {
        sums[i] = UINT64_MAX / 16;
    }
    for (unsigned i = 0; i < PEN_STAGE_COUNT; i++) {
        cr_assert(pen_stages_describe(sums, i, text));
        cr_assert_lt(strlen(text), PEN_STAGE_TEXT_SIZE - 1);
    }
    memset(sums, 0, sizeof(sums));
    cr_assert_not(pen_stages_describe(sums, 1, text));
}

Test(stages, each_limit_has_its_words)
{
    for (unsigned limit = PEN_LIMIT_SOURCE; limit <= PEN_LIMIT_WORKER; limit++) {
        cr_assert_gt(strlen(pen_limit_word((pen_limit)limit)), 0);
        cr_assert_gt(strlen(pen_limit_words((pen_limit)limit)),
                     strlen(pen_limit_word((pen_limit)limit)));
    }
}
