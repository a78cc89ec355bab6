/* Purpose: the operator's settings: one table for flags, environment, file, help and reference.
 * Thread:  main, before other threads start; read-only after that.
 * Owns:    all strings, until pen_options_deinit.
 * Flow:    argv, environ and the config file in; typed values out, each with where it came from. */
#ifndef PEN_CORE_OPTIONS_H
#define PEN_CORE_OPTIONS_H

#include "core/error.h"
#include "core/log.h"

#include <stdio.h>

/* The commands that settings are read for: those that apply a stream, the one that only tells what
 * that would take, and the one that asks how it goes. Each takes some of the settings. */
typedef enum pen_option_user { PEN_FOR_STREAM, PEN_FOR_SIMULATE, PEN_FOR_STATUS } pen_option_user;

typedef enum pen_progress_style {
    PEN_PROGRESS_AUTO,
    PEN_PROGRESS_PLAIN,
    PEN_PROGRESS_NONE
} pen_progress_style;

typedef enum pen_ack { PEN_ACK_APPLIED, PEN_ACK_SPOOLED } pen_ack;

typedef enum pen_streaming {
    PEN_STREAMING_OFF,
    PEN_STREAMING_ON,
    PEN_STREAMING_PARALLEL /* and one of them is applied meanwhile */
} pen_streaming;

typedef enum pen_format_choice {
    PEN_FORMAT_AUTO,
    PEN_FORMAT_BINARY,
    PEN_FORMAT_TEXT
} pen_format_choice;
typedef enum pen_conflict_action {
    PEN_CONFLICT_ERROR,
    PEN_CONFLICT_SKIP,
    PEN_CONFLICT_OVERWRITE
} pen_conflict_action;

typedef enum pen_apply_form { PEN_APPLY_SETS, PEN_APPLY_ROWS } pen_apply_form;

typedef enum pen_schema_from { PEN_SCHEMA_DUMP, PEN_SCHEMA_NONE } pen_schema_from;
typedef enum pen_cutover_fence { PEN_CUTOVER_FENCE_NONE } pen_cutover_fence;

/* A repeatable option's values, in the order given. */
typedef struct pen_option_list {
    char **items;
    size_t count;
} pen_option_list;

/* The fields are named as the flags in core/options.def, which says what they mean. */
typedef struct pen_options {
    char *config; /* the config file that was read, or NULL */
    char *source;
    char *target;
    char *name;
    char *slot;        /* defaults to name */
    char *publication; /* defaults to name */
    char *dir;         /* defaults to ./NAME.penstock */
    pen_option_list table;
    pen_option_list exclude_table;
    pen_option_list schema;
    pen_option_list exclude_schema;
    pen_schema_from schema_from;
    char *pg_bin; /* or NULL */
    bool no_owner;
    bool no_acl;
    uint64_t copy_jobs;
    uint64_t chunk_size; /* bytes */
    uint64_t index_jobs;
    uint64_t index_memory; /* bytes */
    pen_cutover_fence fence;
    uint64_t sequence_margin;
    uint64_t workers;
    uint64_t dispatchers;
    uint64_t conflict_memory; /* bytes */
    uint64_t batch_rows;
    uint64_t batch_bytes;
    uint64_t batch_transactions;
    uint64_t memory; /* bytes */
    pen_streaming streaming;
    pen_ack ack;
    char *capture; /* path, or NULL */
    pen_format_choice format;
    pen_apply_form apply;
    pen_conflict_action on_conflict;
    uint64_t stop_at; /* pen_lsn; PEN_LSN_NONE when not given */
    bool stop_when_caught_up;
    char *http; /* where to listen, or NULL */
    pen_progress_style progress;
    pen_log_format log_format;
    pen_log_level log_level;
    /* penstock simulate; times in nanoseconds */
    char *file; /* what is to be simulated: no flag, but the argument without one */
    char *costs;
    uint64_t cost_receive;
    uint64_t cost_row;
    uint64_t cost_statement;
    uint64_t cost_batch;
    uint64_t round_trip;
    pen_option_list row_latency;
    uint64_t cores;
    bool sets;
    uint64_t fill; /* percent */
    bool json;
    bool watch; /* penstock status */
    /* what the command line asks for instead of a run */
    bool print_config;
    bool help;
    /* where each option's value came from, by its row in options.def */
    const char **origins;
    pen_option_user user;
    /* no setting: who is told how the run goes (apply/status.h), or NULL; borrowed */
    struct pen_status *status;
} pen_options;

/* Reads file, environment and `argv` (behind the command's name: argv[0] is the first flag). Every
 * flag takes "--flag value" and "--flag=value"; booleans take none, or
 * =on/off/true/false/yes/no/1/0. Passwords in argv's --source and --target are overwritten in
 * place, so that no process title shows them. Unless help or print_config is asked for, --source
 * and --target must be there. Errors: PEN_ERROR_CONFIG, naming the option, where its value came
 * from, what is allowed, and for an unknown flag the nearest known one; never showing a password.
 * Precedence: default < file < environment < flag. --help as an argument goes before everything
 * else. After an error nothing is left to free, and pen_options_deinit does no harm. */
PEN_MUST_CHECK bool pen_options_parse(pen_options *options, int argc, char **argv, pen_error *err);
void pen_options_deinit(pen_options *options);
/* The same for another command: PEN_FOR_SIMULATE takes one argument that is no flag, which must be
 * there; that one and PEN_FOR_STATUS need neither --source nor --target. A flag that is another
 * command's is an error; in file and environment, which all commands share, it is passed over. */
PEN_MUST_CHECK bool pen_options_parse_for(pen_option_user user, pen_options *options, int argc,
                                          char **argv, pen_error *err);
/* Sets what nobody has given, but for its default, as if a file had it; `origin` says where it came
 * from. Errors: PEN_ERROR_CONFIG for a value that is not allowed, or when `flag` is none that the
 * command takes. */
PEN_MUST_CHECK bool pen_options_offer(pen_options *options, const char *flag, const char *value,
                                      const char *origin, pen_error *err);

/* `--print-config`: each option, its value and its origin; passwords hidden. */
void pen_options_print(const pen_options *options, FILE *out);

/* The flags' part of `--help`, wrapped for 80 columns. */
void pen_options_help(FILE *out);
void pen_options_help_for(pen_option_user user, FILE *out);

/* Reads "64kB", "256MB", "1GB" as PostgreSQL writes sizes (1024-based; B, kB, MB, GB, TB; a bare
 * number is bytes). False when it is not one or does not fit 64 bits. */
PEN_MUST_CHECK bool pen_size_parse(const char *text, uint64_t *bytes);

/* Reads "250ns", "7.5us", "20ms", "1s"; 0 needs no unit. False when it is not one, is not a whole
 * number of nanoseconds or does not fit 64 bits. */
PEN_MUST_CHECK bool pen_duration_parse(const char *text, uint64_t *ns);

/* Gives a copy of a connection string or URI with every password replaced by "********" (free()
 * it): for messages. What cannot be read for sure is hidden whole. */
char *pen_conninfo_redact(const char *conninfo);

#endif
