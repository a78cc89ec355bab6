#include "apply/fence.h"

#include "apply/session.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

void pen_fences_deinit(pen_fences *fences)
{
    for (size_t i = 0; i < fences->snapshot_count; i++) {
        pen_xid_snapshot_deinit(&fences->snapshots[i]);
    }
    free(fences->snapshots);
    free(fences->fences);
    memset(fences, 0, sizeof(*fences));
}

/* Rows come ordered by snapshot, so that each is read once. */
static bool read_rows(pen_fences *fences, const pen_pgresult *res, pen_error *err)
{
    size_t rows = (size_t)pen_pgresult_rows(res);
    const char *last = NULL;
    fences->fences = pen_calloc(rows + 1, sizeof(*fences->fences));
    fences->snapshots = pen_calloc(rows + 1, sizeof(*fences->snapshots));
    for (size_t i = 0; i < rows; i++) {
        const char *oid = pen_pgresult_value(res, (int)i, 0);
        const char *text = pen_pgresult_value(res, (int)i, 1);
        pen_fence *fence = &fences->fences[fences->count];
        if (last == NULL || strcmp(last, text) != 0) {
            last = text;
            if (!pen_xid_snapshot_parse(&fences->snapshots[fences->snapshot_count++], text)) {
                return pen_error_set(err, PEN_ERROR_FATAL,
                                     "target: penstock.copied_table holds \"%.100s\", which is no "
                                     "snapshot; begin the migration anew under another --name",
                                     text);
            }
        }
        fence->oid = (uint32_t)strtoul(oid, NULL, 10);
        fence->snapshot = fences->snapshot_count - 1;
        if (!pen_lsn_parse(pen_pgresult_value(res, (int)i, 2), &fence->end)) {
            return pen_error_set(err, PEN_ERROR_FATAL,
                                 "target: penstock.copied_table holds a fence without its end");
        }
        fences->end = fence->end > fences->end ? fence->end : fences->end;
        fences->count++;
    }
    return true;
}

static int compare_fences(const void *a, const void *b)
{
    uint32_t x = ((const pen_fence *)a)->oid;
    uint32_t y = ((const pen_fence *)b)->oid;
    return x < y ? -1 : x > y;
}

bool pen_fences_load(pen_fences *fences, pen_pgconn *target, const char *name, pen_lsn applied,
                     pen_error *err)
{
    char lsn[PEN_LSN_TEXT_SIZE];
    const char *const values[] = {name, pen_lsn_format(applied, lsn)};
    pen_pgresult *res = NULL;
    pen_fences_deinit(fences);
    bool any = false;
    if (!pen_session_has_table(target, "penstock.copied_table", &any, err)) {
        return false;
    }
    if (!any) {
        return true;
    }
    bool ok = pen_pgconn_exec(target, "read the fences of copied tables",
                              "SELECT DISTINCT stream_oid, fence_snapshot, fence_end"
                              " FROM penstock.copied_table WHERE name = $1"
                              " AND fence_snapshot IS NOT NULL AND fence_end > $2::pg_lsn"
                              " ORDER BY fence_snapshot",
                              2, values, &res, err) &&
              read_rows(fences, res, err);
    pen_pgresult_clear(res);
    qsort(fences->fences, fences->count, sizeof(*fences->fences), compare_fences);
    if (ok && fences->count > 0) {
        pen_log(PEN_LOG_INFO,
                "%zu tables were copied under a later snapshot than the slot's: until " PEN_LSN_FMT
                " the stream leaves out what that has brought",
                fences->count, PEN_LSN_ARGS(fences->end));
    }
    return ok;
}

bool pen_fences_hide(const pen_fences *fences, uint32_t oid, uint32_t xid, pen_lsn commit_lsn)
{
    if (commit_lsn >= fences->end) {
        return false;
    }
    const pen_fence key = {.oid = oid};
    const pen_fence *fence =
        bsearch(&key, fences->fences, fences->count, sizeof(*fences->fences), compare_fences);
    return fence != NULL && commit_lsn < fence->end &&
           pen_xid_snapshot_sees(&fences->snapshots[fence->snapshot], xid);
}

bool pen_fences_pass(const pen_fences *fences, uint32_t xid, pen_lsn commit_lsn, pen_change *chg)
{
    if (commit_lsn >= fences->end) {
        return true;
    }
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        return !pen_fences_hide(fences, chg->rel->oid, xid, commit_lsn);
    }
    /* The list is the message's own, and nobody else has seen it yet. */
    const pen_relation **list = (const pen_relation **)(uintptr_t)chg->truncated;
    uint32_t left = 0;
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        if (!pen_fences_hide(fences, list[i]->oid, xid, commit_lsn)) {
            list[left++] = list[i];
        }
    }
    chg->truncated_count = left;
    return left > 0;
}
