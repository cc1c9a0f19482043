/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon: puts pool, filesystem, lease service, fabric and mount together, and takes them apart again.
 *
 * It forks, if it does, before anything else: the pool is not inherited by children, and the RDMA devices refuse them.
 * The parent waits until the mount works and the control socket answers, so its exit code tells; what goes wrong
 * until then is said on the caller's stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#include "fused/bulk_copy.h"
#include "fused/fs.h"
#include "fused/fuse_notify.h"
#include "fused/fuse_server.h"
#include "fused/layout.h"
#include "fused/options.h"
#include "fused/park.h"
#include "fused/pool.h"
#include "lease/service.h"
#include "rdma/fabric.h"
#include <leasefs/protocol.h>

#define FENCE_BOUND_NS   UINT64_C(2000000000) /* where there is no device to say */
#define MAX_LEASES       65536u
#define MAX_DESCRIPTORS  16384u
#define OWN_MAPPING      (128 << 10)      /* what is larger is no part of the heap */
#define MAX_OWNER_LEASES (MAX_LEASES / 2) /* no user takes them all */

struct daemon {
    struct options *options;
    int status_fd; /* to the waiting parent, or -1 */
    int signal_fd;
    struct pool *pool;
    struct fs *fs;
    struct park *park;
    struct fuse_notifier *notifier;
    struct fabric *fabric;
    char *no_device; /* why there is no fabric */
    struct lease_service *service;
    bool serving; /* the service's threads run */
    bool ready;   /* the kernel has shaken hands */
    struct fuse_server *server;
};

/* error (malloc'd or NULL) says more than the errno. */
static void say_error(const char *what, int err, const char *error)
{
    fprintf(stderr, "leasefs: %s: %s\n", what, error ? error : strerror(-err));
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* ---- starting, each step with its undoing ---- */

static int start_pool(struct daemon *d)
{
    char *error = NULL;
    int err = pool_new(d->options->pool_size, d->options->huge_pages, &d->pool, &error);

    if (err)
        say_error("no pool", err, error);
    else
        bulk_copy_measure(pool_address(d->pool, (struct pool_block){0}), pool_size(d->pool));
    free(error);
    return err;
}

static int start_fs(struct daemon *d)
{
    struct fs_cred owner = {getuid(), getgid()};
    int err = fs_new(d->pool, owner, d->options->read_only, &d->fs);

    if (!err && d->options->noatime)
        fs_set_noatime(d->fs);
    if (!err)
        err = fs_set_user_limits(d->fs, d->options->user_space, d->options->user_files);
    if (!err && d->options->writeback)
        fs_set_sizes_kept(d->fs);
    if (!err)
        err = fs_set_control_path(d->fs, d->options->control);
    if (!err)
        err = park_new(&d->park);
    if (!err)
        err = fuse_notifier_new(&d->notifier);
    if (err)
        say_error("cannot start", err, NULL);
    return err;
}

/* Without a device the filesystem works and leases are refused; a device asked for by name has to be there. */
static int start_fabric(struct daemon *d)
{
    const struct options *o = d->options;
    struct fabric_config config = {
        .device = o->device, .port = o->port, .revoke = o->revoke, .spare_bytes = o->spare_bytes};
    char *error = NULL;
    int err;

    if (o->no_device) {
        d->no_device = strdup("the server was started with device=none");
        return d->no_device ? 0 : -ENOMEM;
    }
    err = fabric_start(&config, &d->fabric, &error);
    if (err && (o->device || o->revoke || o->port)) {
        say_error("RDMA", err, error);
        free(error);
        return err;
    }
    if (err) {
        d->no_device = error ? error : strdup(strerror(-err));
        fprintf(stderr, "leasefs: no leases: %s\n", d->no_device);
    }
    return 0;
}

static uint64_t monotonic_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t boot_epoch(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int start_service(struct daemon *d)
{
    const struct options *o = d->options;
    struct lease_service_config config = {
        .control_path = o->control,
        .listen = (const char *const *)o->listen,
        .n_listen = o->n_listen,
        .keys_path = o->keys,
        .limits =
            {
                .lease_time_ns = o->lease_time_ns,
                .courtesy_ns = o->lease_time_ns,
                .recall_timeout_ns = o->recall_timeout_ns,
                .fence_bound_ns = d->fabric ? fabric_exposure_ops.fence_bound_ns(d->fabric) : FENCE_BOUND_NS,
                .max_leases = MAX_LEASES,
                .max_session_leases = LEASEFS_MAX_SESSION_LEASES,
                .max_owner_leases = MAX_OWNER_LEASES,
                .max_owner_bytes = o->user_bytes,
                .max_session_bytes = o->session_bytes,
                .max_bytes = o->leased_bytes,
                .policy = o->policy,
            },
        .layout = &fs_layout_ops,
        .fs = d->fs,
        .exposure = d->fabric ? &fabric_exposure_ops : NULL,
        .fabric = d->fabric,
        .no_device_reason = d->no_device,
        .boot_epoch = boot_epoch(),
    };
    char *error = NULL;
    int err = lease_service_new(&config, &d->service, &error);

    if (err)
        say_error("control service", err, error);
    free(error);
    if (err)
        return err;
    fs_set_lease_table(d->fs, lease_service_table(d->service));
    park_set_lease_table(d->park, lease_service_table(d->service));
    return 0;
}

static int start_mount(struct daemon *d)
{
    struct fs_kernel_cache cache = {
        .inval_inode = fuse_notify_inode,
        .inval_entry = fuse_notify_entry,
        .inval_inode_later = fuse_notify_inode_later,
        .ctx = d->notifier,
    };
    struct fuse_server_config config = {
        .cache = d->options->cache, .writeback = d->options->writeback, .io_uring = d->options->io_uring};
    int err = fuse_server_new(d->fs, d->park, &config, &d->options->fuse, &d->server);

    if (err)
        return err;
    fs_set_kernel_cache(d->fs, &cache);
    err = fuse_server_mount(d->server, d->options->mountpoint);
    if (err)
        goto undo_server;
    err = fuse_notifier_start(d->notifier, fuse_server_session(d->server));
    if (err)
        goto undo_mount;
    err = fuse_server_start(d->server);
    if (err)
        goto undo_notifier;
    return 0;

undo_notifier:
    fuse_notifier_stop(d->notifier);
undo_mount:
    fuse_server_stop(d->server);
undo_server:
    fuse_server_free(d->server);
    d->server = NULL;
    fprintf(stderr, "leasefs: cannot mount on %s\n", d->options->mountpoint);
    return err;
}

static int start_all(struct daemon *d)
{
    int err = start_pool(d);

    if (!err)
        err = start_fs(d);
    if (!err)
        err = start_fabric(d);
    if (!err)
        err = start_service(d);
    if (!err)
        err = start_mount(d);
    if (!err) {
        err = lease_service_start(d->service);
        d->serving = err == 0;
        if (err)
            say_error("lease service", err, NULL);
    }
    return err;
}

/* ---- ending ----
 *
 * Asked by a signal, the mount still works: leases end first, as they may need requests answered (pages written back)
 * and parked requests wait for them; then nothing is parked, nothing notified, and the mount goes. When the mount is
 * gone already, nobody answers requests, but nobody waits for any either. In both cases nobody notifies any more when
 * the session's file descriptor is closed.
 */
static void stop_all(struct daemon *d, bool mounted)
{
    if (d->notifier && !mounted)
        fuse_notifier_mute(d->notifier);
    if (d->server && !mounted)
        fuse_server_stop(d->server);
    if (d->serving)
        lease_service_stop(d->service);
    if (d->park)
        park_stop(d->park);
    if (d->notifier)
        fuse_notifier_stop(d->notifier);
    if (d->server && mounted)
        fuse_server_stop(d->server);
    park_free(d->park);
    fuse_server_free(d->server);
    lease_service_free(d->service);
    fabric_stop(d->fabric);
    fuse_notifier_free(d->notifier);
    fs_free(d->fs);
    pool_free(d->pool);
    free(d->no_device);
}

/* ---- between ---- */

/* From here on nobody reads stderr: the journal does, if there is one. */
static void leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log = sd_journal_stream_fd("leasefs", 4 /* warning */, 1);

    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(log >= 0 ? log : null, STDERR_FILENO);
    }
    close_fd(null);
    close_fd(log);
}

static void announce(struct daemon *d)
{
    char status = EXIT_SUCCESS;

    sd_notifyf(0, "READY=1\nSTATUS=Mounted on %s", d->options->mountpoint);
    if (d->status_fd < 0)
        return;
    leave_terminal();
    (void)!write(d->status_fd, &status, 1);
    close_fd(d->status_fd);
    d->status_fd = -1;
}

static void reload(struct daemon *d)
{
    char *error = NULL;
    int err;

    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_us());
    err = lease_service_reload_keys(d->service, &error);
    if (err)
        fprintf(stderr, "leasefs: the old keys stay: %s\n", error ? error : strerror(-err));
    else
        fprintf(stderr, "leasefs: keys read again\n");
    free(error);
    sd_notify(0, "READY=1");
}

/* Reads one signal; true: it asks for the end. SIGHUP does, too, when there is nothing to read again. */
static bool asked_to_end(struct daemon *d)
{
    struct signalfd_siginfo info;

    if (read(d->signal_fd, &info, sizeof(info)) != sizeof(info))
        return false;
    if (info.ssi_signo != SIGHUP || !d->options->keys)
        return true;
    reload(d);
    return false;
}

/* Until the mount ends (false) or a signal asks for the end (true). */
static bool serve(struct daemon *d)
{
    enum { SIGNAL, ENDED, READY, COUNT };
    struct pollfd fds[COUNT] = {
        [SIGNAL] = {.fd = d->signal_fd, .events = POLLIN},
        [ENDED] = {.fd = fuse_server_ended_fd(d->server), .events = POLLIN},
        [READY] = {.fd = fuse_server_ready_fd(d->server), .events = POLLIN},
    };

    for (;;) {
        if (poll(fds, COUNT, -1) < 0)
            continue;
        if (fds[READY].revents) {
            d->ready = true;
            announce(d);
            fds[READY].fd = -1;
        }
        if (fds[ENDED].revents)
            return false;
        if (fds[SIGNAL].revents && asked_to_end(d))
            return true;
    }
}

/* A session is a descriptor, and so is a client that shakes hands; the usual soft limit of 1024 is for select(). */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < MAX_DESCRIPTORS) {
        limit.rlim_cur = limit.rlim_max < MAX_DESCRIPTORS ? limit.rlim_max : MAX_DESCRIPTORS;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int run(struct options *options, int status_fd)
{
    struct daemon d = {.options = options, .status_fd = status_fd, .signal_fd = -1};
    bool mounted = true;
    sigset_t signals;
    int err = 0;

    /* Before there are threads, so that all have them blocked. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    d.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (d.signal_fd < 0)
        err = -errno;
    if (!err)
        err = start_all(&d);
    if (!err) {
        mounted = serve(&d);
        sd_notify(0, "STOPPING=1");
    }
    stop_all(&d, mounted);
    close_fd(d.signal_fd);
    return err || !d.ready ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* In the parent: the exit code that the child sends, or failure if it ends without. */
static int wait_for_child(int fd, pid_t child)
{
    char status;
    ssize_t n;

    do
        n = read(fd, &status, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        return status;
    (void)waitpid(child, NULL, 0);
    return EXIT_FAILURE;
}

static int run_in_background(struct options *options)
{
    int fds[2];
    pid_t child;
    int status;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        say_error("pipe", -errno, NULL);
        return EXIT_FAILURE;
    }
    child = fork();
    if (child < 0) {
        say_error("fork", -errno, NULL);
        status = EXIT_FAILURE;
    } else if (child == 0) {
        close_fd(fds[0]);
        setsid();
        (void)!chdir("/");
        return run(options, fds[1]);
    }
    close_fd(fds[1]);
    if (child > 0)
        status = wait_for_child(fds[0], child);
    close_fd(fds[0]);
    return status;
}

int main(int argc, char **argv)
{
    struct options options;
    int status = EXIT_FAILURE;

    /* What is large and freed goes back to the system. Else glibc keeps, where many have waited with much to write, all
     * that they had brought. */
    mallopt(M_MMAP_THRESHOLD, OWN_MAPPING);
    if (options_parse(argc, argv, &options))
        return EXIT_FAILURE;
    if (options.show_help) {
        options_print_help();
        status = EXIT_SUCCESS;
    } else if (options.show_version) {
        printf("leasefs %s\n", LEASEFS_VERSION);
        status = EXIT_SUCCESS;
    } else if (!options_check_mountpoint(&options)) {
        status = options.foreground ? run(&options, -1) : run_in_background(&options);
    }
    options_free(&options);
    return status;
}
