/* Purpose: finds the passwords in a libpq connection string, to hide them; libpq itself reads it.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    the operator's text in; a copy without passwords, or the same memory overwritten, out.
 */
#ifndef PEN_CORE_CONNINFO_H
#define PEN_CORE_CONNINFO_H

#include "core/base.h"

/* Both forms are read as libpq does (PostgreSQL's documentation, "Connection Strings"): keywords
 * with values, and URIs. Text that libpq could take in another way than a person meant it (a
 * second '@', an unknown keyword) counts as secret from end to end. See also pen_conninfo_redact
 * in core/options.h. */

/* A cheap look at the form alone. Returns NULL when `conninfo` may be a connection string, else
 * what is wrong with it, in words that fit behind a colon and repeat nothing of it. */
const char *pen_conninfo_problem(const char *conninfo);

/* Overwrites every byte of a password in `conninfo` by '*', and all of it when unsure; its length
 * stays the same. */
void pen_conninfo_scrub(char *conninfo);

/* True when `text`, which should not be a connection string at all, may hold a password: it looks
 * like a URI, or has "password" before an equals sign. */
bool pen_conninfo_suspect(const char *text);

#endif
