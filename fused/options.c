/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/options.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lease/host_port.h"
#include <leasefs/protocol.h>

#define SMALLEST_SPACE            4096u /* a block */
#define DEFAULT_RECALL_TIMEOUT_NS UINT64_C(1000000000)
#define DEFAULT_LEASE_TIME_NS     UINT64_C(30000000000)
#define MAX_DURATION_NS           (UINT64_C(24) * 60 * 60 * 1000000000)

enum {
    KEY_HELP = 1,
    KEY_VERSION,
    KEY_FOREGROUND,
    KEY_DEBUG,
    KEY_READ_ONLY,
    KEY_NOATIME,
    KEY_FSNAME,
    KEY_SUBTYPE,
    KEY_LISTEN,
};

/* What fuse_opt fills in; turned into struct options when all is read. */
struct raw {
    struct options *options;
    char *pool, *control, *keys, *policy, *recall_timeout, *lease_time, *device, *port, *revoke, *cache, *io_uring;
    char *leased_bytes, *user_bytes, *session_bytes, *spare_bytes, *user_space, *user_files;
    char *operands[2]; /* [SOURCE] MOUNTPOINT: mount(8) gives a source */
    int n_operands;
    int huge_pages, writeback;
    bool fsname, subtype;
};

#define RAW(template, member)                                                                                          \
    {                                                                                                                  \
        template, offsetof(struct raw, member), 1                                                                      \
    }

static const struct fuse_opt specs[] = {
    RAW("pool=%s", pool),
    RAW("hugepages", huge_pages),
    RAW("control=%s", control),
    RAW("keys=%s", keys),
    RAW("policy=%s", policy),
    RAW("recall_timeout=%s", recall_timeout),
    RAW("lease_time=%s", lease_time),
    RAW("leased_bytes=%s", leased_bytes),
    RAW("user_bytes=%s", user_bytes),
    RAW("user_space=%s", user_space),
    RAW("user_files=%s", user_files),
    RAW("session_bytes=%s", session_bytes),
    RAW("spare_bytes=%s", spare_bytes),
    RAW("device=%s", device),
    RAW("port=%s", port),
    RAW("revoke=%s", revoke),
    RAW("cache=%s", cache),
    RAW("writeback", writeback),
    RAW("io_uring=%s", io_uring),
    FUSE_OPT_KEY("-h", KEY_HELP),
    FUSE_OPT_KEY("--help", KEY_HELP),
    FUSE_OPT_KEY("-V", KEY_VERSION),
    FUSE_OPT_KEY("--version", KEY_VERSION),
    FUSE_OPT_KEY("-f", KEY_FOREGROUND),
    FUSE_OPT_KEY("-d", KEY_DEBUG),
    FUSE_OPT_KEY("debug", KEY_DEBUG),
    FUSE_OPT_KEY("ro", KEY_READ_ONLY),
    FUSE_OPT_KEY("noatime", KEY_NOATIME),
    FUSE_OPT_KEY("fsname=", KEY_FSNAME),
    FUSE_OPT_KEY("subtype=", KEY_SUBTYPE),
    FUSE_OPT_KEY("listen=", KEY_LISTEN),
    FUSE_OPT_END,
};

__attribute__((format(printf, 1, 2))) static int complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("leasefs: ", stderr);
    vfprintf(stderr, format, args);
    fputs(" (see leasefs --help)\n", stderr);
    va_end(args);
    return -EINVAL;
}

enum { DISCARD = 0, KEEP = 1 };

static int take_operand(struct raw *raw, const char *arg)
{
    if (raw->n_operands == 2) {
        complain("one argument too many: '%s'", arg);
        return -1;
    }
    raw->operands[raw->n_operands] = strdup(arg);
    return raw->operands[raw->n_operands++] ? DISCARD : -1;
}

/* May be given more than once. */
static int take_listen(struct options *options, const char *address)
{
    struct host_port where;

    if (host_port_parse(address, LEASEFS_TCP_PORT, &where)) {
        complain("listen=%s: an address looks like 192.0.2.1, 192.0.2.1:%u or [2001:db8::1]:%u", address,
                 LEASEFS_TCP_PORT, LEASEFS_TCP_PORT);
        return -1;
    }
    if (options->n_listen == OPTIONS_MAX_LISTEN) {
        complain("listen=%s: more than %d addresses", address, OPTIONS_MAX_LISTEN);
        return -1;
    }
    options->listen[options->n_listen] = strdup(address);
    return options->listen[options->n_listen++] ? DISCARD : -1;
}

static int take(void *data, const char *arg, int key, struct fuse_args *outargs)
{
    struct raw *raw = data;

    (void)outargs;
    switch (key) {
    case FUSE_OPT_KEY_NONOPT:
        return take_operand(raw, arg);
    case KEY_HELP:
        raw->options->show_help = true;
        return DISCARD;
    case KEY_VERSION:
        raw->options->show_version = true;
        return DISCARD;
    case KEY_FOREGROUND:
        raw->options->foreground = true;
        return DISCARD;
    case KEY_DEBUG:
        raw->options->foreground = true;
        return KEEP;
    case KEY_READ_ONLY:
        raw->options->read_only = true;
        return KEEP;
    case KEY_NOATIME:
        raw->options->noatime = true;
        return KEEP;
    case KEY_FSNAME:
        raw->fsname = true;
        return KEEP;
    case KEY_SUBTYPE:
        raw->subtype = true;
        return KEEP;
    case KEY_LISTEN:
        return take_listen(raw->options, arg + strlen("listen="));
    default:
        return KEEP; /* libfuse refuses what it does not know either */
    }
}

static int parse_number(const char *text, uint64_t *ret_value, const char **ret_rest)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *ret_value = strtoull(text, &end, 10);
    *ret_rest = end;
    return errno ? -ERANGE : 0;
}

int options_parse_size(const char *text, uint64_t *ret_bytes)
{
    static const char letters[] = "KMGT";
    const char *rest, *letter;
    unsigned shift = 0;
    uint64_t value;
    int err = parse_number(text, &value, &rest);

    if (err)
        return err;
    if (*rest) {
        letter = strchr(letters, toupper((unsigned char)*rest));
        if (!letter || (rest[1] && strcasecmp(rest + 1, "iB") != 0))
            return -EINVAL;
        shift = 10 * (unsigned)(letter - letters + 1);
    }
    if (value > (uint64_t)INT64_MAX >> shift)
        return -ERANGE;
    *ret_bytes = value << shift;
    return 0;
}

int parse_duration(const char *text, uint64_t *ret_ns)
{
    static const struct {
        const char *suffix;
        uint64_t ns;
    } units[] = {{"", 1000000}, {"ms", 1000000}, {"s", 1000000000}, {"min", UINT64_C(60000000000)}};
    const char *rest;
    uint64_t value;
    int err = parse_number(text, &value, &rest);

    if (err)
        return err;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(rest, units[i].suffix) != 0)
            continue;
        if (value > MAX_DURATION_NS / units[i].ns)
            return -ERANGE;
        *ret_ns = value * units[i].ns;
        return 0;
    }
    return -EINVAL;
}

static int read_pool(const char *text, struct options *options)
{
    if (!text)
        return complain("how large shall the pool be? Say -o pool=SIZE, for example -o pool=4G");
    if (strchr(text, '/'))
        return complain("pool=%s: only pools in memory are built (-o pool=SIZE), not files or devices", text);
    if (options_parse_size(text, &options->pool_size) || options->pool_size == 0)
        return complain("pool=%s is not a size; sizes look like 512M, 4G, 1T", text);
    return 0;
}

static int read_duration(const char *name, const char *text, uint64_t *ret_ns)
{
    uint64_t ns;

    if (!text)
        return 0;
    if (parse_duration(text, &ns) || ns == 0) {
        fprintf(stderr, "leasefs: %s=%s is not a time; times look like 500ms, 30s, 5min, and end at 24 hours\n", name,
                text);
        return -EINVAL;
    }
    *ret_ns = ns;
    return 0;
}

static int read_limit(const char *name, const char *text, uint64_t *ret_bytes)
{
    uint64_t bytes = 0;

    if (text && (options_parse_size(text, &bytes) || bytes == 0)) {
        fprintf(stderr, "leasefs: %s=%s is not a size; sizes look like 512M, 4G, 1T\n", name, text);
        return -EINVAL;
    }
    *ret_bytes = bytes;
    return 0;
}

static int read_count(const char *name, const char *text, uint64_t *ret_count)
{
    const char *rest = "";

    *ret_count = 0;
    if (text && (parse_number(text, ret_count, &rest) || *rest || !*ret_count))
        return complain("%s=%s is not a number, or nothing", name, text);
    return 0;
}

static int read_limits(const struct raw *raw, struct options *options)
{
    int err = read_limit("leased_bytes", raw->leased_bytes, &options->leased_bytes);

    if (!err)
        err = read_limit("user_bytes", raw->user_bytes, &options->user_bytes);
    if (!err)
        err = read_limit("session_bytes", raw->session_bytes, &options->session_bytes);
    if (!err)
        err = read_limit("spare_bytes", raw->spare_bytes, &options->spare_bytes);
    if (!err)
        err = read_limit("user_space", raw->user_space, &options->user_space);
    if (!err && options->user_space && options->user_space < SMALLEST_SPACE)
        err = complain("user_space=%s is less than a block of %u bytes", raw->user_space, SMALLEST_SPACE);
    return err ? err : read_count("user_files", raw->user_files, &options->user_files);
}

static int read_policy(const char *text, struct options *options)
{
    options->policy = text ? lease_policy_named(text, strlen(text)) : LEASE_POLICY_RECALL;
    if (!options->policy)
        return complain("policy=%s: policies are recall, busy and orphan", text);
    return 0;
}

static int read_device(struct raw *raw, struct options *options)
{
    const char *rest;
    uint64_t port = 0;

    if (raw->device && strcmp(raw->device, "none") == 0)
        options->no_device = true;
    else if (raw->device && *raw->device)
        options->device = strdup(raw->device);
    if (raw->revoke && strcmp(raw->revoke, "auto") != 0)
        options->revoke = strdup(raw->revoke);
    if (raw->port && (parse_number(raw->port, &port, &rest) || *rest || port > UINT16_MAX))
        return complain("port=%s is not a port number", raw->port);
    options->port = (uint16_t)port;
    return 0;
}

static int read_cache(const struct raw *raw, struct options *options)
{
    const char *text = raw->cache ? raw->cache : "auto";

    if (strcmp(text, "auto") == 0 || strcmp(text, "always") == 0)
        options->cache = FUSE_CACHE_AUTO;
    else if (strcmp(text, "none") == 0)
        options->cache = FUSE_CACHE_NONE;
    else
        return complain("cache=%s: it can be auto, none or always", text);
    options->writeback = raw->writeback;
    if (options->writeback && options->cache == FUSE_CACHE_NONE)
        return complain("writeback needs a cache, so it does not go with cache=none");
    if (options->writeback && !options->no_device)
        return complain("writeback goes with device=none only: Linux would not see sizes that remote writers change");
    return 0;
}

static int read_io_uring(const struct raw *raw, struct options *options)
{
    const char *text = raw->io_uring ? raw->io_uring : "auto";

    if (strcmp(text, "auto") == 0)
        options->io_uring = FUSE_IO_URING_AUTO;
    else if (strcmp(text, "off") == 0)
        options->io_uring = FUSE_IO_URING_OFF;
    else if (strcmp(text, "on") == 0)
        options->io_uring = FUSE_IO_URING_ON;
    else
        return complain("io_uring=%s: it can be auto, on or off", text);
    return 0;
}

/* The daemon leaves its working directory. */
static char *absolute(const char *path)
{
    char here[PATH_MAX], *result;

    if (path[0] == '/')
        return strdup(path);
    if (!getcwd(here, sizeof(here)) || asprintf(&result, "%s/%s", here, path) < 0)
        return NULL;
    return result;
}

static int read_control(const char *text, struct options *options)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[PATH_MAX];

    if (text && *text) {
        options->control = absolute(text);
    } else if (geteuid() == 0) {
        options->control = strdup("/run/leasefs.sock");
    } else if (runtime && runtime[0] == '/') {
        snprintf(path, sizeof(path), "%s/leasefs.sock", runtime);
        options->control = strdup(path);
    } else {
        return complain("XDG_RUNTIME_DIR is not set, so say where the control socket goes: -o control=PATH");
    }
    return options->control ? 0 : -ENOMEM;
}

static int read_keys(const char *text, struct options *options)
{
    if (options->n_listen && (!text || !*text))
        return complain("listen= needs keys=FILE: without keys nobody is served (leasectl key new makes them)");
    if (text && *text && !options->n_listen)
        return complain("keys=%s: say which address to listen on as well: listen=ADDRESS[:PORT]", text);
    if (!options->n_listen)
        return 0;
    options->keys = absolute(text);
    return options->keys ? 0 : -ENOMEM;
}

static int read_operands(struct raw *raw, struct options *options)
{
    const char *source = raw->n_operands == 2 ? raw->operands[0] : "";
    char name[PATH_MAX];

    if (raw->n_operands == 0)
        return complain("where shall it be mounted? Say a directory");
    options->mountpoint = strdup(raw->operands[raw->n_operands - 1]);
    if (!options->mountpoint)
        return -ENOMEM;
    snprintf(name, sizeof(name), "-ofsname=%s", *source && strcmp(source, "none") != 0 ? source : "leasefs");
    if (!raw->fsname && fuse_opt_add_arg(&options->fuse, name))
        return -ENOMEM;
    if (!raw->subtype && fuse_opt_add_arg(&options->fuse, "-osubtype=leasefs"))
        return -ENOMEM;
    return fuse_opt_add_arg(&options->fuse, "-odefault_permissions") ? -ENOMEM : 0;
}

static int interpret(struct raw *raw, struct options *options)
{
    int err = read_pool(raw->pool, options);

    options->huge_pages = raw->huge_pages;
    options->recall_timeout_ns = DEFAULT_RECALL_TIMEOUT_NS;
    options->lease_time_ns = DEFAULT_LEASE_TIME_NS;
    if (!err)
        err = read_operands(raw, options);
    if (!err)
        err = read_policy(raw->policy, options);
    if (!err)
        err = read_duration("recall_timeout", raw->recall_timeout, &options->recall_timeout_ns);
    if (!err)
        err = read_duration("lease_time", raw->lease_time, &options->lease_time_ns);
    if (!err)
        err = read_limits(raw, options);
    if (!err)
        err = read_device(raw, options);
    if (!err)
        err = read_cache(raw, options);
    if (!err)
        err = read_io_uring(raw, options);
    if (!err)
        err = read_control(raw->control, options);
    if (!err)
        err = read_keys(raw->keys, options);
    return err;
}

static void raw_free(struct raw *raw)
{
    free(raw->pool);
    free(raw->control);
    free(raw->keys);
    free(raw->policy);
    free(raw->recall_timeout);
    free(raw->lease_time);
    free(raw->leased_bytes);
    free(raw->user_bytes);
    free(raw->user_space);
    free(raw->user_files);
    free(raw->session_bytes);
    free(raw->spare_bytes);
    free(raw->device);
    free(raw->port);
    free(raw->revoke);
    free(raw->cache);
    free(raw->io_uring);
    free(raw->operands[0]);
    free(raw->operands[1]);
}

int options_parse(int argc, char **argv, struct options *ret_options)
{
    struct options options = {.fuse = FUSE_ARGS_INIT(argc, argv)};
    struct raw raw = {.options = &options};
    int err = 0;

    if (fuse_opt_parse(&options.fuse, &raw, specs, take))
        err = -EINVAL;
    else if (!options.show_help && !options.show_version)
        err = interpret(&raw, &options);
    raw_free(&raw);
    if (err)
        options_free(&options);
    else
        *ret_options = options;
    return err;
}

void options_free(struct options *options)
{
    free(options->control);
    free(options->keys);
    for (size_t i = 0; i < options->n_listen; i++)
        free(options->listen[i]);
    free(options->mountpoint);
    free(options->device);
    free(options->revoke);
    fuse_opt_free_args(&options->fuse);
}

static bool unmount_lazily(const char *mountpoint)
{
    const char *const argv[] = {"fusermount3", "-u", "-z", "--", mountpoint, NULL};
    int status = -1;
    pid_t child;

    if (umount2(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return true;
    if (errno != EPERM)
        return false;
    child = fork();
    if (child == 0) {
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* A daemon that was killed answers until its last descriptor of the device is closed: what it was still asked fails
 * with ECONNABORTED then, by io_uring with ECANCELED, and later questions with ENOTCONN. */
static bool daemon_is_dead(int err)
{
    return err == -ENOTCONN || err == -ECONNABORTED || err == -ECANCELED;
}

/* stat(), once all mounts of dead daemons are gone from there. Waits for one that is dying, as for one that is slow. */
static int stat_living(const char *path, struct stat *ret_stat)
{
    struct statfs fs;
    struct stat st;
    int err;

    for (;;) {
        /* First this, as the answer of stat may come from the kernel's cache. */
        err = statfs(path, &fs) ? -errno : 0;
        if (!daemon_is_dead(err))
            err = stat(path, &st) ? -errno : 0;
        if (!daemon_is_dead(err) || !unmount_lazily(path))
            break;
        fprintf(stderr, "leasefs: %s: unmounted what a daemon that is dead has left there\n", path);
    }
    if (!err)
        *ret_stat = st;
    return err;
}

int options_check_mountpoint(struct options *options)
{
    char *path = absolute(options->mountpoint);
    struct stat st;
    char *real;
    int err;

    if (!path)
        return -ENOMEM;
    err = stat_living(path, &st);
    if (err) {
        fprintf(stderr, "leasefs: mountpoint %s: %s\n", path, strerror(-err));
        free(path);
        return -EINVAL;
    }
    if (!S_ISDIR(st.st_mode)) {
        fprintf(stderr, "leasefs: mountpoint %s is not a directory\n", path);
        free(path);
        return -EINVAL;
    }
    real = realpath(path, NULL);
    free(path);
    if (!real)
        return -errno;
    free(options->mountpoint);
    options->mountpoint = real;
    return 0;
}
