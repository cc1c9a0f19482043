/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_RDMA_PEER_H
#define LEASEFS_TESTS_RDMA_PEER_H

/*
 * A remote peer for tests of the fabric: a process of its own with a bare rdma_cm connection and no manners. It does
 * what it is told on stdin, a line a command, and answers each with a line on stdout:
 *
 *   connect HOST PORT COOKIE [short|version]   ok | rejected CODE | failed ...
 *   read ADDRESS RKEY LENGTH                   ok BYTE (-1: not all the same) | wc STATUS
 *   write ADDRESS RKEY LENGTH BYTE             ok | wc STATUS
 *   atomic ADDRESS RKEY                        ok | wc STATUS (fetch and add 1)
 *   invalidate RKEY                            ok | wc STATUS (a message that asks for the end of that key)
 *   send [COUNT]                               ok | wc STATUS (of the first that failed; all are posted at once)
 *   hammer read|write ADDRESS RKEY LENGTH BYTE running (after the first transfer); goes on until one fails
 *   storm ADDRESS RKEY LENGTH SEED [read]      running; goes on until one fails: many at once, reads and writes (of
 *                                              REMOTE_BYTE) of all sizes anywhere; or reads alone
 *   stopped                                    wc STATUS (waits for that)
 *   scan BYTE                                  found COUNT (of that byte in all that was hammered or stormed in; once)
 *   wait                                       disconnected (waits for the server to say so)
 */

#define REMOTE_BYTE 0x77

/* The child's main. */
int peer_main(void);

/* The parent's side. */
#include <stdio.h>
#include <sys/types.h>

struct peer {
    pid_t pid;
    FILE *commands, *answers;
    char answer[128];
};

/* Runs `program peer`, or the shell command in LEASEFS_TEST_PEER, which does so on another machine. Exits on failure,
 * as do the rest: this is a test. */
void peer_start(struct peer *peer, const char *program);
const char *peer_ask(struct peer *peer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void peer_stop(struct peer *peer);
void peer_kill(struct peer *peer); /* SIGKILL, reaped */

#endif
