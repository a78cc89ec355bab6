#include "apply/targets.h"

#include "apply/catalog.h"
#include "apply/preflight.h"
#include "core/log.h"

#include <stdlib.h>

struct pen_targets {
    pen_stream *stream;
    pen_pgconn *catalog;
    pen_target **all; /* that were resolved, to be freed at the end */
    size_t count;
    size_t capacity;
    pen_cell barriers; /* 1: some table is of PEN_SCOPE_ALL: every change reads that key */
};

pen_targets *pen_targets_create(pen_stream *stream, pen_pgconn *catalog)
{
    pen_targets *targets = pen_calloc(1, sizeof(*targets));
    targets->stream = stream;
    targets->catalog = catalog;
    pen_cell_init(&targets->barriers, 0);
    pen_pgconn_make_stoppable(catalog, &stream->baton_parker, &stream->stop, PEN_STOP_ABORT);
    return targets;
}

void pen_targets_destroy(pen_targets *targets)
{
    if (targets == NULL) {
        return;
    }
    for (size_t i = 0; i < targets->count; i++) {
        pen_target_destroy(targets->all[i]);
    }
    free(targets->all);
    pen_pgconn_close(targets->catalog);
    free(targets);
}

static void keep(pen_targets *targets, pen_target *target)
{
    if (targets->count == targets->capacity) {
        targets->capacity = targets->capacity == 0 ? 64 : targets->capacity * 2;
        targets->all = pen_realloc(targets->all, targets->capacity * sizeof(pen_target *));
    }
    targets->all[targets->count++] = target;
}

/* A table that was dropped on the source and created anew comes by the same name. What the old one
 * had, the stream does not take away. */
static void tell_of_another(const pen_targets *targets, const pen_target *target)
{
    for (size_t i = 0; i < targets->count; i++) {
        const pen_target *other = targets->all[i];
        if (other->oid == target->oid && other->rel->oid != target->rel->oid) {
            pen_log(PEN_LOG_WARN,
                    "source: %s is another table than it was before (that one was dropped, renamed "
                    "or detached): what it had is still on the target, because the stream does not "
                    "tell of that; compare the two, and take out there what is too much",
                    target->name);
            return;
        }
    }
}

/* Versions are the reader's, but for what it never looks at: their targets. */
static pen_relation *ours(const pen_relation *rel)
{
    return (pen_relation *)(uintptr_t)rel;
}

/* What the target lacks is an error, or, with `missing`, noted there. */
static bool resolve(pen_targets *targets, const pen_relation *rel, bool *missing, pen_error *err)
{
    const pen_stream *stream = targets->stream;
    pen_target *target = NULL;
    if (rel->target != NULL) {
        return true;
    }
    switch (pen_catalog_resolve(targets->catalog, rel, stream->resume.replica_role, &stream->format,
                                &target, err)) {
    case PEN_RESOLVED:
        break;
    case PEN_RESOLVE_MISSING: {
        if (missing != NULL) {
            *missing = true;
            return true;
        }
        /* The source knows the column's type and default, which make the exact ALTER. */
        pen_error better;
        if (!pen_preflight_table(stream->options, targets->catalog, rel, &better)) {
            *err = better;
        }
        return false;
    }
    case PEN_RESOLVE_FAILED:
        return false;
    }
    tell_of_another(targets, target);
    keep(targets, target);
    ours(rel)->target = target;
    if (target->scope == PEN_SCOPE_ALL) {
        /* [BARRIERS-1] release: before the baton goes on; pairs with the acquire in
         * pen_targets_have_barriers. */
        pen_cell_publish(&targets->barriers, 1);
    }
    if (target->scope != PEN_SCOPE_ROW) {
        pen_log(PEN_LOG_INFO, "%s of %s are applied one batch after the other: %s",
                target->scope == PEN_SCOPE_APPEND ? "updates and deletes" : "changes", target->name,
                target->scope_reason);
    }
    return true;
}

bool pen_targets_resolve(pen_targets *targets, const pen_change *chg, pen_error *err)
{
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        return resolve(targets, chg->rel, NULL, err);
    }
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        if (!resolve(targets, chg->truncated[i], NULL, err)) {
            return false;
        }
    }
    return true;
}

bool pen_targets_resolve_early(pen_targets *targets, const pen_txn *part, bool *fits,
                               pen_error *err)
{
    bool missing = false;
    bool ok = true;
    *fits = true;
    for (const pen_segment *seg = part->first; ok && seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; ok && !missing && chg != NULL; chg = chg->next) {
            ok = resolve(targets, chg->rel, &missing, err);
            const pen_target *target = chg->rel->target;
            *fits &= target != NULL && target->scope != PEN_SCOPE_ALL;
        }
    }
    *fits &= ok && !missing && !pen_targets_have_barriers(targets);
    return ok || err->kind == PEN_ERROR_FATAL;
}

static bool is_settled(const pen_relation *rel)
{
    /* [SETTLED-1] acquire: pairs with the release in settle. */
    return pen_cell_read(&rel->settled) != 0;
}

static void settle(const pen_relation *rel)
{
    if (!is_settled(rel)) {
        /* [SETTLED-1] release: the descriptor is there, and is not written any more; pairs with
         * the acquire in is_settled. */
        pen_cell_publish(&ours(rel)->settled, 1);
    }
}

void pen_targets_settle(const pen_change *chg)
{
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        settle(chg->rel);
        return;
    }
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        settle(chg->truncated[i]);
    }
}

bool pen_targets_are_settled(const pen_change *chg)
{
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        return is_settled(chg->rel);
    }
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        if (!is_settled(chg->truncated[i])) {
            return false;
        }
    }
    return true;
}

bool pen_targets_have_barriers(const pen_targets *targets)
{
    /* [BARRIERS-1] acquire: pairs with the release in resolve. */
    return pen_cell_read(&targets->barriers) != 0;
}
