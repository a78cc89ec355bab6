#include "core/lsn.h"

#include <stdio.h>
#include <time.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Reads 1 to 8 digits and moves *text behind them. */
static bool parse_half(const char **text, uint64_t *half)
{
    int digits = 0;
    *half = 0;
    while (hex_digit(**text) >= 0) {
        if (++digits > 8) {
            return false;
        }
        *half = (*half << 4) | (uint64_t)hex_digit(**text);
        (*text)++;
    }
    return digits > 0;
}

bool pen_lsn_parse(const char *text, pen_lsn *lsn)
{
    uint64_t high = 0;
    uint64_t low = 0;
    if (!parse_half(&text, &high) || *text++ != '/' || !parse_half(&text, &low) || *text != '\0') {
        return false;
    }
    *lsn = (high << 32) | low;
    return true;
}

char *pen_lsn_format(pen_lsn lsn, char text[PEN_LSN_TEXT_SIZE])
{
    snprintf(text, PEN_LSN_TEXT_SIZE, PEN_LSN_FMT, PEN_LSN_ARGS(lsn));
    return text;
}

pen_pgtime pen_pgtime_now(void)
{
    const int64_t unix_to_pg_s = 946684800; /* 1970-01-01 to 2000-01-01 */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((int64_t)now.tv_sec - unix_to_pg_s) * 1000000 + now.tv_nsec / 1000;
}
