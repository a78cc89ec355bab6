#include "core/options_table.h"

#include "core/conninfo.h"

#include <stdlib.h>
#include <string.h>

/* The order of reading: argv is copied and scrubbed first, so that no error on the way leaves a
 * password in the process title; then cut into flags, because --help and --config must be known
 * before anything else is read; then defaults, file, environment and flags, weakest first. A wrong
 * value is an error even where a stronger one overrides it: it would come to light on the day
 * when the stronger one is taken away. */

/* options->origins points to `texts`; what is not a constant is in `owned` too. */
typedef struct origin_table {
    const char *texts[PEN_OPTION_ROWS];
    char *owned[PEN_OPTION_ROWS];
} origin_table;

/* One flag of argv. */
typedef struct flag_use {
    int row;
    const char *value; /* into the copy of argv */
} flag_use;

typedef struct flag_list {
    flag_use *uses;
    size_t count;
    bool help;        /* --help itself was there: nothing else matters */
    const char *file; /* the argument that is no flag, into the copy of argv */
} flag_list;

void pen_option_set_origin(pen_options *options, int row, const char *origin)
{
    void *memory = options->origins;
    origin_table *table = memory;
    free(table->owned[row]);
    table->owned[row] = pen_strdup(origin);
    table->texts[row] = table->owned[row];
}

void pen_option_reader_init(pen_option_reader *reader, pen_options *options)
{
    memset(options, 0, sizeof(*options));
    *reader = (pen_option_reader){.options = options};
    origin_table *table = pen_calloc(1, sizeof(*table));
    options->origins = table->texts;
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        table->texts[row] = "default";
    }
}

void pen_options_deinit(pen_options *options)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        void *field = (char *)options + pen_option_rows[row].offset;
        pen_option_type type = pen_option_rows[row].type;
        if (type == PEN_OPTION_CONNINFO || type == PEN_OPTION_NAME || type == PEN_OPTION_TEXT ||
            type == PEN_OPTION_ADDRESS) {
            free(*(char **)field);
        } else if (type == PEN_OPTION_LIST) {
            pen_option_list *list = field;
            for (size_t i = 0; i < list->count; i++) {
                free(list->items[i]);
            }
            free(list->items);
        }
    }
    free(options->file);
    void *memory = options->origins;
    origin_table *table = memory;
    for (int row = 0; table != NULL && row < PEN_OPTION_ROWS; row++) {
        free(table->owned[row]);
    }
    free(table);
    memset(options, 0, sizeof(*options));
}

static bool is_conninfo_flag(const char *flag, size_t len)
{
    int row = pen_option_find(flag, len);
    return row >= 0 && pen_option_rows[row].type == PEN_OPTION_CONNINFO;
}

/* Overwrites the passwords in the one argument `arg`, which follows `before` (NULL: the first).
 * Beyond --source and --target that is done to what only looks like a connection string, for the
 * operator who mistyped a flag's name. */
static void scrub_argument(char *arg, const char *before)
{
    char *equals = strncmp(arg, "--", 2) == 0 ? strchr(arg, '=') : NULL;
    if (before != NULL && strncmp(before, "--", 2) == 0 && strncmp(arg, "--", 2) != 0 &&
        is_conninfo_flag(before + 2, strlen(before + 2))) {
        pen_conninfo_scrub(arg);
    } else if (equals != NULL && is_conninfo_flag(arg + 2, (size_t)(equals - arg - 2))) {
        pen_conninfo_scrub(equals + 1);
    } else if (equals != NULL && pen_conninfo_suspect(equals + 1)) {
        pen_conninfo_scrub(equals + 1);
    } else if (pen_conninfo_suspect(arg)) {
        pen_conninfo_scrub(arg);
    }
}

/* Gives a copy of argv, and scrubs the original. */
static char **take_arguments(int argc, char **argv)
{
    char **copy = pen_calloc((size_t)argc + 1, sizeof(*copy));
    for (int i = 0; i < argc; i++) {
        copy[i] = pen_strdup(argv[i]);
    }
    for (int i = 0; i < argc; i++) {
        scrub_argument(argv[i], i == 0 ? NULL : copy[i - 1]);
    }
    return copy;
}

static bool refuse_unknown(const char *arg, size_t len, pen_error *err)
{
    char name[64];
    char quoted[PEN_QUOTE_SIZE];
    snprintf(name, sizeof(name), "%.*s", (int)(len < sizeof(name) ? len : sizeof(name)), arg);
    /* By its letters -h is as near to others, but everybody means one thing by it. */
    const char *nearest =
        strcmp(name, "-h") == 0 ? "help" : pen_option_nearest(name + strspn(name, "-"));
    return pen_error_set(err, PEN_ERROR_CONFIG,
                         "unknown flag %s: the nearest is --%s; --help lists all",
                         pen_option_quote(name, quoted), nearest);
}

static bool refuse_others(int row, pen_option_user user, pen_error *err)
{
    const char *command = user == PEN_FOR_STATUS || (user == PEN_FOR_STREAM && row == PEN_ROW_watch)
                              ? "status"
                              : "simulate";
    return pen_error_set(err, PEN_ERROR_CONFIG,
                         "--%s is %s \"penstock %s\": leave it out; --help lists the flags of a "
                         "command",
                         pen_option_rows[row].flag,
                         user == PEN_FOR_STREAM ? "a flag only of" : "no flag of", command);
}

/* Reads the flag at argv[*at] and, if it takes one, its value; moves *at to its last argument. */
static bool read_flag(pen_option_user user, int argc, char **argv, int *at, flag_use *use,
                      pen_error *err)
{
    char quoted[PEN_QUOTE_SIZE];
    const char *arg = argv[*at];
    size_t len = strcspn(arg, "=");
    if (arg[0] != '-') {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "%s is not a flag: this command takes flags alone, each with its "
                             "value right behind it; --help lists them",
                             pen_option_quote(arg, quoted));
    }
    use->row = strncmp(arg, "--", 2) == 0 ? pen_option_find(arg + 2, len - 2) : -1;
    if (use->row < 0) {
        return refuse_unknown(arg, len, err);
    }
    if (!pen_option_is_for(use->row, user)) {
        return refuse_others(use->row, user, err);
    }
    const pen_option_row *row = &pen_option_rows[use->row];
    if (arg[len] == '=') {
        use->value = arg + len + 1;
    } else if (row->type == PEN_OPTION_SWITCH) {
        use->value = "on";
    } else if (*at + 1 == argc || strncmp(argv[*at + 1], "--", 2) == 0) {
        /* A flag where the value should be: the value was forgotten. */
        use->value = "";
    } else {
        use->value = argv[++*at];
    }
    if (*use->value == '\0') {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "--%s has no value: write --%s %s (or --%s=... for a value that "
                             "begins with dashes)",
                             row->flag, row->flag, row->value == NULL ? "on|off" : row->value,
                             row->flag);
    }
    return true;
}

/* Cuts argv into flags; `flags` has room for argc of them. */
static bool read_flags(pen_option_user user, int argc, char **argv, flag_list *flags,
                       pen_error *err)
{
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            flags->help = true;
            return true;
        }
    }
    for (int i = 0; i < argc; i++) {
        char quoted[PEN_QUOTE_SIZE];
        if (user == PEN_FOR_SIMULATE && argv[i][0] != '-') {
            if (flags->file != NULL) {
                return pen_error_set(err, PEN_ERROR_CONFIG, "one file at a time: %s is the second",
                                     pen_option_quote(argv[i], quoted));
            }
            flags->file = argv[i];
            continue;
        }
        if (!read_flag(user, argc, argv, &i, &flags->uses[flags->count], err)) {
            return false;
        }
        flags->count++;
    }
    return true;
}

static bool set_defaults(pen_option_reader *reader, pen_error *err)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        const char *preset = pen_option_rows[row].preset;
        if (preset != NULL &&
            !pen_option_set(reader, row, PEN_LEVEL_DEFAULT, preset, "default", err)) {
            return false;
        }
    }
    return true;
}

/* An unset variable and an empty one are the same: compose files and unit files can hardly unset.
 * Unknown PENSTOCK_ variables are passed over: Kubernetes makes PENSTOCK_PORT and others for a
 * service that is called penstock. */
static const char *environment_value(int row, char name[PEN_OPTION_ENV_SIZE])
{
    if (pen_option_rows[row].where == PEN_OPTION_FLAG_ONLY) {
        return NULL;
    }
    const char *value = getenv(pen_option_env_name(row, name));
    return value == NULL || *value == '\0' ? NULL : value;
}

static bool set_row_from_environment(pen_option_reader *reader, int row, pen_error *err)
{
    char name[PEN_OPTION_ENV_SIZE];
    char origin[PEN_OPTION_ENV_SIZE + 16];
    const char *value = environment_value(row, name);
    if (value == NULL || reader->levels[row] >= PEN_LEVEL_ENVIRONMENT) {
        return true;
    }
    snprintf(origin, sizeof(origin), "environment %s", name);
    return pen_option_set(reader, row, PEN_LEVEL_ENVIRONMENT, value, origin, err);
}

/* --config must be settled before the file can be read. */
static bool set_config(pen_option_reader *reader, const flag_list *flags, pen_error *err)
{
    if (!set_row_from_environment(reader, PEN_ROW_config, err)) {
        return false;
    }
    for (size_t i = 0; i < flags->count; i++) {
        if (flags->uses[i].row == PEN_ROW_config &&
            !pen_option_set(reader, PEN_ROW_config, PEN_LEVEL_FLAG, flags->uses[i].value, "flag",
                            err)) {
            return false;
        }
    }
    return true;
}

static bool set_from_environment(pen_option_reader *reader, pen_error *err)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        if (!set_row_from_environment(reader, row, err)) {
            return false;
        }
    }
    return true;
}

static bool set_from_flags(pen_option_reader *reader, const flag_list *flags, pen_error *err)
{
    for (size_t i = 0; i < flags->count; i++) {
        if (flags->uses[i].row != PEN_ROW_config &&
            !pen_option_set(reader, flags->uses[i].row, PEN_LEVEL_FLAG, flags->uses[i].value,
                            "flag", err)) {
            return false;
        }
    }
    return true;
}

/* The defaults that depend on --name. */
static void derive_defaults(pen_options *options)
{
    if (options->slot == NULL) {
        options->slot = pen_strdup(options->name);
    }
    if (options->publication == NULL) {
        options->publication = pen_strdup(options->name);
    }
    if (options->dir == NULL) {
        char dir[64];
        snprintf(dir, sizeof(dir), "./%s.penstock", options->name);
        options->dir = pen_strdup(dir);
    }
}

static bool check_required(const pen_options *options, pen_error *err)
{
    if (options->help || options->print_config || options->user == PEN_FOR_STATUS) {
        return true;
    }
    if (options->user == PEN_FOR_SIMULATE) {
        return options->file != NULL ||
               pen_error_set(err, PEN_ERROR_CONFIG,
                             "no file named: penstock simulate FILE, with a stream that penstock "
                             "stream --capture FILE recorded");
    }
    if (options->source != NULL && options->target != NULL) {
        return true;
    }
    bool both = !options->source && !options->target;
    const char *flag = options->source ? "target" : "source";
    char name[PEN_OPTION_ENV_SIZE];
    return pen_error_set(
        err, PEN_ERROR_CONFIG,
        "--%s%s missing: give %s as a flag, as %s in the environment, or as \"%s "
        "= ...\" in the file that --config names",
        flag, both ? " and --target are" : " is", both ? "each" : "it",
        pen_option_env_name(options->source ? PEN_ROW_target : PEN_ROW_source, name), flag);
}

static bool read_all(pen_option_reader *reader, const flag_list *flags, pen_error *err)
{
    pen_options *options = reader->options;
    if (!set_defaults(reader, err)) {
        return false;
    }
    options->help = flags->help;
    options->file = flags->file == NULL ? NULL : pen_strdup(flags->file);
    if (!flags->help &&
        (!set_config(reader, flags, err) ||
         (options->config != NULL && !pen_option_read_file(reader, options->config, err)) ||
         !set_from_environment(reader, err) || !set_from_flags(reader, flags, err))) {
        return false;
    }
    derive_defaults(options);
    return check_required(options, err);
}

bool pen_options_offer(pen_options *options, const char *flag, const char *value,
                       const char *origin, pen_error *err)
{
    int row = pen_option_find(flag, strlen(flag));
    if (row < 0 || pen_option_rows[row].where != PEN_OPTION_ANYWHERE ||
        !pen_option_is_for(row, options->user)) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "%s: there is no setting \"%.60s\" for it: the nearest is %s", origin,
                             flag, pen_option_nearest(flag));
    }
    if (strcmp(options->origins[row], "default") != 0) {
        return true;
    }
    pen_option_reader reader = {.options = options};
    return pen_option_set(&reader, row, PEN_LEVEL_FILE, value, origin, err);
}

bool pen_options_parse(pen_options *options, int argc, char **argv, pen_error *err)
{
    return pen_options_parse_for(PEN_FOR_STREAM, options, argc, argv, err);
}

bool pen_options_parse_for(pen_option_user user, pen_options *options, int argc, char **argv,
                           pen_error *err)
{
    pen_option_reader reader;
    pen_option_reader_init(&reader, options);
    options->user = user;
    char **copy = take_arguments(argc, argv);
    flag_list flags = {.uses = pen_calloc((size_t)argc + 1, sizeof(*flags.uses))};
    bool ok = read_flags(user, argc, copy, &flags, err) && read_all(&reader, &flags, err);
    if (!ok) {
        pen_options_deinit(options);
    }
    free(flags.uses);
    for (int i = 0; i < argc; i++) {
        /* It may hold a password, which need not stay in freed memory as well. */
        explicit_bzero(copy[i], strlen(copy[i]));
        free(copy[i]);
    }
    free(copy);
    return ok;
}
