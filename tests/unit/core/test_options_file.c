#include "core/options_table.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static pen_options options;
static pen_option_reader reader;
static pen_error err;

static void clean(void)
{
    pen_options_deinit(&options);
}

TestSuite(options_file, .fini = clean);

/* From memory that ends where the text does, so that ASan sees a read behind it. */
static bool read_text_of(const char *text, size_t len)
{
    pen_options_deinit(&options);
    pen_option_reader_init(&reader, &options);
    char *bytes = pen_malloc(len);
    memcpy(bytes, text, len);
    bool ok = pen_option_read_bytes(&reader, bytes, len, "conf", &err);
    free(bytes);
    return ok;
}

static void accept(const char *text)
{
    bool ok = read_text_of(text, strlen(text));
    cr_assert(ok, "%s: %s", text, err.text);
}

static void refuse(const char *text, const char *message)
{
    bool ok = read_text_of(text, strlen(text));
    cr_expect_not(ok, "%s", text);
    cr_expect_eq(err.kind, PEN_ERROR_CONFIG);
    cr_expect_str_eq(err.text, message, "%s: %s", text, err.text);
}

Test(options_file, values)
{
    static const struct {
        const char *line;
        const char *value;
    } cases[] = {
        {"publication = a", "a"},
        {"publication=a", "a"},
        {"\t publication \t=\t a b \t", "a b"},
        {"publication = a\r\n", "a"},
        {"publication = a # comment", "a"},
        {"publication = a\t# comment", "a"},
        {"publication = a#b", "a#b"},
        {"publication = 'a # b'", "a # b"},
        {"publication = 'a' # b", "a"},
        {"publication = 'a'# b", "a"},
        {"publication = \"a # b\"", "a # b"},
        {"publication = ' a '", " a "},
        {"publication = 'it''s'", "it's"},
        {"publication = \"a\"\"b\"", "a\"b"},
        {"publication = 'a\"b'", "a\"b"},
        {"publication = it's", "it's"},
        {"publication = a=b", "a=b"},
        {"publication = a\\", "a\\"},
        {"\xef\xbb\xbfpublication = a", "a"},
        {"# first\n\n   # second\n\t\npublication = a\n#", "a"},
    };
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        accept(cases[i].line);
        cr_expect_str_eq(options.publication, cases[i].value, "%s", cases[i].line);
    }
}

Test(options_file, lists_keep_double_quotes)
{
    accept("table = \"My #, Table\", b # c\ntable = '\"x\".y'\nschema = \"one\"\n");
    cr_assert_eq(options.table.count, 3);
    cr_expect_str_eq(options.table.items[0], "\"My #, Table\"");
    cr_expect_str_eq(options.table.items[1], "b");
    cr_expect_str_eq(options.table.items[2], "\"x\".y");
    cr_expect_str_eq(options.schema.items[0], "\"one\"");
    cr_expect_str_eq(options.origins[PEN_ROW_table], "file conf:1");
}

Test(options_file, connection_strings)
{
    accept("source = host=h user=u password=a#b\ntarget = 'host=h password=''a #b'''\n");
    cr_expect_str_eq(options.source, "host=h user=u password=a#b");
    cr_expect_str_eq(options.target, "host=h password='a #b'");
}

Test(options_file, empty)
{
    accept("");
    accept("\n\n");
    accept("#");
    cr_expect_null(options.source);
}

#define QUOTES                                                                                     \
    "the value's quote is not closed, or more follows behind it: write the whole value in single " \
    "quotes, with '' for a quote in it"
#define FORM  "this is not of the form name = value"
#define EMPTY "the value is missing: write one, or take the line out"

Test(options_file, wrong_lines)
{
    refuse("workers", "conf:1: " FORM);
    refuse("\nworkers 3 = 4", "conf:2: " FORM);
    refuse("workers # = 4", "conf:1: " FORM);
    refuse("workers =", "conf:1: " EMPTY);
    refuse("workers = # 3", "conf:1: " EMPTY);
    refuse("workers = ''", "conf:1: " EMPTY);
    refuse("table = ", "conf:1: " EMPTY);
    refuse("publication = 'a", "conf:1: " QUOTES);
    refuse("publication = 'a''", "conf:1: " QUOTES);
    refuse("publication = '", "conf:1: " QUOTES);
    refuse("publication = 'a\nb'", "conf:1: " QUOTES);
    refuse("publication = \"a\".b", "conf:1: " QUOTES);
    refuse("= 3", "conf:1: no known setting stands before the equals sign");
    refuse("wrokers = 3", "conf:1: there is no setting \"wrokers\": the nearest is \"workers\"");
    refuse("batch_rows = 3",
           "conf:1: there is no setting \"batch_rows\": the nearest is \"batch-rows\"");
    refuse("config = x", "conf:1: \"config\" cannot be set in a file: give --config instead");
    refuse("\n\nhelp = on", "conf:3: \"help\" cannot be set in a file: give --help instead");
    refuse("workers = 3\nworkers = 3\n",
           "--workers (file conf:2) was given before (file conf:1): give it once");
    refuse("workers = abc", "--workers \"abc\" (file conf:1) is not allowed: it must be a whole "
                            "number from 1 to 256");
}

Test(options_file, nul_bytes)
{
    cr_expect_not(read_text_of("# a\nwork\0ers = 3", 16));
    cr_expect_str_eq(err.text, "conf:2: there is a NUL byte: this is not a text file");
    cr_expect_not(read_text_of("\0", 1));
}

Test(options_file, messages_show_no_password)
{
    static const char *const texts[] = {
        "postgresql://u:secret@h",
        "postgresql://u:secret@h?a = b",
        "source = 'password=secret",
        "source = password=secret more",
        "source = host=h password='a #secret'",
        "password secret",
        "workers = password=secret",
        "name = postgresql://u:secret@h",
        "target = \"password=secret\" x",
        "source: secret = 1",
    };
    for (size_t i = 0; i < PEN_COUNTOF(texts); i++) {
        cr_expect_not(read_text_of(texts[i], strlen(texts[i])), "%s", texts[i]);
        cr_expect_null(strstr(err.text, "secret"), "%s", err.text);
    }
}

/* Pieces of the syntax in any order, always the same ones. Under the sanitizers it finds what
 * reads or writes outside. */
Test(options_file, survives_nonsense)
{
    static const char *const pieces[] = {
        "source",        "table",    "=",         "'",    "\"",     " ",   "#",    "\n",     ",",
        "workers",       "1",        "name",      "16MB", "host=h", "\\",  "\r",   "memory", "a",
        "stop-at",       "1/2",      "''",        "\xff", "\t",     "%61", "auto", "@",      ":",
        "postgresql://", "progress", "password=",
    };
    uint64_t state = 1;
    for (int round = 0; round < 50000; round++) {
        char text[512];
        size_t len = 0;
        int count = round % 24;
        for (int i = 0; i < count; i++) {
            state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            const char *piece = pieces[(state >> 33) % PEN_COUNTOF(pieces)];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        if (!read_text_of(text, len)) {
            cr_assert_eq(err.kind, PEN_ERROR_CONFIG);
        }
    }
}
