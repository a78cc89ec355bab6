#include "core/xid_snapshot.h"

#include <stdlib.h>
#include <string.h>

/* One number off the front of *at, which is behind it then. */
static bool take_number(const char **at, uint64_t *number)
{
    char *end = NULL;
    if (**at < '0' || **at > '9') {
        return false;
    }
    *number = strtoull(*at, &end, 10);
    *at = end;
    return true;
}

static bool take_xips(pen_xid_snapshot *snapshot, const char *at)
{
    size_t room = 1;
    for (const char *comma = at; (comma = strchr(comma, ',')) != NULL; comma++) {
        room++;
    }
    snapshot->xips = pen_calloc(room, sizeof(*snapshot->xips));
    if (*at == '\0') {
        return true;
    }
    for (;;) {
        uint64_t xid = 0;
        uint64_t before = snapshot->xip_count == 0 ? 0 : snapshot->xips[snapshot->xip_count - 1];
        if (!take_number(&at, &xid) || xid <= before || xid < snapshot->xmin ||
            xid >= snapshot->xmax) {
            return false;
        }
        snapshot->xips[snapshot->xip_count++] = xid;
        if (*at == '\0') {
            return true;
        }
        if (*at++ != ',') {
            return false;
        }
    }
}

bool pen_xid_snapshot_parse(pen_xid_snapshot *snapshot, const char *text)
{
    memset(snapshot, 0, sizeof(*snapshot));
    const char *at = text;
    return take_number(&at, &snapshot->xmin) && *at++ == ':' && take_number(&at, &snapshot->xmax) &&
           *at++ == ':' && snapshot->xmin <= snapshot->xmax && take_xips(snapshot, at);
}

void pen_xid_snapshot_deinit(pen_xid_snapshot *snapshot)
{
    free(snapshot->xips);
    memset(snapshot, 0, sizeof(*snapshot));
}

bool pen_xid_snapshot_sees(const pen_xid_snapshot *snapshot, uint32_t xid)
{
    /* The 64-bit xid with this lower half that is nearest to xmax. */
    int32_t distance = (int32_t)(xid - (uint32_t)snapshot->xmax);
    if (distance >= 0) {
        return false;
    }
    uint64_t whole = snapshot->xmax - (uint64_t)(-(int64_t)distance);
    if (whole < snapshot->xmin || whole > snapshot->xmax) {
        return true; /* long before; the second when that lies before the first of all xids */
    }
    size_t low = 0;
    size_t high = snapshot->xip_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (snapshot->xips[middle] < whole) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == snapshot->xip_count || snapshot->xips[low] != whole;
}
