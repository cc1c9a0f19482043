/* SPDX-License-Identifier: BSD-2-Clause */

/* Takes a write lease on /file of the server at argv[1], gives parts of it back, and prints what is left each time. */
#include <err.h>
#include <leasefs/leasefs.h>
#include <stdio.h>

static void show(struct leasefs_lease *lease)
{
    struct leasefs_layout layout;

    leasefs_lease_layout(lease, &layout);
    printf("%s %llu+%llu\n", layout.mode == LEASEFS_WRITE ? "write" : "read", (unsigned long long)layout.offset,
           (unsigned long long)layout.length);
}

static void check(int status)
{
    if (status)
        errx(1, "%s", leasefs_error());
}

int main(int argc, char **argv)
{
    struct leasefs_session_options server = {.control = argc > 1 ? argv[1] : NULL};
    struct leasefs_lease_options options = {.mode = LEASEFS_WRITE, .no_rdma = true};
    struct leasefs_session *session;
    struct leasefs_lease *lease, *rest = NULL;

    check(leasefs_session_open(&server, &session));
    check(leasefs_lease_open(session, "/file", &options, &lease));
    check(leasefs_lease_return_range(lease, 100000, 200000, &rest));
    show(lease);
    show(rest);
    check(leasefs_lease_downgrade(rest));
    show(rest);
    check(leasefs_lease_return_range(rest, 0, 524288, NULL));
    show(rest);
    puts("held");
    fflush(stdout);
    getchar();
    check(leasefs_lease_return_range(lease, 0, 1048576, NULL));
    check(leasefs_lease_return(lease));
    check(leasefs_lease_return(rest));
    leasefs_session_close(session);
    puts("done");
}
