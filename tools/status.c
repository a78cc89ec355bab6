#include "tools/command.h"

#include "core/escape.h"
#include "core/options.h"
#include "core/text.h"
#include "core/thread.h"
#include "io/checkpoint.h"
#include "io/control.h"
#include "tools/status_show.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_ANSWERED = 0, EXIT_NOBODY = 1, EXIT_USAGE = 2 };

#define ANSWER_MS      5000
#define WATCH_MS       1000
#define CLEAR_SCREEN   "\033[H\033[2J\033[3J"
#define CURSOR_HOME    "\033[H"
#define ERASE_TO_RIGHT "\033[K"
#define ERASE_BELOW    "\033[J"

void pen_status_help(FILE *out)
{
    pen_options_help_for(PEN_FOR_STATUS, out);
    fputs("\nEnds with 0 when a penstock answered, 1 when none runs with that state directory.\n",
          out);
}

/* What the checkpoint in `dir` says; false when there is none. Only read: it may be in use. */
static bool read_checkpoint(const char *dir, pen_checkpoint *newest, time_t *written)
{
    static uint8_t bytes[2 * PEN_CHECKPOINT_SLOT_SIZE];
    pen_text path = {0};
    struct stat status;
    pen_text_appendf(&path, "%s/checkpoint", dir);
    char *taken = pen_text_take(&path);
    int fd = open(taken, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    free(taken);
    if (fd < 0) {
        return false;
    }
    ssize_t got = pread(fd, bytes, sizeof(bytes), 0);
    bool found = false;
    for (size_t at = 0; got > 0 && at + PEN_CHECKPOINT_SLOT_SIZE <= (size_t)got;
         at += PEN_CHECKPOINT_SLOT_SIZE) {
        pen_checkpoint slot;
        if (pen_checkpoint_decode((pen_slice){bytes + at, PEN_CHECKPOINT_SLOT_SIZE}, &slot) &&
            (!found || slot.generation > newest->generation)) {
            *newest = slot;
            found = true;
        }
    }
    found = found && fstat(fd, &status) == 0;
    *written = found ? status.st_mtime : 0;
    close(fd);
    return found;
}

/* Nobody answers: what the state directory remembers. */
static void tell_absence(const pen_options *options)
{
    pen_checkpoint newest = {0};
    time_t written;
    char when[40];
    char committed[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    struct tm parts;
    bool found = read_checkpoint(options->dir, &newest, &written);
    if (found) {
        gmtime_r(&written, &parts);
        strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &parts);
        pen_lsn_format(newest.committed_lsn, committed);
        pen_lsn_format(newest.durable_lsn, durable);
    }
    if (options->json) {
        json_t *made = json_object();
        json_object_set_new(made, "running", json_false());
        json_object_set_new(made, "checkpoint",
                            found ? json_pack("{s:s, s:s, s:s}", "applied_lsn", committed,
                                              "durable_lsn", durable, "written", when)
                                  : json_null());
        char *text = json_dumps(made, JSON_COMPACT);
        puts(text);
        free(text);
        json_decref(made);
        return;
    }
    char *dir = pen_escape_text(options->dir);
    if (found) {
        fprintf(stderr,
                "penstock: none runs with the state directory %s; its checkpoint, written %s, says "
                "that the target had everything up to %s, durably up to %s\n",
                dir, when, committed, durable);
    } else {
        fprintf(
            stderr,
            "penstock: none runs with the state directory %s, which holds no checkpoint either; "
            "name another one by --dir, or by --name, whose state directory is ./NAME.penstock\n",
            dir);
    }
    free(dir);
}

static void print_document(const pen_options *options, const json_t *document, const char *answer)
{
    bool in_place = options->watch && !options->json && isatty(STDOUT_FILENO);
    pen_text out = {0};
    if (options->json) {
        pen_text_append(&out, answer);
        pen_text_append(&out, "\n");
    } else if (options->watch && !in_place) {
        pen_status_line(document, &out);
        pen_text_append(&out, "\n");
    } else {
        pen_status_table(document, &out);
    }
    char *text = pen_text_take(&out);
    if (!in_place) {
        fputs(text, stdout);
    } else {
        fputs(CURSOR_HOME, stdout);
        for (char *line = text; *line != '\0';) {
            size_t len = strcspn(line, "\n");
            printf("%.*s" ERASE_TO_RIGHT "\n", (int)len, line);
            line += len + (line[len] == '\n');
        }
        fputs(ERASE_BELOW, stdout);
    }
    free(text);
}

/* Asks once; the exit code. */
static int ask(const pen_options *options)
{
    char *answer = NULL;
    pen_error err;
    switch (pen_control_ask(options->dir, ANSWER_MS, &answer, &err)) {
    case PEN_CONTROL_NOBODY:
        tell_absence(options);
        return EXIT_NOBODY;
    case PEN_CONTROL_FAILED: {
        char *words = pen_escape_text(err.text);
        fprintf(stderr, "penstock: %s\n", words);
        free(words);
        return EXIT_NOBODY;
    }
    case PEN_CONTROL_ANSWERED:
        break;
    }
    json_t *document = json_loads(answer, 0, NULL);
    bool is_one = json_is_object(document) && json_object_get(document, "running") != NULL;
    if (is_one) {
        print_document(options, document, answer);
    } else {
        fputs("penstock: what answers there is no penstock that this one understands\n", stderr);
    }
    json_decref(document);
    free(answer);
    return is_one ? EXIT_ANSWERED : EXIT_NOBODY;
}

static int watch(const pen_options *options)
{
    if (!options->json && isatty(STDOUT_FILENO)) {
        fputs(CLEAR_SCREEN, stdout);
    }
    for (;;) {
        int64_t next_us = pen_now_us() + WATCH_MS * 1000;
        int code = ask(options);
        if (code != EXIT_ANSWERED || fflush(stdout) != 0) {
            return code;
        }
        int64_t left_us = next_us - pen_now_us();
        if (left_us > 0) {
            (void)poll(NULL, 0, (int)(left_us / 1000) + 1);
        }
    }
}

int pen_command_status(int argc, char **argv)
{
    pen_options options;
    pen_error err;
    if (!pen_options_parse_for(PEN_FOR_STATUS, &options, argc, argv, &err)) {
        char *words = pen_escape_text(err.text);
        fprintf(stderr, "penstock: %s\n", words);
        free(words);
        return EXIT_USAGE;
    }
    int code = EXIT_ANSWERED;
    if (options.print_config) {
        pen_options_print(&options, stdout);
    } else {
        code = options.watch ? watch(&options) : ask(&options);
    }
    pen_options_deinit(&options);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("penstock: cannot write to standard output\n", stderr);
        return EXIT_NOBODY;
    }
    return code;
}
