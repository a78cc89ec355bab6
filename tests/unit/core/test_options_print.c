#include "tests/unit/core/options_fixture.h"

TestSuite(options_print, .fini = clean);

Test(options_print, print_config_shows_no_password)
{
    setenv("PENSTOCK_TARGET", "postgresql://h/db?p%61ssword=secret", 1);
    ACCEPT("--source=host=h password='secret' user=u", "--print-config");
    char *text = printed();
    cr_expect_null(strstr(text, "secret"), "%s", text);
    free(text);
    expect_line("source = 'host=h password=******** user=u'  # flag");
    expect_line("target = postgresql://h/db?p%61ssword=********  # environment PENSTOCK_TARGET");
}

/* The printed configuration is a config file that means the same. */
Test(options_print, print_config_can_be_read_again)
{
    setenv("PENSTOCK_EXCLUDE_TABLE", "\"a, #b\", it's", 1);
    ACCEPT("--source=host=s options='-c a=b'", "--target=postgresql://t/db#x", "--name=n",
           "--publication=P 'q' \"r\" #s", "--memory=1000000000", "--stop-at=1/2",
           "--progress=none", "--log-level=debug", "--stop-when-caught-up", "--dir= x ");
    char *first = printed();
    pen_options_deinit(&options);
    unsetenv("PENSTOCK_EXCLUDE_TABLE");
    write_file(first);
    cr_assert(pen_options_parse(&options, 0, NULL, &err), "%s\n%s", err.text, first);
    cr_expect_str_eq(options.source, "host=s options='-c a=b'");
    cr_expect_str_eq(options.publication, "P 'q' \"r\" #s");
    cr_expect_str_eq(options.dir, " x ");
    cr_expect_eq(options.memory, 1000000000);
    cr_assert_eq(options.exclude_table.count, 2);
    cr_expect_str_eq(options.exclude_table.items[0], "\"a, #b\"");
    cr_expect_str_eq(options.exclude_table.items[1], "it's");
    cr_expect_eq(options.stop_at, UINT64_C(0x100000002));
    free(first);
}

Test(options_print, print_config_keeps_to_lines)
{
    ACCEPT(ENDS, "--table=a\nworkers = 1\x7f", "--print-config");
    expect_line("table = 'a workers = 1 '  # flag");
}

Test(options_print, help_text_fits_80_columns)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    pen_options_help(out);
    fclose(out);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        cr_expect_leq(strlen(line), 80, "%s", line);
        cr_expect_neq(line[strlen(line) - 1], ' ', "%s", line);
    }
    free(text);
    out = open_memstream(&text, &size);
    pen_options_help(out);
    fclose(out);
    const char *const wanted[] = {"  --source URI\n",   "  --stop-when-caught-up\n",
                                  "  --help\n",         "Default: 512MB.\n",
                                  "  --print-config\n", "  --log-level debug|info|warn|error\n"};
    for (size_t i = 0; i < PEN_COUNTOF(wanted); i++) {
        cr_expect_not_null(strstr(text, wanted[i]), "%s", wanted[i]);
    }
    free(text);
}
