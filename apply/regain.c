#include "apply/regain.h"

#include "apply/resume.h"
#include "apply/source.h"
#include "core/log.h"

#include <stdlib.h>
#include <unistd.h>

/* Between two tries: doubled from the one to the other. */
#define RETRY_FIRST_MS 100
#define RETRY_MOST_MS  10000
/* How long an end waits for the thread before it leaves it behind. */
#define LEAVE_AFTER_US (500 * 1000)
#define LOOK_EVERY_US  (5 * 1000)

enum { TRYING, LEFT, GIVING, DONE };

struct pen_regain {
    /* the thread's from the beginning on */
    pen_options options; /* with a copy of --source */
    pen_resume resume;
    pen_spool_header header;
    pen_lsn received;
    pen_thread thread;
    pen_parker parker;
    pen_cell stop;  /* main writes, 1: it is to end */
    pen_cell state; /* who still has it */
    /* only between GIVING and DONE, for main may have left */
    pen_stream *stream;
    /* written before DONE */
    bool ok;
    pen_pgconn *session;
    pen_error err;
};

static void destroy(pen_regain *regain)
{
    pen_pgconn_close(regain->session);
    pen_parker_deinit(&regain->parker);
    free(regain->options.source);
    free(regain);
}

static bool told_to_end(const pen_regain *regain)
{
    /* [REGAINEND-1] acquire: pairs with the release in pen_regain_end. */
    return pen_cell_read(&regain->stop) != 0;
}

static bool go_on(const pen_regain *regain, pen_error *err)
{
    return !told_to_end(regain) || pen_error_set(err, PEN_ERROR_NONE, "stopped");
}

/* One try. What it has made is taken down by the caller, whatever comes of it. */
static bool connect(pen_regain *regain, pen_replication **rep, pen_error *err)
{
    const pen_options *options = &regain->options;
    pen_source_identity now;
    pen_lsn confirmed; /* the reader knows better what it has reported */
    return pen_source_open_session(options, "control", &regain->session, err) &&
           go_on(regain, err) &&
           pen_source_open_stream(options, regain->resume.owner, regain->header.encoding, rep, &now,
                                  err) &&
           go_on(regain, err) &&
           pen_resume_rejoin(&regain->resume, options, regain->session, &now, regain->received,
                             &confirmed, err) &&
           go_on(regain, err) &&
           pen_replication_start(*rep, regain->received, regain->header.binary, err);
}

/* Sleeps, somewhere between half of `ms` and all of it; false when it is to end. */
static bool wait_before_retry(pen_regain *regain, int64_t ms)
{
    int64_t until_us = pen_now_us() + ms * 500 + (int64_t)(random() % (ms * 500 + 1));
    for (;;) {
        int64_t left_ms = (until_us - pen_now_us()) / 1000;
        pen_parker_prepare(&regain->parker);
        if (told_to_end(regain) || left_ms <= 0) {
            pen_parker_cancel(&regain->parker);
            return !told_to_end(regain);
        }
        (void)pen_parker_park(&regain->parker, -1, 0, (int)left_ms);
    }
}

/* Until there is a connection, or none can be; false with PEN_ERROR_NONE when it is to end. */
static bool try_again_and_again(pen_regain *regain, pen_replication **rep, pen_error *err)
{
    int64_t retry_ms = RETRY_FIRST_MS;
    while (!connect(regain, rep, err)) {
        pen_pgconn_close(regain->session);
        regain->session = NULL;
        pen_replication_close(*rep);
        *rep = NULL;
        if (err->kind != PEN_ERROR_RETRY || told_to_end(regain)) {
            return false;
        }
        pen_log(PEN_LOG_WARN,
                "%s; trying again, meanwhile what is in the spool is applied, nothing is lost",
                err->text);
        if (!wait_before_retry(regain, retry_ms)) {
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        retry_ms = retry_ms * 2 < RETRY_MOST_MS ? retry_ms * 2 : RETRY_MOST_MS;
    }
    return true;
}

static void run(void *arg)
{
    pen_regain *regain = arg;
    pen_replication *rep = NULL;
    regain->ok = try_again_and_again(regain, &rep, &regain->err);
    if (!pen_cell_swap(&regain->state, TRYING, GIVING)) {
        /* Left behind: nobody else knows of it any more. */
        pen_replication_close(rep);
        destroy(regain);
        return;
    }
    pen_stream *stream = regain->stream;
    if (rep != NULL) {
        /* [SOURCE-1] release: the connection is made; pairs with the acquire in the reader. */
        pen_place_put(&stream->next_source, rep);
        pen_parker_wake(&stream->reader_parker);
    }
    /* [REGAIN-1] release: the session and the error are written; pairs with the acquire in
     * pen_regain_poll. Main joins before it takes anything down, so the wake finds it. */
    pen_cell_publish(&regain->state, DONE);
    pen_parker_wake(&stream->main_parker);
}

bool pen_regain_begin(pen_stream *stream, const pen_spool_header *header, pen_lsn received,
                      pen_regain **regain, pen_error *err)
{
    pen_regain *made = pen_calloc(1, sizeof(*made));
    made->options = *stream->options;
    made->options.source = pen_strdup(stream->options->source);
    made->resume = stream->resume;
    made->header = *header;
    made->received = received;
    made->stream = stream;
    pen_cell_init(&made->stop, 0);
    pen_cell_init(&made->state, TRYING);
    if (!pen_parker_init(&made->parker, err) ||
        !pen_thread_start(&made->thread, PEN_ROLE_SOURCE, "source", run, made, err)) {
        destroy(made);
        return false;
    }
    *regain = made;
    return true;
}

pen_regained pen_regain_poll(pen_regain *regain, pen_pgconn **session, pen_error *err)
{
    /* [REGAIN-1] acquire: pairs with the release in the thread. */
    if (pen_cell_read(&regain->state) != DONE) {
        return PEN_REGAIN_TRIES;
    }
    *session = regain->session;
    regain->session = NULL;
    *err = regain->err;
    return regain->ok ? PEN_REGAIN_BACK : PEN_REGAIN_FAILED;
}

void pen_regain_end(pen_regain *regain)
{
    if (regain == NULL) {
        return;
    }
    /* [REGAINEND-1] release: pairs with the acquire in told_to_end. */
    pen_cell_publish(&regain->stop, 1);
    pen_parker_wake(&regain->parker);
    int64_t until_us = pen_now_us() + LEAVE_AFTER_US;
    while (pen_cell_read(&regain->state) == TRYING && pen_now_us() < until_us) {
        usleep(LOOK_EVERY_US);
    }
    pen_thread thread = regain->thread;
    if (pen_cell_swap(&regain->state, TRYING, LEFT)) {
        pen_thread_leave(&thread); /* which frees `regain` */
        return;
    }
    pen_thread_join(&regain->thread);
    destroy(regain);
}
