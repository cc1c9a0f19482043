/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Kernel by mechanism: what the daemon's self-test must find each mechanism to be on soft-RoCE. A difference is a
 * kernel that has changed, or a self-test that no longer sees what is there.
 *
 * A trial that caught nothing in flight on a busy machine says nothing: it is an outcome of its own, equal to none of
 * the others. Such cells are tried again, and the test is skipped, not passed, when they stay so.
 */

#include <stdlib.h>
#include <sys/utsname.h>

#include "selftest.h"

#define ATTEMPTS 6

#define ABSENT "not here"
#define GATE   "gate"
#define LEAKS  "gate, seen to leak" /* a byte crossed after the call: no fence whatever anybody says */
#define FENCE  "fence"
#define SPACE  "space"

static const char *const mechanisms[FABRIC_MECHANISMS] = {"rereg", "mw", "odp", "dereg", "qp", "punch"};

/* mw leaks, too, but a packet in five trials: too little to be waited for. */
static const struct kernel {
    const char *release; /* what its name starts with */
    const char *wanted[FABRIC_MECHANISMS];
} kernels[] = {
    /*         rereg   mw    odp     dereg  qp     punch */
    {"6.1.", {ABSENT, GATE, ABSENT, FENCE, FENCE, SPACE}},
    {"6.12.", {LEAKS, GATE, ABSENT, FENCE, FENCE, SPACE}},
    {"7.", {LEAKS, GATE, FENCE, FENCE, FENCE, SPACE}},
};

static const struct kernel *this_kernel(void)
{
    struct utsname host;

    CHECK(uname(&host) == 0);
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++)
        if (!strncmp(host.release, kernels[i].release, strlen(kernels[i].release)))
            return &kernels[i];
    printf("# nothing is written down about kernel %s\n", host.release);
    exit(SKIPPED);
}

/* NULL: inconclusive. */
static const char *outcome(const json_t *mechanism, bool leak_wanted)
{
    const char *self_test = json_string_value(json_object_get(mechanism, "self_test"));
    const char *kind = json_string_value(json_object_get(mechanism, "kind"));
    bool leaked = json_integer_value(json_object_get(mechanism, "trials_late")) > 0;

    CHECK(self_test && kind);
    if (!strcmp(self_test, "assumed"))
        return NULL;
    if (strcmp(self_test, "proven") != 0)
        return self_test;
    if (!leak_wanted || strcmp(kind, GATE) != 0)
        return kind;
    return leaked ? LEAKS : NULL;
}

static bool look_at(const json_t *mechanism, const char *wanted)
{
    const char *found = outcome(mechanism, !strcmp(wanted, LEAKS));
    char *text = json_dumps(mechanism, JSON_COMPACT);

    printf("# wanted: %s; found: %s; %s\n", wanted, found ? found : "inconclusive", text);
    fflush(stdout);
    free(text);
    if (found)
        CHECK_ANSWER(found, wanted);
    return found != NULL;
}

/* One self-test of the daemon's. */
static void fill_in(const struct kernel *kernel, bool done[FABRIC_MECHANISMS])
{
    start_fabric(NULL);
    json_t *probe = ops->probe(fabric), *list = json_object_get(probe, "mechanisms");

    CHECK(json_array_size(list) == FABRIC_MECHANISMS);
    CHECK(fabric->ladder.kinds[0] != REVOKE_FENCE); /* rereg, whatever the trials looked like */
    for (size_t i = 0; i < FABRIC_MECHANISMS; i++) {
        const json_t *mechanism = json_array_get(list, i);

        CHECK_ANSWER(json_string_value(json_object_get(mechanism, "name")), mechanisms[i]);
        if (!done[i])
            done[i] = look_at(mechanism, kernel->wanted[i]);
    }
    json_decref(probe);
    fabric_stop(fabric);
}

static void each_mechanism_is_found_to_be_what_it_is_on_this_kernel(void)
{
    const struct kernel *kernel = this_kernel();
    bool done[FABRIC_MECHANISMS] = {false};
    size_t n_done = 0;

    for (unsigned i = 0; i < ATTEMPTS && n_done < FABRIC_MECHANISMS; i++) {
        fill_in(kernel, done);
        n_done = 0;
        for (size_t j = 0; j < FABRIC_MECHANISMS; j++)
            n_done += done[j];
    }
    if (n_done < FABRIC_MECHANISMS)
        exit(SKIPPED);
}

int main(int argc, char **argv)
{
    static const struct selftest tests[] = {
        SELFTEST(each_mechanism_is_found_to_be_what_it_is_on_this_kernel),
    };

    return SELFTESTS(argc, argv, tests);
}
