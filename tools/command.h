/* Purpose: the commands of penstock, one function and one file each.
 * Thread:  main.
 * Owns:    nothing.
 * Flow:    the arguments behind the command's name in, an exit code out. */
#ifndef PEN_TOOLS_COMMAND_H
#define PEN_TOOLS_COMMAND_H

#include "core/base.h"

#include <stdio.h>

/* Each gets the arguments behind the command's name: argv[0] is the first flag, as
 * pen_options_parse takes them. argv belongs to the process, so passwords in it can be
 * overwritten. --help never comes here, since main answers it for all commands alike.
 *
 * Each returns the exit code: 0 done; 1 failed; 2 usage or configuration; 3 stopped by a signal,
 * with its state saved; 4 differences found. */

/* Schema, copy, indexes and stream, in one command that goes on where it was. */
int pen_command_migrate(int argc, char **argv);
/* The schema and the copy alone. */
int pen_command_copy(int argc, char **argv);
/* Drains the stream, and makes the target ready for writes. */
int pen_command_cutover(int argc, char **argv);
/* The change stream alone, into tables that are there already. */
int pen_command_stream(int argc, char **argv);

/* Asks the penstock that runs with a state directory how it goes. */
int pen_command_status(int argc, char **argv);
void pen_status_help(FILE *out);

/* Prints what stands in one file; needs no server. Reads no environment and no config file. */
int pen_command_inspect(int argc, char **argv);
void pen_inspect_help(FILE *out);

/* Says what a captured stream would take with 1 to 256 workers, and what limits it. */
int pen_command_simulate(int argc, char **argv);
void pen_simulate_help(FILE *out);

#endif
