/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/leasectl.h"

struct common common;

static const struct argp_option common_options[] = {
    {"control", 'c', "PATH", 0, "The server's control socket", 100},
    {"json", 'j', NULL, 0, "One JSON object a line instead of text, errors too", 100},
    {0},
};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    (void)state;
    switch (key) {
    case 'c':
        common.control = arg;
        return 0;
    case 'j':
        common.json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp common_argp = {.options = common_options, .parser = parse_common};
