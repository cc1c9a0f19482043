#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Whatever the kernel keeps, contents and rules are the same: each cache mode meets the random operations, the rules and
# the mappings.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
modes=(writeback)
# Shared mappings of files that are not cached: Linux 6.6.
[ "$(printf '%s\n' 6.6 "$(uname -r)" | sort -V | head -n 1)" != 6.6 ] || modes+=(cache=none)
for mode in "${modes[@]}"; do
    echo "--- $mode"
    for test in random_operations mmap conformance; do
        LEASEFS_TEST_OPTIONS=$mode LEASEFS_TEST_STEPS=${LEASEFS_TEST_STEPS:-700} "$here/test_$test.sh" ||
            [ $? = 77 ] || fail "$test with $mode"
    done
done
