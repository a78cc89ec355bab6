/* Purpose: what all commands with the common flags have in common.
 * Thread:  main.
 * Owns:    the options, while the command runs.
 * Flow:    arguments in; the command's body between, an exit code out. */
#ifndef PEN_TOOLS_RUN_COMMAND_H
#define PEN_TOOLS_RUN_COMMAND_H

#include "apply/run.h"

typedef bool pen_command_body(const pen_options *options, pen_stop_reason *reason, pen_error *err);

/* Reads the options, answers --print-config, runs `body` as `command`, telling outside how it goes,
 * and logs its failure. */
int pen_run_command(int argc, char **argv, const char *command, pen_command_body *body);

#endif
