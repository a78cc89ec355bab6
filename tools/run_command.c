#include "tools/run_command.h"

#include "apply/service.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/thread.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* For programs, what the error is about stands beside its words. */
static void log_error(const pen_error *err)
{
    char lsn[PEN_LSN_TEXT_SIZE];
    pen_log_field fields[2];
    size_t count = 0;
    if (err->lsn != PEN_LSN_NONE) {
        fields[count++] =
            (pen_log_field){"lsn", PEN_FIELD_TEXT, .text = pen_lsn_format(err->lsn, lsn)};
    }
    if (err->sqlstate[0] != '\0') {
        fields[count++] = (pen_log_field){"sqlstate", PEN_FIELD_TEXT, .text = err->sqlstate};
    }
    pen_log_fields(PEN_LOG_ERROR, err->text, fields, count);
}

static int exit_code(bool ok, pen_stop_reason reason, const pen_error *err)
{
    if (!ok) {
        log_error(err);
        return pen_error_exit_code(err->kind);
    }
    return reason == PEN_REASON_SIGNAL ? 3 : 0;
}

/* A cutover may meet the migration's process, which has the port until it has ended. */
static bool shows_by_http(const char *command)
{
    return strcmp(command, "cutover") != 0;
}

static int run(pen_options *options, const char *command, pen_command_body *body)
{
    pen_stop_reason reason = PEN_REASON_NONE;
    pen_error err;
    pen_service *service = NULL;
    pen_status *status = pen_status_create(options, command);
    options->status = status;
    const char *http = shows_by_http(command) ? options->http : NULL;
    bool ok = pen_service_start(status, http, &service, &err) && body(options, &reason, &err);
    pen_service_stop(service);
    pen_status_destroy(status);
    options->status = NULL;
    return exit_code(ok, reason, &err);
}

int pen_run_command(int argc, char **argv, const char *command, pen_command_body *body)
{
    pen_options options;
    pen_error err;
    if (!pen_options_parse(&options, argc, argv, &err)) {
        pen_log_init(PEN_LOG_TEXT, PEN_LOG_INFO);
        pen_log(PEN_LOG_ERROR, "%s", err.text);
        pen_options_deinit(&options);
        return pen_error_exit_code(err.kind);
    }
    pen_log_init(options.log_format, options.log_level);
    PEN_KILL_POINT("options-read");
    int code = 0;
    if (options.print_config) {
        pen_options_print(&options, stdout);
    } else {
        code = run(&options, command, body);
    }
    if (pen_thread_any_left()) {
        (void)fflush(stdout);
        _exit(code);
    }
    pen_options_deinit(&options);
    return code;
}
