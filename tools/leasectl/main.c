/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/leasectl/leasectl.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"get", command_get},         {"put", command_put},
    {"lease", command_lease},     {"status", command_status},
    {"map", command_map},         {"top", command_top},
    {"watch", command_watch},     {"revoke", command_revoke},
    {"prepare", command_prepare}, {"clone", command_clone},
    {"probe", command_probe},     {"key", command_key},
    {"policy", command_policy},   {"fallocate", command_fallocate},
};

struct chosen {
    int (*run)(int argc, char **argv);
    int at; /* index of the command's name in argv */
};

static error_t parse_main(int key, char *arg, struct argp_state *state)
{
    struct chosen *chosen = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
            if (!strcmp(arg, commands[i].name))
                chosen->run = commands[i].run;
        if (!chosen->run)
            argp_error(state, "no command '%s'", arg);
        chosen->at = state->next - 1;
        state->next = state->argc; /* the rest is the command's */
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which command?");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child main_children[] = {{&common_argp, 0, NULL, 0}, {0}};

static const struct argp main_argp = {
    .parser = parse_main,
    .children = main_children,
    .args_doc = "COMMAND [ARGUMENT...]",
    .doc = "Read, write and lease files of a leasefs server over RDMA.\v"
           "Commands:\n"
           "  get SERVER:PATH LOCAL     copy a file from the server\n"
           "  put LOCAL SERVER:PATH     copy a file to the server\n"
           "  lease PATH                hold a lease and tell what becomes of it\n"
           "  status                    sessions, leases, memory\n"
           "  map PATH                  the blocks of a file, and its leases drawn over them\n"
           "  top                       leases, memory and rates, again and again\n"
           "  watch                     a line for each thing that happens to sessions and leases\n"
           "  revoke ID                 take a lease away from its holder\n"
           "  prepare PATH              make a file eligible for leases\n"
           "  clone SOURCE DESTINATION  copy a file by sharing its blocks\n"
           "  fallocate PATH            take bytes out of a file, put a hole in, unshare its blocks\n"
           "  policy PATH [POLICY]      what happens when a local operation meets a lease\n"
           "  probe                     the server's RDMA device and what revokes on it\n"
           "  key new|list              keys of remote clients\n\n"
           "`leasectl COMMAND --help` tells more; so does leasectl(1).",
};

/* Seen by libc, so not hidden. */
__attribute__((visibility("default"))) const char *argp_program_version = "leasectl " LEASEFS_VERSION;

int main(int argc, char **argv)
{
    struct chosen chosen = {0};
    char name[64];

    argp_err_exit_status = EXIT_USAGE;
    if (argp_parse(&main_argp, argc, argv, ARGP_IN_ORDER, NULL, &chosen))
        return EXIT_USAGE;
    snprintf(name, sizeof(name), "leasectl %s", argv[chosen.at]);
    argv[chosen.at] = name;
    return chosen.run(argc - chosen.at, argv + chosen.at);
}
