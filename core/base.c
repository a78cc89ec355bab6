#include "core/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pen_assert_failed(const char *cond, const char *file, int line, const char *func)
{
    fprintf(stderr,
            "penstock: broken invariant `%s` in %s (%s:%d); nothing after the last commit "
            "was applied, start again to go on\n",
            cond, func, file, line);
    abort();
}

static void *checked(void *ptr, size_t size)
{
    if (ptr == NULL) {
        fprintf(stderr,
                "penstock: out of memory asking for %zu bytes; start again with a smaller "
                "--memory, nothing is lost\n",
                size);
        abort();
    }
    return ptr;
}

void *pen_malloc(size_t size)
{
    return checked(malloc(size == 0 ? 1 : size), size);
}

void *pen_calloc(size_t count, size_t size)
{
    return checked(calloc(count == 0 ? 1 : count, size == 0 ? 1 : size), size);
}

void *pen_realloc(void *ptr, size_t size)
{
    return checked(realloc(ptr, size == 0 ? 1 : size), size);
}

char *pen_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(pen_malloc(size), text, size);
}

void *pen_alloc_lines(size_t size)
{
    size_t rounded = (size + PEN_CACHE_LINE - 1) / PEN_CACHE_LINE * PEN_CACHE_LINE;
    void *ptr = checked(aligned_alloc(PEN_CACHE_LINE, rounded), rounded);
    return memset(ptr, 0, rounded);
}
