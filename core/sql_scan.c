#include "core/sql_scan.h"

#include "core/text.h"

#include <stdlib.h>
#include <string.h>

/* Behind what is quoted at `at`, or behind one character. In E'' a backslash takes the next one. */
static const char *step(const char *at, bool escapes)
{
    char quote = *at;
    if (quote != '\'' && quote != '"') {
        return at + 1;
    }
    for (at++; *at != '\0'; at++) {
        if (escapes && quote == '\'' && *at == '\\' && at[1] != '\0') {
            at++;
        } else if (*at == quote && at[1] == quote) {
            at++;
        } else if (*at == quote) {
            return at + 1;
        }
    }
    return at;
}

size_t pen_sql_first(const char *sql)
{
    const char *at = sql;
    while (*at != '\0' && *at != ';') {
        bool escapes = at > sql && (at[-1] == 'E' || at[-1] == 'e') &&
                       (at - 1 == sql || strchr(" (,=\n", at[-2]) != NULL);
        at = step(at, escapes);
    }
    return (size_t)(at - sql) + (*at == ';');
}

/* Behind the name at `at`: one part of it, which may be quoted. */
static const char *skip_name(const char *at)
{
    if (*at == '"') {
        return step(at, false);
    }
    return at + strcspn(at, " .;(\n\"");
}

static const char *skip_word(const char *at, const char *word)
{
    size_t len = strlen(word);
    return strncmp(at, word, len) == 0 ? at + len : NULL;
}

static char *copy_span(const char *from, const char *to)
{
    char *copy = pen_malloc((size_t)(to - from) + 1);
    memcpy(copy, from, (size_t)(to - from));
    copy[to - from] = '\0';
    return copy;
}

bool pen_sql_read_index(const char *sql, pen_sql_index *index)
{
    memset(index, 0, sizeof(*index));
    const char *name = skip_word(sql, "CREATE INDEX ");
    if (name == NULL) {
        return false;
    }
    const char *name_end = skip_name(name);
    const char *schema = skip_word(name_end, " ON ");
    if (schema == NULL || name_end == name) {
        return false;
    }
    const char *behind = skip_word(schema, "ONLY ");
    index->only = behind != NULL;
    schema = behind != NULL ? behind : schema;
    const char *schema_end = skip_name(schema);
    if (*schema_end != '.') {
        return false;
    }
    size_t len = pen_sql_first(sql);
    pen_text text = {0};
    pen_text_appendf(&text, "%.*s.%.*s", (int)(schema_end - schema), schema, (int)(name_end - name),
                     name);
    index->name = pen_text_take(&text);
    if (!index->only) {
        pen_text_append(&text, "CREATE INDEX CONCURRENTLY ");
        char *rest = copy_span(name, sql + len);
        pen_text_append(&text, rest);
        free(rest);
        index->alone = pen_text_take(&text);
    }
    index->rest = sql + len + strspn(sql + len, " \n");
    return true;
}

void pen_sql_index_deinit(pen_sql_index *index)
{
    free(index->name);
    free(index->alone);
    memset(index, 0, sizeof(*index));
}

static bool ends_with(const char *sql, size_t len, const char *words)
{
    size_t tail = strlen(words);
    return len > tail && strncmp(sql + len - tail, words, tail) == 0;
}

bool pen_sql_read_foreign_key(const char *sql, char **not_valid, char **validate)
{
    *not_valid = NULL;
    *validate = NULL;
    const char *table = skip_word(sql, "ALTER TABLE ");
    if (table == NULL) {
        return false;
    }
    const char *only = skip_word(table, "ONLY ");
    const char *name = only != NULL ? only : table;
    const char *table_end = skip_name(name);
    if (*table_end == '.') {
        table_end = skip_name(table_end + 1);
    }
    const char *at = table_end + strspn(table_end, " \n");
    const char *constraint = skip_word(at, "ADD CONSTRAINT ");
    if (constraint == NULL) {
        return false;
    }
    const char *constraint_end = skip_name(constraint);
    if (skip_word(constraint_end, " FOREIGN KEY ") == NULL) {
        return false;
    }
    size_t len = pen_sql_first(sql);
    while (len > 0 && strchr("; \n", sql[len - 1]) != NULL) {
        len--;
    }
    pen_text text = {0};
    if (!ends_with(sql, len, " NOT VALID") && !ends_with(sql, len, " NOT ENFORCED")) {
        char *body = copy_span(sql, sql + len);
        pen_text_append(&text, body);
        pen_text_append(&text, " NOT VALID");
        free(body);
        *not_valid = pen_text_take(&text);
    }
    pen_text_appendf(&text, "ALTER TABLE %.*s VALIDATE CONSTRAINT %.*s", (int)(table_end - name),
                     name, (int)(constraint_end - constraint), constraint);
    *validate = pen_text_take(&text);
    return true;
}
