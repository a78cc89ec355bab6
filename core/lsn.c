#include "core/lsn.h"

#include <stdio.h>
#include <time.h>

#define UNIX_TO_PG_S ((int64_t)946684800) /* 1970-01-01 to 2000-01-01 */

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
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((int64_t)now.tv_sec - UNIX_TO_PG_S) * 1000000 + now.tv_nsec / 1000;
}

char *pen_pgtime_format(pen_pgtime time, char text[PEN_PGTIME_TEXT_SIZE])
{
    int64_t seconds = time / 1000000;
    int64_t micros = time % 1000000;
    if (micros < 0) {
        micros += 1000000;
        seconds--;
    }
    time_t when = (time_t)(seconds + UNIX_TO_PG_S);
    struct tm utc;
    gmtime_r(&when, &utc); /* cannot fail: 64-bit microseconds are less than 600,000 years */
    snprintf(text, PEN_PGTIME_TEXT_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", utc.tm_year + 1900,
             utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)micros);
    return text;
}
