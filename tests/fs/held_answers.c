/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linked into leasefs_simulated (ld --wrap): an answer to the kernel can be held up between the moment when it was
 * made and the one when the kernel gets it, so that a test can let other things happen there. While there is a file
 * `hold` in the directory LEASEFS_TEST_ANSWERS, the next answer of as many bytes as it says waits: the file is
 * called `held` then, and the answer goes when somebody has opened the fifo `go` for writing.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fused/fuse_ring.h"

ssize_t __real_writev(int fd, const struct iovec *iov, int count);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int count);
bool __real_fuse_ring_reply(struct fuse_ring *ring, const struct iovec *iov, int count);
bool __wrap_fuse_ring_reply(struct fuse_ring *ring, const struct iovec *iov, int count);

static bool wanted(int dir, const struct iovec *iov)
{
    const struct fuse_out_header *header = iov->iov_base;
    char text[16] = "";
    int fd;

    if (iov->iov_len != sizeof(*header) || header->unique == 0) /* a notification */
        return false;
    fd = openat(dir, "hold", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    (void)!read(fd, text, sizeof(text) - 1);
    close(fd);
    return header->len == strtoul(text, NULL, 10) && renameat(dir, "hold", dir, "held") == 0;
}

static void hold_if_wanted(const struct iovec *iov, int count)
{
    const char *path = getenv("LEASEFS_TEST_ANSWERS");
    int dir = path && count > 0 ? open(path, O_DIRECTORY | O_PATH | O_CLOEXEC) : -1;

    if (dir >= 0) {
        if (wanted(dir, iov))
            close(openat(dir, "go", O_RDONLY | O_CLOEXEC)); /* until it is opened for writing */
        close(dir);
    }
}

__attribute__((visibility("default"))) ssize_t __wrap_writev(int fd, const struct iovec *iov, int count)
{
    hold_if_wanted(iov, count);
    return __real_writev(fd, iov, count);
}

bool __wrap_fuse_ring_reply(struct fuse_ring *ring, const struct iovec *iov, int count)
{
    hold_if_wanted(iov, count);
    return __real_fuse_ring_reply(ring, iov, count);
}
