/* Purpose: shows people what a running penstock says of itself.
 * Thread:  main.
 * Owns:    nothing.
 * Flow:    the document of apply/report.h in; lines of text out.
 *
 * The document may come from another version of penstock, so what it lacks is left out. Its texts
 * have no characters that a terminal acts on: apply/report.c has seen to it. */
#ifndef PEN_TOOLS_STATUS_SHOW_H
#define PEN_TOOLS_STATUS_SHOW_H

#include "core/text.h"

#include <jansson.h>

/* All of it, some lines. */
void pen_status_table(const json_t *document, pen_text *out);
/* The most important of it on one line, without its end. */
void pen_status_line(const json_t *document, pen_text *out);

#endif
