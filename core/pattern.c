#include "core/pattern.h"

#include "core/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Appends one character of a name, escaped where a regular expression would read it otherwise. */
static void add_literal(pen_text *regex, char c)
{
    if (strchr(".|*+?()[]{}^$\\", c) != NULL) {
        pen_text_append(regex, "\\");
    }
    pen_text_appendf(regex, "%c", c);
}

static void add_unquoted(pen_text *regex, char c)
{
    if (c == '*') {
        pen_text_append(regex, ".*");
    } else if (c == '?') {
        pen_text_append(regex, ".");
    } else {
        add_literal(regex, (char)tolower((unsigned char)c));
    }
}

static char *close_part(pen_text *regex)
{
    pen_text_append(regex, ")$");
    return pen_text_take(regex);
}

bool pen_pattern_parse(const char *pattern, char **schema, char **name, pen_error *err)
{
    pen_text regex = {0};
    bool quoted = false;
    size_t part_length = 0;
    *schema = NULL;
    *name = NULL;
    pen_text_append(&regex, "^(");
    for (const char *c = pattern; *c != '\0'; c++) {
        if (*c == '"' && quoted && c[1] == '"') {
            add_literal(&regex, *++c);
            part_length++;
        } else if (*c == '"') {
            quoted = !quoted;
        } else if (*c == '.' && !quoted) {
            if (*schema != NULL || part_length == 0) {
                goto wrong;
            }
            *schema = close_part(&regex);
            pen_text_append(&regex, "^(");
            part_length = 0;
        } else {
            if (quoted) {
                add_literal(&regex, *c);
            } else {
                add_unquoted(&regex, *c);
            }
            part_length++;
        }
    }
    if (quoted || part_length == 0) {
        goto wrong;
    }
    *name = close_part(&regex);
    return true;
wrong:
    pen_text_deinit(&regex);
    free(*schema);
    *schema = NULL;
    return pen_error_set(
        err, PEN_ERROR_CONFIG,
        "\"%s\" is not a pattern; write TABLE or SCHEMA.TABLE, with * and ? as wild "
        "cards and double quotes around what is to be taken literally",
        pattern);
}
