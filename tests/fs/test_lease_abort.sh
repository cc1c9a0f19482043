#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: crash
# The connection to the kernel is cut off (/sys/fs/fuse/connections/N/abort) while requests wait for a lease, and others run:
# everybody gets an error, the daemon ends, leases and all, and the next start is as good as the first.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mkdir "$dir/fusectl"
mount -t fusectl none "$dir/fusectl" 2>/dev/null || skip "no fusectl"
at_exit="umount $dir/fusectl"

# connection: the number of the mount's.
connection()
{
    awk -v mnt="$mnt" '$5 == mnt { sub(/.*:/, "", $3); n = $3 } END { print n }' /proc/self/mountinfo
}

for how in parked 'under load'; do
    mount_fs pool=64M,recall_timeout=100s
    head -c 100000 /dev/urandom >"$mnt/a"
    hold /a --write --on-recall=ignore
    waiters=()
    for size in 1 2 3 4 5 6; do
        truncate -s $size "$mnt/a" 2>>"$dir/errors" &
        waiters+=($!)
    done
    dd if=/dev/zero of="$mnt/a" bs=4k count=3 conv=notrunc status=none 2>>"$dir/errors" &
    waiters+=($!)
    until_state "$mnt/a" recalled
    load=()
    if [ "$how" = 'under load' ]; then
        for i in 1 2 3; do
            (cd "$mnt" && while head -c 300000 /dev/zero >"y$i" && cp "y$i" "z$i" && mv "z$i" "x$i" && ls -l >/dev/null; do :; done) \
                2>/dev/null &
            load+=($!)
        done
    fi
    for pid in "${waiters[@]}"; do
        kill -0 "$pid" || fail "$how: a waiter has not waited"
    done

    echo 1 >"$dir/fusectl/$(connection)/abort"
    for pid in "${waiters[@]}"; do
        wait_gone "$pid" 300 || fail "$how: who waited hangs"
        if wait "$pid"; then fail "$how: who waited has succeeded"; fi
    done
    for pid in "${load[@]}"; do
        wait_gone "$pid" 300 || fail "$how: who used the mount hangs"
        wait "$pid" || true
    done
    wait_gone "$daemon" 300 || fail "$how: the daemon runs on"
    if grep -E 'internal error|ERROR: |WARNING: |runtime error' "$log"; then
        fail "$how: the daemon complained"
    fi
    [ ! -e "$control" ] || fail "$how: the control socket is left"
    wait "$daemon" || echo "$how: the daemon's exit code is $?"
    daemon=
    wait_gone "$holder" 300 || fail "$how: the holder is not told"
    wait "$holder" || true
done

mount_fs pool=64M
echo x >"$mnt/x"
unmount_fs
