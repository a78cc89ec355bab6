/* Purpose: answers from outside: the control socket and HTTP, in a thread of their own.
 * Thread:  main starts and stops it; the thread does the rest.
 * Owns:    the thread, both servers.
 * Flow:    the board (apply/status.h) in; documents for whoever asks out.
 *
 * One thread with one poll loop for all clients: it takes no lock of the data path's, and waits for
 * no client. */
#ifndef PEN_APPLY_SERVICE_H
#define PEN_APPLY_SERVICE_H

#include "apply/status.h"

typedef struct pen_service pen_service;

/* Begins to answer: by HTTP at `http` (as --http has it; NULL: not), and by the control socket as
 * soon as the board says that the state directory is ours. Errors: PEN_ERROR_FATAL when it cannot
 * listen at `http`. A control socket that cannot be made is a warning. */
PEN_MUST_CHECK bool pen_service_start(pen_status *status, const char *http, pen_service **service,
                                      pen_error *err);
void pen_service_stop(pen_service *service); /* NULL is nothing */

#endif
