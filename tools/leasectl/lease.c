/* SPDX-License-Identifier: BSD-2-Clause */

/* lease: hold one, and tell what becomes of it. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/target.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

#define REVOCATION_NOTICE_MS 3000
#define MS_PER_DAY           (24u * 3600 * 1000)

/* A notice on its way from the session's thread to this one, through a pipe: small enough to be written whole. */
struct notice {
    enum leasefs_notice kind;
    unsigned deadline_ms;
    double at_ms;
    char reason[64];
};

struct holding {
    /* From the command line. */
    const char *name;
    struct leasefs_lease_options options;
    bool ignore_recalls;
    uint64_t touch_ms, for_ms; /* 0: not asked for */

    struct leasefs_session *session;
    struct leasefs_lease *lease;
    struct leasefs_layout layout;
    int notices[2]; /* pipe */
    int signals;    /* signalfd */
    double granted_ms, last_touch_ms;
    uint64_t touches;
    bool revoked; /* the notice came */
    void *block;
};

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static json_t *event_at(const struct holding *holding, const char *event, double at_ms)
{
    return json_pack("{s:s, s:I, s:f, s:f}", "event", event, "lease", (json_int_t)holding->layout.lease_id,
                     "elapsed_ms", at_ms - holding->granted_ms, "clock_ms", at_ms);
}

static void tell(const struct holding *holding, const char *event, double at_ms, const char *text, json_t *more)
{
    json_t *object = event_at(holding, event, at_ms);

    output_text("[%10.1f ms] %s", at_ms - holding->granted_ms, text);
    if (more)
        json_object_update_missing(object, more);
    json_decref(more);
    output_json(object);
}

static void tell_layout(const struct holding *holding)
{
    const struct leasefs_layout *layout = &holding->layout;
    const char *mode = layout->mode == LEASEFS_WRITE ? "write" : "read";
    json_t *object = event_at(holding, "lease", holding->granted_ms);

    output_text("lease %llu (%s) on %s", (unsigned long long)layout->lease_id, mode, holding->name);
    output_text("  bytes           %llu+%llu of %llu", (unsigned long long)layout->offset,
                (unsigned long long)layout->length, (unsigned long long)layout->file_size);
    output_text("  remote address  0x%llx", (unsigned long long)layout->remote_address);
    output_text("  remote key      0x%x", layout->rkey);
    output_text("  lease time      %u ms", layout->lease_time_ms);
    output_text("  sequence        %u", layout->sequence);
    json_object_update_new(object, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "mode", mode, "offset",
                                             (json_int_t)layout->offset, "length", (json_int_t)layout->length,
                                             "file_size", (json_int_t)layout->file_size, "remote_address",
                                             (json_int_t)layout->remote_address, "rkey", (json_int_t)layout->rkey,
                                             "lease_time_ms", (json_int_t)layout->lease_time_ms, "sequence",
                                             (json_int_t)layout->sequence));
    output_json(object);
}

/* On the session's thread. */
static enum leasefs_recall_action on_notice(struct leasefs_lease *lease, enum leasefs_notice kind, unsigned deadline_ms,
                                            const char *reason, void *arg)
{
    struct holding *holding = arg;
    struct notice notice = {.kind = kind, .deadline_ms = deadline_ms, .at_ms = now_ms()};

    (void)lease;
    snprintf(notice.reason, sizeof(notice.reason), "%s", reason);
    /* Nobody reads any more: the command is about to end. */
    if (write(holding->notices[1], &notice, sizeof(notice)) < 0)
        return LEASEFS_RECALL_RETURN;
    return LEASEFS_RECALL_KEEP;
}

/* Gives the lease back and says so. */
static int give_back(struct holding *holding, const char *why)
{
    struct leasefs_lease *lease = holding->lease;
    double asked_ms = now_ms(), done_ms;
    char text[128];
    int status;

    holding->lease = NULL;
    status = leasefs_lease_return(lease);
    if (status)
        return output_error(status, holding->name);
    done_ms = now_ms();
    snprintf(text, sizeof(text), "returned (%s), fenced after %.1f ms", why, done_ms - asked_ms);
    tell(holding, "returned", done_ms, text, json_pack("{s:s, s:f}", "why", why, "fence_ms", done_ms - asked_ms));
    return EXIT_OK;
}

/* -1: go on holding; else the exit code. */
static int handle_notice(struct holding *holding)
{
    struct notice notice;
    char text[160];

    if (read(holding->notices[0], &notice, sizeof(notice)) != sizeof(notice))
        return -1;
    switch (notice.kind) {
    case LEASEFS_NOTICE_RECALL:
        snprintf(text, sizeof(text), "recall: to be given back within %u ms%s", notice.deadline_ms,
                 holding->ignore_recalls ? " (ignored)" : "");
        tell(holding, "recall", notice.at_ms, text, json_pack("{s:I}", "deadline_ms", (json_int_t)notice.deadline_ms));
        return holding->ignore_recalls ? -1 : give_back(holding, "recall");
    case LEASEFS_NOTICE_RECALL_CANCELLED:
        tell(holding, "recall_cancelled", notice.at_ms, "recall cancelled: nobody waits any more", NULL);
        return -1;
    case LEASEFS_NOTICE_ORPHANED:
        snprintf(text, sizeof(text), "orphaned: the file has other bytes at %s; the lease goes on", notice.reason);
        tell(holding, "orphaned", notice.at_ms, text, json_pack("{s:s}", "range", notice.reason));
        return -1;
    case LEASEFS_NOTICE_REVOKED:
        snprintf(text, sizeof(text), "revoked: %s", notice.reason);
        holding->revoked = true;
        tell(holding, "revoked", notice.at_ms, text, json_pack("{s:s}", "reason", notice.reason));
        /* Who touches goes on until the server's NIC says it, too. */
        return holding->touch_ms ? -1 : EXIT_LOST;
    }
    return -1;
}

/* The server's own word for a refusal comes when its fence is through: worth a moment. */
static void await_revocation(struct holding *holding)
{
    struct pollfd fd = {.fd = holding->notices[0], .events = POLLIN};

    while (poll(&fd, 1, REVOCATION_NOTICE_MS) > 0 && handle_notice(holding) == -1 && !holding->revoked)
        ;
}

/* -1: all is well; else the exit code. */
static int touch(struct holding *holding)
{
    int status = leasefs_read(holding->lease, holding->block, LEASEFS_BLOCK_SIZE, holding->layout.offset);
    double at_ms = now_ms();
    char text[1024];

    if (!status) {
        holding->touches++;
        holding->last_touch_ms = at_ms;
        return -1;
    }
    snprintf(text, sizeof(text), "refused after %llu touches: %s", (unsigned long long)holding->touches,
             leasefs_error());
    tell(holding, "refused", at_ms, text,
         json_pack("{s:s, s:s, s:I, s:f}", "errno", strerrorname_np(-status), "message", leasefs_error(), "touches",
                   (json_int_t)holding->touches, "last_touch_ms",
                   holding->touches ? holding->last_touch_ms - holding->granted_ms : 0.0));
    if (status == -EREMOTEIO && !holding->revoked)
        await_revocation(holding);
    return exit_code_of(status);
}

static int poll_timeout(double deadline_ms)
{
    double left = deadline_ms - now_ms();

    return left <= 0 ? 0 : left > MS_PER_DAY ? (int)MS_PER_DAY : (int)left + 1;
}

static int hold(struct holding *holding)
{
    double end_ms = holding->for_ms ? holding->granted_ms + (double)holding->for_ms : 0;
    double touch_ms = holding->granted_ms;
    int code = -1;

    while (code < 0) {
        struct pollfd fds[] = {{.fd = holding->notices[0], .events = POLLIN},
                               {.fd = holding->signals, .events = POLLIN}};
        double next_ms = holding->touch_ms ? touch_ms : end_ms;

        if (end_ms && end_ms < next_ms)
            next_ms = end_ms;
        if (poll(fds, 2, next_ms ? poll_timeout(next_ms) : -1) < 0 && errno != EINTR)
            return output_failure(-errno, "poll: %s", strerror(errno));
        if (fds[0].revents)
            code = handle_notice(holding);
        else if (fds[1].revents)
            code = give_back(holding, "signal");
        else if (end_ms && now_ms() >= end_ms)
            code = give_back(holding, "time is up");
        else if (holding->touch_ms && now_ms() >= touch_ms) {
            code = touch(holding);
            touch_ms = now_ms() + (double)holding->touch_ms;
        }
    }
    return code;
}

/* Signals end the holding orderly from now on; before, they ended the process, and the session with it. */
static int catch_signals(struct holding *holding)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    holding->signals = signalfd(-1, &set, SFD_CLOEXEC);
    return holding->signals < 0 ? -errno : 0;
}

static int hold_lease(struct holding *holding, const char *path)
{
    int status;

    if (pipe2(holding->notices, O_CLOEXEC))
        return output_failure(-errno, "pipe: %s", strerror(errno));
    if (holding->touch_ms) {
        status = leasefs_buffer_new(holding->session, LEASEFS_BLOCK_SIZE, &holding->block);
        if (status)
            return output_error(status, holding->name);
    }
    status = leasefs_lease_open(holding->session, path, &holding->options, &holding->lease);
    if (status)
        return output_error(status, holding->name);
    holding->granted_ms = now_ms();
    leasefs_lease_layout(holding->lease, &holding->layout);
    status = catch_signals(holding);
    if (status)
        return output_failure(status, "signals: %s", strerror(-status));
    tell_layout(holding);
    return hold(holding);
}

static error_t parse_mode(struct holding *holding, enum leasefs_mode mode, struct argp_state *state)
{
    if (holding->options.mode && holding->options.mode != mode)
        argp_error(state, "--read or --write, not both");
    holding->options.mode = mode;
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct holding *holding = state->input;

    switch (key) {
    case 'R':
        return parse_mode(holding, LEASEFS_READ, state);
    case 'W':
        return parse_mode(holding, LEASEFS_WRITE, state);
    case 'r':
        if (parse_range(arg, &holding->options.offset, &holding->options.length))
            argp_error(state, "'%s' is no range: OFFSET:LENGTH, in bytes or with K, M, G", arg);
        return 0;
    case 'p':
        holding->options.prepare = true;
        return 0;
    case 't':
        holding->options.try_only = true;
        return 0;
    case 'P':
        if (parse_policy(arg, &holding->options.policy))
            argp_error(state, "--policy is 'recall', 'busy' or 'orphan'");
        return 0;
    case 'o':
        if (strcmp(arg, "return") && strcmp(arg, "ignore"))
            argp_error(state, "--on-recall is 'return' or 'ignore'");
        holding->ignore_recalls = !strcmp(arg, "ignore");
        return 0;
    case 'T':
        if (parse_number(arg, 1, MS_PER_DAY, &holding->touch_ms))
            argp_error(state, "'%s' is no number of milliseconds", arg);
        return 0;
    case 'f':
        if (parse_seconds(arg, &holding->for_ms) || !holding->for_ms)
            argp_error(state, "'%s' is no number of seconds", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (holding->name)
            argp_error(state, "too many arguments");
        holding->name = arg;
        return 0;
    case ARGP_KEY_END:
        if (!holding->name)
            argp_error(state, "which file?");
        if (!holding->options.mode)
            argp_error(state, "--read or --write?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

static const struct argp_option options[] = {
    {"read", 'R', NULL, 0, "A read lease: shared; nobody changes the bytes while it lasts", 0},
    {"write", 'W', NULL, 0, "A write lease: exclusive", 0},
    {"range", 'r', "OFFSET:LENGTH", 0, "Only these bytes, rounded to blocks (default: the whole file)", 0},
    {"prepare", 'p', NULL, 0, "Make the range eligible first", 0},
    {"try", 't', NULL, 0, "Fail if others hold conflicting leases, rather than recall them", 0},
    {"on-recall", 'o', "return|ignore", 0,
     "ignore: keep it, so that the server has to revoke it; transfers then go on until its NIC refuses them", 0},
    {"policy", 'P', "recall|busy|orphan", 0,
     "What is to happen when a local operation meets the lease, where that lets it go further than the file's policy",
     0},
    {"touch", 'T', "MS", 0, "Read a block by RDMA every MS milliseconds and end when that is refused", 0},
    {"for", 'f', "SECONDS", 0, "Give it back after this time (default: on SIGINT or SIGTERM)", 0},
    {0},
};

int command_lease(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .children = children,
        .args_doc = "PATH",
        .doc = "Hold a lease, show its layout, and show each notice of the server as it comes."};
    struct holding holding = {.notices = {-1, -1}, .signals = -1};
    struct target target;
    int code;

    if (argp_parse(&argp, argc, argv, 0, NULL, &holding))
        return EXIT_USAGE;
    holding.options.on_notice = on_notice;
    holding.options.arg = &holding;
    holding.options.no_rdma = !holding.touch_ms;
    holding.options.unguarded = holding.ignore_recalls;
    code = target_take(holding.name, &target);
    if (code)
        return code;
    code = open_session(target.control, target.host, &holding.session);
    if (!code) {
        code = hold_lease(&holding, target.path);
        leasefs_session_close(holding.session);
    }
    target_clear(&target);
    return code;
}
