#include "tools/command.h"

#include "apply/run.h"
#include "core/conninfo.h"
#include "core/nearest.h"
#include "core/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct command {
    const char *name;
    const char *summary;
    const char *arguments;   /* as the usage shows them */
    void (*help)(FILE *out); /* describes its flags */
    int (*run)(int argc, char **argv);
    bool goes_on; /* a signal is a stop, after which the same command goes on */
} command;

static const command commands[] = {
    {"migrate", "make the schema, copy the tables, build the indexes, and apply the changes since",
     "[FLAGS]", pen_options_help, pen_command_migrate, true},
    {"copy", "make the schema and copy the tables alone", "[FLAGS]", pen_options_help,
     pen_command_copy, true},
    {"stream", "apply the source's changes to tables that are in the target already", "[FLAGS]",
     pen_options_help, pen_command_stream, true},
    {"cutover", "bring the target to the source's present state, and make it ready for writes",
     "[FLAGS]", pen_options_help, pen_command_cutover, true},
    {"status", "tell what a running penstock is doing, how far it is and what holds it up",
     "[FLAGS]", pen_status_help, pen_command_status, false},
    {"inspect", "print a checkpoint, a spool segment or a captured stream in words",
     "FILE [--summary] [--json]", pen_inspect_help, pen_command_inspect, false},
    {"simulate", "tell how fast a captured stream could be applied, and what limits it",
     "FILE [FLAGS]", pen_simulate_help, pen_command_simulate, false},
};

static const command *find_command(const char *name)
{
    for (size_t i = 0; i < PEN_COUNTOF(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* Help that could not be written must not look like help that was. */
static int finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "penstock: cannot write to standard output: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int print_help(void)
{
    puts("penstock replicates one PostgreSQL database into another while both are in use.\n"
         "\n"
         "usage: penstock COMMAND [FLAGS]\n"
         "\n"
         "commands:");
    for (size_t i = 0; i < PEN_COUNTOF(commands); i++) {
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    puts("  help       print this text, or with a command's name the flags it takes\n"
         "\n"
         "\"penstock COMMAND --help\" lists the flags, \"penstock --version\" prints the version.");
    return finish_output();
}

static int print_command_help(const command *cmd)
{
    printf("usage: penstock %s %s\n\n%s: %s\n\nflags:\n", cmd->name, cmd->arguments, cmd->name,
           cmd->summary);
    cmd->help(stdout);
    return finish_output();
}

static int print_version(void)
{
    puts("penstock " PEN_VERSION);
    return finish_output();
}

static int refuse_command(const char *name)
{
    const char *names[PEN_COUNTOF(commands) + 1];
    for (size_t i = 0; i < PEN_COUNTOF(commands); i++) {
        names[i] = commands[i].name;
    }
    names[PEN_COUNTOF(commands)] = "help";
    if (*name == '-') {
        fputs("penstock: the command comes first, then its flags: penstock stream --source ...; "
              "\"penstock --help\" lists the commands\n",
              stderr);
        return EXIT_USAGE;
    }
    /* Where a command should be there may stand a connection string. */
    char *shown = pen_conninfo_suspect(name) ? pen_conninfo_redact(name) : pen_strdup(name);
    for (char *at = shown; *at != '\0'; at++) {
        *at = (unsigned char)*at < 0x20 || *at == 0x7f ? '?' : *at;
    }
    fprintf(stderr,
            "penstock: there is no command \"%.80s\": the nearest is \"%s\"; \"penstock --help\" "
            "lists all\n",
            shown, names[pen_nearest(name, names, PEN_COUNTOF(names))]);
    free(shown);
    return EXIT_USAGE;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    const command *cmd = argc < 2 ? NULL : find_command(argv[1]);
    if (cmd != NULL && cmd->goes_on) {
        pen_run_stop_early_on_signals(); /* before anything else */
    }
    if (argc < 2) {
        fputs("penstock: no command given; \"penstock --help\" lists them\n", stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        return print_version();
    }
    if (strcmp(name, "--help") == 0 || (strcmp(name, "help") == 0 && argc == 2)) {
        return print_help();
    }
    bool help = strcmp(name, "help") == 0;
    cmd = help ? find_command(argv[2]) : cmd;
    if (cmd == NULL) {
        return refuse_command(help ? argv[2] : name);
    }
    if (help || asks_for_help(argc - 2, argv + 2)) {
        return print_command_help(cmd);
    }
    return cmd->run(argc - 2, argv + 2);
}
