/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/leasectl.h"

struct common common;

static const struct argp_option common_options[] = {
    {"control", 'c', "PATH", 0, "The server's control socket, on its own host", 100},
    {"server", 's', "HOST[:PORT]", 0, "The server, from another host, by TCP with TLS ($LEASEFS_SERVER)", 100},
    {"key", 'k', "FILE", 0, "With which key ($LEASEFS_KEY, else ~/.config/leasefs/key, for root /etc/leasefs/key)",
     100},
    {"json", 'j', NULL, 0, "One JSON object a line instead of text, errors too", 100},
    {0},
};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    switch (key) {
    case 'c':
        common.control = arg;
        return 0;
    case 's':
        if (!*arg)
            argp_error(state, "--server needs the name of a host");
        common.server = arg;
        return 0;
    case 'k':
        common.key = arg;
        return 0;
    case ARGP_KEY_END:
        if (common.control && common.server)
            argp_error(state, "--control or --server, not both");
        return 0;
    case 'j':
        common.json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp common_argp = {.options = common_options, .parser = parse_common};
