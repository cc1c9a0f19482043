/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_RDMA_SELFTEST_H
#define LEASEFS_TESTS_RDMA_SELFTEST_H

/*
 * What the programs share that test the server's side of the fabric on a real device (soft-RoCE in the testbed) with
 * real peers. Each test runs in a process of its own with a fresh pool; TAP on stdout.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"
#include "rdma/fabric.h"
#include "rdma/internal.h"

#define MIB         (1u << 20)
#define LEASE_SIZE  (4u * MIB)
#define LEASE_SLOTS 4u
#define FILE_OFFSET (64u * MIB) /* of every lease here, to tell file offsets from addresses */
#define REM_ACCESS  IBV_WC_REM_ACCESS_ERR
#define OLD_BYTE    0xa5
#define NEW_BYTE    0x5a

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition);                                                   \
            fflush(stdout);                                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

#define CHECK_ANSWER(got, wanted)                                                                                      \
    do {                                                                                                               \
        const char *got_ = (got);                                                                                      \
        if (strcmp(got_, (wanted)) != 0) {                                                                             \
            printf("# %s:%d: \"%s\" instead of \"%s\"\n", __FILE__, __LINE__, got_, (wanted));                         \
            fflush(stdout);                                                                                            \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

#define SKIPPED 77 /* exit status of a test that cannot run here */

extern const char *program; /* ourselves: peers are started from it */
extern const char *address; /* of the device */
extern struct fabric *fabric;
extern struct layout_segment pool; /* LEASE_SLOTS * LEASE_SIZE bytes */
extern const struct exposure_ops *const ops;
extern _Atomic uint64_t skipped_ns; /* added to the cookies' clock */
extern uint64_t spare_bytes;        /* of start_fabric() */
extern unsigned test_seconds;       /* after which a test has failed */

/* One lease on scattered runs of the pool: slot 0..3 has 4 MiB, in file order from its last MiB to its first. */
struct lease {
    struct exposure *exposure;
    struct exposure_grant grant;
    struct layout_run runs[4];
};

void start_fabric(const char *revoke);
void pass_time(uint64_t ns); /* busy all the while: to the microsecond */
/* They end the test, where the device has none of it. */
void skip_without_rereg(void); /* Linux 6.1's rxe */
void skip_without_memory_on_demand(void);
struct exposure_session *open_session(uint64_t id);
/* A peer, and the session that it is to connect as. */
struct exposure_session *start_peer(struct peer *peer, uint64_t session_id);
void end_peer(struct peer *peer, struct exposure_session *session); /* the session first */
void expose(struct exposure_session *session, unsigned slot, enum lease_mode mode, struct lease *lease);
void end_lease(struct lease *lease);
uint8_t *pool_byte(unsigned slot, size_t offset);
size_t count_others(const uint8_t *bytes, size_t length, uint8_t than); /* bytes that are not that one */

/* The peer's answers, see peer.h. fault: "", "short" or "version". */
const char *connect_with(struct peer *peer, const struct exposure_address *where, const char *fault);
const char *connect_peer(struct peer *peer, struct exposure_session *session); /* with a fresh cookie */
const char *read_from(struct peer *peer, const struct lease *lease, size_t offset, size_t length);
const char *write_to(struct peer *peer, const struct lease *lease, size_t offset, size_t length, int byte);
const char *hammer(struct peer *peer, const struct lease *lease, bool read, int byte);
const char *wc(int status); /* how a peer reports it; static storage */

json_int_t status_of(const char *group, const char *subgroup, const char *name); /* subgroup may be NULL */
void wait_until_no_connection(uint64_t allowed_ns);
/* Neither connections nor regions nor sessions: fabric_stop() will leave nothing behind. */
void wait_until_nothing_is_left(uint64_t allowed_ns);

struct selftest {
    const char *name;
    void (*run)(void);
};

#define SELFTEST(name)                                                                                                 \
    {                                                                                                                  \
#name, name                                                                                                    \
    }

/* PROGRAM [ADDRESS [PART OF A TEST'S NAME]]; or PROGRAM peer. The exit code. */
int selftest_main(int argc, char **argv, const struct selftest *tests, size_t n_tests);
#define SELFTESTS(argc, argv, tests) selftest_main(argc, argv, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
