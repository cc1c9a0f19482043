#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: crash
# A daemon is killed and the next one started at once, as scripts do: it waits for the dying one, and mounts where that was.
. "$(dirname "$0")/lib.sh"

mounts() { grep -c " $mnt fuse" /proc/self/mounts || true; }
served_by() { pgrep -f -- "-o device=none,control=$control,pool=$1"; }
# start POOL, in the background, as process $starting: it asks the mount, whose daemon has stopped, and waits.
start_waiting() {
    local i
    "$LEASEFS" -o "device=none,control=$control,pool=$1" "$mnt" 2>"$dir/start" &
    starting=$!
    for ((i = 0; i < 300; i++)); do
        [ "$(cat "/proc/$starting/wchan")" != request_wait_answer ] || return 0
        sleep 0.05
    done
    fail "it does not wait for the mount's answer: $(cat "/proc/$starting/wchan" "$dir/start")"
}
# The daemon that went to the background is this test's from now on.
adopt() {
    expect 1 "$(mounts)" mounts
    daemon=$(served_by "$1")
    touch "$mnt/$1"
}
end() {
    fusermount3 -u "$mnt"
    wait_gone "$daemon" 100 || fail 'the daemon does not end'
    daemon=
}

# Killed while it is asked whether it is alive.
mount_fs pool=16M
kill -STOP "$daemon"
start_waiting 17M
kill -9 "$daemon"
wait "$starting" || fail "no start beside a daemon that dies: $(cat "$dir/start")"
grep -q dead "$dir/start" || fail "no word about the dead mount"
[ ! -e "$mnt/file" ]
adopt 17M
end

# One that is merely slow lives: nothing is unmounted, and the newcomer is refused.
mount_fs pool=16M
touch "$mnt/file"
kill -STOP "$daemon"
start_waiting 17M
kill -CONT "$daemon"
! wait "$starting" || fail 'two daemons at one control socket'
grep -q 'another leasefs serves it' "$dir/start" || fail "$(cat "$dir/start")"
expect 1 "$(mounts)" mounts
[ -e "$mnt/file" ]
unmount_fs

# Over and over, as it comes.
mount_fs pool=64M
for round in {65..90}; do
    head -c 8M /dev/zero >"$mnt/data" # which takes a while to be freed
    { kill -9 "$daemon" && "$LEASEFS" -o "device=none,control=$control,pool=${round}M" "$mnt" 2>"$dir/start"; } ||
        fail "round $round: $(cat "$dir/start")"
    adopt "${round}M"
done
end
