#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every file names its licence, every test can be run; none has blanks at a line's end, or the place of somebody's checkout.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"

# Inputs of the fuzzers are what they are.
exempt='^(LICENSE|tests/fuzz/corpus/.*)$'
while read -r file; do
    head -n 4 "$file" | grep -q 'SPDX-License-Identifier: BSD-2-Clause' || complain "$file: no SPDX line at its top"
done < <(files | grep -vE "$exempt")

while read -r file; do
    [ -x "$file" ] || complain "$file: a test that cannot be run (chmod +x)"
done < <(files | grep -E '(^|/)test_[^/]*\.sh$')

while read -r line; do
    complain "blanks at the end: $line"
done < <(files | grep -vE "$exempt|\.table$" | xargs -d '\n' grep -nIE '[[:blank:]]+$' || true)

# Home directories, clones in /tmp, mirrors by address: true on one machine only.
while read -r line; do
    complain "belongs to one machine: $line"
done < <(files | grep -vE "$exempt|^tests/lint/" |
    xargs -d '\n' grep -nIE '/home/[a-z]|/tmp/(w|b[0-9]*)-|/work/|https?://(10|127|192\.168)\.' || true)
finish
