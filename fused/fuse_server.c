/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fuse_server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "fused/clone_tokens.h"
#include "fused/fuse_channel.h"
#include "fused/fuse_listener.h"
#include "fused/fuse_private.h"
#include "fused/fuse_ring.h"

#define MIN_THREADS    10u /* each reads requests into a buffer of its own, of 1 MiB */
#define MAX_THREADS    64u
#define MAX_BACKGROUND 64u /* read-ahead and write-back in flight */
#define STOP_RETRY_MS  10
#define WAKE_SIGNAL    SIGUSR1

static void want(struct fuse_conn_info *conn, unsigned flag, bool on)
{
    if (on && (conn->capable & flag))
        conn->want |= flag;
    else
        conn->want &= ~flag;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fuse_server *server = userdata;
    struct utsname kernel;

    /* O_TRUNC comes as a setattr, which can be parked and interrupted. */
    want(conn, FUSE_CAP_ATOMIC_O_TRUNC, false);
    /* Copies from and to the pool beat splicing. */
    want(conn, FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE, false);
    /* All I/O of local programs shall come to the front door when it is done, not later. */
    want(conn, FUSE_CAP_WRITEBACK_CACHE, server->config.writeback);
    server->direct_handles =
        !server->config.writeback && uname(&kernel) == 0 && fuse_wire_direct_handles(&server->wire, kernel.release);
    /* The kernel is the only client, and is told about remote commits: it need not drop its pages for each new mtime.
     */
    want(conn, FUSE_CAP_AUTO_INVAL_DATA, false);
    want(conn, FUSE_CAP_EXPLICIT_INVAL_DATA, true);
    /* With it our reply to a direct read locks the reader's pages. They may be of a mapped file of ours, and locked by
     * who waits for us. And who reads through the cache would see older bytes beside asynchronous writes. */
    want(conn, FUSE_CAP_ASYNC_DIO, false);
    want(conn, FUSE_CAP_EXPORT_SUPPORT, true);
    want(conn, FUSE_CAP_READDIRPLUS, true);
    want(conn, FUSE_CAP_READDIRPLUS_AUTO, true);
    want(conn, FUSE_CAP_CACHE_SYMLINKS, true);
    /* Version 1 of the promise to drop set-user-id bits is ambiguous about who may keep them. */
    want(conn, FUSE_CAP_HANDLE_KILLPRIV, false);
    /* fuse_wire.c adds what libfuse does not know. */
    conn->max_write = (unsigned)fuse_channel_largest(server);
    conn->max_background = MAX_BACKGROUND;
    conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
}

/* Locks are left out: without these operations the kernel keeps flock and fcntl locks itself. */
static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .open = op_open,
    .release = op_release,
    .read = op_read,
    .write = op_write,
    .fsync = op_fsync,
    .opendir = op_opendir,
    .releasedir = op_releasedir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .fsyncdir = op_fsync,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
    .create = op_create,
    .ioctl = op_ioctl,
    .fallocate = op_fallocate,
    .copy_file_range = op_copy_file_range,
    .lseek = op_lseek,
};

static unsigned processors(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    return cpus > 0 ? (unsigned)cpus : 1;
}

static unsigned thread_limit(void)
{
    unsigned threads = processors() * 2;

    if (threads < MIN_THREADS)
        return MIN_THREADS;
    return threads > MAX_THREADS ? MAX_THREADS : threads;
}

/* How long Linux may take names and attributes for true without asking. What is changed not through it, but by leases
 * and requests of the control service, it is told (struct fs_kernel_cache), so nothing gets old. */
static double trusted_seconds(enum fuse_cache cache)
{
    return cache == FUSE_CACHE_NONE ? 0 : 24 * 60 * 60;
}

int fuse_server_new(struct fs *fs, struct park *park, const struct fuse_server_config *config, struct fuse_args *args,
                    struct fuse_server **ret_server)
{
    struct fuse_server *server = calloc(1, sizeof(*server));
    int err = -ENOMEM;

    if (!server)
        return -ENOMEM;
    open_dirs_init(server);
    server->fs = fs;
    server->park = park;
    server->config = *config;
    server->cache_seconds = trusted_seconds(config->cache);
    server->wire.cache_seconds = (uint64_t)server->cache_seconds;
    server->max_threads = thread_limit();
    server->max_readers = processors() / 2;
    server->ready_fd = eventfd(0, EFD_CLOEXEC);
    server->ended_fd = eventfd(0, EFD_CLOEXEC);
    if (server->ready_fd < 0 || server->ended_fd < 0) {
        err = -errno;
        goto undo;
    }
    err = turn_new(1, &server->turn);
    if (!err)
        err = fuse_listener_new(&server->listener);
    if (!err)
        err = clone_tokens_new(&server->clone_tokens);
    if (err)
        goto undo;
    server->session = fuse_session_new(args, &ops, sizeof(ops), server);
    if (!server->session) {
        err = -EINVAL;
        goto undo;
    }
    *ret_server = server;
    return 0;

undo:
    fuse_server_free(server);
    return err;
}

void fuse_server_free(struct fuse_server *server)
{
    if (!server)
        return;
    fs_set_catch_up(server->fs, NULL, NULL);
    if (server->session)
        fuse_session_destroy(server->session);
    if (server->ready_fd >= 0)
        close(server->ready_fd);
    if (server->ended_fd >= 0)
        close(server->ended_fd);
    fuse_ring_free(server->ring);
    clone_tokens_free(server->clone_tokens);
    fuse_listener_free(server->listener);
    turn_free(server->turn);
    open_dirs_free(server);
    free(server);
}

struct fuse_session *fuse_server_session(struct fuse_server *server)
{
    return server->session;
}

int fuse_server_ready_fd(const struct fuse_server *server)
{
    return server->ready_fd;
}

int fuse_server_ended_fd(const struct fuse_server *server)
{
    return server->ended_fd;
}

int fuse_server_mount(struct fuse_server *server, const char *mountpoint)
{
    if (fuse_session_mount(server->session, mountpoint))
        return -EIO;
    return fuse_channel_attach(server->session);
}

static void ignore_signal(int signal_number)
{
    (void)signal_number;
}

/* libfuse's loop sleeps until its threads end or a signal comes; see fuse_server_stop(). */
static void let_signal_wake(void)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    sigset_t wake;

    sigaction(WAKE_SIGNAL, &action, NULL); /* no SA_RESTART */
    sigemptyset(&wake);
    sigaddset(&wake, WAKE_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
}

static void *loop_thread(void *arg)
{
    struct fuse_server *server = arg;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    uint64_t one = 1;

    let_signal_wake();
    if (config) {
        fuse_loop_cfg_set_clone_fd(config, 1);
        fuse_loop_cfg_set_max_threads(config, server->max_threads);
        /* None ends for having nothing to do: it would take its turn (turn.h) along. */
        fuse_loop_cfg_set_idle_threads(config, server->max_threads);
        fuse_session_loop_mt(server->session, config);
        fuse_loop_cfg_destroy(config);
    }
    (void)!write(server->ended_fd, &one, sizeof(one));
    return NULL;
}

static void catch_up(void *arg)
{
    struct fuse_server *server = arg;

    fuse_listener_catch_up(server->listener);
}

int fuse_server_start(struct fuse_server *server)
{
    int err;

    fs_set_catch_up(server->fs, catch_up, server);
    err = -pthread_create(&server->loop, NULL, loop_thread, server);

    server->looping = err == 0;
    return err;
}

static void join_loop(struct fuse_server *server)
{
    struct pollfd ended = {.fd = server->ended_fd, .events = POLLIN};

    fuse_session_exit(server->session);
    fuse_listener_stop(server->listener);
    /* A signal that comes between the loop's look at the exit flag and its sleep is lost, so it is repeated. */
    do
        pthread_kill(server->loop, WAKE_SIGNAL);
    while (poll(&ended, 1, STOP_RETRY_MS) <= 0);
    pthread_join(server->loop, NULL);
    server->looping = false;
}

void fuse_server_stop(struct fuse_server *server)
{
    if (server->looping)
        join_loop(server);
    fuse_ring_stop(server->ring);
    fuse_session_unmount(server->session);
}
