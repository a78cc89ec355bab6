#include "core/options_table.h"

#include <stdlib.h>
#include <string.h>

#define HELP_WIDTH 80

/* Prints `text` in lines of HELP_WIDTH columns that begin with `indent` blanks. */
static void print_wrapped(FILE *out, const char *text, int indent)
{
    int column = 0;
    while (*text != '\0') {
        int len = (int)strcspn(text, " ");
        if (column > 0 && column + 1 + len > HELP_WIDTH) {
            fputc('\n', out);
            column = 0;
        }
        column += fprintf(out, "%*s%.*s", column == 0 ? indent : 1, "", len, text);
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

void pen_options_help(FILE *out)
{
    pen_options_help_for(PEN_FOR_STREAM, out);
}

void pen_options_help_for(pen_option_user user, FILE *out)
{
    for (int i = 0; i < PEN_OPTION_ROWS; i++) {
        const pen_option_row *row = &pen_option_rows[i];
        if (!pen_option_is_for(i, user)) {
            continue;
        }
        fprintf(out, "  --%s%s%s\n", row->flag, row->value == NULL ? "" : " ",
                row->value == NULL ? "" : row->value);
        char text[512];
        bool tell_preset = row->preset != NULL && row->type != PEN_OPTION_SWITCH;
        snprintf(text, sizeof(text), "%s%s%s%s", row->help, tell_preset ? " Default: " : "",
                 tell_preset ? row->preset : "", tell_preset ? "." : "");
        print_wrapped(out, text, 8);
    }
    fputc('\n', out);
    print_wrapped(out,
                  "Sizes are written as in PostgreSQL: 64kB, 256MB, 1GB, counted in 1024s; a bare "
                  "number is bytes.",
                  0);
    fputc('\n', out);
    print_wrapped(out,
                  "A flag reads \"--flag value\" and \"--flag=value\". Each can also be set in the "
                  "environment (PENSTOCK_BATCH_ROWS for --batch-rows; an empty variable counts as "
                  "unset) and in the file that --config names (batch-rows = 5000). A flag goes "
                  "before the environment, the environment before the file. What may be given "
                  "several times is in the environment and in the file a list with commas; a list "
                  "from one place replaces that of another, it does not add to it. In the file, a "
                  "value may stand in quotes, and must if it has a # behind a blank.",
                  0);
}

/* One line stays one line, whatever a path or a pattern holds. */
static void print_visible(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        bool control = (unsigned char)*text < 0x20 || *text == 0x7f;
        fputc(control ? ' ' : *text, out);
    }
}

/* Prints the value so that the config file's reader takes it for what it is. */
static void print_value(FILE *out, const char *value)
{
    bool plain = strpbrk(value, " #'\"\t") == NULL;
    if (plain) {
        print_visible(out, value);
        return;
    }
    fputc('\'', out);
    for (; *value != '\0'; value++) {
        char one[2] = {*value, '\0'};
        print_visible(out, *value == '\'' ? "''" : one);
    }
    fputc('\'', out);
}

void pen_options_print(const pen_options *options, FILE *out)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        if (pen_option_rows[row].where == PEN_OPTION_FLAG_ONLY ||
            !pen_option_is_for(row, options->user)) {
            continue;
        }
        char *value = pen_option_show(options, row);
        /* What a config file could not have is a comment, so that the output can be one. */
        bool in_file = value != NULL && pen_option_rows[row].where == PEN_OPTION_ANYWHERE;
        fprintf(out, "%s%s = ", in_file ? "" : "# ", pen_option_rows[row].flag);
        print_value(out, value == NULL ? "" : value);
        fputs(value == NULL ? " # " : "  # ", out);
        print_visible(out, options->origins[row]);
        fputc('\n', out);
        free(value);
    }
}
