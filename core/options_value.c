#include "core/options_table.h"

#include "core/address.h"
#include "core/conninfo.h"
#include "core/nearest.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define C_TYPE_CONNINFO char *
#define C_TYPE_NAME     char *
#define C_TYPE_TEXT     char *
#define C_TYPE_ADDRESS  char *
#define C_TYPE_LIST     pen_option_list
#define C_TYPE_COUNT    uint64_t
#define C_TYPE_SIZE     uint64_t
#define C_TYPE_LSN      uint64_t
#define C_TYPE_DURATION uint64_t
#define C_TYPE_SWITCH   bool

/* A row that names a field of another type must not compile, since the setters go by offset. */
#define IS_TYPE(field, type) _Generic(((pen_options *)0)->field, type : 1, default : 0)
#define CHECK_WORD(field)                                                                          \
    _Static_assert(sizeof(((pen_options *)0)->field) == sizeof(unsigned),                          \
                   #field " must be an enum");
#define CHECK_PLAIN(field, type)                                                                   \
    _Static_assert(IS_TYPE(field, type), #field " is not of its row's type");
#define CHECK_CONNINFO(field)                                               CHECK_PLAIN(field, C_TYPE_CONNINFO)
#define CHECK_NAME(field)                                                   CHECK_PLAIN(field, C_TYPE_NAME)
#define CHECK_TEXT(field)                                                   CHECK_PLAIN(field, C_TYPE_TEXT)
#define CHECK_ADDRESS(field)                                                CHECK_PLAIN(field, C_TYPE_ADDRESS)
#define CHECK_LIST(field)                                                   CHECK_PLAIN(field, C_TYPE_LIST)
#define CHECK_COUNT(field)                                                  CHECK_PLAIN(field, C_TYPE_COUNT)
#define CHECK_SIZE(field)                                                   CHECK_PLAIN(field, C_TYPE_SIZE)
#define CHECK_LSN(field)                                                    CHECK_PLAIN(field, C_TYPE_LSN)
#define CHECK_DURATION(field)                                               CHECK_PLAIN(field, C_TYPE_DURATION)
#define CHECK_SWITCH(field)                                                 CHECK_PLAIN(field, C_TYPE_SWITCH)
#define PEN_OPTION(field, flag, type, preset, min, max, value, where, help) CHECK_##type(field)
#include "core/options.def"
#undef PEN_OPTION

const pen_option_row pen_option_rows[PEN_OPTION_ROWS] = {
#define PEN_OPTION(field, flag, type, preset, min, max, value, where, help)                        \
    {flag,                                                                                         \
     offsetof(pen_options, field),                                                                 \
     PEN_OPTION_##type,                                                                            \
     PEN_OPTION_##where,                                                                           \
     preset,                                                                                       \
     min,                                                                                          \
     max,                                                                                          \
     value,                                                                                        \
     help},
#include "core/options.def"
#undef PEN_OPTION
};

static void *field_of(pen_options *options, int row)
{
    return (char *)options + pen_option_rows[row].offset;
}

static const void *const_field_of(const pen_options *options, int row)
{
    return (const char *)options + pen_option_rows[row].offset;
}

bool pen_option_is_for(int row, pen_option_user user)
{
    static const bool only_simulate[PEN_OPTION_ROWS] = {
#define PEN_OPTION(field, flag, type, preset, min, max, value, where, help)
#define PEN_SIMULATE_OPTION(field, flag, type, preset, min, max, value, where, help)               \
    [PEN_ROW_##field] = true,
#include "core/options.def"
#undef PEN_OPTION
    };
    static const int shared[] = {PEN_ROW_target,       PEN_ROW_batch_rows,
                                 PEN_ROW_batch_bytes,  PEN_ROW_batch_transactions,
                                 PEN_ROW_memory,       PEN_ROW_conflict_memory,
                                 PEN_ROW_apply,        PEN_ROW_log_format,
                                 PEN_ROW_log_level,    PEN_ROW_config,
                                 PEN_ROW_print_config, PEN_ROW_help};
    bool is_shared = false;
    for (size_t i = 0; i < PEN_COUNTOF(shared); i++) {
        is_shared |= shared[i] == row;
    }
    switch (user) {
    case PEN_FOR_SIMULATE:
        return only_simulate[row] || is_shared;
    case PEN_FOR_STATUS:
        return row == PEN_ROW_name || row == PEN_ROW_dir || row == PEN_ROW_json ||
               row == PEN_ROW_watch || row == PEN_ROW_config || row == PEN_ROW_print_config ||
               row == PEN_ROW_help;
    case PEN_FOR_STREAM:
        break;
    }
    return !only_simulate[row] && row != PEN_ROW_watch;
}

int pen_option_find(const char *flag, size_t len)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        const char *known = pen_option_rows[row].flag;
        if (strlen(known) == len && memcmp(known, flag, len) == 0) {
            return row;
        }
    }
    return -1;
}

const char *pen_option_nearest(const char *word)
{
    const char *flags[PEN_OPTION_ROWS];
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        flags[row] = pen_option_rows[row].flag;
    }
    return flags[pen_nearest(word, flags, PEN_OPTION_ROWS)];
}

const char *pen_option_env_name(int row, char name[PEN_OPTION_ENV_SIZE])
{
    snprintf(name, PEN_OPTION_ENV_SIZE, "PENSTOCK_%s", pen_option_rows[row].flag);
    for (char *at = name; *at != '\0'; at++) {
        /* Not toupper: in a Turkish locale it has its own idea of 'i'. */
        *at = *at == '-' ? '_' : *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
    }
    return name;
}

const char *pen_option_quote(const char *text, char quoted[PEN_QUOTE_SIZE])
{
    static const char ellipsis[] = "...";
    char *safe = pen_conninfo_suspect(text) ? pen_conninfo_redact(text) : pen_strdup(text);
    const size_t room = PEN_QUOTE_SIZE - sizeof("\"\"") - sizeof(ellipsis);
    bool cut = strlen(safe) > room;
    if (cut) {
        safe[room] = '\0';
    }
    for (char *at = safe; *at != '\0'; at++) {
        *at = (unsigned char)*at < 0x20 || *at == 0x7f ? '?' : *at;
    }
    snprintf(quoted, PEN_QUOTE_SIZE, "\"%s%s\"", safe, cut ? ellipsis : "");
    free(safe);
    return quoted;
}

/* Reads the digits at *text and moves it behind them; no sign, no space. */
static bool parse_digits(const char **text, uint64_t *number)
{
    const char *first = *text;
    *number = 0;
    for (; **text >= '0' && **text <= '9'; (*text)++) {
        if (__builtin_mul_overflow(*number, UINT64_C(10), number) ||
            __builtin_add_overflow(*number, (uint64_t)(**text - '0'), number)) {
            return false;
        }
    }
    return *text > first;
}

/* The units as in PostgreSQL's guc.c, where their case counts too. */
static const struct {
    const char *name;
    unsigned shift;
} size_units[] = {{"TB", 40}, {"GB", 30}, {"MB", 20}, {"kB", 10}, {"B", 0}};

bool pen_size_parse(const char *text, uint64_t *bytes)
{
    uint64_t number;
    if (!parse_digits(&text, &number)) {
        return false;
    }
    if (*text == '\0') {
        *bytes = number;
        return true;
    }
    for (size_t i = 0; i < PEN_COUNTOF(size_units); i++) {
        if (strcmp(text, size_units[i].name) == 0) {
            if (number > UINT64_MAX >> size_units[i].shift) {
                return false;
            }
            *bytes = number << size_units[i].shift;
            return true;
        }
    }
    return false;
}

#define SIZE_TEXT 32

static const char *format_size(uint64_t bytes, char text[SIZE_TEXT])
{
    size_t unit = 0;
    while (bytes % (UINT64_C(1) << size_units[unit].shift) != 0 ||
           bytes >> size_units[unit].shift == 0) {
        if (size_units[++unit].shift == 0) {
            break;
        }
    }
    snprintf(text, SIZE_TEXT, "%" PRIu64 "%s", bytes >> size_units[unit].shift,
             size_units[unit].name);
    return text;
}

/* The longest first: 1500us is shown as it is, 2000us as 2ms. */
static const struct {
    const char *name;
    uint64_t ns;
} time_units[] = {{"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}};

/* The digits behind a point, in nanoseconds; `unit` is one's length. */
static bool parse_fraction(const char *digits, size_t len, uint64_t unit, uint64_t *ns)
{
    *ns = 0;
    for (size_t i = 0; i < len; i++) {
        if (unit % 10 != 0) {
            return false;
        }
        unit /= 10;
        *ns += (uint64_t)(digits[i] - '0') * unit;
    }
    return len > 0;
}

bool pen_duration_parse(const char *text, uint64_t *ns)
{
    uint64_t number;
    if (!parse_digits(&text, &number)) {
        return false;
    }
    const char *fraction = *text == '.' ? text + 1 : NULL;
    size_t fraction_len = fraction == NULL ? 0 : strspn(fraction, "0123456789");
    text = fraction == NULL ? text : fraction + fraction_len;
    if (*text == '\0' && number == 0 && fraction == NULL) {
        *ns = 0;
        return true;
    }
    for (size_t i = 0; i < PEN_COUNTOF(time_units); i++) {
        uint64_t rest = 0;
        if (strcmp(text, time_units[i].name) == 0) {
            return (fraction == NULL ||
                    parse_fraction(fraction, fraction_len, time_units[i].ns, &rest)) &&
                   !__builtin_mul_overflow(number, time_units[i].ns, ns) &&
                   !__builtin_add_overflow(*ns, rest, ns);
        }
    }
    return false;
}

static const char *format_duration(uint64_t ns, char text[SIZE_TEXT])
{
    size_t unit = 0;
    while (ns % time_units[unit].ns != 0) {
        unit++;
    }
    snprintf(text, SIZE_TEXT, "%" PRIu64 "%s", ns / time_units[unit].ns,
             ns == 0 ? "" : time_units[unit].name);
    return text;
}

static bool parse_switch(const char *text, bool *on)
{
    static const char *const words[] = {"off", "on", "false", "true", "no", "yes", "0", "1"};
    for (size_t i = 0; i < PEN_COUNTOF(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *on = i % 2 == 1;
            return true;
        }
    }
    return false;
}

/* The number of `text` among "one|two|three". */
static bool parse_word(const char *words, const char *text, unsigned *index)
{
    size_t len = strlen(text);
    for (*index = 0;; (*index)++) {
        size_t word_len = strcspn(words, "|");
        if (word_len == len && memcmp(words, text, len) == 0) {
            return true;
        }
        if (words[word_len] == '\0') {
            return false;
        }
        words += word_len + 1;
    }
}

static bool is_name(const char *text)
{
    return *text >= 'a' && *text <= 'z' &&
           text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static bool has_length(const pen_option_row *row, const char *text)
{
    return strlen(text) >= row->min && strlen(text) <= row->max;
}

/* What is allowed, in words that stand behind "it must be". */
static const char *describe(const pen_option_row *row, char *text, size_t size)
{
    char least[SIZE_TEXT];
    char most[SIZE_TEXT];
    switch (row->type) {
    case PEN_OPTION_NAME:
        snprintf(text, size,
                 "%" PRIu64 " to %" PRIu64 " characters a-z, 0-9 and _, beginning with a letter",
                 row->min, row->max);
        break;
    case PEN_OPTION_COUNT:
        if (row->max == UINT64_MAX) {
            snprintf(text, size, "a whole number of at least %" PRIu64, row->min);
        } else {
            snprintf(text, size, "a whole number from %" PRIu64 " to %" PRIu64, row->min, row->max);
        }
        break;
    case PEN_OPTION_SIZE:
        snprintf(text, size,
                 "a size of at least %s: a whole number with B, kB, MB, GB, TB or nothing for "
                 "bytes, as in 256MB",
                 format_size(row->min, least));
        break;
    case PEN_OPTION_DURATION:
        snprintf(text, size, "a time from %s to %s: a number with ns, us, ms or s, as in 7.5us",
                 format_duration(row->min, least), format_duration(row->max, most));
        break;
    case PEN_OPTION_LSN:
        snprintf(text, size, "a WAL position other than 0/0, such as 16/B374D848");
        break;
    case PEN_OPTION_SWITCH:
        snprintf(text, size, "on or off (or true, false, yes, no, 1, 0)");
        break;
    case PEN_OPTION_WORD:
        snprintf(text, size, "one of %s", row->value);
        break;
    case PEN_OPTION_TEXT:
        snprintf(text, size, "%" PRIu64 " to %" PRIu64 " bytes long", row->min, row->max);
        break;
    case PEN_OPTION_ADDRESS:
        snprintf(text, size,
                 "a port (0 to 65535) as in 8080 or :8080, or an address and a port as in "
                 "192.0.2.1:8080 or [2001:db8::1]:8080; a name other than localhost is none");
        break;
    case PEN_OPTION_LIST:
        snprintf(text, size,
                 "a pattern; outside of the command line several, with commas between them and "
                 "every double quote closed");
        break;
    case PEN_OPTION_CONNINFO:
        snprintf(text, size,
                 "a connection string such as postgresql://user@host:5432/database or "
                 "\"host=... dbname=...\"");
        break;
    }
    return text;
}

static bool refuse(int row, const char *value, const char *origin, pen_error *err)
{
    char quoted[PEN_QUOTE_SIZE];
    char allowed[256];
    return pen_error_set(err, PEN_ERROR_CONFIG, "--%s %s (%s) is not allowed: it must be %s",
                         pen_option_rows[row].flag, pen_option_quote(value, quoted), origin,
                         describe(&pen_option_rows[row], allowed, sizeof(allowed)));
}

/* A connection string is not repeated in the message: what is wrong in it may be its password. */
static bool refuse_conninfo(int row, const char *problem, const char *origin, pen_error *err)
{
    char allowed[256];
    return pen_error_set(err, PEN_ERROR_CONFIG,
                         "--%s (%s) is not a connection string: %s; it must be %s",
                         pen_option_rows[row].flag, origin, problem,
                         describe(&pen_option_rows[row], allowed, sizeof(allowed)));
}

/* Free text ends up in messages, in the catalogs and as a file's name: a connection string that got
 * into the wrong place must not, for it may hold a password. */
static bool refuse_conninfo_as_text(int row, const char *value, const char *origin, pen_error *err)
{
    char quoted[PEN_QUOTE_SIZE];
    return pen_error_set(err, PEN_ERROR_CONFIG,
                         "--%s %s (%s) looks like a connection string, which only --source and "
                         "--target take; give %s here",
                         pen_option_rows[row].flag, pen_option_quote(value, quoted), origin,
                         pen_option_rows[row].value);
}

static void append(pen_option_list *list, const char *begin, const char *end)
{
    size_t len = (size_t)(end - begin);
    list->items = pen_realloc(list->items, (list->count + 1) * sizeof(*list->items));
    char *item = pen_malloc(len + 1);
    memcpy(item, begin, len);
    item[len] = '\0';
    list->items[list->count++] = item;
}

/* Adds the items between the commas outside of double quotes (a quoted identifier may have commas
 * in it), without the blanks around them. False when one is empty or a quote is not closed. */
static bool append_split(pen_option_list *list, const char *text)
{
    for (;;) {
        const char *begin = text + strspn(text, " \t");
        bool quoted = false;
        for (text = begin; *text != '\0' && (quoted || *text != ','); text++) {
            quoted = quoted != (*text == '"');
        }
        const char *end = text;
        while (end > begin && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }
        if (quoted || end == begin) {
            return false;
        }
        append(list, begin, end);
        if (*text++ == '\0') {
            return true;
        }
    }
}

static void clear_list(pen_option_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (pen_option_list){0};
}

static void replace_text(char **field, const char *value)
{
    free(*field);
    *field = pen_strdup(value);
}

/* Reads `value` into the row's field. False when it is not allowed. */
static bool set_field(pen_options *options, int number, pen_option_level level, const char *value)
{
    const pen_option_row *row = &pen_option_rows[number];
    void *field = field_of(options, number);
    switch (row->type) {
    case PEN_OPTION_CONNINFO:
        replace_text(field, value);
        return true;
    case PEN_OPTION_NAME:
    case PEN_OPTION_TEXT:
        if (!has_length(row, value) || (row->type == PEN_OPTION_NAME && !is_name(value))) {
            return false;
        }
        replace_text(field, value);
        return true;
    case PEN_OPTION_ADDRESS: {
        pen_address address;
        replace_text(field, value);
        return pen_address_parse(value, &address);
    }
    case PEN_OPTION_LIST:
        if (level != PEN_LEVEL_FLAG) {
            return append_split(field, value);
        }
        append(field, value, value + strlen(value));
        return *value != '\0';
    case PEN_OPTION_COUNT:
        return parse_digits(&value, field) && *value == '\0' && *(uint64_t *)field >= row->min &&
               *(uint64_t *)field <= row->max;
    case PEN_OPTION_SIZE:
        return pen_size_parse(value, field) && *(uint64_t *)field >= row->min &&
               *(uint64_t *)field <= row->max;
    case PEN_OPTION_DURATION:
        return pen_duration_parse(value, field) && *(uint64_t *)field >= row->min &&
               *(uint64_t *)field <= row->max;
    case PEN_OPTION_LSN:
        return pen_lsn_parse(value, field) && *(pen_lsn *)field != PEN_LSN_NONE;
    case PEN_OPTION_SWITCH:
        return parse_switch(value, field);
    case PEN_OPTION_WORD: {
        unsigned index;
        bool known = parse_word(row->value, value, &index);
        memcpy(field, &index, sizeof(index));
        return known;
    }
    }
    return false;
}

bool pen_option_set(pen_option_reader *reader, int row, pen_option_level level, const char *value,
                    const char *origin, pen_error *err)
{
    pen_options *options = reader->options;
    const char *flag = pen_option_rows[row].flag;
    pen_option_type type = pen_option_rows[row].type;
    bool is_list = type == PEN_OPTION_LIST;
    bool again = level != PEN_LEVEL_DEFAULT && reader->levels[row] == level;
    if (again && !is_list) {
        return pen_error_set(err, PEN_ERROR_CONFIG, "--%s (%s) was given before (%s): give it once",
                             flag, origin, options->origins[row]);
    }
    if (is_list && !again) {
        clear_list(field_of(options, row));
    }
    if (type == PEN_OPTION_CONNINFO) {
        const char *problem = pen_conninfo_problem(value);
        if (problem != NULL) {
            return refuse_conninfo(row, problem, origin, err);
        }
    }
    if ((type == PEN_OPTION_TEXT || type == PEN_OPTION_LIST) && pen_conninfo_suspect(value)) {
        return refuse_conninfo_as_text(row, value, origin, err);
    }
    if (!set_field(options, row, level, value)) {
        return refuse(row, value, origin, err);
    }
    reader->levels[row] = level;
    if (!again) {
        pen_option_set_origin(options, row, origin);
    }
    return true;
}

static char *show_list(const pen_option_list *list)
{
    pen_text text = {0};
    for (size_t i = 0; i < list->count; i++) {
        pen_text_appendf(&text, "%s%s", i > 0 ? "," : "", list->items[i]);
    }
    return pen_text_take(&text);
}

/* Gives the word with this number of "one|two|three". */
static char *show_word(const char *words, unsigned index)
{
    for (; index > 0; index--) {
        words += strcspn(words, "|") + 1;
    }
    char *text = pen_strdup(words);
    text[strcspn(text, "|")] = '\0';
    return text;
}

char *pen_option_show(const pen_options *options, int row)
{
    const void *field = const_field_of(options, row);
    char text[64];
    char *const *string = field;
    unsigned index;
    switch (pen_option_rows[row].type) {
    case PEN_OPTION_CONNINFO:
        return *string == NULL ? NULL : pen_conninfo_redact(*string);
    case PEN_OPTION_NAME:
    case PEN_OPTION_TEXT:
    case PEN_OPTION_ADDRESS:
        return *string == NULL ? NULL : pen_strdup(*string);
    case PEN_OPTION_LIST:
        return ((const pen_option_list *)field)->count == 0 ? NULL : show_list(field);
    case PEN_OPTION_COUNT:
        snprintf(text, sizeof(text), "%" PRIu64, *(const uint64_t *)field);
        return pen_strdup(text);
    case PEN_OPTION_SIZE:
        return pen_strdup(format_size(*(const uint64_t *)field, text));
    case PEN_OPTION_DURATION:
        return pen_strdup(format_duration(*(const uint64_t *)field, text));
    case PEN_OPTION_LSN:
        return *(const pen_lsn *)field == PEN_LSN_NONE
                   ? NULL
                   : pen_strdup(pen_lsn_format(*(const pen_lsn *)field, text));
    case PEN_OPTION_SWITCH:
        return pen_strdup(*(const bool *)field ? "on" : "off");
    case PEN_OPTION_WORD:
        memcpy(&index, field, sizeof(index));
        return show_word(pen_option_rows[row].value, index);
    }
    return NULL;
}
