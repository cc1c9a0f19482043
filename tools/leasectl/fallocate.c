/* SPDX-License-Identifier: BSD-2-Clause */

/* fallocate: the modes of fallocate(2) that Linux does not pass on, on a file of a mount. */

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/units.h"
#include <leasefs/ioctl.h>

struct arguments {
    const char *path;
    int mode; /* 0: none yet */
    bool ranged;
    uint64_t offset, length;
};

static void set_mode(struct argp_state *state, int mode)
{
    struct arguments *arguments = state->input;

    if (arguments->mode)
        argp_error(state, "one of --collapse, --insert and --unshare");
    arguments->mode = mode;
}

static void check_complete(struct argp_state *state, const struct arguments *arguments)
{
    if (!arguments->path)
        argp_error(state, "which file?");
    else if (!arguments->mode)
        argp_error(state, "--collapse, --insert or --unshare?");
    else if (arguments->mode != FALLOC_FL_UNSHARE_RANGE && (!arguments->ranged || !arguments->length))
        argp_error(state, "which bytes? --range=OFFSET:LENGTH");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 'C':
        set_mode(state, FALLOC_FL_COLLAPSE_RANGE);
        return 0;
    case 'I':
        set_mode(state, FALLOC_FL_INSERT_RANGE);
        return 0;
    case 'U':
        set_mode(state, FALLOC_FL_UNSHARE_RANGE);
        return 0;
    case 'r':
        if (parse_range(arg, &arguments->offset, &arguments->length))
            argp_error(state, "'%s' is no range: OFFSET:LENGTH, in bytes or with K, M, G", arg);
        arguments->ranged = true;
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->path)
            argp_error(state, "too many arguments");
        arguments->path = arg;
        return 0;
    case ARGP_KEY_END:
        check_complete(state, arguments);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int explain(int status, const struct arguments *arguments)
{
    const char *path = arguments->path;

    switch (status) {
    case -ENOTTY:
        return output_usage("%s is not on a mounted leasefs", path);
    case -EOPNOTSUPP:
        return output_failure(status, "%s: not on a mount with `writeback`", path);
    case -EINVAL:
        return output_failure(
            status, "%s: offset and length are whole blocks of 4096 bytes, and the range %s the end of the file", path,
            arguments->mode == FALLOC_FL_INSERT_RANGE ? "starts before" : "ends before");
    default:
        return output_failure(status, "%s: %s", path, strerror(-status));
    }
}

/* *ret_size: the file's, afterwards. */
static int change(int fd, const struct arguments *arguments, uint64_t *ret_size)
{
    uint64_t length = arguments->length;
    struct stat attr;

    if (fstat(fd, &attr))
        return -errno;
    if (!length && (uint64_t)attr.st_size > arguments->offset)
        length = (uint64_t)attr.st_size - arguments->offset;
    if (length && leasefs_fallocate(fd, arguments->mode, arguments->offset, length))
        return -errno;
    if (fstat(fd, &attr))
        return -errno;
    *ret_size = (uint64_t)attr.st_size;
    return 0;
}

int command_fallocate(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"collapse", 'C', NULL, 0, "Take the range out: what is behind it moves up, and the file gets shorter", 0},
        {"insert", 'I', NULL, 0, "Put a hole in: what is behind the offset moves back, and the file gets longer", 0},
        {"unshare", 'U', NULL, 0, "Give the file blocks of its own, so that writing the range needs no space", 0},
        {"range", 'r', "OFFSET:LENGTH", 0, "These bytes (--unshare: default the whole file)", 0},
        {0},
    };
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .children = children,
        .args_doc = "PATH",
        .doc = "The modes of fallocate(2) that Linux does not pass on to FUSE filesystems, for a file of a mounted "
               "leasefs. For the others there is fallocate(1)."};
    struct arguments arguments = {0};
    uint64_t size = 0;
    int fd, status;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    fd = open(arguments.path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return output_failure(-errno, "%s: %s", arguments.path, strerror(errno));
    status = change(fd, &arguments, &size);
    close(fd);
    if (status)
        return explain(status, &arguments);
    output_text("%s: %llu bytes", arguments.path, (unsigned long long)size);
    output_json(json_pack("{s:s, s:s, s:I}", "event", "fallocate", "path", arguments.path, "size", (json_int_t)size));
    return EXIT_OK;
}
