/* Steps of one thread with those of another in every place between them: the other's are played
 * before any primitive of the protocol, and while the thread sleeps. The source is the product's
 * own, compiled with a hook. */
#include "apply/handover.h"
#include "core/metrics.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void step(void);
static int sleep_now(pen_parker *parker);

#define pen_cell_read(cell)            (step(), pen_cell_read(cell))
#define pen_cell_publish(cell, value)  (step(), pen_cell_publish(cell, value))
#define pen_cell_exchange(cell, value) (step(), pen_cell_exchange(cell, value))
#define pen_place_put(place, item)     (step(), pen_place_put(place, item))
#define pen_place_take(place)          (step(), pen_place_take(place))
#define pen_place_is_empty(place)      (step(), pen_place_is_empty(place))
#define pen_flag_raise(flag)           (step(), pen_flag_raise(flag))
#define pen_flag_lower(flag)           (step(), pen_flag_lower(flag))
#define pen_idle_add(set, member)      (step(), pen_idle_add(set, member))
#define pen_idle_remove(set, member)   (step(), pen_idle_remove(set, member))
#define pen_idle_pick(set, count)      (step(), pen_idle_pick(set, count))
#define pen_idle_is_full(set, count)   (step(), pen_idle_is_full(set, count))
#define pen_parker_prepare(parker)     (step(), pen_parker_prepare(parker))
#define pen_parker_cancel(parker)      (step(), pen_parker_cancel(parker))
#define pen_parker_wake(parker)        (step(), pen_parker_wake(parker))
#define pen_meter_park(wait, parker, fd, events, timeout_ms)                                       \
    ((void)(wait), (void)(fd), (void)(events), (void)(timeout_ms), sleep_now(parker))

#include "apply/handover.c"

#undef pen_idle_add
#undef pen_parker_prepare
#undef pen_meter_park
#undef pen_place_is_empty
#undef pen_place_take
#undef pen_flag_lower
#undef pen_parker_wake

enum { EVENTS_MAX = 4, STEPS_MAX = 14 };

static pen_handover handover;
static pen_parker dispatcher;
static pen_parker parkers[2];
static pen_cell stop;
static pen_batch batches[8];

static void (*events[EVENTS_MAX])(void);
static unsigned places[EVENTS_MAX]; /* an event comes before this step, or while asleep */
static size_t event_count;
static size_t next_event;
static unsigned steps;
static bool playing;
static bool slept_for_ever;
static bool slept_beside_batch;
static uint64_t next_offered;

static void play(void)
{
    playing = true;
    events[next_event++]();
    playing = false;
}

static void step(void)
{
    if (playing) {
        return;
    }
    while (next_event < event_count && places[next_event] <= steps) {
        play();
    }
    steps++;
}

static int sleep_now(pen_parker *parker)
{
    int happened = pen_parker_park(parker, -1, 0, 0);
    while (happened == 0 && next_event < event_count) {
        play();
        happened = pen_parker_park(parker, -1, 0, 0);
    }
    if (happened == 0) {
        slept_for_ever = true;
        slept_beside_batch = !pen_place_is_empty(&handover.open);
        playing = true; /* the rest is to end the test */
        pen_cell_publish(&stop, 1);
        playing = false;
    }
    return happened;
}

static void set_up(void)
{
    pen_error err;
    cr_assert(pen_parker_init(&dispatcher, &err));
    cr_assert(pen_parker_init(&parkers[0], &err));
    cr_assert(pen_parker_init(&parkers[1], &err));
}

static void tear_down(void)
{
    pen_parker_deinit(&dispatcher);
    pen_parker_deinit(&parkers[0]);
    pen_parker_deinit(&parkers[1]);
}

TestSuite(handover, .init = set_up, .fini = tear_down, .timeout = 60);

static void begin(void)
{
    playing = true;
    tear_down();
    set_up();
    pen_cell_init(&stop, 0);
    pen_handover_init(&handover, 2, &dispatcher, &stop, 1);
    pen_handover_add_worker(&handover, 0, &parkers[0]);
    pen_handover_add_worker(&handover, 1, &parkers[1]);
    for (size_t i = 0; i < PEN_COUNTOF(batches); i++) {
        batches[i].number = i;
    }
    next_offered = 1;
    next_event = 0;
    steps = 0;
    slept_for_ever = false;
    slept_beside_batch = false;
    playing = false;
}

/* Gives the events their next places, never one before another; false behind the last. */
static bool next_places(void)
{
    for (size_t i = event_count; i-- > 0;) {
        if (places[i] < STEPS_MAX) {
            unsigned place = places[i] + 1;
            for (size_t later = i; later < event_count; later++) {
                places[later] = place;
            }
            return true;
        }
    }
    return false;
}

static void set_events(size_t count, void (*const script[])(void))
{
    event_count = count;
    for (size_t i = 0; i < count; i++) {
        events[i] = script[i];
        places[i] = 0;
    }
}

static void offer_next(void)
{
    pen_handover_offer(&handover, &batches[next_offered++]);
}

/* As when a transaction is added to the open batch. */
static void take_back(void)
{
    pen_batch *batch = pen_handover_take_back(&handover);
    next_offered = batch == NULL ? next_offered : batch->number;
}

/* Offers what was taken back, or the next one. */
static void offer_when_empty(void)
{
    if (pen_place_is_empty(&handover.open)) {
        offer_next();
    }
}

static void offer_next_to_busy(void)
{
    pen_handover_offer_to_busy(&handover, &batches[next_offered++]);
}

static void offer_to_busy_when_empty(void)
{
    if (pen_place_is_empty(&handover.open)) {
        offer_next_to_busy();
    }
}

static void other_takes(void)
{
    (void)pen_place_take(&handover.open);
}

static void other_falls_asleep(void)
{
    pen_parker_prepare(&parkers[1]);
    pen_idle_add(&handover.idle, 1);
}

static void hold_next(void)
{
    pen_handover_hold(&handover, &batches[next_offered++]);
}

static void offer_held(void)
{
    pen_handover_offer_held(&handover);
}

/* Holds what it takes back, or the next one. */
static void hold_what_is_open(void)
{
    take_back();
    hold_next();
}

static void end(void)
{
    pen_handover_end(&handover);
}

static bool was_woken(pen_parker *parker)
{
    return (pen_parker_park(parker, -1, 0, 0) & PEN_PARK_WOKEN) != 0;
}

/* Worker 0 takes, while the events come in their places; those that are left come behind it. */
static pen_batch *take_between_events(bool other_sleeps)
{
    begin();
    if (other_sleeps) {
        other_falls_asleep();
    }
    pen_batch *batch = pen_handover_take(&handover, 0);
    while (next_event < event_count) {
        play();
    }
    return batch;
}

/* Worker 0 takes, in every place between the events: it never sleeps while a batch lies in the
 * place, and what lies there when it has got another is told to worker 1 if that sleeps. */
static void check_take(bool other_sleeps)
{
    size_t cases = 0;
    do {
        pen_batch *batch = take_between_events(other_sleeps);
        bool lies = !pen_place_is_empty(&handover.open);
        cr_assert_not(slept_beside_batch, "asleep beside a batch: events at %u %u %u", places[0],
                      places[1], places[2]);
        cr_assert_not(batch == NULL && lies, "a batch is left: events at %u %u %u", places[0],
                      places[1], places[2]);
        cr_assert_not(lies && other_sleeps && !was_woken(&parkers[1]),
                      "the other was not woken: events at %u %u %u", places[0], places[1],
                      places[2]);
        cases++;
    } while (next_places());
    cr_assert_gt(cases, STEPS_MAX);
}

Test(handover, a_batch_offered_at_any_moment_is_taken)
{
    void (*const script[])(void) = {offer_next};
    set_events(1, script);
    check_take(false);
}

Test(handover, a_batch_taken_back_and_offered_again_is_taken)
{
    void (*const script[])(void) = {offer_next, take_back, offer_when_empty};
    set_events(3, script);
    check_take(false);
    set_events(3, script);
    check_take(true);
}

Test(handover, a_batch_after_one_that_the_other_took_is_taken)
{
    void (*const script[])(void) = {offer_next, other_takes, offer_when_empty};
    set_events(3, script);
    check_take(false);
}

Test(handover, a_batch_that_was_held_at_any_moment_is_taken)
{
    void (*const script[])(void) = {hold_next, offer_held};
    set_events(2, script);
    check_take(false);
    set_events(2, script);
    check_take(true);
    /* Offered first, and taken back to be held; or a worker is faster. */
    void (*const offered[])(void) = {offer_next, hold_what_is_open, offer_held};
    set_events(3, offered);
    check_take(false);
    set_events(3, offered);
    check_take(true);
    void (*const ended[])(void) = {hold_next, end};
    set_events(2, ended);
    check_take(false);
}

Test(handover, a_held_batch_is_out_of_reach)
{
    begin();
    playing = true;
    pen_handover_offer_held(&handover); /* there is none */
    cr_assert_null(pen_handover_take_back(&handover));
    pen_handover_hold(&handover, &batches[1]);
    cr_assert(pen_place_is_empty(&handover.open));
    cr_assert_eq(pen_handover_take_back(&handover), &batches[1]);
    cr_assert_null(pen_handover_take_back(&handover));
    pen_handover_hold(&handover, &batches[1]);
    pen_handover_offer_held(&handover);
    cr_assert_eq(pen_handover_take(&handover, 0), &batches[1]);
    pen_handover_hold(&handover, &batches[2]);
    pen_handover_end(&handover);
    cr_assert_eq(pen_handover_take(&handover, 1), &batches[2]);
    cr_assert_null(pen_handover_take(&handover, 0));
    /* After a stop nobody takes it. */
    pen_handover_hold(&handover, &batches[3]);
    cr_assert_eq(pen_handover_leftover(&handover), &batches[3]);
    cr_assert_null(pen_handover_leftover(&handover));
    playing = false;
}

/* Worker 0 takes, and looks again when it is done, the other one sleeps or is at work: nobody
 * sleeps beside a batch that nobody will look for. */
static void check_take_by_busy(bool other_sleeps)
{
    size_t cases = 0;
    do {
        pen_batch *batch = take_between_events(other_sleeps);
        cr_assert_not(other_sleeps && slept_beside_batch, "all asleep beside a batch: %u %u %u",
                      places[0], places[1], places[2]);
        if (!pen_place_is_empty(&handover.open)) {
            cr_assert(batch != NULL || !other_sleeps, "nobody looks for it: events at %u %u %u",
                      places[0], places[1], places[2]);
            pen_cell_init(&stop, 0);
            cr_assert_not_null(pen_handover_take(&handover, other_sleeps ? 0 : 1));
        }
        cases++;
    } while (next_places());
    cr_assert_gt(cases, STEPS_MAX);
}

Test(handover, a_batch_that_is_for_who_is_at_work_is_taken)
{
    void (*const script[])(void) = {offer_next_to_busy};
    void (*const again[])(void) = {offer_next_to_busy, take_back, offer_to_busy_when_empty};
    for (int other_sleeps = 0; other_sleeps < 2; other_sleeps++) {
        set_events(1, script);
        check_take_by_busy(other_sleeps);
        set_events(3, again);
        check_take_by_busy(other_sleeps);
    }
}

Test(handover, who_sleeps_is_left_asleep_while_another_one_is_at_work)
{
    begin();
    playing = true;
    other_falls_asleep();
    pen_handover_offer_to_busy(&handover, &batches[1]);
    cr_assert_not(was_woken(&parkers[1]));
    cr_assert_eq(pen_handover_take(&handover, 0), &batches[1]);
    cr_assert_not(was_woken(&parkers[1]));
    /* It is not long at work any more, or the stream is dry. */
    pen_handover_offer_to_busy(&handover, &batches[2]);
    pen_handover_offer_held(&handover);
    cr_assert(was_woken(&parkers[1]));
    cr_assert_eq(pen_handover_take_back(&handover), &batches[2]);
    /* None is at work: the first one is woken, and no more. */
    other_falls_asleep();
    pen_parker_prepare(&parkers[0]);
    pen_idle_add(&handover.idle, 0);
    pen_handover_offer_to_busy(&handover, &batches[2]);
    cr_assert(was_woken(&parkers[0]));
    cr_assert_not(was_woken(&parkers[1]));
    playing = false;
}

Test(handover, the_batch_after_ours_finds_the_other)
{
    void (*const script[])(void) = {offer_next, other_falls_asleep, offer_when_empty};
    set_events(3, script);
    /* The other joins at any moment; before it has, it will look for itself. */
    size_t cases = 0;
    do {
        begin();
        pen_batch *batch = pen_handover_take(&handover, 0);
        cr_assert_eq(batch, &batches[1]);
        bool joined = next_event >= 2;
        bool second = next_event >= 3 && !pen_place_is_empty(&handover.open);
        if (joined && second) {
            cases++;
            cr_assert(was_woken(&parkers[1]), "not woken: events at %u %u %u", places[0], places[1],
                      places[2]);
        }
    } while (next_places());
    cr_assert_gt(cases, 0);
}

Test(handover, the_end_at_any_moment_is_seen)
{
    void (*const script[])(void) = {offer_next, end};
    set_events(2, script);
    do {
        begin();
        cr_assert_eq(pen_handover_take(&handover, 0), &batches[1]);
        while (next_event < event_count) {
            play();
        }
        cr_assert_null(pen_handover_take(&handover, 0));
        cr_assert_not(slept_for_ever);
    } while (next_places());
    void (*const at_once[])(void) = {end};
    set_events(1, at_once);
    do {
        begin();
        cr_assert_null(pen_handover_take(&handover, 0));
        cr_assert_not(slept_for_ever, "the end came at %u", places[0]);
    } while (next_places());
}

/* What a worker does after it has taken a batch, by itself: it may come late. */
static void other_says_so(void)
{
    if (pen_flag_lower(&handover.wants_room)) {
        pen_parker_wake(&dispatcher);
    }
}

Test(handover, room_is_seen_however_late_the_takers_say_so)
{
    /* The one before was taken already; its taker says so at any moment. */
    void (*const script[])(void) = {other_says_so, other_takes, other_says_so};
    set_events(3, script);
    size_t cases = 0;
    do {
        begin();
        playing = true;
        pen_handover_offer(&handover, &batches[2]);
        playing = false;
        bool room = pen_handover_wait_for_room(&handover);
        cr_assert(room && !slept_for_ever, "no room seen: events at %u %u %u", places[0], places[1],
                  places[2]);
        cases++;
    } while (next_places());
    cr_assert_gt(cases, STEPS_MAX);
}

static void commit_next(void)
{
    cr_assert_null(pen_handover_commit(&handover, 1, pen_handover_committed(&handover) + 1));
}

static pen_batch *got; /* by a commit */

static void commit_and_get(void)
{
    pen_batch *batch = pen_handover_commit(&handover, 1, pen_handover_committed(&handover) + 1);
    got = batch != NULL ? batch : got;
}

static void follow_next(void)
{
    pen_handover_follow(&handover, &batches[next_offered++]);
}

/* As when a transaction is added to the open batch: another batch when that was taken. */
static void follow_what_is_open(void)
{
    take_back();
    follow_next();
}

/* Batch 2 was left to the commit of batch 1: it is whoever's that commits, or else lies where
 * worker 0 finds it, who sleeps and was woken. */
static void check_followed(uint64_t newest)
{
    bool lies = !pen_place_is_empty(&handover.open);
    cr_assert_not(slept_for_ever);
    cr_assert(got != NULL || lies, "nobody has it: events at %u %u", places[0], places[1]);
    cr_assert_not(lies && !was_woken(&parkers[0]), "nobody was woken: events at %u %u", places[0],
                  places[1]);
    cr_assert(got == NULL || got->number == 2);
    cr_assert_eq(got != NULL, pen_handover_holding(&handover, 1) == 2);
    /* What comes behind a batch that was taken waits for that one's commit. */
    bool follows = !pen_place_is_empty(&handover.following);
    cr_assert_eq(follows, got != NULL && newest == 3);
    cr_assert_neq(lies, got != NULL);
    if (follows) {
        commit_and_get();
        cr_assert_eq(got->number, 3);
        cr_assert(pen_place_is_empty(&handover.following));
    }
}

static void begin_with_sleeper(void)
{
    begin();
    got = NULL;
    next_offered = 2;
    pen_parker_prepare(&parkers[0]);
    pen_idle_add(&handover.idle, 0);
}

Test(handover, a_batch_that_follows_at_any_moment_is_taken)
{
    void (*const script[])(void) = {commit_and_get};
    set_events(1, script);
    size_t got_count = 0;
    size_t cases = 0;
    do {
        begin_with_sleeper();
        follow_next();
        while (next_event < event_count) {
            play();
        }
        check_followed(2);
        got_count += got != NULL;
        cases++;
    } while (next_places());
    cr_assert(got_count > 0 && got_count < cases, "%zu of %zu", got_count, cases);
}

Test(handover, a_commit_meets_a_batch_that_follows_or_is_taken_back)
{
    void (*const script[])(void) = {follow_next, follow_what_is_open};
    set_events(2, script);
    size_t got_count = 0;
    size_t cases = 0;
    do {
        begin_with_sleeper();
        commit_and_get();
        while (next_event < event_count) {
            play();
        }
        check_followed(next_offered - 1);
        got_count += got != NULL;
        cases++;
    } while (next_places());
    cr_assert(got_count > 0 && got_count < cases, "%zu of %zu", got_count, cases);
}

Test(handover, a_batch_that_follows_is_out_of_reach_but_not_lost)
{
    begin();
    playing = true;
    cr_assert_null(pen_handover_commit(&handover, 0, 1));
    pen_handover_follow(&handover, &batches[3]);
    cr_assert(pen_place_is_empty(&handover.open));
    cr_assert_eq(pen_handover_take_back(&handover), &batches[3]);
    cr_assert_null(pen_handover_take_back(&handover));
    pen_handover_follow(&handover, &batches[3]);
    cr_assert_eq(pen_handover_leftover(&handover), &batches[3]);
    /* Taken back to be offered, it is forgotten as one that follows: the commit before it must not
     * look for it, because by then that may be the next one. */
    pen_handover_follow(&handover, &batches[3]);
    pen_handover_offer(&handover, pen_handover_take_back(&handover));
    cr_assert_eq(pen_handover_take(&handover, 1), &batches[3]);
    pen_handover_follow(&handover, &batches[4]);
    cr_assert_null(pen_handover_commit(&handover, 0, 2));
    cr_assert_eq(pen_handover_commit(&handover, 1, 3), &batches[4]);
    /* The end does not wait for the commit. */
    pen_handover_follow(&handover, &batches[5]);
    pen_handover_end(&handover);
    cr_assert_eq(pen_handover_take(&handover, 1), &batches[5]);
    cr_assert_null(pen_handover_commit(&handover, 0, 4));
    cr_assert_null(pen_handover_take(&handover, 0));
}

Test(handover, the_turn_comes_whenever_the_others_commit)
{
    void (*const script[])(void) = {commit_next, commit_next, commit_next};
    set_events(3, script);
    do {
        begin();
        cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 4, true), PEN_TURN_COME);
        cr_assert_not(slept_for_ever, "events at %u %u %u", places[0], places[1], places[2]);
        cr_assert_eq(pen_handover_committed(&handover), 3);
    } while (next_places());
}

Test(handover, an_earlier_batch_commits_at_any_moment)
{
    void (*const script[])(void) = {commit_next, commit_next};
    set_events(2, script);
    do {
        begin();
        cr_assert_eq(pen_handover_wait_for_batch(&handover, 0, 4, 1), PEN_TURN_COME);
        cr_assert_not(slept_for_ever, "events at %u %u", places[0], places[1]);
        cr_assert_geq(pen_handover_committed(&handover), 1);
        cr_assert_eq(pen_handover_wait_for_batch(&handover, 0, 4, 2), PEN_TURN_COME);
        cr_assert_not(slept_for_ever, "events at %u %u", places[0], places[1]);
        cr_assert_eq(pen_handover_committed(&handover), 2);
        /* What has committed already is not waited for. */
        cr_assert_eq(pen_handover_wait_for_batch(&handover, 0, 4, 1), PEN_TURN_COME);
    } while (next_places());
}

static void let_this_go(void)
{
    pen_handover_let_go(&handover, 0, 3);
}

static void let_another_go(void)
{
    pen_handover_let_go(&handover, 0, 2);
    commit_next();
    commit_next();
}

Test(handover, who_has_locks_is_told_to_let_go_at_any_moment)
{
    void (*const script[])(void) = {let_this_go};
    void (*const late_script[])(void) = {let_another_go};
    void (*const both[])(void) = {let_this_go, commit_next, commit_next};
    set_events(1, script);
    do {
        begin();
        cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 3, true), PEN_TURN_LET_GO);
        cr_assert_not(slept_for_ever, "told at %u", places[0]);
        begin();
        cr_assert_eq(pen_handover_wait_for_batch(&handover, 0, 3, 1), PEN_TURN_LET_GO);
        cr_assert_not(slept_for_ever, "told at %u", places[0]);
    } while (next_places());
    /* What was meant for a batch that it had before is nothing. */
    set_events(1, late_script);
    do {
        begin();
        cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 3, true), PEN_TURN_COME);
        cr_assert_not(slept_for_ever);
    } while (next_places());
    /* Without locks it waits on; and once the turn has come there is nothing to let go. */
    set_events(3, both);
    do {
        begin();
        cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 3, false), PEN_TURN_COME);
        cr_assert_not(slept_for_ever);
        begin();
        if (pen_handover_wait_for_turn(&handover, 0, 3, true) == PEN_TURN_LET_GO) {
            cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 3, false), PEN_TURN_COME);
        }
        cr_assert_not(slept_for_ever);
    } while (next_places());
}

Test(handover, it_is_known_who_holds_which_batch)
{
    begin();
    playing = true;
    cr_assert_eq(pen_handover_holding(&handover, 1), 0);
    pen_handover_offer(&handover, &batches[4]);
    uint64_t number = batches[4].number;
    cr_assert_eq(pen_handover_take(&handover, 1), &batches[4]);
    cr_assert_eq(pen_handover_holding(&handover, 1), number);
    cr_assert_eq(pen_handover_holding(&handover, 0), 0);
    playing = false;
}

static void stop_all(void)
{
    pen_cell_publish(&stop, 1);
    pen_parker_wake(&dispatcher);
    pen_handover_wake_workers(&handover);
}

Test(handover, a_stop_at_any_moment_ends_each_wait)
{
    void (*const script[])(void) = {stop_all};
    set_events(1, script);
    do {
        begin();
        cr_assert_null(pen_handover_take(&handover, 0));
        cr_assert_not(slept_for_ever);
        begin();
        cr_assert_eq(pen_handover_wait_for_turn(&handover, 0, 2, true), PEN_TURN_STOPPED);
        cr_assert_not(slept_for_ever);
        begin();
        cr_assert_eq(pen_handover_wait_for_batch(&handover, 0, 3, 1), PEN_TURN_STOPPED);
        cr_assert_not(slept_for_ever);
        begin();
        playing = true;
        pen_handover_offer(&handover, &batches[1]);
        playing = false;
        cr_assert_not(pen_handover_wait_for_room(&handover));
        cr_assert_not(slept_for_ever);
        cr_assert_eq(pen_handover_leftover(&handover), &batches[1]);
    } while (next_places());
}

Test(handover, holders_share_a_place_only_when_far_apart)
{
    begin();
    for (uint64_t number = 1; number <= 3 * PEN_HOLDERS; number++) {
        /* Now this one has waited for its turn, now that one; the next to wait is found. */
        unsigned holder = (unsigned)(number % 2);
        cr_assert_eq(pen_handover_wait_for_turn(&handover, holder, number, true), PEN_TURN_COME);
        cr_assert_null(pen_handover_commit(&handover, holder, number));
    }
    cr_assert_eq(pen_handover_committed(&handover), 3 * PEN_HOLDERS);
}
