/* SPDX-License-Identifier: BSD-2-Clause */

/* The commands that are one call each: status, probe, revoke, prepare, clone. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/target.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

struct arguments {
    const char *words[2];
    unsigned wanted, given;
    const char *missing; /* the question to ask */
    bool write;
    uint64_t offset, length;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;

    switch (key) {
    case 'w':
        arguments->write = true;
        return 0;
    case 'r':
        if (parse_range(arg, &arguments->offset, &arguments->length))
            argp_error(state, "'%s' is no range: OFFSET:LENGTH, in bytes or with K, M, G", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (arguments->given == arguments->wanted)
            argp_error(state, "too many arguments");
        arguments->words[arguments->given++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (arguments->given < arguments->wanted)
            argp_error(state, "%s", arguments->missing);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

int command_status(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse, .children = children, .doc = "Show the server's sessions, leases and memory."};
    struct arguments arguments = {0};

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    return call_and_show(NULL, NULL, LEASEFS_METHOD_STATUS, NULL);
}

int command_probe(int argc, char **argv)
{
    static const struct argp argp = {.parser = parse,
                                     .children = children,
                                     .doc =
                                         "Show the server's RDMA device and which mechanisms take access away on it."};
    struct arguments arguments = {0};

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    return call_and_show(NULL, NULL, LEASEFS_METHOD_PROBE, NULL);
}

int command_revoke(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .args_doc = "ID",
        .doc = "Take a lease away from its holder at once, without asking. `leasectl status` shows the IDs."};
    struct arguments arguments = {.wanted = 1, .missing = "which lease? See `leasectl status`."};
    uint64_t id;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    if (parse_number(arguments.words[0], 1, INT64_MAX, &id))
        return output_usage("'%s' is no lease: a number, as `leasectl status` shows it", arguments.words[0]);
    return call_and_show(NULL, NULL, LEASEFS_METHOD_REVOKE, json_pack("{s:I}", "lease", (json_int_t)id));
}

int command_prepare(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"range", 'r', "OFFSET:LENGTH", 0, "Only these bytes (default: the whole file)", 0},
        {"write", 'w', NULL, 0, "For write leases: give the file blocks of its own where it shares them", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .children = children,
        .args_doc = "PATH",
        .doc = "Make a file eligible for leases: allocate its holes and fill them with zeros."};
    struct arguments arguments = {.wanted = 1, .missing = "which file?"};
    struct target target;
    int code;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    code = target_take(arguments.words[0], &target);
    if (code)
        return code;
    code = call_and_show(target.control, target.host, LEASEFS_METHOD_PREPARE,
                         json_pack("{s:s, s:I, s:I, s:s}", "path", target.path, "offset", (json_int_t)arguments.offset,
                                   "length", (json_int_t)arguments.length, "mode", arguments.write ? "write" : "read"));
    target_clear(&target);
    return code;
}

static bool differ(const char *a, const char *b)
{
    return a && b && strcmp(a, b);
}

int command_clone(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .args_doc = "SOURCE DESTINATION",
        .doc = "Copy a file inside the filesystem by sharing its blocks; later changes to either are its own."};
    struct arguments arguments = {.wanted = 2, .missing = "which file, and what is the copy's name?"};
    struct target source, destination;
    int code;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    code = target_take(arguments.words[0], &source);
    if (code)
        return code;
    code = target_take(arguments.words[1], &destination);
    if (code) {
        target_clear(&source);
        return code;
    }
    if (differ(source.control, destination.control) || differ(source.host, destination.host))
        code = output_failure(-EXDEV, "%s and %s are on different servers: blocks cannot be shared", arguments.words[0],
                              arguments.words[1]);
    else if (target_complete(&destination, source.path))
        code = output_failure(-ENOMEM, "out of memory");
    else
        code = call_and_show(source.control ? source.control : destination.control,
                             source.host ? source.host : destination.host, LEASEFS_METHOD_CLONE,
                             json_pack("{s:s, s:s}", "source", source.path, "destination", destination.path));
    target_clear(&source);
    target_clear(&destination);
    return code;
}
