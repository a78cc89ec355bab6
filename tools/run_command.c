#include "tools/run_command.h"

#include "core/log.h"

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

int pen_run_command(int argc, char **argv, pen_command_body *body)
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
    int code = 0;
    if (options.print_config) {
        pen_options_print(&options, stdout);
    } else {
        pen_stop_reason reason = PEN_REASON_NONE;
        bool ok = body(&options, &reason, &err);
        code = exit_code(ok, reason, &err);
    }
    pen_options_deinit(&options);
    return code;
}
