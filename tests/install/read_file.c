/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints the beginning of a file of a leasefs server, read one-sided over RDMA: read_file CONTROL-SOCKET /dir/file */
#include <err.h>
#include <leasefs/leasefs.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct leasefs_session_options server = {.control = argc > 1 ? argv[1] : NULL};
    struct leasefs_lease_options options = {.mode = LEASEFS_READ};
    struct leasefs_session *session;
    struct leasefs_lease *lease;
    char buffer[64] = "";

    if (argc != 3)
        errx(2, "usage: read_file CONTROL-SOCKET /dir/file");
    if (leasefs_session_open(&server, &session) || leasefs_lease_open(session, argv[2], &options, &lease) ||
        leasefs_read(lease, buffer, sizeof(buffer) - 1, 0))
        errx(1, "%s", leasefs_error());
    puts(buffer);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
}
