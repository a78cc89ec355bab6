#include "tests/unit/core/options_fixture.h"

TestSuite(options, .fini = clean);

Test(options, defaults)
{
    ACCEPT(ENDS);
    cr_expect_str_eq(options.source, "postgresql://s/db");
    cr_expect_str_eq(options.target, "host=t");
    cr_expect_str_eq(options.name, "penstock");
    cr_expect_str_eq(options.slot, "penstock");
    cr_expect_str_eq(options.publication, "penstock");
    cr_expect_str_eq(options.dir, "./penstock.penstock");
    cr_expect_null(options.config);
    cr_expect_eq(options.table.count, 0);
    cr_expect_eq(options.exclude_table.count, 0);
    cr_expect_eq(options.schema.count, 0);
    cr_expect_eq(options.exclude_schema.count, 0);
    cr_expect_eq(options.workers, 8);
    cr_expect_eq(options.dispatchers, 1);
    cr_expect_eq(options.conflict_memory, 4 << 20);
    cr_expect_eq(options.batch_rows, 10000);
    cr_expect_eq(options.batch_bytes, 16 << 20);
    cr_expect_eq(options.batch_transactions, 2000);
    cr_expect_eq(options.memory, 512 << 20);
    cr_expect_eq(options.stop_at, PEN_LSN_NONE);
    cr_expect_not(options.stop_when_caught_up);
    cr_expect_eq(options.on_conflict, PEN_CONFLICT_ERROR);
    cr_expect_eq(options.progress, PEN_PROGRESS_AUTO);
    cr_expect_eq(options.format, PEN_FORMAT_AUTO);
    cr_expect_eq(options.log_format, PEN_LOG_TEXT);
    cr_expect_eq(options.log_level, PEN_LOG_INFO);
    cr_expect_not(options.help);
    cr_expect_not(options.print_config);
    expect_line("workers = 8  # default");
    expect_line("dir = ./penstock.penstock  # default");
}

Test(options, name_gives_slot_publication_and_dir)
{
    ACCEPT(ENDS, "--name", "orders_2");
    cr_expect_str_eq(options.slot, "orders_2");
    cr_expect_str_eq(options.publication, "orders_2");
    cr_expect_str_eq(options.dir, "./orders_2.penstock");
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--name=a", "--slot=b", "--publication=C d", "--dir=/e");
    cr_expect_str_eq(options.slot, "b");
    cr_expect_str_eq(options.publication, "C d");
    cr_expect_str_eq(options.dir, "/e");
}

Test(options, every_type_in_both_forms)
{
    ACCEPT("--source", "host=s", "--target", "postgres://t", "--workers", "256", "--batch-rows=1",
           "--batch-bytes", "64kB", "--memory=16MB", "--stop-at", "16/B374D848",
           "--stop-when-caught-up", "--progress", "plain", "--log-format=json", "--log-level",
           "error", "--batch-transactions", "18446744073709551615");
    cr_expect_str_eq(options.source, "host=s");
    cr_expect_str_eq(options.target, "postgres://t");
    cr_expect_eq(options.workers, 256);
    cr_expect_eq(options.batch_rows, 1);
    cr_expect_eq(options.batch_bytes, 65536);
    cr_expect_eq(options.batch_transactions, UINT64_MAX);
    cr_expect_eq(options.memory, 16 << 20);
    cr_expect_eq(options.stop_at, UINT64_C(0x16B374D848));
    cr_expect(options.stop_when_caught_up);
    cr_expect_eq(options.progress, PEN_PROGRESS_PLAIN);
    cr_expect_eq(options.log_format, PEN_LOG_JSON);
    cr_expect_eq(options.log_level, PEN_LOG_ERROR);
    expect_line("stop-at = 16/B374D848  # flag");
    expect_line("batch-bytes = 64kB  # flag");
    expect_line("memory = 16MB  # flag");
    expect_line("progress = plain  # flag");
    expect_line("log-level = error  # flag");
    expect_line("stop-when-caught-up = on  # flag");
}

Test(options, words)
{
    const char *const levels[] = {"debug", "info", "warn", "error"};
    for (unsigned i = 0; i < 4; i++) {
        ACCEPT(ENDS, "--log-level", levels[i]);
        cr_expect_eq((unsigned)options.log_level, i);
        pen_options_deinit(&options);
    }
    ACCEPT(ENDS, "--format=binary");
    cr_expect_eq(options.format, PEN_FORMAT_BINARY);
    expect_line("format = binary  # flag");
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--format", "text");
    cr_expect_eq(options.format, PEN_FORMAT_TEXT);
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--on-conflict", "skip");
    cr_expect_eq(options.on_conflict, PEN_CONFLICT_SKIP);
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--on-conflict=overwrite");
    cr_expect_eq(options.on_conflict, PEN_CONFLICT_OVERWRITE);
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--progress=none");
    cr_expect_eq(options.progress, PEN_PROGRESS_NONE);
    expect_line("progress = none  # flag");
}

Test(options, switches)
{
    const char *const words[] = {"off", "on", "false", "TRUE", "no", "Yes", "0", "1"};
    for (size_t i = 0; i < PEN_COUNTOF(words); i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "--stop-when-caught-up=%s", words[i]);
        ACCEPT(ENDS, flag);
        cr_expect_eq(options.stop_when_caught_up, i % 2 == 1, "%s", flag);
        pen_options_deinit(&options);
    }
}

Test(options, lists)
{
    setenv("PENSTOCK_SCHEMA", "a, b ,\"c, d\".e,f", 1);
    ACCEPT(ENDS, "--table", "public.*", "--table=\"x,y\".z", "--table", "a,b");
    cr_assert_eq(options.table.count, 3);
    cr_expect_str_eq(options.table.items[0], "public.*");
    cr_expect_str_eq(options.table.items[1], "\"x,y\".z");
    cr_expect_str_eq(options.table.items[2], "a,b"); /* a flag's value is one pattern */
    cr_assert_eq(options.schema.count, 4);
    cr_expect_str_eq(options.schema.items[0], "a");
    cr_expect_str_eq(options.schema.items[1], "b");
    cr_expect_str_eq(options.schema.items[2], "\"c, d\".e");
    cr_expect_str_eq(options.schema.items[3], "f");
    expect_line("schema = 'a,b,\"c, d\".e,f'  # environment PENSTOCK_SCHEMA");
}

Test(options, a_stronger_list_replaces_a_weaker_one)
{
    write_file("table = a\ntable = b, c\nschema = s\n");
    ACCEPT(ENDS);
    cr_assert_eq(options.table.count, 3);
    cr_expect_str_eq(options.table.items[2], "c");
    pen_options_deinit(&options);
    setenv("PENSTOCK_TABLE", "d", 1);
    ACCEPT(ENDS);
    cr_assert_eq(options.table.count, 1);
    cr_expect_str_eq(options.table.items[0], "d");
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--table=e", "--table=f");
    cr_assert_eq(options.table.count, 2);
    cr_expect_str_eq(options.table.items[0], "e");
    cr_expect_eq(options.schema.count, 1);
}

Test(options, precedence)
{
    char line[128];
    ACCEPT(ENDS);
    cr_expect_eq(options.workers, 8);
    pen_options_deinit(&options);
    write_file("\nworkers = 2\nlog-level = warn\n");
    ACCEPT(ENDS);
    cr_expect_eq(options.workers, 2);
    cr_expect_str_eq(options.config, file_path);
    snprintf(line, sizeof(line), "workers = 2  # file %s:2", file_path);
    expect_line(line);
    snprintf(line, sizeof(line), "# config = %s  # environment PENSTOCK_CONFIG", file_path);
    expect_line(line);
    pen_options_deinit(&options);
    setenv("PENSTOCK_WORKERS", "3", 1);
    ACCEPT(ENDS);
    cr_expect_eq(options.workers, 3);
    cr_expect_eq(options.log_level, PEN_LOG_WARN);
    expect_line("workers = 3  # environment PENSTOCK_WORKERS");
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--workers=4");
    cr_expect_eq(options.workers, 4);
    expect_line("workers = 4  # flag");
    unsetenv("PENSTOCK_WORKERS");
    pen_options_deinit(&options);
    ACCEPT(ENDS, "--workers=4");
    cr_expect_eq(options.workers, 4);
}

Test(options, environment)
{
    setenv("PENSTOCK_SOURCE", "host=s", 1);
    setenv("PENSTOCK_TARGET", "host=t", 1);
    setenv("PENSTOCK_STOP_WHEN_CAUGHT_UP", "yes", 1);
    setenv("PENSTOCK_WORKERS", "", 1);               /* as good as unset */
    setenv("PENSTOCK_PORT", "tcp://10.0.0.1:80", 1); /* Kubernetes makes such */
    setenv("PENSTOCK_HELP", "on", 1);                /* a flag alone */
    setenv("PENSTOCK_PRINT_CONFIG", "on", 1);
    cr_assert(pen_options_parse(&options, 0, NULL, &err), "%s", err.text);
    cr_expect_str_eq(options.source, "host=s");
    cr_expect(options.stop_when_caught_up);
    cr_expect_eq(options.workers, 8);
    cr_expect_not(options.help);
    cr_expect_not(options.print_config);
}

Test(options, config_flag_goes_before_the_variable)
{
    write_file("workers = 5\n");
    setenv("PENSTOCK_CONFIG", "/nonexistent/file", 1);
    ACCEPT(ENDS, "--config", file_path);
    cr_expect_eq(options.workers, 5);
    pen_options_deinit(&options);
    REFUSE("cannot open the config file /nonexistent/file, which --config names: No such file or "
           "directory",
           ENDS);
    REFUSE("cannot read the config file /, which --config names: Is a directory", ENDS,
           "--config=/");
}

Test(options, help_goes_before_everything)
{
    setenv("PENSTOCK_WORKERS", "many", 1);
    ACCEPT("--bogus", "x", "--help");
    cr_expect(options.help);
}

Test(options, print_config_needs_no_ends)
{
    ACCEPT("--print-config");
    cr_expect(options.print_config);
    expect_line("# source =  # default");
}

Test(options, missing_ends)
{
    REFUSE("--source is missing: give it as a flag, as PENSTOCK_SOURCE in the environment, or as "
           "\"source = ...\" in the file that --config names",
           "--target=host=t");
    REFUSE("--target is missing: give it as a flag, as PENSTOCK_TARGET in the environment, or as "
           "\"target = ...\" in the file that --config names",
           "--source=host=s");
    REFUSE("--source and --target are missing: give each as a flag, as PENSTOCK_SOURCE in the "
           "environment, or as \"source = ...\" in the file that --config names",
           "--workers=1");
}

Test(options, wrong_flags)
{
    REFUSE("unknown flag \"--wrokers\": the nearest is --workers; --help lists all", ENDS,
           "--wrokers", "3");
    REFUSE("unknown flag \"--batch_rows\": the nearest is --batch-rows; --help lists all", ENDS,
           "--batch_rows=3");
    REFUSE("unknown flag \"-workers\": the nearest is --workers; --help lists all", "-workers");
    REFUSE("unknown flag \"-h\": the nearest is --help; --help lists all", "-h");
    REFUSE("unknown flag \"--work\": the nearest is --workers; --help lists all", "--work=1");
    REFUSE("\"now\" is not a flag: this command takes flags alone, each with its value right "
           "behind it; --help lists them",
           ENDS, "--stop-when-caught-up", "now");
    REFUSE("\"\" is not a flag: this command takes flags alone, each with its value right behind "
           "it; --help lists them",
           "");
    REFUSE("--name has no value: write --name NAME (or --name=... for a value that begins with "
           "dashes)",
           ENDS, "--name");
    REFUSE("--name has no value: write --name NAME (or --name=... for a value that begins with "
           "dashes)",
           ENDS, "--name", "--workers", "3");
    REFUSE("--table has no value: write --table PATTERN (or --table=... for a value that begins "
           "with dashes)",
           ENDS, "--table=");
    REFUSE("--workers (flag) was given before (flag): give it once", ENDS, "--workers=1",
           "--workers", "1");
    REFUSE("--config (flag) was given before (flag): give it once", ENDS, "--config=/dev/null",
           "--config=/dev/null");
}

#define NAME_RULE "characters a-z, 0-9 and _, beginning with a letter"
#define SIZE_RULE ": a whole number with B, kB, MB, GB, TB or nothing for bytes, as in 256MB"

Test(options, wrong_values)
{
    static const struct {
        const char *flag;
        const char *value;
        const char *allowed;
    } cases[] = {
        {"--workers", "0", "a whole number from 1 to 256"},
        {"--workers", "257", "a whole number from 1 to 256"},
        {"--workers", "-1", "a whole number from 1 to 256"},
        {"--workers", "+1", "a whole number from 1 to 256"},
        {"--workers", " 1", "a whole number from 1 to 256"},
        {"--workers", "1 ", "a whole number from 1 to 256"},
        {"--workers", "0x10", "a whole number from 1 to 256"},
        {"--workers", "8.0", "a whole number from 1 to 256"},
        {"--workers", "18446744073709551617", "a whole number from 1 to 256"},
        {"--dispatchers", "0", "a whole number from 1 to 16"},
        {"--dispatchers", "17", "a whole number from 1 to 16"},
        {"--conflict-memory", "63", "a size of at least 64B" SIZE_RULE},
        {"--batch-rows", "0", "a whole number of at least 1"},
        {"--batch-rows", "18446744073709551616", "a whole number of at least 1"},
        {"--batch-transactions", "0", "a whole number of at least 1"},
        {"--batch-bytes", "0", "a size of at least 1B" SIZE_RULE},
        {"--batch-bytes", "1.5GB", "a size of at least 1B" SIZE_RULE},
        {"--memory", "16383kB", "a size of at least 16MB" SIZE_RULE},
        {"--memory", "1gb", "a size of at least 16MB" SIZE_RULE},
        {"--stop-at", "0/0", "a WAL position other than 0/0, such as 16/B374D848"},
        {"--stop-at", "16", "a WAL position other than 0/0, such as 16/B374D848"},
        {"--stop-when-caught-up", "maybe", "on or off (or true, false, yes, no, 1, 0)"},
        {"--print-config", "maybe", "on or off (or true, false, yes, no, 1, 0)"},
        {"--on-conflict", "ignore", "one of error|skip|overwrite"},
        {"--progress", "bars", "one of auto|plain|none"},
        {"--format", "bytes", "one of auto|binary|text"},
        {"--progress", "Plain", "one of auto|plain|none"},
        {"--progress", "auto|plain", "one of auto|plain|none"},
        {"--log-format", "xml", "one of text|json"},
        {"--log-level", "warning", "one of debug|info|warn|error"},
        {"--log-level", "inf", "one of debug|info|warn|error"},
        {"--name", "Upper", "1 to 40 " NAME_RULE},
        {"--name", "1st", "1 to 40 " NAME_RULE},
        {"--name", "_a", "1 to 40 " NAME_RULE},
        {"--name", "a-b", "1 to 40 " NAME_RULE},
        {"--name", "a23456789_123456789_123456789_123456789_1", "1 to 40 " NAME_RULE},
        {"--slot", "a b", "1 to 63 " NAME_RULE},
        {"--slot", "a23456789_123456789_123456789_123456789_123456789_123456789_1234",
         "1 to 63 " NAME_RULE},
        {"--publication", "A23456789 123456789 123456789 123456789 123456789 123456789 1234",
         "1 to 63 bytes long"},
    };
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        char flag[128];
        char wanted[512];
        snprintf(flag, sizeof(flag), "%s=%s", cases[i].flag, cases[i].value);
        snprintf(wanted, sizeof(wanted), "%s \"%s\" (flag) is not allowed: it must be %s",
                 cases[i].flag, cases[i].value, cases[i].allowed);
        REFUSE(wanted, ENDS, flag);
    }
}

Test(options, longest_names)
{
    ACCEPT(ENDS, "--name=a23456789_123456789_123456789_123456789_",
           "--slot=a23456789_123456789_123456789_123456789_123456789_123456789_123",
           "--publication=A23456789 123456789 123456789 123456789 123456789 123456789 123");
    cr_expect_eq(strlen(options.name), 40);
    cr_expect_eq(strlen(options.slot), 63);
    cr_expect_eq(strlen(options.publication), 63);
}

Test(options, errors_name_where_the_value_came_from)
{
    char wanted[256];
    setenv("PENSTOCK_WORKERS", "many", 1);
    REFUSE("--workers \"many\" (environment PENSTOCK_WORKERS) is not allowed: it must be a whole "
           "number from 1 to 256",
           ENDS, "--workers=4");
    setenv("PENSTOCK_WORKERS", "4", 1);
    setenv("PENSTOCK_TABLE", "a,,b", 1);
    const char *rule = "is not allowed: it must be a pattern; outside of the command line several, "
                       "with commas between them and every double quote closed";
    const char *const lists[] = {"a,,b", ",", "a,", "\"a,b", " "};
    for (size_t i = 0; i < PEN_COUNTOF(lists); i++) {
        setenv("PENSTOCK_TABLE", lists[i], 1);
        snprintf(wanted, sizeof(wanted), "--table \"%s\" (environment PENSTOCK_TABLE) %s", lists[i],
                 rule);
        REFUSE(wanted, ENDS);
    }
    unsetenv("PENSTOCK_TABLE");
    write_file("# a comment\n\nmemory = 1MB\n");
    snprintf(wanted, sizeof(wanted),
             "--memory \"1MB\" (file %s:3) is not allowed: it must be a size of at least 16MB%s",
             file_path, SIZE_RULE);
    REFUSE(wanted, ENDS);
}

Test(options, long_and_unprintable_values_are_cut)
{
    char flag[4000];
    memset(flag, 'x', sizeof(flag));
    memcpy(flag, "--workers=\x1b\n", 12);
    flag[sizeof(flag) - 1] = '\0';
    cr_assert_not(PARSE(ENDS, flag));
    cr_expect_eq(strncmp(err.text,
                         "--workers \"?"
                         "?xxx",
                         16),
                 0, "%s", err.text);
    cr_expect_not_null(strstr(err.text, "xx...\" (flag) is not allowed"));
    cr_expect_lt(strlen(err.text), 300);
}

#define CONNINFO_RULE                                                                              \
    "; it must be a connection string such as postgresql://user@host:5432/database or "            \
    "\"host=... dbname=...\""

Test(options, wrong_connection_strings_are_not_repeated)
{
    REFUSE("--source (flag) is not a connection string: a quote in it is not closed" CONNINFO_RULE,
           "--source", "host=h password='secret", "--target=host=t");
    REFUSE("--target (flag) is not a connection string: it is neither a URI that begins with "
           "postgresql:// nor a list of keyword=value" CONNINFO_RULE,
           "--source=host=s", "--target", "mydb");
    setenv("PENSTOCK_SOURCE", " ", 1);
    REFUSE("--source (environment PENSTOCK_SOURCE) is not a connection string: it is "
           "empty" CONNINFO_RULE,
           "--target=host=t");
}

Test(options, argv_is_scrubbed)
{
    static const char *const args[] = {
        "--source",
        "postgresql://u:secret@h/db?sslpassword=secret",
        "--target=host=t password='secret \\' x'",
        "--table",
        "password_resets",
        "--name",
        "kept",
        NULL,
    };
    static const char *const scrubbed[] = {
        "--source",
        "postgresql://u:******@h/db?sslpassword=******",
        "--target=host=t password=*************",
        "--table",
        "password_resets",
        "--name",
        "kept",
    };
    char *argv[16];
    int argc;
    cr_assert(parse_list(args, argv, &argc), "%s", err.text);
    for (int i = 0; i < argc; i++) {
        cr_expect_str_eq(argv[i], scrubbed[i]);
        cr_expect_eq(strlen(argv[i]), strlen(args[i]));
        free(argv[i]);
    }
    cr_expect_str_eq(options.source, args[1]);
    cr_expect_str_eq(options.target, args[2] + strlen("--target="));
}

/* Whatever the mistake, neither argv nor the message shows the password. */
Test(options, no_mistake_shows_a_password)
{
    static const char *const mistakes[][5] = {
        {"--source", "postgresql://u:secret@h", "--bogus"},
        {"--source=postgresql://u:secret@h", "--source", "host=x password=secret"},
        {"--source=password=secret hots", "--target=password=secret"},
        {"--sorce", "postgresql://u:secret@h"},
        {"--sorce=postgresql://u:secret@h"},
        {"--sorce=host=h password=secret"},
        {"--postgresql://u:secret@h"},
        {"-postgresql://u:secret@h"},
        {"postgresql://u:secret@h"},
        {"host=h password = secret"},
        {"source=postgresql://u:secret@h"},
        {"--workers", "postgresql://u:secret@h"},
        {"--name=password=secret"},
        {"--publication=postgresql://user:secret@a-host-with-a-rather-long-name.example/db"},
        {"--publication=password=secret"},
        {"--dir", "postgresql://u:secret@h"},
        {"--config", "host=h password=secret"},
        {"--table", "postgresql://u:secret@h"},
        {"--exclude-schema=host=h password=secret"},
        {"--source", "--target=postgresql://u:secret@h"},
        {"--stop-when-caught-up=postgresql://u:secret@h"},
        {"--source=host=h password='secret"},
        {"--source", "u:secret@h"},
    };
    for (size_t i = 0; i < PEN_COUNTOF(mistakes); i++) {
        char *argv[16];
        int argc;
        cr_expect_not(parse_list(mistakes[i], argv, &argc), "%zu", i);
        cr_expect_null(strstr(err.text, "secret"), "%s", err.text);
        for (int arg = 0; arg < argc; arg++) {
            cr_expect_null(strstr(argv[arg], "secret"), "%zu: %s", i, argv[arg]);
            free(argv[arg]);
        }
    }
}

Test(options, deinit_twice_and_of_nothing)
{
    pen_options empty = {0};
    pen_options_deinit(&empty);
    ACCEPT(ENDS, "--table=a");
    pen_options_deinit(&options);
    pen_options_deinit(&options);
}

/* ---- settings of another command ---- */

static bool simulate(const char *const *args)
{
    char *argv[32];
    int argc = 0;
    for (; args[argc] != NULL; argc++) {
        argv[argc] = pen_strdup(args[argc]);
    }
    bool ok = pen_options_parse_for(PEN_FOR_SIMULATE, &options, argc, argv, &err);
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    return ok;
}

#define SIMULATE(...) simulate((const char *const[]){__VA_ARGS__, NULL})

Test(options, simulate_takes_a_file_and_its_own_flags)
{
    setenv("PENSTOCK_ROUND_TRIP", "3ms", 1);
    setenv("PENSTOCK_SLOT", "of_stream", 1); /* shared by all commands, and of no use here */
    cr_assert(SIMULATE("--cost-row=7.5us", "some.capture", "--cores", "4", "--apply", "rows"), "%s",
              err.text);
    cr_expect_str_eq(options.file, "some.capture");
    cr_expect_eq(options.cost_row, 7500);
    cr_expect_eq(options.round_trip, 3000000);
    cr_expect_eq(options.cores, 4);
    cr_expect_eq(options.apply, PEN_APPLY_ROWS);
    cr_expect_null(options.target);
}

Test(options, simulate_describes_a_run_with_its_presets)
{
    cr_assert(SIMULATE("some.capture"), "%s", err.text);
    cr_expect_eq(options.apply, PEN_APPLY_SETS);
    cr_expect_eq(options.fill, 25);
}

Test(options, each_command_refuses_the_others_flags)
{
    cr_assert_not(SIMULATE("f", "--slot", "s"));
    cr_expect_str_eq(err.text, "--slot is no flag of \"penstock simulate\": leave it out; --help "
                               "lists the flags of a command");
    REFUSE(
        "--cores is a flag only of \"penstock simulate\": leave it out; --help lists the flags of "
        "a command",
        ENDS, "--cores=1");
    cr_assert_not(SIMULATE("--cores=1"));
    cr_expect_eq(err.kind, PEN_ERROR_CONFIG);
    cr_assert_not(SIMULATE("--target=host=t", "--cores=1"), "a target is no file");
    cr_assert_not(SIMULATE("a", "b"));
    /* A setting that another command has is no mistake in a file that both read. */
    write_file("cores = 3\nslot = s\n");
    ACCEPT(ENDS);
}

Test(options, status_takes_few_flags_and_needs_none)
{
    char *argv[] = {pen_strdup("--json"), pen_strdup("--name=shop"), pen_strdup("--watch")};
    setenv("PENSTOCK_WORKERS", "not a number", 1);
    cr_assert_not(pen_options_parse_for(PEN_FOR_STATUS, &options, 3, argv, &err));
    setenv("PENSTOCK_WORKERS", "3", 1);
    cr_assert(pen_options_parse_for(PEN_FOR_STATUS, &options, 3, argv, &err), "%s", err.text);
    cr_expect(options.json && options.watch);
    cr_expect_str_eq(options.dir, "./shop.penstock");
    pen_options_deinit(&options);
    free(argv[0]);
    argv[0] = pen_strdup("--workers=3");
    cr_assert_not(pen_options_parse_for(PEN_FOR_STATUS, &options, 3, argv, &err));
    cr_expect_str_eq(err.text, "--workers is no flag of \"penstock status\": leave it out; --help "
                               "lists the flags of a command");
    REFUSE("--watch is a flag only of \"penstock status\": leave it out; --help lists the flags of "
           "a command",
           ENDS, "--watch");
    for (int i = 0; i < 3; i++) {
        free(argv[i]);
    }
}

Test(options, where_to_listen)
{
    ACCEPT(ENDS, "--http=[::1]:80");
    cr_expect_str_eq(options.http, "[::1]:80");
    pen_options_deinit(&options);
    ACCEPT(ENDS);
    cr_expect_null(options.http);
    pen_options_deinit(&options);
    REFUSE("--http \"host:80\" (flag) is not allowed: it must be a port (0 to 65535) as in 8080 or "
           ":8080, or an address and a port as in 192.0.2.1:8080 or [2001:db8::1]:8080; a name "
           "other than localhost is none",
           ENDS, "--http=host:80");
}

Test(options, what_is_offered_gives_way_to_what_was_given)
{
    cr_assert(SIMULATE("f", "--cost-row=1us"), "%s", err.text);
    cr_expect(pen_options_offer(&options, "cost-row", "9us", "--costs", &err));
    cr_expect(pen_options_offer(&options, "cost-batch", "8us", "--costs", &err));
    cr_expect(pen_options_offer(&options, "row-latency", "a.b=1us, 2us", "--costs", &err));
    cr_expect_eq(options.cost_row, 1000);
    cr_expect_eq(options.cost_batch, 8000);
    cr_assert_eq(options.row_latency.count, 2);
    cr_expect_str_eq(options.row_latency.items[1], "2us");
    cr_expect_not(pen_options_offer(&options, "slot", "s", "--costs", &err), "of another command");
    cr_expect_not(pen_options_offer(&options, "help", "on", "--costs", &err));
    cr_expect_not(pen_options_offer(&options, "cost-statement", "much", "--costs", &err));
    cr_expect_not_null(strstr(err.text, "a time from 0 to 1s"), "%s", err.text);
}
