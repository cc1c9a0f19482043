/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How requests come and answers go: by read(2) and writev(2) of /dev/fuse as libfuse does it, or by io_uring
 * (fuse_ring.h). In both cases they pass fuse_wire.c, and libfuse takes them apart.
 */
#include "fused/fuse_channel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fused/fuse_listener.h"
#include "fused/fuse_private.h"
#include "fused/fuse_ring.h"

#define LONG_BYTES         0x10000u     /* copying them takes as long as waking a thread */
#define SMALLEST_OF_BUFFER 8192u        /* FUSE_MIN_READ_BUFFER */
#define RING_LARGEST       (512u << 10) /* what is copied into a buffer and out again shall be in the cache in between */

/* ---- answers ---- */

static ssize_t send_answer(struct fuse_server *server, int fd, struct iovec *iov, int count)
{
    struct fuse_ring *ring = atomic_load_explicit(&server->ring, memory_order_acquire);

    if (ring && fuse_ring_reply(ring, iov, count))
        return 0;
    return writev(fd, iov, count);
}

static void answer_statx(struct fuse_server *server, int fd, const void *request)
{
    char reply[FUSE_WIRE_STATX_BYTES];
    struct fuse_out_header *header = (void *)reply;
    size_t size = fuse_wire_statx(&server->wire, server->fs, request, reply, sizeof(reply));
    struct iovec iov[] = {{header, sizeof(*header)}, {header + 1, size - sizeof(*header)}};

    (void)send_answer(server, fd, iov, 2); /* ENOENT: interrupted */
}

/* ---- requests ---- */

/* true: it has been answered. */
static bool translate(struct fuse_server *server, int fd, void *request, size_t size)
{
    if (!fuse_wire_request(&server->wire, request, size))
        return false;
    answer_statx(server, fd, request);
    return true;
}

/* It may have become shorter. */
static size_t size_of_request(const void *request, size_t size)
{
    const struct fuse_in_header *header = request;

    return size >= sizeof(*header) && header->len < size ? header->len : size;
}

/* What is short is served by who read it. */
static void let_others_read(const void *request, size_t size)
{
    const struct fuse_in_header *header = request;
    const void *body = header + 1;
    uint32_t length;

    switch (header->opcode) {
    case FUSE_READ:
    case FUSE_WRITE: /* the length is at the same place */
        length = size >= sizeof(*header) + sizeof(struct fuse_read_in) ? ((const struct fuse_read_in *)body)->size : 0;
        if (length > LONG_BYTES)
            turn_pass_if_crowded();
        break;
    case FUSE_SETATTR:
        if (size >= sizeof(*header) + sizeof(uint32_t) && (*(const uint32_t *)body & FATTR_SIZE))
            turn_pass();
        break;
    case FUSE_LSEEK:
    case FUSE_IOCTL:
    case FUSE_FALLOCATE:
    case FUSE_COPY_FILE_RANGE:
        turn_pass();
        break;
    default: /* fs_inode.c passes the turn before it frees a large file */
        break;
    }
}

static ssize_t next_message(struct fuse_server *server, int fd, void *buffer, size_t size)
{
    ssize_t n;

    turn_take(server->turn);
    if (!atomic_load(&server->ring)) /* it may have come while this thread waited */
        return turn_read(server->turn, fd, buffer, size);
    n = fuse_listener_read(server->listener, fd, buffer, size);
    if (n <= 0) {
        int err = errno;

        turn_pass();
        errno = err;
    }
    return n;
}

/* libfuse ends its threads by cancelling them in here, so nothing but the read may be cut off. */
static ssize_t channel_read(int fd, void *buffer, size_t size, void *userdata)
{
    struct fuse_server *server = userdata;
    bool answered;
    ssize_t n;

    do {
        int cancel;

        n = next_message(server, fd, buffer, size);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
        if (n > 0)
            let_others_read(buffer, (size_t)n);
        answered = n > 0 && translate(server, fd, buffer, (size_t)n);
        if (!answered && n > 0)
            n = (ssize_t)size_of_request(buffer, (size_t)n);
        pthread_setcancelstate(cancel, NULL);
    } while (answered);
    return n;
}

/* ---- io_uring ---- */

static void serve_from_ring(void *arg, void *request, size_t size)
{
    struct fuse_server *server = arg;
    struct fuse_buf buffer = {.mem = request};

    if (translate(server, -1, request, size))
        return;
    buffer.size = size_of_request(request, size);
    fuse_session_process_buf(server->session, &buffer);
}

size_t fuse_channel_largest(const struct fuse_server *server)
{
    bool ring = server->config.io_uring != FUSE_IO_URING_OFF && fuse_wire_offers_io_uring(&server->wire);

    return ring ? RING_LARGEST : FS_READ_MAX;
}

static size_t largest_payload(const struct fuse_init_out *init)
{
    size_t pages = (size_t)init->max_pages * (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = init->max_write > SMALLEST_OF_BUFFER ? init->max_write : SMALLEST_OF_BUFFER;

    return pages > bytes ? pages : bytes;
}

/* Before the kernel is told so: it would wait for a ring that cannot be made. */
static int make_ring(struct fuse_server *server, const struct fuse_init_out *init)
{
    struct fuse_ring_config config = {
        .fd = fuse_session_fd(server->session),
        .largest = largest_payload(init),
        .serve = serve_from_ring,
        .arg = server,
    };
    struct fuse_ring *ring;
    int err;

    if (!fuse_wire_offers_io_uring(&server->wire))
        return -EOPNOTSUPP;
    err = fuse_ring_new(&config, &ring);
    if (err)
        return err;
    server->wire.over_io_uring = true;
    atomic_store(&server->ring, ring);
    return 0;
}

static const char *why_no_ring(int err)
{
    return err == -EOPNOTSUPP ? "Linux does not offer it: it takes 6.14 or later, built with CONFIG_FUSE_IO_URING, and "
                                "'echo Y > /sys/module/fuse/parameters/enable_uring' before mounting"
                              : strerror(-err);
}

/* false: this mount is not what was asked for. */
static bool choose_transport(struct fuse_server *server, const struct fuse_init_out *init)
{
    int err;

    if (server->config.io_uring == FUSE_IO_URING_OFF)
        return true;
    err = make_ring(server, init);
    if (!err)
        return true;
    if (server->config.io_uring == FUSE_IO_URING_ON)
        fprintf(stderr, "leasefs: io_uring=on: %s\n", why_no_ring(err));
    else if (err != -EOPNOTSUPP)
        fprintf(stderr, "leasefs: requests do not come by io_uring: %s\n", why_no_ring(err));
    return server->config.io_uring != FUSE_IO_URING_ON;
}

static ssize_t answer_init(struct fuse_server *server, int fd, struct iovec *iov, int count)
{
    struct fuse_ring *ring;
    uint64_t one = 1;
    ssize_t n;

    if (!choose_transport(server, iov[1].iov_base)) {
        fuse_session_exit(server->session);
        errno = EOPNOTSUPP;
        return -1;
    }
    fuse_wire_reply(&server->wire, iov, count);
    n = writev(fd, iov, count);
    if (n < 0)
        return n;
    ring = atomic_load(&server->ring);
    if (ring)
        fuse_ring_open(ring);
    else
        turn_allow(server->turn, server->max_readers);
    (void)!write(server->ready_fd, &one, sizeof(one));
    return n;
}

static ssize_t channel_writev(int fd, struct iovec *iov, int count, void *userdata)
{
    struct fuse_server *server = userdata;

    if (fuse_wire_is_init_reply(&server->wire, iov, count))
        return answer_init(server, fd, iov, count);
    fuse_wire_reply(&server->wire, iov, count);
    return send_answer(server, fd, iov, count);
}

/* ---- libfuse ---- */

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
/* Another channel to the same mount, for a thread of its own. Older versions of libfuse do this by themselves. */
static int channel_clone_fd(int master_fd)
{
    uint32_t master = (uint32_t)master_fd;
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &master) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}
#endif

int fuse_channel_attach(struct fuse_session *session)
{
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
    static const struct fuse_custom_io io = {
        .read = channel_read, .writev = channel_writev, .clone_fd = channel_clone_fd};

    /* By its full name: for users of the 3.12 interface the short one leaves clone_fd out. */
    return fuse_session_custom_io_317(session, &io, sizeof(io), fuse_session_fd(session));
#else
    static const struct fuse_custom_io io = {.read = channel_read, .writev = channel_writev};

    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
#endif
}
