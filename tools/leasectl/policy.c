/* SPDX-License-Identifier: BSD-2-Clause */

/* policy: what is to happen when a local operation meets a lease on a file; asked and set through the mount. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

#define XATTR_POLICY  "user.leasefs.policy"
#define XATTR_CONTROL "user.leasefs.control"
#define INHERIT       "inherit"

struct arguments {
    const char *path;
    const char *policy; /* NULL: ask */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    enum leasefs_policy policy;

    switch (key) {
    case ARGP_KEY_ARG:
        if (!arguments->path) {
            arguments->path = arg;
        } else if (!arguments->policy) {
            if (strcmp(arg, INHERIT) && parse_policy(arg, &policy))
                argp_error(state, "'%s' is no policy: recall, busy, orphan or inherit", arg);
            arguments->policy = arg;
        } else {
            argp_error(state, "too many arguments");
        }
        return 0;
    case ARGP_KEY_END:
        if (!arguments->path)
            argp_error(state, "of which file or directory?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int explain(int status, const struct arguments *arguments)
{
    if (status == -EPERM && arguments->policy)
        return output_failure(status, "%s: the policy cannot be changed: an immutable or append-only file",
                              arguments->path);
    return output_failure(status, "%s: %s", arguments->path, strerror(-status));
}

/* The policy of the mount that a path is on, which counts where there is no other. */
static int mounts_policy(const char *control, char **ret_policy)
{
    struct leasefs_session *session;
    char *answer = NULL;
    const char *policy;
    json_t *result;
    int code, status;

    code = open_session(control, NULL, &session);
    if (code)
        return code;
    status = leasefs_call(session, LEASEFS_METHOD_STATUS, NULL, &answer);
    code = status ? output_error(status, NULL) : 0;
    leasefs_session_close(session);
    if (code) {
        free(answer);
        return code;
    }
    result = json_loads(answer, 0, NULL);
    policy = json_string_value(json_object_get(result, "policy"));
    *ret_policy = policy ? strdup(policy) : NULL;
    json_decref(result);
    free(answer);
    return *ret_policy ? 0 : output_failure(-EPROTO, "the server does not tell its policy");
}

static int set_policy(const struct arguments *arguments)
{
    int failed;

    if (strcmp(arguments->policy, INHERIT))
        failed = setxattr(arguments->path, XATTR_POLICY, arguments->policy, strlen(arguments->policy), 0);
    else
        failed = removexattr(arguments->path, XATTR_POLICY) && errno != ENODATA;
    return failed ? explain(-errno, arguments) : 0;
}

static int show_policy(const struct arguments *arguments, const char *control)
{
    char own[16] = INHERIT, *policy = NULL;
    ssize_t length = getxattr(arguments->path, XATTR_POLICY, own, sizeof(own) - 1);
    int code = 0;

    if (length < 0 && errno != ENODATA)
        return explain(-errno, arguments);
    if (length >= 0) {
        own[length] = '\0';
        policy = strdup(own);
    } else {
        code = mounts_policy(control, &policy);
    }
    if (code)
        return code;
    if (length < 0)
        output_text("%s: %s (the mount's: %s)", arguments->path, own, policy ? policy : "");
    else
        output_text("%s: %s", arguments->path, own);
    output_json(json_pack("{s:s, s:s, s:s, s:s}", "event", "policy", "path", arguments->path, "own", own, "policy",
                          policy ? policy : ""));
    free(policy);
    return EXIT_OK;
}

int command_policy(int argc, char **argv)
{
    static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .args_doc = "PATH [recall|busy|orphan|inherit]",
        .doc = "Show or set what happens when a local operation meets a lease on a file of a mounted leasefs. "
               "What is made in a directory takes over the directory's.\v"
               "recall: it waits until the lease is given back or taken away; busy: it fails; orphan: it goes on, and "
               "the lease keeps the old blocks; inherit: none of its own, the mount's counts."};
    struct arguments arguments = {0};
    char control[LEASEFS_MAX_PATH + 1];
    ssize_t length;
    int code = 0;

    if (argp_parse(&argp, argc, argv, 0, NULL, &arguments))
        return EXIT_USAGE;
    length = getxattr(arguments.path, XATTR_CONTROL, control, sizeof(control) - 1);
    if (length < 0 && (errno == ENODATA || errno == EOPNOTSUPP))
        return output_usage("%s is not on a mounted leasefs; policies are set through the mount", arguments.path);
    if (length < 0)
        return explain(-errno, &arguments);
    control[length] = '\0';
    if (arguments.policy)
        code = set_policy(&arguments);
    return code ? code : show_policy(&arguments, control);
}
