#include "apply/losses.h"

#include "apply/parts.h"
#include "apply/status.h"
#include "core/log.h"

bool pen_losses_is_away(const pen_run *run)
{
    /* [LOST-1] acquire: pairs with the release in the reader. */
    return run->regain != NULL || pen_cell_read(&run->stream->source_losses) != run->losses;
}

/* The reader has lost its source, and goes on with what the spool holds: says so, and sees to it
 * that the source comes back. */
static void begin_regain(pen_run *run)
{
    pen_stream *stream = run->stream;
    run->losses++;
    run->recoveries++;
    pen_log(PEN_LOG_WARN,
            "%s; what is in the spool is applied while the source is tried again, nothing is lost",
            stream->source_failure.text);
    if (run->signals == 0) {
        pen_status_recover(stream->options->status, true, stream->source_failure.text);
    }
    pen_parts_close_source(run);
    pen_cell_publish(&stream->source_lsn, PEN_LSN_NONE);
    if (!pen_regain_begin(stream, &run->header, pen_cell_read(&stream->received_lsn), &run->regain,
                          &run->refused)) {
        run->regain = NULL;
    }
}

static void end_regain(pen_run *run, bool streaming)
{
    pen_pgconn *session = NULL;
    pen_error err;
    switch (pen_regain_poll(run->regain, &session, &err)) {
    case PEN_REGAIN_TRIES:
        return;
    case PEN_REGAIN_FAILED:
        run->refused = err;
        break;
    case PEN_REGAIN_BACK:
        pen_parts_close_source(run);
        run->source = session;
        pen_log(PEN_LOG_INFO, "the source is there again: the stream is received on");
        if (streaming && run->signals == 0) {
            pen_status_state(run->stream->options->status, PEN_STATE_STREAMING, NULL);
        }
        break;
    }
    pen_regain_end(run->regain);
    run->regain = NULL;
}

bool pen_losses_see_to(pen_run *run, bool streaming)
{
    if (run->regain != NULL) {
        end_regain(run, streaming);
    }
    if (run->regain == NULL && run->refused.kind == PEN_ERROR_NONE && pen_losses_is_away(run)) {
        begin_regain(run);
    }
    return run->refused.kind == PEN_ERROR_NONE;
}
