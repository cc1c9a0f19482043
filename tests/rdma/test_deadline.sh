#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A truncate under a silent holder ends at the recall's deadline: not before it, and at most 20 ms after it (I4). The
# best of eight counts, for this may run on an emulated and busy machine.
. "$(dirname "$0")/lib.sh"
deadline_ms=300
mount_fs 64M $deadline_ms
peer_start
best=
for ((i = 0; i < 8; i++)); do
    head -c 4M /dev/urandom >"$mnt/file"
    ask "lease /file read 0 0 ignore" >/dev/null
    us=$(python3 -c 'import os, sys, time
start = time.monotonic_ns()
os.truncate(sys.argv[1], 4096)
print((time.monotonic_ns() - start) // 1000)' "$mnt/file")
    ask "read $i 0 4096" >/dev/null && fail "the holder reads on after the truncate"
    ((us >= deadline_ms * 1000)) || fail "the truncate took $us us: it did not wait for the holder"
    [[ -z $best ]] || ((us < best)) && best=$us
    until_true 20 no_leases
done
echo "best of 8: $((best - deadline_ms * 1000)) us after the deadline"
((best <= (deadline_ms + 20) * 1000))
