#include "tools/command.h"

#include "apply/stream.h"
#include "core/log.h"

static int stream_exit_code(bool ok, pen_stop_reason reason, const pen_error *err)
{
    if (!ok) {
        pen_log(PEN_LOG_ERROR, "%s", err->text);
        return pen_error_exit_code(err->kind);
    }
    return reason == PEN_REASON_SIGNAL ? 3 : 0;
}

int pen_command_stream(int argc, char **argv)
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
        bool ok = pen_stream_run(&options, &reason, &err);
        code = stream_exit_code(ok, reason, &err);
    }
    pen_options_deinit(&options);
    return code;
}
