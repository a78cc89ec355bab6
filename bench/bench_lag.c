/* When is what the source committed to be seen on the target? To be asked without disturbing the
 * answer.
 *
 * Markers are transactions of their own on the source, at random (Poisson) times that nothing on
 * either server can move: such arrivals see a system as it is on average (Wolff 1982, "PASTA"),
 * also in the moments in which it stands still. The time of a marker begins with the commit time
 * that the source itself gave it (track_commit_timestamp), not when somebody asked for the INSERT.
 * It ends when a NOTIFY comes in that a trigger on the target's table raised: PostgreSQL sends
 * those right after the commit became visible to others, whoever it was that committed. A poll
 * would cost a processor for the same precision; pg_xact_commit_timestamp() on the target would
 * cost nothing, but gives the source's time back where native replication applied. What the
 * notification itself takes is measured by giving the target as the source, too. Both servers and
 * this program must share one machine, and so one clock.
 *
 * Of the target's session no more is used after LISTEN than its socket, because io/pgconn has no
 * notifications: penstock needs none. So that connection must be one without encryption. */
#include "bench/bench_lag.h"

#include "core/base.h"
#include "io/pgconn.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SENDERS = 4, HEARD_BYTES = 64 * 1024, HEADER = 5, ID_TEXT = 24 };

typedef struct marker {
    int64_t planned_us; /* all of them microseconds of the wall clock */
    int64_t sent_us;
    int64_t committed_us;
    int64_t seen_us; /* 0: not yet */
} marker;

typedef struct sender {
    pen_pgconn *conn;
    bool busy;
} sender;

typedef struct lag_run {
    const char *source;
    const char *target;
    const char *file;
    double rate;    /* markers a second */
    double seconds; /* of sending */
    double wait;    /* seconds behind that for what is still under way */
    int64_t first;  /* the first marker's id */
    uint64_t seed;

    sender senders[SENDERS];
    pen_pgconn *listener;
    uint8_t heard[HEARD_BYTES];
    size_t heard_bytes;
    marker *markers;
    size_t count; /* planned */
    size_t sent;
    size_t seen;
    pen_error err;
} lag_run;

static int64_t clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t wall_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

/* How far the wall clock stands from the monotonic one; of several looks the one that was
 * interrupted least. */
static int64_t wall_offset_us(void)
{
    int64_t best_us = INT64_MAX;
    int64_t offset_us = 0;
    for (size_t i = 0; i < 20; i++) {
        int64_t before_us = clock_us(CLOCK_MONOTONIC);
        int64_t now_us = wall_us();
        int64_t took_us = clock_us(CLOCK_MONOTONIC) - before_us;
        if (took_us < best_us) {
            best_us = took_us;
            offset_us = now_us - before_us;
        }
    }
    return offset_us;
}

/* xorshift64* (Vigna 2016), as a number in (0, 1]. */
static double next_uniform(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return ((double)((*state * UINT64_C(0x2545F4914F6CDD1D)) >> 11) + 1.0) / 9007199254740992.0;
}

/* All times are drawn before the first is sent. */
static void plan(lag_run *run, int64_t begin_us)
{
    size_t room = 64;
    double at = 0;
    run->markers = pen_calloc(room, sizeof(*run->markers));
    for (;;) {
        at += -log(next_uniform(&run->seed)) / run->rate;
        if (at >= run->seconds) {
            return;
        }
        if (run->count == room) {
            marker *more = pen_calloc(room * 2, sizeof(*more));
            memcpy(more, run->markers, room * sizeof(*more));
            free(run->markers);
            run->markers = more;
            room *= 2;
        }
        run->markers[run->count++].planned_us = begin_us + (int64_t)(at * 1e6);
    }
}

/* ---- the source */

static bool open_sender(lag_run *run, sender *to)
{
    pen_pgconn_options options = {
        .conninfo = run->source, .side = "source", .application_name = "penstock-bench marker"};
    pen_pgresult *res = NULL;
    bool ok = pen_pgconn_open(&options, &to->conn, &run->err) &&
              pen_pgconn_enter_pipeline(to->conn, &run->err) &&
              pen_pgconn_send_prepare(to->conn, "marker", "INSERT INTO bench_marker VALUES ($1)", 0,
                                      NULL, &run->err) &&
              pen_pgconn_send_sync(to->conn, &run->err);
    while (ok) {
        pen_result_status status = PEN_RESULT_OK;
        if ((res = pen_pgconn_next(to->conn)) == NULL) {
            continue;
        }
        status = pen_pgresult_status(res);
        if (status == PEN_RESULT_ERROR) {
            ok = pen_pgresult_error(res, "prepare the marker", &run->err);
        }
        pen_pgresult_clear(res);
        if (status == PEN_RESULT_SYNC) {
            break;
        }
    }
    return ok && pen_pgconn_set_nonblocking(to->conn, &run->err);
}

static bool send_marker(lag_run *run, sender *by)
{
    char id[ID_TEXT];
    const char *values[] = {id};
    bool pending = false;
    snprintf(id, sizeof(id), "%" PRId64, run->first + (int64_t)run->sent);
    run->markers[run->sent++].sent_us = wall_us();
    by->busy = true;
    return pen_pgconn_send_execute(by->conn, "marker", 1, values, NULL, NULL, &run->err) &&
           pen_pgconn_send_sync(by->conn, &run->err) &&
           pen_pgconn_flush(by->conn, &pending, &run->err);
}

static bool take_answers(lag_run *run, sender *of)
{
    if (!pen_pgconn_consume(of->conn, &run->err)) {
        return false;
    }
    while (of->busy && !pen_pgconn_busy(of->conn)) {
        pen_pgresult *res = pen_pgconn_next(of->conn);
        if (res == NULL) {
            continue;
        }
        pen_result_status status = pen_pgresult_status(res);
        bool failed = status == PEN_RESULT_ERROR;
        if (failed) {
            (void)pen_pgresult_error(res, "insert a marker", &run->err);
        }
        pen_pgresult_clear(res);
        if (failed) {
            return false;
        }
        of->busy = status != PEN_RESULT_SYNC;
    }
    return true;
}

/* Sends what is due; one that finds every session busy goes as soon as one is free, and the file
 * tells. */
static bool send_due(lag_run *run)
{
    int64_t now_us = wall_us();
    for (size_t i = 0; i < SENDERS; i++) {
        if (run->sent == run->count || run->markers[run->sent].planned_us > now_us) {
            return true;
        }
        if (!run->senders[i].busy && !send_marker(run, &run->senders[i])) {
            return false;
        }
    }
    return true;
}

/* ---- the target */

static uint32_t read_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* NotificationResponse: the notifier's pid, then channel and payload, each with a NUL behind it
 * (PostgreSQL's documentation, "Message Formats"). */
static void take_notification(lag_run *run, const uint8_t *body, size_t size, int64_t now_us)
{
    const uint8_t *channel = body + 4;
    const uint8_t *channel_end = size > 4 ? memchr(channel, 0, size - 4) : NULL;
    if (channel_end == NULL ||
        memchr(channel_end + 1, 0, (size_t)(body + size - channel_end - 1)) == NULL) {
        return;
    }
    int64_t index = strtoll((const char *)channel_end + 1, NULL, 10) - run->first;
    if (index >= 0 && (uint64_t)index < run->count && run->markers[index].seen_us == 0) {
        run->markers[index].seen_us = now_us;
        run->seen++;
    }
}

static bool listen_failed(lag_run *run, const char *what)
{
    return pen_error_set(&run->err, PEN_ERROR_FATAL, "listening on the target: %s", what);
}

static bool hear(lag_run *run)
{
    ssize_t got = read(pen_pgconn_socket(run->listener), run->heard + run->heard_bytes,
                       sizeof(run->heard) - run->heard_bytes);
    int64_t now_us = wall_us();
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (got <= 0) {
        return listen_failed(run, got == 0 ? "the server closed the connection" : strerror(errno));
    }
    run->heard_bytes += (size_t)got;
    size_t used = 0;
    while (run->heard_bytes - used >= HEADER) {
        const uint8_t *message = run->heard + used;
        uint32_t size = read_be32(message + 1); /* of itself and the body */
        if (size < 4 || size >= sizeof(run->heard)) {
            return listen_failed(run, "what came is no message of PostgreSQL's");
        }
        if (run->heard_bytes - used < 1 + (size_t)size) {
            break;
        }
        if (message[0] == 'A') {
            take_notification(run, message + HEADER, size - 4, now_us);
        } else if (message[0] == 'E') {
            return listen_failed(run, "the server ended the session");
        }
        used += 1 + (size_t)size;
    }
    memmove(run->heard, run->heard + used, run->heard_bytes - used);
    run->heard_bytes -= used;
    return true;
}

static bool open_listener(lag_run *run)
{
    pen_pgconn_options options = {
        .conninfo = run->target, .side = "target", .application_name = "penstock-bench listener"};
    return pen_pgconn_open(&options, &run->listener, &run->err) &&
           pen_pgconn_exec(run->listener, "listen", "LISTEN bench_marker", 0, NULL, NULL,
                           &run->err);
}

/* ---- the run */

static bool answers_missing(const lag_run *run)
{
    for (size_t i = 0; i < SENDERS; i++) {
        if (run->senders[i].busy) {
            return true;
        }
    }
    return false;
}

static bool wait_for_something(lag_run *run, int64_t until_us)
{
    struct pollfd fds[SENDERS + 1];
    struct timespec timeout = {0};
    int64_t left_us = until_us - wall_us();
    if (left_us > 0) {
        timeout =
            (struct timespec){.tv_sec = left_us / 1000000, .tv_nsec = left_us % 1000000 * 1000};
    }
    for (size_t i = 0; i < SENDERS; i++) {
        fds[i] = (struct pollfd){.fd = pen_pgconn_socket(run->senders[i].conn), .events = POLLIN};
    }
    fds[SENDERS] = (struct pollfd){.fd = pen_pgconn_socket(run->listener), .events = POLLIN};
    if (ppoll(fds, SENDERS + 1, &timeout, NULL) < 0 && errno != EINTR) {
        return pen_error_set(&run->err, PEN_ERROR_FATAL, "cannot wait: %s", strerror(errno));
    }
    if (fds[SENDERS].revents != 0 && !hear(run)) {
        return false;
    }
    for (size_t i = 0; i < SENDERS; i++) {
        if (fds[i].revents != 0 && !take_answers(run, &run->senders[i])) {
            return false;
        }
    }
    return true;
}

static bool drive(lag_run *run)
{
    int64_t begin_us = wall_us();
    plan(run, begin_us);
    int64_t end_us = begin_us + (int64_t)((run->seconds + run->wait) * 1e6);
    while (run->seen < run->count || answers_missing(run)) {
        if (!send_due(run)) {
            return false;
        }
        int64_t until_us = end_us;
        if (run->sent < run->count && run->markers[run->sent].planned_us < end_us) {
            until_us = run->markers[run->sent].planned_us;
        }
        if (wall_us() >= end_us) {
            break;
        }
        /* One that is due already waits for a session, not for the clock. */
        if (until_us <= wall_us() && answers_missing(run)) {
            until_us = end_us;
        }
        if (!wait_for_something(run, until_us)) {
            return false;
        }
    }
    return true;
}

/* The source's own times of the commits. */
static bool read_commit_times(lag_run *run)
{
    pen_pgconn_options options = {
        .conninfo = run->source, .side = "source", .application_name = "penstock-bench times"};
    pen_pgconn *conn = NULL;
    pen_pgresult *res = NULL;
    char first[ID_TEXT];
    char last[ID_TEXT];
    const char *values[] = {first, last};
    snprintf(first, sizeof(first), "%" PRId64, run->first);
    snprintf(last, sizeof(last), "%" PRId64, run->first + (int64_t)run->sent - 1);
    bool ok = pen_pgconn_open(&options, &conn, &run->err) &&
              pen_pgconn_exec(conn, "read the markers' commit times",
                              "SELECT id, (extract(epoch FROM pg_xact_commit_timestamp(xmin))"
                              " * 1000000)::bigint FROM bench_marker WHERE id BETWEEN $1 AND $2",
                              2, values, &res, &run->err);
    for (int row = 0; ok && row < pen_pgresult_rows(res); row++) {
        const char *time = pen_pgresult_value(res, row, 1);
        int64_t index = strtoll(pen_pgresult_value(res, row, 0), NULL, 10) - run->first;
        if (time == NULL) {
            ok = pen_error_set(&run->err, PEN_ERROR_CONFIG,
                               "the source has no commit time of a marker: set "
                               "track_commit_timestamp there, and start it anew");
        } else if (index >= 0 && (uint64_t)index < run->count) {
            run->markers[index].committed_us = strtoll(time, NULL, 10);
        }
    }
    pen_pgresult_clear(res);
    pen_pgconn_close(conn);
    return ok;
}

static bool write_file(lag_run *run, int64_t clock_moved_us)
{
    FILE *out = fopen(run->file, "w");
    if (out == NULL) {
        return pen_error_set(&run->err, PEN_ERROR_CONFIG, "cannot write %s: %s", run->file,
                             strerror(errno));
    }
    fprintf(out, "# clock_moved_us %" PRId64 "\n# planned_us sent_us committed_us seen_us\n",
            clock_moved_us);
    for (size_t i = 0; i < run->count; i++) {
        const marker *it = &run->markers[i];
        fprintf(out, "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", it->planned_us,
                it->sent_us, it->committed_us, it->seen_us);
    }
    if (fclose(out) != 0) {
        return pen_error_set(&run->err, PEN_ERROR_CONFIG, "cannot write %s: %s", run->file,
                             strerror(errno));
    }
    return true;
}

static bool measure(lag_run *run)
{
    bool ok = open_listener(run);
    for (size_t i = 0; ok && i < SENDERS; i++) {
        ok = open_sender(run, &run->senders[i]);
    }
    /* Somebody may set the clock while it runs; then the lags are worth nothing, and the file says
     * by how much. */
    int64_t offset_us = wall_offset_us();
    ok = ok && drive(run);
    int64_t moved_us = wall_offset_us() - offset_us;
    ok = ok && read_commit_times(run) && write_file(run, moved_us);
    for (size_t i = 0; i < SENDERS; i++) {
        pen_pgconn_close(run->senders[i].conn);
    }
    pen_pgconn_close(run->listener);
    free(run->markers);
    return ok;
}

static bool number(const char *text, double min, double *value)
{
    char *end = NULL;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= min;
}

static bool read_argument(lag_run *run, const char *flag, const char *value)
{
    double read = 0;
    if (strcmp(flag, "--source") == 0) {
        run->source = value;
    } else if (strcmp(flag, "--target") == 0) {
        run->target = value;
    } else if (strcmp(flag, "--out") == 0) {
        run->file = value;
    } else if (strcmp(flag, "--rate") == 0) {
        return number(value, 0.001, &run->rate);
    } else if (strcmp(flag, "--seconds") == 0) {
        return number(value, 0.001, &run->seconds);
    } else if (strcmp(flag, "--wait") == 0) {
        return number(value, 0, &run->wait);
    } else if (strcmp(flag, "--first") == 0 && number(value, 1, &read)) {
        run->first = (int64_t)read;
    } else if (strcmp(flag, "--seed") == 0 && number(value, 1, &read)) {
        run->seed = (uint64_t)read;
    } else {
        return false;
    }
    return true;
}

int bench_lag(int argc, char **argv)
{
    static lag_run run;
    run.rate = 100;
    run.seconds = 10;
    run.wait = 30;
    run.first = 1;
    run.seed = 20260101;
    for (int i = 0; i < argc; i += 2) {
        if (i + 1 == argc || !read_argument(&run, argv[i], argv[i + 1])) {
            fprintf(
                stderr,
                "penstock-bench lag: \"%s\" is not understood, or its value is not; see --help\n",
                argv[i]);
            return 2;
        }
    }
    if (run.source == NULL || run.target == NULL || run.file == NULL) {
        fprintf(stderr,
                "penstock-bench lag: --source, --target and --out are needed; see --help\n");
        return 2;
    }
    if (!measure(&run)) {
        fprintf(stderr, "penstock-bench lag: %s\n", run.err.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
