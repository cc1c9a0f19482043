/* SPDX-License-Identifier: BSD-2-Clause */

/* top and watch: the server's status, asked again and again over one session. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

#define MS_PER_DAY    (24u * 3600 * 1000)
#define COUNT_MAX     1000000000u
#define LEASES_SHOWN  20u
#define TERMINAL_HOME "\033[H\033[J"

struct live {
    uint64_t interval_ms, count, for_ms; /* 0: without end */
    struct leasefs_session *session;
    double started_ms, asked_ms, before_ms; /* this answer's time, the last one's */
    json_t *now, *before;                   /* answers; before is NULL at first */
};

static double clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* 0 or, after saying why, an exit code. */
static int ask(struct live *live)
{
    char *answer = NULL;
    int status = leasefs_call(live->session, LEASEFS_METHOD_STATUS, NULL, &answer);

    if (status)
        return output_error(status, NULL);
    json_decref(live->before);
    live->before = live->now;
    live->before_ms = live->asked_ms;
    live->now = json_loads(answer, 0, NULL);
    live->asked_ms = clock_ms();
    free(answer);
    return live->now ? 0 : output_failure(-EPROTO, "the server's answer is no JSON object");
}

/* Runs `show` after each answer until the command line's end of it. */
static int go_on(struct live *live, void (*show)(struct live *live))
{
    struct timespec pause = {.tv_sec = (time_t)(live->interval_ms / 1000),
                             .tv_nsec = (long)(live->interval_ms % 1000) * 1000000};
    int code = open_session(NULL, NULL, &live->session);

    if (code)
        return code;
    live->started_ms = clock_ms();
    for (uint64_t n = 1;; n++) {
        code = ask(live);
        if (code)
            break;
        show(live);
        if ((live->count && n >= live->count) ||
            (live->for_ms && clock_ms() - live->started_ms >= (double)live->for_ms))
            break;
        nanosleep(&pause, NULL);
    }
    json_decref(live->now);
    json_decref(live->before);
    leasefs_session_close(live->session);
    return code;
}

/* ---- top ---- */

static json_t *rates_of(const struct live *live)
{
    static const char *const counters[] = {"granted", "returned", "recalls", "recall_timeouts", "expired", "revoked"};
    double seconds = (live->asked_ms - live->before_ms) / 1e3;
    json_t *rates = json_object();

    for (size_t i = 0; i < sizeof(counters) / sizeof(*counters); i++) {
        json_int_t now = json_integer_value(json_object_get(json_object_get(live->now, "counters"), counters[i]));
        json_int_t before = json_integer_value(json_object_get(json_object_get(live->before, "counters"), counters[i]));

        json_object_set_new(rates, counters[i],
                            json_real(live->before && seconds > 0 ? (double)(now - before) / seconds : 0));
    }
    return rates;
}

/* What fits a screen, in the order of interest. */
static json_t *screen_of(const struct live *live, json_t *rates)
{
    static const char *const shown[] = {"server", "uptime_ms", "policy", "pool", "counters", "sessions"};
    json_t *screen = json_object(), *leases = json_array(), *lease;
    size_t index;

    for (size_t i = 0; i < sizeof(shown) / sizeof(*shown); i++)
        if (json_object_get(live->now, shown[i]))
            json_object_set(screen, shown[i], json_object_get(live->now, shown[i]));
    json_object_set(screen, "per_second", rates);
    json_array_foreach(json_object_get(live->now, "leases"), index, lease) if (index < LEASES_SHOWN)
        json_array_append(leases, lease);
    json_object_set_new(screen, "leases", leases);
    return screen;
}

static void show_top(struct live *live)
{
    json_t *rates = rates_of(live), *screen;

    if (common.json) {
        screen = json_copy(live->now);
        json_object_set(screen, "rates", rates);
    } else {
        screen = screen_of(live, rates);
        if (isatty(STDOUT_FILENO))
            fputs(TERMINAL_HOME, stdout);
        else if (live->before)
            putchar('\n');
    }
    output_result("top", screen);
    json_decref(screen);
    json_decref(rates);
}

/* ---- watch ---- */

/* The object of a list whose member `key` is the same as that of `object`. */
static json_t *same(json_t *list, const char *key, json_t *object)
{
    size_t index;
    json_t *other;

    json_array_foreach(list, index,
                       other) if (json_equal(json_object_get(other, key), json_object_get(object, key))) return other;
    return NULL;
}

static const char *word(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value ? value : "-";
}

static long long number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void tell(const struct live *live, const char *what, json_t *object)
{
    double elapsed_ms = live->asked_ms - live->started_ms;
    json_t *event = json_pack("{s:s, s:s, s:f}", "event", "watch", "what", what, "elapsed_ms", elapsed_ms);
    char client[64];

    json_object_update_missing(event, object);
    output_json(event);
    if (json_object_get(object, "lease")) {
        output_text("[%10.1f ms] %-11s %lld of session %lld: %s, %s, inode %lld, %lld+%lld", elapsed_ms, what,
                    number(object, "lease"), number(object, "session"), word(object, "mode"), word(object, "state"),
                    number(object, "inode"), number(object, "offset"), number(object, "length"));
    } else {
        /* Others' text: nothing of it steers the terminal. */
        snprintf(client, sizeof(client), "%s", word(object, "client"));
        for (char *c = client; *c; c++)
            if ((unsigned char)*c < ' ' || *c == 0x7f)
                *c = '?';
        output_text("[%10.1f ms] %-11s %lld: %s, uid %lld, pid %lld", elapsed_ms, what, number(object, "session"),
                    client, number(object, "uid"), number(object, "pid"));
    }
}

static void compare(const struct live *live, const char *list, const char *key, const char *came, const char *went)
{
    json_t *now = json_object_get(live->now, list), *before = json_object_get(live->before, list), *object, *old;
    size_t index;

    json_array_foreach(before, index, object) if (!same(now, key, object)) tell(live, went, object);
    json_array_foreach(now, index, object)
    {
        old = same(before, key, object);
        if (!old)
            tell(live, came, object);
        else if (strcmp(word(old, "state"), word(object, "state")))
            tell(live, "state", object);
    }
}

static void show_changes(struct live *live)
{
    compare(live, "sessions", "session", "session", "session-end");
    compare(live, "leases", "lease", "lease", "lease-end");
}

/* ---- the command lines ---- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct live *live = state->input;

    switch (key) {
    case 'i':
        if (parse_number(arg, 1, MS_PER_DAY, &live->interval_ms))
            argp_error(state, "'%s' is no number of milliseconds", arg);
        return 0;
    case 'n':
        if (parse_number(arg, 1, COUNT_MAX, &live->count))
            argp_error(state, "'%s' is no number of times", arg);
        return 0;
    case 'f':
        if (parse_seconds(arg, &live->for_ms) || !live->for_ms)
            argp_error(state, "'%s' is no number of seconds", arg);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "too many arguments");
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

int command_top(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"interval", 'i', "MS", 0, "Milliseconds from one to the next (1000)", 0},
        {"count", 'n', "NUMBER", 0, "End after so many", 0},
        {0},
    };
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .children = children,
                                     .doc = "Show memory, leases, sessions and rates, again and again."};
    struct live live = {.interval_ms = 1000};

    if (argp_parse(&argp, argc, argv, 0, NULL, &live))
        return EXIT_USAGE;
    return go_on(&live, show_top);
}

int command_watch(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"interval", 'i', "MS", 0, "Milliseconds from one look to the next (200)", 0},
        {"for", 'f', "SECONDS", 0, "End after this time", 0},
        {0},
    };
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .children = children,
                                     .doc = "Print a line for each session that comes or goes, and for each lease that "
                                            "is granted, changes its state or ends."};
    struct live live = {.interval_ms = 200};

    if (argp_parse(&argp, argc, argv, 0, NULL, &live))
        return EXIT_USAGE;
    return go_on(&live, show_changes);
}
