/* Any bytes as a config file. What is taken must be shown, and what is shown, written into a file
 * again, must be taken and shown the same; what is refused must be said on one line. */
#include "core/conninfo.h"
#include "core/options_table.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* "name = 'value'". */
static char *write_line(int row, const char *value)
{
    char *line = pen_malloc(strlen(pen_option_rows[row].flag) + 2 * strlen(value) + 8);
    char *out = stpcpy(stpcpy(line, pen_option_rows[row].flag), " = '");
    for (; *value != '\0'; value++) {
        *out++ = *value;
        if (*value == '\'') {
            *out++ = '\'';
        }
    }
    strcpy(out, "'");
    return line;
}

static void check_again(int row, const char *shown)
{
    pen_options options;
    pen_option_reader reader;
    pen_error err;
    char *line = write_line(row, shown);
    pen_option_reader_init(&reader, &options);
    bool ok = pen_option_read_bytes(&reader, line, strlen(line), "again", &err);
    PEN_ASSERT(ok);
    char *again = pen_option_show(&options, row);
    PEN_ASSERT(again != NULL && strcmp(again, shown) == 0);
    free(again);
    free(line);
    pen_options_deinit(&options);
}

static void check_shown(const pen_option_reader *reader, int row)
{
    char *shown = pen_option_show(reader->options, row);
    bool is_set = reader->levels[row] != PEN_LEVEL_DEFAULT;
    PEN_ASSERT(!is_set || shown != NULL);
    /* Of a connection string the shown one is not what was given: its passwords are hidden. */
    if (is_set && pen_option_rows[row].type != PEN_OPTION_CONNINFO) {
        check_again(row, shown);
    }
    free(shown);
}

/* The same bytes as a connection string. */
static void check_conninfo(const uint8_t *data, size_t size)
{
    char *text = pen_malloc(size + 1);
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    size_t len = strlen(text);
    char *shown = pen_conninfo_redact(text);
    (void)pen_conninfo_problem(text);
    (void)pen_conninfo_suspect(text);
    pen_conninfo_scrub(text);
    PEN_ASSERT(strlen(text) == len);
    free(shown);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pen_options options;
    pen_option_reader reader;
    pen_error err = {.text = ""};
    pen_option_reader_init(&reader, &options);
    if (pen_option_read_bytes(&reader, (const char *)data, size, "fuzz", &err)) {
        for (int row = 0; row < PEN_OPTION_ROWS; row++) {
            check_shown(&reader, row);
        }
    } else {
        PEN_ASSERT(err.kind == PEN_ERROR_CONFIG);
        PEN_ASSERT(strncmp(err.text, "fuzz:", 5) == 0 || strstr(err.text, "fuzz:") != NULL);
        for (const char *at = err.text; *at != '\0'; at++) {
            PEN_ASSERT((unsigned char)*at >= ' ');
        }
    }
    pen_options_deinit(&options);
    check_conninfo(data, size);
    return 0;
}
