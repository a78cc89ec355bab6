#include "tools/command.h"

#include "core/escape.h"
#include "core/nearest.h"
#include "core/pgoutput.h"
#include "io/checkpoint.h"
#include "io/spool_file.h"
#include "tools/describe.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXIT_WHOLE = 0, EXIT_DAMAGED = 1, EXIT_USAGE = 2 };

#define CHECKPOINT_SIZE ((size_t)2 * PEN_CHECKPOINT_SLOT_SIZE)

typedef struct request {
    const char *path;
    pen_describe_options describe;
} request;

void pen_inspect_help(FILE *out)
{
    fputs("  --summary   only what the file is and what it holds in all, no line for each record\n"
          "  --json      one JSON object a line, values whole; without it long ones are cut\n"
          "\n"
          "A line is: offset in the file, LSN and time as the source told them, what it is.\n"
          "Ends with 0 when the file is whole, 1 when it is damaged, torn or cannot be read\n"
          "(what could be read is printed), 2 for wrong usage.\n",
          out);
}

static int complain(int code, const char *text)
{
    char shown[PEN_ESCAPE_SIZE];
    pen_slice left = pen_slice_of(text);
    fflush(stdout);
    fputs("penstock: ", stderr);
    while (left.len > 0) {
        size_t taken = pen_escape_next(PEN_ESCAPE_TEXT, left, shown);
        left = (pen_slice){left.data + taken, left.len - taken};
        fputs(shown, stderr);
    }
    fputc('\n', stderr);
    return code;
}

static bool read_arguments(int argc, char **argv, request *wanted, pen_error *err)
{
    static const char *const flags[] = {"--summary", "--json", "--help"};
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--summary") == 0) {
            wanted->describe.summary_only = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            wanted->describe.style = PEN_DESCRIBE_JSON;
        } else if (strncmp(argv[i], "-", 1) == 0) {
            return pen_error_set(err, PEN_ERROR_CONFIG,
                                 "unknown flag \"%.80s\": the nearest is %s; \"penstock inspect "
                                 "--help\" lists all",
                                 argv[i], flags[pen_nearest(argv[i], flags, PEN_COUNTOF(flags))]);
        } else if (wanted->path[0] != '\0') {
            return pen_error_set(err, PEN_ERROR_CONFIG,
                                 "one file at a time: \"%.200s\" is the second; inspect them one "
                                 "after the other",
                                 argv[i]);
        } else {
            wanted->path = argv[i];
        }
    }
    if (wanted->path[0] == '\0') {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "no file named: penstock inspect FILE, with a checkpoint, a spool "
                             "segment or a captured stream");
    }
    return true;
}

/* ---- a spool segment or a captured stream ---- */

/* Where a segment begins is the spool's choice, which may be inside of a streamed block. Then a
 * Stream Stop comes before any message that stands outside of one. */
static bool begins_in_block(const char *path)
{
    pen_spool_file *file;
    pen_spool_record record;
    pen_error err;
    int kind = 0;
    if (!pen_spool_file_open(path, &file, &err)) {
        return false;
    }
    while (kind == 0 && pen_spool_file_next(file, &record, &err) == PEN_SPOOL_FILE_RECORD) {
        if (record.kind == PEN_SPOOL_SESSION) {
            break;
        }
        uint8_t first = record.payload.len > 0 ? record.payload.data[0] : 0;
        if (record.kind == PEN_SPOOL_MESSAGE && first != 0 && strchr("BbSEC", first) != NULL) {
            kind = first;
        }
    }
    pen_spool_file_close(file);
    return kind == PEN_MESSAGE_STREAM_STOP;
}

/* Bytes of the file from `offset` to its end. */
static uint64_t bytes_behind(const char *path, uint64_t offset)
{
    struct stat status;
    if (stat(path, &status) != 0 || (uint64_t)status.st_size < offset) {
        return 0;
    }
    return (uint64_t)status.st_size - offset;
}

static bool describe_spool(request *wanted, pen_error *err)
{
    pen_spool_file *file;
    if (!pen_spool_file_open(wanted->path, &file, err)) {
        return false;
    }
    const pen_spool_header *header = pen_spool_file_header(file);
    wanted->describe.in_block =
        header->kind == PEN_SPOOL_STREAM && header->segment > 1 && begins_in_block(wanted->path);
    pen_describer *describer = pen_describer_create(&wanted->describe, header, stdout);
    pen_describe_header(describer, wanted->path);
    pen_spool_record record;
    pen_spool_file_result result;
    /* Nobody reads on where standard output failed. */
    while ((result = pen_spool_file_next(file, &record, err)) == PEN_SPOOL_FILE_RECORD &&
           !ferror(stdout)) {
        pen_describe_record(describer, pen_spool_file_offset(file), &record);
    }
    uint64_t offset = pen_spool_file_offset(file);
    pen_describe_end end = {
        .torn = result != PEN_SPOOL_FILE_END,
        .offset = offset,
        .left = bytes_behind(wanted->path, offset),
    };
    pen_describe_summary(describer, &end);
    pen_describer_destroy(describer);
    pen_spool_file_close(file);
    if (result == PEN_SPOOL_FILE_TORN) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "\"%s\" is torn at byte %llu: a write was cut off, the file is damaged, "
            "or somebody is writing it right now",
            wanted->path, (unsigned long long)offset);
    }
    return result != PEN_SPOOL_FILE_FAILED;
}

/* ---- which of them it is ---- */

/* The first bytes of the file at `path`, as many as a checkpoint has; none where it cannot be read,
 * which is for the reader of spool files to say in words. */
static pen_slice read_start(const char *path, uint8_t bytes[CHECKPOINT_SIZE], uint64_t *size)
{
    struct stat status = {0};
    ssize_t got = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        got = pread(fd, bytes, CHECKPOINT_SIZE, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
    *size = (uint64_t)status.st_size;
    return (pen_slice){bytes, got > 0 ? (size_t)got : 0};
}

/* One slot may be torn and the other not. A file of zeros is one that was made and not yet written
 * to. */
static bool is_checkpoint(pen_slice start)
{
    static const uint8_t zeros[CHECKPOINT_SIZE];
    pen_slice second = {NULL, 0};
    if (start.len > PEN_CHECKPOINT_SLOT_SIZE) {
        second = (pen_slice){start.data + PEN_CHECKPOINT_SLOT_SIZE,
                             start.len - PEN_CHECKPOINT_SLOT_SIZE};
    }
    return pen_checkpoint_begins(start) || pen_checkpoint_begins(second) ||
           (start.len == sizeof(zeros) && memcmp(start.data, zeros, sizeof(zeros)) == 0);
}

static bool describe_file(request *wanted, pen_error *err)
{
    uint8_t bytes[CHECKPOINT_SIZE];
    uint64_t size;
    pen_slice start = read_start(wanted->path, bytes, &size);
    if (is_checkpoint(start)) {
        return pen_describe_checkpoint(wanted->describe.style, wanted->path, start, size, stdout) ||
               pen_error_set(err, PEN_ERROR_FATAL, "the checkpoint \"%s\" is damaged",
                             wanted->path);
    }
    if (start.len > 0 && !pen_spool_begins(start)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "\"%s\" is neither a checkpoint nor a spool segment nor a captured "
                             "stream: it begins like none of them",
                             wanted->path);
    }
    return describe_spool(wanted, err);
}

int pen_command_inspect(int argc, char **argv)
{
    request wanted = {.path = ""};
    pen_error err;
    if (!read_arguments(argc, argv, &wanted, &err)) {
        return complain(EXIT_USAGE, err.text);
    }
    bool whole = describe_file(&wanted, &err);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return complain(EXIT_DAMAGED, "cannot write all of it to standard output");
    }
    return whole ? EXIT_WHOLE : complain(EXIT_DAMAGED, err.text);
}
