/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_TESTS_STORE_RANDOM_H
#define LEASEFS_TESTS_STORE_RANDOM_H

/* Random numbers that can be had again: LEASEFS_TEST_SEED=N repeats a run, LEASEFS_TEST_STEPS=N makes it longer. */

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct dice {
    uint64_t state;
};

/* Says which seed it is: ctest shows it when the test fails. */
static inline struct dice dice_new(const char *test)
{
    const char *wanted = getenv("LEASEFS_TEST_SEED");
    uint64_t seed = wanted ? strtoull(wanted, NULL, 0) : (uint64_t)time(NULL);

    printf("# %s: LEASEFS_TEST_SEED=%" PRIu64 "\n", test, seed);
    fflush(stdout);
    return (struct dice){seed * 2 + 1};
}

static inline unsigned dice_steps(unsigned otherwise)
{
    const char *wanted = getenv("LEASEFS_TEST_STEPS");

    return wanted ? (unsigned)strtoul(wanted, NULL, 0) : otherwise;
}

static inline uint64_t dice_roll(struct dice *dice)
{
    uint64_t z = dice->state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t dice_below(struct dice *dice, uint64_t limit)
{
    return dice_roll(dice) % limit;
}

#endif
