/* Purpose: core/options.def as a table, and what its rows can do: be found, set and shown.
 * Thread:  main, as core/options.h.
 * Owns:    nothing of its own; values and origins belong to the pen_options they are set in.
 * Flow:    a row and text in; a typed field of pen_options out, and back to text. */
#ifndef PEN_CORE_OPTIONS_TABLE_H
#define PEN_CORE_OPTIONS_TABLE_H

#include "core/options.h"

/* For the files of core/options alone; everybody else reads the fields of pen_options. */

typedef enum pen_option_type {
    PEN_OPTION_CONNINFO, /* char *: libpq's connection string or URI; shown without passwords */
    PEN_OPTION_NAME,     /* char *: a-z, 0-9 and _, beginning with a letter */
    PEN_OPTION_TEXT,     /* char * */
    PEN_OPTION_ADDRESS,  /* char *: where to listen, as pen_address_parse reads it */
    PEN_OPTION_LIST,     /* pen_option_list: repeatable; separated by commas outside of argv */
    PEN_OPTION_COUNT,    /* uint64_t: a whole number */
    PEN_OPTION_SIZE,     /* uint64_t: bytes */
    PEN_OPTION_LSN,      /* uint64_t: a pen_lsn */
    PEN_OPTION_DURATION, /* uint64_t: nanoseconds */
    PEN_OPTION_SWITCH,   /* bool */
    PEN_OPTION_WORD      /* an enum whose values count from 0 in the order of the words */
} pen_option_type;

typedef enum pen_option_where {
    PEN_OPTION_FLAG_ONLY,
    PEN_OPTION_NOT_IN_FILE,
    PEN_OPTION_ANYWHERE
} pen_option_where;

/* The columns of core/options.def, which explains them. */
typedef struct pen_option_row {
    const char *flag;
    size_t offset;
    pen_option_type type;
    pen_option_where where;
    const char *preset;
    uint64_t min;
    uint64_t max;
    const char *value;
    const char *help;
} pen_option_row;

/* The row numbers: PEN_ROW_source, … */
enum {
#define PEN_OPTION(field, flag, type, preset, min, max, value, where, help) PEN_ROW_##field,
#include "core/options.def"
#undef PEN_OPTION
    PEN_OPTION_ROWS
};

extern const pen_option_row pen_option_rows[PEN_OPTION_ROWS];

/* Where a value came from, from the weakest to the strongest. */
typedef enum pen_option_level {
    PEN_LEVEL_DEFAULT,
    PEN_LEVEL_FILE,
    PEN_LEVEL_ENVIRONMENT,
    PEN_LEVEL_FLAG
} pen_option_level;

/* Options that are being read. */
typedef struct pen_option_reader {
    pen_options *options;
    pen_option_level levels[PEN_OPTION_ROWS];
} pen_option_reader;

/* Begins to read into `options`, whose old content is not looked at: all fields empty. The caller
 * calls pen_options_deinit at the end. */
void pen_option_reader_init(pen_option_reader *reader, pen_options *options);

/* True for a setting that the command takes. */
bool pen_option_is_for(int row, pen_option_user user);
/* Returns the number of the row with this flag (`len` bytes at `flag`), or -1. */
int pen_option_find(const char *flag, size_t len);
/* Returns the flag that was probably meant by `word`. */
const char *pen_option_nearest(const char *word);

#define PEN_OPTION_ENV_SIZE 64
/* Writes the row's environment name into `name`, and returns `name`. */
const char *pen_option_env_name(int row, char name[PEN_OPTION_ENV_SIZE]);

/* Reads `value` into the row's field and notes where it came from (`origin`: "flag", "file
 * PATH:LINE", "environment NAME"). A list takes the value whole from a flag and at its commas from
 * elsewhere, adds to what the same level gave before, and replaces what a weaker one gave. Errors:
 * PEN_ERROR_CONFIG for a value that is not allowed, or a second one from the same level. Must be
 * called in the order of levels. */
PEN_MUST_CHECK bool pen_option_set(pen_option_reader *reader, int row, pen_option_level level,
                                   const char *value, const char *origin, pen_error *err);

/* Notes where the row's value came from. */
void pen_option_set_origin(pen_options *options, int row, const char *origin);

/* Reads the `len` bytes of a config file named `path`, the file's syntax and its values. Errors:
 * PEN_ERROR_CONFIG, naming path and line. */
PEN_MUST_CHECK bool pen_option_read_bytes(pen_option_reader *reader, const char *bytes, size_t len,
                                          const char *path, pen_error *err);
/* The same from the file at `path` itself. */
PEN_MUST_CHECK bool pen_option_read_file(pen_option_reader *reader, const char *path,
                                         pen_error *err);

/* Gives the row's value as the operator could have written it, passwords hidden; NULL when it has
 * none. */
char *pen_option_show(const pen_options *options, int row);

#define PEN_QUOTE_SIZE 128
/* Writes `text` into `quoted` for a message, in double quotes, and returns `quoted`: without
 * control characters, cut when long, and without what may be a password. */
const char *pen_option_quote(const char *text, char quoted[PEN_QUOTE_SIZE]);

#endif
