/* Purpose: what the tests of the settings share: parse a list of arguments, accept or refuse it.
 * Thread:  main.
 * Owns:    the one pen_options, until clean(), and the config file.
 * Flow:    arguments in; pen_options, or an error's text, out. */
#ifndef PEN_TESTS_UNIT_CORE_OPTIONS_FIXTURE_H
#define PEN_TESTS_UNIT_CORE_OPTIONS_FIXTURE_H

#include "core/options.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Criterion runs each test in a process of its own, so the environment is the test's alone. */

#define ENDS "--source=postgresql://s/db", "--target=host=t"

static pen_options options;
static pen_error err;

/* Parses the arguments, copied into memory of their own that can be written, as argv's can. */
static inline bool parse_list(const char *const *args, char **argv, int *argc)
{
    for (*argc = 0; args[*argc] != NULL; (*argc)++) {
        argv[*argc] = pen_strdup(args[*argc]);
    }
    return pen_options_parse(&options, *argc, argv, &err);
}

static inline bool parse_and_free(const char *const *args)
{
    char *argv[32];
    int argc;
    bool ok = parse_list(args, argv, &argc);
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    return ok;
}

#define PARSE(...) parse_and_free((const char *const[]){__VA_ARGS__, NULL})
#define ACCEPT(...)                                                                                \
    do {                                                                                           \
        bool accepted = PARSE(__VA_ARGS__);                                                        \
        cr_assert(accepted, "%s", err.text);                                                       \
    } while (0)
#define REFUSE(message, ...)                                                                       \
    do {                                                                                           \
        cr_assert_not(PARSE(__VA_ARGS__));                                                         \
        cr_expect_eq(err.kind, PEN_ERROR_CONFIG);                                                  \
        cr_expect_str_eq(err.text, message, "%s", err.text);                                       \
        pen_options_deinit(&options);                                                              \
    } while (0)

static char file_path[] = "/tmp/penstock-test-XXXXXX";

static inline void write_file(const char *text)
{
    int fd = mkstemp(file_path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    setenv("PENSTOCK_CONFIG", file_path, 1);
}

static inline void clean(void)
{
    pen_options_deinit(&options);
    unlink(file_path);
}

/* Gives what --print-config prints. */
static inline char *printed(void)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    pen_options_print(&options, out);
    fclose(out);
    return text;
}

static inline void expect_line(const char *line)
{
    char *text = printed();
    char wanted[512];
    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    bool first = strncmp(text, wanted + 1, strlen(wanted) - 1) == 0;
    cr_expect(first || strstr(text, wanted) != NULL, "no \"%s\" in:\n%s", line, text);
    free(text);
}

#endif
