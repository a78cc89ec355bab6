#include "apply/onconflict.h"

#include "core/log.h"
#include "core/thread.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between two lines of counts for a table of which no more are logged one by one. */
#define COUNTS_EVERY_US (60 * 1000 * 1000)

void pen_conflicts_init(pen_conflicts *conflicts)
{
    memset(conflicts, 0, sizeof(*conflicts));
    pthread_mutex_init(&conflicts->lock, NULL);
}

void pen_conflicts_deinit(pen_conflicts *conflicts)
{
    pen_conflict_list_clear(&conflicts->list);
    pthread_mutex_destroy(&conflicts->lock);
}

static pen_conflict_entry *find_entry(pen_conflict_list *list, const char *table)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->entries[i].table, table) == 0) {
            return &list->entries[i];
        }
    }
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 4 : list->capacity * 2;
        list->entries = pen_realloc(list->entries, list->capacity * sizeof(*list->entries));
    }
    pen_conflict_entry *entry = &list->entries[list->count++];
    *entry = (pen_conflict_entry){.table = pen_strdup(table)};
    return entry;
}

void pen_conflict_list_add(pen_conflict_list *list, const pen_relation *rel, bool skipped,
                           const char *text)
{
    char table[256];
    snprintf(table, sizeof(table), "%s.%s", (const char *)rel->schema.data,
             (const char *)rel->table.data);
    pen_conflict_entry *entry = find_entry(list, table);
    entry->skipped += skipped;
    entry->overwritten += !skipped;
    if (entry->text_count < PEN_CONFLICTS_LOGGED) {
        entry->texts[entry->text_count++] = pen_strdup(text);
    }
}

void pen_conflict_list_clear(pen_conflict_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->entries[i].table);
        for (size_t k = 0; k < PEN_CONFLICTS_LOGGED; k++) {
            free(list->entries[i].texts[k]);
        }
    }
    free(list->entries);
    *list = (pen_conflict_list){0};
}

void pen_conflict_list_join(pen_conflict_list *list, pen_conflict_list *from)
{
    for (size_t i = 0; i < from->count; i++) {
        pen_conflict_entry *added = &from->entries[i];
        pen_conflict_entry *entry = find_entry(list, added->table);
        entry->skipped += added->skipped;
        entry->overwritten += added->overwritten;
        for (unsigned k = 0; k < added->text_count && entry->text_count < PEN_CONFLICTS_LOGGED;
             k++) {
            entry->texts[entry->text_count++] = added->texts[k];
            added->texts[k] = NULL;
        }
    }
    pen_conflict_list_clear(from);
}

static void log_counts(const pen_conflict_entry *entry, const char *more)
{
    pen_log(PEN_LOG_WARN,
            "--on-conflict: of %s, %" PRIu64 " changes were left out and %" PRIu64
            " overwrote what was there%s",
            entry->table, entry->skipped, entry->overwritten, more);
}

/* The texts of the first ones, then counts once a minute. */
static void log_entry(pen_conflict_entry *entry, const pen_conflict_entry *added)
{
    for (unsigned i = 0; i < added->text_count && entry->text_count < PEN_CONFLICTS_LOGGED; i++) {
        entry->text_count++;
        pen_log(PEN_LOG_WARN, "%s", added->texts[i]);
    }
    int64_t now_us = pen_now_us();
    if (entry->skipped + entry->overwritten > PEN_CONFLICTS_LOGGED &&
        (entry->logged_us == 0 || now_us - entry->logged_us > COUNTS_EVERY_US)) {
        log_counts(entry, " so far; more are only counted");
        entry->logged_us = now_us;
    }
}

void pen_conflicts_commit(pen_conflicts *conflicts, pen_conflict_list *list)
{
    if (list->count == 0) {
        return;
    }
    pthread_mutex_lock(&conflicts->lock);
    for (size_t i = 0; i < list->count; i++) {
        const pen_conflict_entry *added = &list->entries[i];
        pen_conflict_entry *entry = find_entry(&conflicts->list, added->table);
        entry->skipped += added->skipped;
        entry->overwritten += added->overwritten;
        pen_counter_add(&conflicts->skipped, added->skipped);
        pen_counter_add(&conflicts->overwritten, added->overwritten);
        log_entry(entry, added);
    }
    pthread_mutex_unlock(&conflicts->lock);
    pen_conflict_list_clear(list);
}

void pen_conflicts_report(pen_conflicts *conflicts)
{
    pthread_mutex_lock(&conflicts->lock);
    for (size_t i = 0; i < conflicts->list.count; i++) {
        log_counts(&conflicts->list.entries[i], " in all");
    }
    pthread_mutex_unlock(&conflicts->lock);
}
