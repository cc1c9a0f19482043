#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: crash
# Ends: of the holder, of the daemon, of the fence. Nothing hangs, nothing is lost.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"

# The holder dies: who waits goes on.
mount_fs pool=16M,recall_timeout=30s
head -c 100000 /dev/urandom >"$mnt/a"
hold /a --write --on-recall=ignore
truncate -s 10 "$mnt/a" &
waiter=$!
until_state "$mnt/a" recalled
kill -9 $holder
wait_gone $waiter 100 || fail "the waiter hangs"
wait $waiter
expect 10 "$(stat -c %s "$mnt/a")"
unmount_fs

# SIGTERM with a lease and somebody who waits for it.
mount_fs pool=16M,recall_timeout=30s
head -c 100000 /dev/urandom >"$mnt/a"
hold /a --write --on-recall=ignore
truncate -s 10 "$mnt/a" &
waiter=$!
until_state "$mnt/a" recalled
kill -TERM "$daemon"
wait_gone "$daemon" 50 || fail "the daemon does not end"
wait "$daemon" || fail "the daemon's exit code is $?"
daemon=
wait_gone $waiter 100 || fail "the waiter hangs"
wait $waiter || true
is_mounted && fail "still mounted"
end_holder

# The mount is forced away under the waiter.
if [ "$(id -u)" = 0 ]; then
    mount_fs pool=16M,recall_timeout=30s
    head -c 100000 /dev/urandom >"$mnt/a"
    hold /a --write --on-recall=ignore
    truncate -s 10 "$mnt/a" &
    waiter=$!
    until_state "$mnt/a" recalled
    umount -f "$mnt" 2>/dev/null || true
    umount -l "$mnt" 2>/dev/null || true
    wait_gone $waiter 100 || fail "the waiter hangs"
    wait_gone "$daemon" 50 || fail "the daemon does not end"
    daemon=
    wait $waiter || true
    end_holder
fi

# kill -9 of the daemon.
mount_fs pool=16M,recall_timeout=30s
head -c 100000 /dev/urandom >"$mnt/a"
hold /a --write --on-recall=ignore
truncate -s 10 "$mnt/a" 2>/dev/null &
waiter=$!
until_state "$mnt/a" recalled
kill -9 "$daemon"
wait_gone $waiter 100 || fail "the waiter hangs"
wait $waiter || true
wait "$daemon" 2>/dev/null || true
end_holder

# No mechanism proves the end of remote access: the blocks stay out of use, the file has copies, and works.
mount_fs pool=16M,recall_timeout=300ms,revoke=never
{ printf A && head -c 409599 /dev/urandom; } >"$mnt/a" # no X comes first by chance
sum=$(sum "$mnt/a")
free=$(free_blocks)
hold /a --write --on-recall=ignore
takes 250 15000 sh -c "printf X | dd of='$mnt/a' bs=1 seek=0 conv=notrunc status=none"
end_holder
expect X "$(head -c 1 "$mnt/a")"
[ "$(sum "$mnt/a")" != "$sum" ]
until_state "$mnt/a" quarantined
expect $((free - 100)) "$(free_blocks)"
takes 0 10000 rm "$mnt/a"
fusermount3 -u "$mnt"
wait_gone "$daemon" 100 || fail "the daemon does not end"
daemon=

# policy=busy: an error at once, and the lease is not recalled.
mount_fs pool=16M,policy=busy
head -c 409600 /dev/urandom >"$mnt/a"
hold /a --read
refused_with 'busy' truncate -s 0 "$mnt/a"
refused_with 'busy' rm "$mnt/a"
refused_with 'busy' dd if=/dev/zero of="$mnt/a" bs=1 count=1 conv=notrunc status=none
expect active "$(lease_states "$mnt/a")"
end_holder
until_state "$mnt/a" ""
rm "$mnt/a"
unmount_fs
