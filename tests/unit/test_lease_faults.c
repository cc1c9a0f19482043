/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory runs out in the lease table. */
#include <errno.h>

#include "lease_fixture.h"

#include "tests/unit/failing_malloc.h"

/* At each allocation in turn, until there is none left to fail. */
static void a_lease_for_which_there_is_no_memory_is_refused_and_leaves_nothing(void **state)
{
    unsigned refused = 0;
    bool failed = true;
    struct fixture f;

    (void)state;
    fixture_start(&f, &fixture_limits);
    for (unsigned after = 0; failed; after++) {
        struct somebody who = somebody_new();
        uint64_t id;
        int err;

        failing_malloc_arm(after);
        err = ask_lease(&f, 1, 1, blocks(0, 1), LEASE_READ, &who, &id);
        failed = failing_malloc_has_failed();
        failing_malloc_disarm();
        assert_int_equal(err, failed ? -ENOMEM : 0);
        assert_int_equal(lease_table_check(f.table), 0);
        refused += failed;
        if (!failed)
            lease_abort(f.table, id, 0);
    }
    assert_true(refused >= 4); /* at least the lease, its file, session and owner */
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lease_for_which_there_is_no_memory_is_refused_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
