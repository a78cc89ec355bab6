#include "apply/dump.h"

#include "core/log.h"
#include "core/text.h"
#include "io/pgconn.h"
#include "io/subprocess.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The programs */

/* The major version that `program` says it has, or 0. */
static int major_of(const char *program)
{
    const char *const args[] = {"--version", NULL};
    const pen_subprocess spec = {.path = program, .args = args};
    char *out = NULL;
    char *said = NULL;
    pen_error ignored;
    int major = 0;
    if (access(program, X_OK) == 0 && pen_subprocess_run(&spec, &out, &said, &ignored)) {
        const char *number = strstr(out, "(PostgreSQL) ");
        major = number == NULL ? 0 : atoi(number + strlen("(PostgreSQL) "));
    }
    free(out);
    free(said);
    return major;
}

/* Takes the programs in `dir` when they are newer than what was found so far. */
static void try_dir(const char *dir, size_t len, pen_dump_programs *best)
{
    pen_dump_programs found;
    snprintf(found.dump, sizeof(found.dump), "%.*s/pg_dump", (int)len, dir);
    snprintf(found.restore, sizeof(found.restore), "%.*s/pg_restore", (int)len, dir);
    found.major = major_of(found.dump);
    if (found.major > best->major && major_of(found.restore) == found.major) {
        *best = found;
    }
}

static void search(int wanted, pen_dump_programs *best)
{
    for (const char *at = getenv("PATH"); at != NULL && best->major < wanted;) {
        size_t len = strcspn(at, ":");
        if (len > 0) {
            try_dir(at, len, best);
        }
        at = at[len] == ':' ? at + len + 1 : NULL;
    }
    glob_t dirs;
    if (best->major < wanted && glob("/usr/lib/postgresql/*/bin", 0, NULL, &dirs) == 0) {
        for (size_t i = 0; i < dirs.gl_pathc; i++) {
            try_dir(dirs.gl_pathv[i], strlen(dirs.gl_pathv[i]), best);
        }
        globfree(&dirs);
    }
}

bool pen_dump_find(const pen_options *options, int server_version, pen_dump_programs *programs,
                   pen_error *err)
{
    int wanted = server_version / 10000;
    programs->major = 0;
    if (options->pg_bin != NULL) {
        try_dir(options->pg_bin, strlen(options->pg_bin), programs);
    } else {
        search(wanted, programs);
    }
    if (programs->major >= wanted) {
        return true;
    }
    char found[160] = "none was found";
    if (programs->major > 0) {
        snprintf(found, sizeof(found), "%.100s is of version %d", programs->dump, programs->major);
    }
    return pen_error_set(
        err, PEN_ERROR_CONFIG,
        "the source is PostgreSQL %d, and its schema can only be dumped by pg_dump and pg_restore "
        "of that version or a later one, but %s: install the package postgresql-client-%d (Debian "
        "and Ubuntu, from apt.postgresql.org where the system's own is older) or name their "
        "directory by --pg-bin; or make the tables yourself and use --schema-from none",
        wanted, found, wanted);
}

/* What pg_dump said of its own failure, without what --verbose adds. */
static bool tell_failure(const char *said, pen_error *err)
{
    static const char *const telling[] = {"error: ", "detail: ", "hint: ", "warning: "};
    char words[1400] = "";
    size_t used = 0;
    for (const char *line = said; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        const char *colon = memchr(line, ':', len);
        bool tells = strncmp(line, "pg_", 3) != 0 || colon == NULL;
        for (size_t i = 0; !tells && i < PEN_COUNTOF(telling); i++) {
            tells = strncmp(colon + 2, telling[i], strlen(telling[i])) == 0;
        }
        if (tells && used + len + 2 < sizeof(words)) {
            used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%.*s",
                                     used == 0 ? "" : "; ", (int)len, line);
        }
        line += len + (line[len] == '\n');
    }
    return used == 0 ? false
                     : pen_error_set(err, PEN_ERROR_FATAL,
                                     "source: its schema cannot be dumped: %s", words);
}

static bool run_dump(const pen_options *options, const pen_dump_programs *programs,
                     const char *path, pen_error *err)
{
    char *conninfo = NULL;
    char *password = NULL;
    char *out = NULL;
    char *said = NULL;
    pen_text secret = {0};
    if (!pen_pgconn_split_conninfo(options->source, "source", &conninfo, &password, err)) {
        return false;
    }
    pen_text_appendf(&secret, "PGPASSWORD=%s", password == NULL ? "" : password);
    char *setting = pen_text_take(&secret);
    const char *const env[] = {password == NULL ? "PGAPPNAME=penstock pg_dump" : setting, NULL};
    const char *const args[] = {"--format=custom",
                                "--schema-only",
                                "--encoding=UTF8",
                                "--no-publications",
                                "--no-subscriptions",
                                "--no-password",
                                "--exclude-schema=penstock",
                                "--file",
                                path,
                                "--dbname",
                                conninfo,
                                NULL};
    const pen_subprocess spec = {.path = programs->dump, .args = args, .env = env};
    bool ok = pen_subprocess_run(&spec, &out, &said, err) || tell_failure(said, err);
    free(out);
    free(said);
    free(conninfo);
    if (password != NULL) {
        explicit_bzero(password, strlen(password));
    }
    explicit_bzero(setting, strlen(setting));
    free(password);
    free(setting);
    return ok;
}

bool pen_dump_schema(const pen_options *options, const pen_dump_programs *programs,
                     const char *path, bool owners, bool grants, pen_dump *dump, pen_error *err)
{
    memset(dump, 0, sizeof(*dump));
    if (!run_dump(options, programs, path, err)) {
        return false;
    }
    const char *args[8] = {"--verbose", "--file=-", "--no-tablespaces"};
    size_t count = 3;
    if (!owners) {
        args[count++] = "--no-owner";
    }
    if (!grants) {
        args[count++] = "--no-acl";
    }
    args[count] = path;
    const pen_subprocess spec = {.path = programs->restore, .args = args};
    char *out = NULL;
    char *said = NULL;
    bool ok = pen_subprocess_run(&spec, &out, &said, err) || tell_failure(said, err);
    if (ok) {
        pen_dump_parse(out, dump);
    }
    free(out);
    free(said);
    return ok;
}

/* Reading it */

/* A line and what follows. */
typedef struct line {
    const char *text;
    size_t len;
    const char *next; /* or NULL */
} line;

static line line_at(const char *text)
{
    size_t len = strcspn(text, "\n");
    return (line){text, len, text[len] == '\n' ? text + len + 1 : NULL};
}

static bool is_text(const line *at, const char *text)
{
    return at->len == strlen(text) && memcmp(at->text, text, at->len) == 0;
}

static bool begins(const line *at, const char *text)
{
    return at->len >= strlen(text) && memcmp(at->text, text, strlen(text)) == 0;
}

static char *copy_span(const char *from, const char *to)
{
    char *copy = pen_malloc((size_t)(to - from) + 1);
    memcpy(copy, from, (size_t)(to - from));
    copy[to - from] = '\0';
    return copy;
}

static void read_needs(pen_dump_entry *entry, const line *at)
{
    const char *end = at->text + at->len;
    entry->needs = pen_calloc(at->len, sizeof(*entry->needs));
    for (const char *c = at->text + strlen("-- Dependencies:"); c < end;) {
        char *behind = NULL;
        uint32_t id = (uint32_t)strtoul(c, &behind, 10);
        if (behind == c || behind > end) {
            return;
        }
        entry->needs[entry->need_count++] = id;
        c = behind;
    }
}

/* The last `word` between `from` and `to`: names come before it, and may hold anything. */
static const char *find_last(const char *from, const char *to, const char *word)
{
    size_t len = strlen(word);
    for (const char *c = to - len; c >= from; c--) {
        if (memcmp(c, word, len) == 0) {
            return c;
        }
    }
    return NULL;
}

/* "-- Name: p ck; Type: CHECK CONSTRAINT; Schema: public; Owner: postgres" */
static bool read_name(pen_dump_entry *entry, const line *at)
{
    const char *from = at->text + strlen("-- Name: ");
    const char *end = at->text + at->len;
    const char *owner = find_last(from, end, "; Owner: ");
    const char *schema = owner == NULL ? NULL : find_last(from, owner, "; Schema: ");
    const char *type = schema == NULL ? NULL : find_last(from, schema, "; Type: ");
    if (type == NULL) {
        return false;
    }
    entry->kind = copy_span(type + strlen("; Type: "), schema);
    char *name = copy_span(from, type);
    char *in = copy_span(schema + strlen("; Schema: "), owner);
    char *whose = copy_span(owner + strlen("; Owner: "), end);
    pen_text label = {0};
    bool has_schema = strcmp(in, "-") != 0;
    pen_text_appendf(&label, "%s %s%s%s", entry->kind, has_schema ? in : "", has_schema ? "." : "",
                     name);
    entry->label = pen_text_take(&label);
    if (strcmp(whose, "-") == 0 || *whose == '\0') {
        free(whose);
        whose = NULL;
    }
    entry->owner = whose;
    free(name);
    free(in);
    return true;
}

static void free_entry(pen_dump_entry *entry)
{
    free(entry->needs);
    free(entry->kind);
    free(entry->label);
    free(entry->owner);
    free(entry->sql);
}

/* Reads a header that begins at `text` with its line "--"; gives what is behind it, or NULL when
 * there is none. */
static const char *read_header(const char *text, pen_dump_entry *entry)
{
    line at = line_at(text);
    memset(entry, 0, sizeof(*entry));
    if (!is_text(&at, "--") || at.next == NULL) {
        return NULL;
    }
    at = line_at(at.next);
    if (sscanf(at.text, "-- TOC entry %u (class %u OID %u)", &entry->id, &entry->class_oid,
               &entry->oid) != 3 ||
        at.next == NULL) {
        return NULL;
    }
    at = line_at(at.next);
    if (begins(&at, "-- Dependencies:")) {
        read_needs(entry, &at);
        at = at.next == NULL ? at : line_at(at.next);
    }
    if (!begins(&at, "-- Name: ") || !read_name(entry, &at)) {
        free_entry(entry);
        return NULL;
    }
    while (at.next != NULL && !is_text(&at, "--")) {
        at = line_at(at.next);
    }
    return at.next == NULL ? at.text + at.len : at.next;
}

static void trim(char *sql)
{
    size_t len = strlen(sql);
    while (len > 0 && strchr(" \n\t", sql[len - 1]) != NULL) {
        len--;
    }
    sql[len] = '\0';
}

/* Whether a line at an entry's end is none of its own. What is quoted there may look alike, but an
 * entry ends with a semicolon, and this line would close a quote. */
static bool is_tail(const char *text)
{
    static const char *const set = "SET default_";
    size_t quotes = 0;
    for (const char *c = text; *c != '\0'; c++) {
        quotes += *c == '\'';
    }
    return strncmp(text, set, strlen(set)) == 0
               ? quotes % 2 == 0
               : strncmp(text, "--", 2) == 0 && text[strlen(text) - 1] != ';';
}

/* What pg_restore sets for the entries that follow stands at the end of the one before, and are the
 * defaults of a new session, with --no-tablespaces. Behind the last one are comments. */
static void take_tail_off(char *sql)
{
    for (;;) {
        trim(sql);
        char *last = strrchr(sql, '\n');
        last = last == NULL ? sql : last + 1;
        if (!is_tail(last)) {
            return;
        }
        *last = '\0';
    }
}

static bool is_any(const char *kind, const char *const *kinds)
{
    for (; *kinds != NULL; kinds++) {
        if (strcmp(kind, *kinds) == 0) {
            return true;
        }
    }
    return false;
}

static pen_schema_step own_step(const pen_dump_entry *entry)
{
    static const char *const at_cutover[] = {"FK CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "RULE",
                                             NULL};
    static const char *const security[] = {"POLICY", "ROW SECURITY", NULL};
    if (is_any(entry->kind, at_cutover)) {
        return PEN_STEP_CUTOVER;
    }
    if (is_any(entry->kind, security)) {
        return PEN_STEP_SECURITY;
    }
    if (strcmp(entry->kind, "EVENT TRIGGER") == 0) {
        return PEN_STEP_LAST;
    }
    /* Default privileges must not meet what is made later: a view that waits for a primary key. */
    if (strcmp(entry->kind, "CONSTRAINT") == 0 || strcmp(entry->kind, "DEFAULT ACL") == 0 ||
        (strcmp(entry->kind, "INDEX") == 0 && strncmp(entry->sql, "CREATE UNIQUE ", 14) == 0)) {
        return PEN_STEP_UNIQUE;
    }
    return strcmp(entry->kind, "INDEX") == 0 || strcmp(entry->kind, "STATISTICS") == 0
               ? PEN_STEP_INDEXES
               : PEN_STEP_TABLES;
}

/* An entry, found by its id. */
typedef struct entry_ref {
    pen_dump_entry *entry;
} entry_ref;

static pen_dump_entry *find_entry(const pen_dump *dump, const entry_ref *by_id, uint32_t id)
{
    size_t low = 0;
    size_t high = dump->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_id[middle].entry->id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < dump->count && by_id[low].entry->id == id ? by_id[low].entry : NULL;
}

static int compare_ids(const void *a, const void *b)
{
    uint32_t x = ((const entry_ref *)a)->entry->id;
    uint32_t y = ((const entry_ref *)b)->entry->id;
    return x < y ? -1 : x > y;
}

/* Pointers to the entries, sorted by id. */
static entry_ref *sort_by_id(const pen_dump *dump)
{
    entry_ref *by_id = pen_calloc(dump->count + 1, sizeof(*by_id));
    for (size_t i = 0; i < dump->count; i++) {
        by_id[i].entry = &dump->entries[i];
    }
    qsort(by_id, dump->count, sizeof(*by_id), compare_ids);
    return by_id;
}

bool pen_dump_goes_alone(const char *kind)
{
    static const char *const alone[] = {"INDEX", "CONSTRAINT", "STATISTICS", NULL};
    return is_any(kind, alone);
}

/* What goes alone is made before everything else of its step: where it needs something of that (an
 * index on a materialised view that needs a primary key), it waits for the next one. */
static pen_schema_step step_after(const pen_dump_entry *entry, const pen_dump_entry *need)
{
    bool early = need->step == entry->step &&
                 (need->step == PEN_STEP_UNIQUE || need->step == PEN_STEP_INDEXES) &&
                 pen_dump_goes_alone(entry->kind) && !pen_dump_goes_alone(need->kind);
    return early ? entry->step + 1 : need->step > entry->step ? need->step : entry->step;
}

/* Nothing is made before what it needs, which comes earlier in the dump. */
static void decide_steps(pen_dump *dump)
{
    entry_ref *by_id = sort_by_id(dump);
    for (size_t i = 0; i < dump->count; i++) {
        pen_dump_entry *entry = &dump->entries[i];
        entry->step = own_step(entry);
        entry->wanted = true;
        for (size_t k = 0; k < entry->need_count; k++) {
            const pen_dump_entry *need = find_entry(dump, by_id, entry->needs[k]);
            if (need != NULL && need < entry) {
                entry->step = step_after(entry, need);
            }
        }
    }
    free(by_id);
}

void pen_dump_parse(const char *text, pen_dump *dump)
{
    size_t capacity = 0;
    const char *sql = NULL; /* of the last entry */
    memset(dump, 0, sizeof(*dump));
    for (const char *at = text; at != NULL; at = line_at(at).next) {
        pen_dump_entry entry;
        const char *behind = at[0] == '-' ? read_header(at, &entry) : NULL;
        bool over = strncmp(at, "\\unrestrict ", 12) == 0;
        if (behind == NULL && !over) {
            continue;
        }
        if (dump->count > 0 && sql != NULL) {
            dump->entries[dump->count - 1].sql = copy_span(sql, at);
            take_tail_off(dump->entries[dump->count - 1].sql);
        }
        sql = NULL;
        if (over) {
            break;
        }
        if (dump->count == capacity) {
            capacity = capacity == 0 ? 256 : capacity * 2;
            dump->entries = pen_realloc(dump->entries, capacity * sizeof(*dump->entries));
        }
        dump->entries[dump->count++] = entry;
        sql = behind + strspn(behind, "\n");
        at = behind;
    }
    if (sql != NULL) {
        dump->entries[dump->count - 1].sql = pen_strdup(sql);
        take_tail_off(dump->entries[dump->count - 1].sql);
    }
    decide_steps(dump);
}

void pen_dump_deinit(pen_dump *dump)
{
    for (size_t i = 0; i < dump->count; i++) {
        free_entry(&dump->entries[i]);
    }
    free(dump->entries);
    memset(dump, 0, sizeof(*dump));
}

/* Choosing */

static bool has_oid(const uint32_t *oids, size_t count, uint32_t oid)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (oids[middle] < oid) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && oids[low] == oid;
}

/* Kinds that are made only together with all that they belong to. */
static const char *const attached_kinds[] = {"DEFAULT",
                                             "SEQUENCE",
                                             "SEQUENCE OWNED BY",
                                             "TABLE ATTACH",
                                             "COMMENT",
                                             "ACL",
                                             "DEFAULT ACL",
                                             "SECURITY LABEL",
                                             "CONSTRAINT",
                                             "INDEX",
                                             "INDEX ATTACH",
                                             "CHECK CONSTRAINT",
                                             "FK CONSTRAINT",
                                             "TRIGGER",
                                             "RULE",
                                             "POLICY",
                                             "ROW SECURITY",
                                             "STATISTICS",
                                             NULL};

static void want_needs(pen_dump *dump, const entry_ref *by_id, pen_dump_entry *entry)
{
    if (entry->wanted) {
        return;
    }
    entry->wanted = true;
    for (size_t k = 0; k < entry->need_count; k++) {
        pen_dump_entry *need = find_entry(dump, by_id, entry->needs[k]);
        if (need != NULL) {
            want_needs(dump, by_id, need);
        }
    }
}

/* What else it may need is made with it: types, functions, sequences. */
static const char *const leading_kinds[] = {"TABLE",         "VIEW",  "MATERIALIZED VIEW",
                                            "FOREIGN TABLE", "INDEX", "CONSTRAINT",
                                            "FK CONSTRAINT", NULL};

/* What may belong to a schema; all else is only in one. */
static const char *const schema_kinds[] = {"COMMENT", "ACL", "DEFAULT ACL", "SECURITY LABEL", NULL};

/* Whether all tables that it needs are wanted, and it belongs to something that is. */
static bool belongs(const pen_dump *dump, const entry_ref *by_id, const pen_dump_entry *entry)
{
    bool any = false;
    for (size_t k = 0; k < entry->need_count; k++) {
        const pen_dump_entry *need = find_entry(dump, by_id, entry->needs[k]);
        if (need != NULL && !need->wanted && is_any(need->kind, leading_kinds)) {
            return false;
        }
        any |= need != NULL && need->wanted &&
               (strcmp(need->kind, "SCHEMA") != 0 || is_any(entry->kind, schema_kinds));
    }
    return any;
}

static void choose_only(pen_dump *dump, const entry_ref *by_id, const uint32_t *chosen,
                        size_t count)
{
    for (size_t i = 0; i < dump->count; i++) {
        dump->entries[i].wanted = false;
    }
    for (size_t i = 0; i < dump->count; i++) {
        pen_dump_entry *entry = &dump->entries[i];
        if (strcmp(entry->kind, "TABLE") == 0 && has_oid(chosen, count, entry->oid)) {
            want_needs(dump, by_id, entry);
        }
    }
    for (size_t i = 0; i < dump->count; i++) {
        pen_dump_entry *entry = &dump->entries[i];
        if (is_any(entry->kind, attached_kinds) && belongs(dump, by_id, entry)) {
            want_needs(dump, by_id, entry);
        }
    }
}

/* "TRIGGER public.t tg" is of "TABLE public.t". */
static bool is_of(const pen_dump_entry *entry, const pen_dump_entry *table)
{
    const char *whose = entry->label + strlen(entry->kind);
    const char *name = table->label + strlen(table->kind);
    size_t len = strlen(name);
    return strncmp(whose, name, len) == 0 && whose[len] == ' ';
}

static bool is_missed(const pen_dump *dump, const entry_ref *by_id, const pen_dump_entry *entry,
                      bool only_chosen)
{
    if (entry->wanted || strcmp(entry->kind, "TABLE") == 0) {
        return false;
    }
    if (!is_any(entry->kind, attached_kinds)) {
        return !only_chosen;
    }
    for (size_t k = 0; k < entry->need_count; k++) {
        const pen_dump_entry *need = find_entry(dump, by_id, entry->needs[k]);
        if (need != NULL && need->wanted && is_any(need->kind, leading_kinds) &&
            is_of(entry, need)) {
            return true;
        }
    }
    return false;
}

void pen_dump_choose(pen_dump *dump, bool only_chosen, const uint32_t *chosen, size_t chosen_count,
                     const uint32_t *left_out, size_t left_out_count)
{
    entry_ref *by_id = sort_by_id(dump);
    if (only_chosen) {
        choose_only(dump, by_id, chosen, chosen_count);
    } else {
        for (size_t i = 0; i < dump->count; i++) {
            pen_dump_entry *entry = &dump->entries[i];
            entry->wanted =
                strcmp(entry->kind, "TABLE") != 0 || !has_oid(left_out, left_out_count, entry->oid);
            for (size_t k = 0; k < entry->need_count; k++) {
                const pen_dump_entry *need = find_entry(dump, by_id, entry->needs[k]);
                entry->wanted &= need == NULL || need->wanted;
            }
        }
    }
    for (size_t i = 0; i < dump->count; i++) {
        dump->entries[i].missed = is_missed(dump, by_id, &dump->entries[i], only_chosen);
    }
    free(by_id);
}
