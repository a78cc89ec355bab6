/* Purpose: the page with live charts, as it stands in apply/page.html.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    bytes that the build has put in; a document for a browser out. */
#ifndef PEN_APPLY_PAGE_H
#define PEN_APPLY_PAGE_H

#include <stddef.h>

extern const unsigned char pen_page[];
extern const size_t pen_page_size;

#endif
