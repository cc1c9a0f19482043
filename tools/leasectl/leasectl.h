/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASECTL_H
#define LEASEFS_LEASECTL_H

/* What the commands share: options, exit codes, output. A process runs one command, so this is its state. */

#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <leasefs/leasefs.h>

/* Documented in leasectl(1). */
enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REFUSED = 3,   /* not eligible, not permitted */
    EXIT_BUSY = 4,      /* in conflict with others' leases or operations */
    EXIT_LOST = 5,      /* remote access refused: the lease was revoked */
    EXIT_NO_RDMA = 6,   /* no RDMA device, or no connection to the server's */
    EXIT_NO_SERVER = 7, /* nobody answers at the control socket */
    EXIT_RECALLED = 8,  /* the lease was recalled or expired before the command was through */
};

/* Options that every command takes. */
struct common {
    const char *control; /* NULL: the default, or that of the mounted leasefs a path lies on */
    const char *server;  /* HOST[:PORT], by TLS; not with control */
    const char *key;     /* file; NULL: the library's default */
    bool json;
};
extern struct common common;
extern const struct argp common_argp; /* a child for the commands' own parsers */

/* Each parses argv[1..] with argv[0] = "leasectl NAME", and returns an exit code. */
int command_get(int argc, char **argv);
int command_put(int argc, char **argv);
int command_lease(int argc, char **argv);
int command_status(int argc, char **argv);
int command_map(int argc, char **argv);
int command_top(int argc, char **argv);
int command_watch(int argc, char **argv);
int command_probe(int argc, char **argv);
int command_revoke(int argc, char **argv);
int command_prepare(int argc, char **argv);
int command_clone(int argc, char **argv);
int command_fallocate(int argc, char **argv);
int command_key(int argc, char **argv);
int command_policy(int argc, char **argv);

/* ---- output.c: every line is flushed, so that a reader at a pipe sees it when it happens ---- */

/* Where results go: stdout, but stderr once a command says that stdout carries a file's bytes. */
void output_use_stderr(void);

/* A line for people; nothing under --json. */
void output_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line of JSON under --json; nothing otherwise. Steals `object`. */
void output_json(json_t *object);

/* Any JSON value for people: members a line each, lists of objects as tables; under --json the object with "event". */
void output_result(const char *event, json_t *result);

/* "leasectl: SENTENCE" on stderr, or {"event":"error",...} under --json. Returns the exit code for the errno.
 * output_error() takes the sentence from leasefs_error() on this thread and prefixes it with `what` (may be NULL). */
int output_error(int status, const char *what);
int output_failure(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int output_usage(const char *format, ...) __attribute__((format(printf, 1, 2))); /* returns EXIT_USAGE */

int exit_code_of(int status);

/* ---- session with the server of a target, or the default one ---- */

/* 0 or, after saying why, an exit code. `control` and `host` are a target's (target.h), NULL where it has none. The
 * command line says first who the server is, then the target, then $LEASEFS_SERVER; else it is the default socket's. */
int open_session(const char *control, const char *host, struct leasefs_session **ret_session);

/* One call whose answer is shown; returns an exit code. Steals params. */
int call_and_show(const char *control, const char *host, const char *method, json_t *params);

#endif
