/* Purpose: names the word that was probably meant, when an operator mistyped one.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    a wrong word and the right ones in, one of the right ones out. */
#ifndef PEN_CORE_NEAREST_H
#define PEN_CORE_NEAREST_H

#include "core/base.h"

/* How many letters must be added, taken away, exchanged, or swapped with their neighbour to make
 * one word from the other (the optimal string alignment distance). Words are compared by their
 * first 64 bytes. */
size_t pen_edit_distance(const char *left, const char *right);

/* Returns the index of the name nearest to `word`: one that begins with it, or else the one at the
 * smallest distance; of equally near ones the first. `count` >= 1. */
size_t pen_nearest(const char *word, const char *const *names, size_t count);

#endif
