/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_INITIATOR_ERROR_H
#define LEASEFS_INITIATOR_ERROR_H

/* What leasefs_error() and leasefs_error_data() tell: one sentence and one JSON object for each thread. */

#include <jansson.h>

/* Sets the thread's sentence, forgets its data, and returns `status` (a negative errno), so that
 * `return error_set(-EBUSY, "...")` reads well. */
int error_set(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The sentence of an error that the server answered `method` with, and its data. Returns the negative errno it names,
 * -EPROTO when it names none. */
int error_from_server(const char *method, const json_t *error);

/* A negative errno from its symbolic name ("EBUSY"); 0: unknown. */
int error_from_name(const char *name);

#endif
