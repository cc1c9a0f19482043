#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# An operation that waits for a lease can be interrupted, and then the lease lives on.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=30s
cd "$mnt"
head -c 100000 /dev/urandom >a
sum=$(sum a)
hold /a --write --on-recall=ignore

# Ctrl-C, as a handler sees it: EINTR.
python3 - <<'PY'
import ctypes, errno, os, signal, threading, time
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("a", os.O_RDWR)
class Alarm(Exception):
    pass
calls = {
    "ftruncate": lambda: libc.ftruncate(fd, ctypes.c_long(10)),
    "pwrite": lambda: libc.pwrite(fd, b"x", ctypes.c_size_t(1), ctypes.c_long(0)),
    "fallocate": lambda: libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(4096)),
    "unlink": lambda: libc.unlink(b"a"),
    "rename": lambda: libc.rename(b"b", b"a"),
}
open("b", "w").close()
signal.signal(signal.SIGALRM, lambda *a: None)
signal.siginterrupt(signal.SIGALRM, True)
for name, call in calls.items():
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    start = time.monotonic()
    assert call() == -1, name
    assert ctypes.get_errno() == errno.EINTR, (name, os.strerror(ctypes.get_errno()))
    assert 0.15 < time.monotonic() - start < 8, name
PY
until_state a active
grep -q 'cancelled' "$dir/holder" || fail "the holder was not told: $(cat "$dir/holder")"
expect "$sum" "$(sum a)"

# kill -9 of those who wait.
for _ in 1 2 3 4 5; do
    truncate -s 0 a &
    waiters+=($!)
done
until_state a recalled
kill -9 "${waiters[@]}"
for pid in "${waiters[@]}"; do
    wait_gone "$pid" 100 || fail "a killed waiter hangs"
done
until_state a active
expect "$sum" "$(sum a)"

# Of two who wait, one gives up: the other goes on waiting, and gets its turn.
truncate -s 0 a &
first=$!
truncate -s 1000 a &
second=$!
until_state a recalled
kill -9 $first
wait $first 2>/dev/null || true
kill -0 $second
until_state a recalled
end_holder
wait $second
expect 1000 "$(stat -c %s a)"
cmp a <(head -c 1000 a)
cd /
unmount_fs
