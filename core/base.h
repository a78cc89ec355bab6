/* Purpose: the few macros that every file uses: must-check, alignment, assertions.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    included first by every header of penstock. */
#ifndef PEN_CORE_BASE_H
#define PEN_CORE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PEN_VERSION "0.1.0"

/* A fallible function's result must be looked at: an error that nobody saw is a lost row. */
#define PEN_MUST_CHECK      __attribute__((warn_unused_result))
#define PEN_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define PEN_NORETURN        __attribute__((noreturn))
#define PEN_NEVER_NULL      __attribute__((returns_nonnull))

#define PEN_CACHE_LINE 64
#define PEN_ALIGNED    _Alignas(PEN_CACHE_LINE)

#define PEN_COUNTOF(array) (sizeof(array) / sizeof((array)[0]))

/* States an invariant of our own code and stays on in release builds: going on with a broken
 * invariant could write a wrong row. Input from outside gets an error instead, never this. */
#define PEN_ASSERT(cond) ((cond) ? (void)0 : pen_assert_failed(#cond, __FILE__, __LINE__, __func__))

/* Prints the broken invariant to standard error and aborts. */
PEN_NORETURN void pen_assert_failed(const char *cond, const char *file, int line, const char *func);

/* malloc, calloc and realloc that do not return NULL: with memory counted against --memory, an
 * allocation that fails means that the machine is out of memory, and a replicator that dies there
 * loses nothing. Each gives memory that free() takes. */
PEN_NEVER_NULL void *pen_malloc(size_t size);
PEN_NEVER_NULL void *pen_calloc(size_t count, size_t size);
PEN_NEVER_NULL void *pen_realloc(void *ptr, size_t size);
/* Gives a copy of the NUL-terminated `text`. */
PEN_NEVER_NULL char *pen_strdup(const char *text);
/* Gives memory aligned to a cache line, zeroed; `size` in bytes, rounded up to whole lines. */
PEN_NEVER_NULL void *pen_alloc_lines(size_t size);

#endif
