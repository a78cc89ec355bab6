#include "core/nearest.h"

#include <string.h>

#define MAX_WORD 64

static size_t least(size_t left, size_t right)
{
    return left < right ? left : right;
}

size_t pen_edit_distance(const char *left, const char *right)
{
    size_t left_len = strnlen(left, MAX_WORD);
    size_t right_len = strnlen(right, MAX_WORD);
    /* cost[i % 3][j]: from left's first i letters to right's first j. A swap looks two rows back.
     */
    size_t cost[3][MAX_WORD + 1];
    for (size_t j = 0; j <= right_len; j++) {
        cost[0][j] = j;
    }
    for (size_t i = 1; i <= left_len; i++) {
        size_t *row = cost[i % 3];
        const size_t *above = cost[(i - 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= right_len; j++) {
            size_t exchanged = above[j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1);
            row[j] = least(exchanged, least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1]) {
                row[j] = least(row[j], cost[(i - 2) % 3][j - 2] + 1);
            }
        }
    }
    return cost[left_len % 3][right_len];
}

size_t pen_nearest(const char *word, const char *const *names, size_t count)
{
    size_t nearest = 0;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        bool is_beginning = *word != '\0' && strncmp(names[i], word, strlen(word)) == 0;
        size_t distance = is_beginning ? 0 : pen_edit_distance(word, names[i]);
        if (distance < best) {
            best = distance;
            nearest = i;
        }
    }
    return nearest;
}
