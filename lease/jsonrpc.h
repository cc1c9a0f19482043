/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_JSONRPC_H
#define LEASEFS_LEASE_JSONRPC_H

/* JSON-RPC 2.0 messages. No I/O. Every json_t returned is a new reference, NULL when out of memory. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/range.h"

/* A request or notification, checked for form. jsonrpc_request_clear() drops what it has. */
struct jsonrpc_request {
    json_t *id;      /* NULL: a notification */
    json_t *params;  /* an object, or NULL */
    char method[32]; /* the first characters of a longer one: no method is that long */
};

/* One line without its LF. 0, or a LEASEFS_RPC_ code and *ret_why (static). On LEASEFS_RPC_INVALID_REQUEST
 * ret_request->id is set if it could be read. To be cleared in any case. */
int jsonrpc_parse(const char *line, size_t length, struct jsonrpc_request *ret_request, const char **ret_why);
void jsonrpc_request_clear(struct jsonrpc_request *request);

json_t *jsonrpc_result(json_t *id, json_t *result);                             /* steals result */
json_t *jsonrpc_error(json_t *id, int code, const char *message, json_t *data); /* steals data, which may be NULL */

/* Lines with their LF, for the caller to free. NULL: no memory. */
char *jsonrpc_line(const json_t *message);
char *jsonrpc_result_line(const json_t *id, const char *result); /* result: JSON */

json_t *jsonrpc_notification(const char *method, json_t *params); /* steals params */

/* "EBUSY" for EBUSY or -EBUSY; "EIO" for what has no name. */
const char *jsonrpc_errno_name(int error);

/* Members of params. found: false when absent; error: present and of another type or out of range (range: 0..max). */
enum jsonrpc_member {
    JSONRPC_ABSENT,
    JSONRPC_FOUND,
    JSONRPC_WRONG,
};
enum jsonrpc_member jsonrpc_get_uint(const json_t *params, const char *name, uint64_t max, uint64_t *ret_value);
enum jsonrpc_member jsonrpc_get_bool(const json_t *params, const char *name, bool *ret_value);
enum jsonrpc_member jsonrpc_get_string(const json_t *params, const char *name, size_t max, const char **ret_value);

#endif
