#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Ctrl-C on a truncate that waits gives EINTR, and the lease lives on past its recall's deadline (I4).
. "$(dirname "$0")/lib.sh"
mount_fs 64M 2000
head -c 1M /dev/urandom >"$mnt/file"
hold silent /file --read --on-recall=ignore --touch=100
python3 - "$mnt/file" <<'P'
import os, signal, sys
def stop(*_): raise InterruptedError
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    os.truncate(sys.argv[1], 0)
except InterruptedError:
    print("interrupted")
else:
    sys.exit("FAILED: the truncate did not wait, or was not interrupted")
P
until_true 5 grep -q cancel "$dir/silent"
[[ $(stat -c %s "$mnt/file") == 1048576 ]] || fail "the file was truncated"
deadline_past() { [[ $(ctl status --json | jq '.uptime_ms') -gt $((start_ms + 3000)) ]]; }
start_ms=$(ctl status --json | jq '.uptime_ms')
until_true 20 deadline_past
[[ $(leases) == 1 ]] || fail "the lease did not live on"
grep -q refused "$dir/silent" && fail "remote access was taken away"
exit 0
