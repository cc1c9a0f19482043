#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# However many operations wait for leases: they hold no thread, so everything else goes on, and so does the return that
# they all wait for.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=90s
cd "$mnt"

# Many files, as the kernel lets only one change of a file come to us at a time.
n=40
for i in $(seq $n); do
    head -c 8192 /dev/zero >"a$i"
    "$LEASECTL" --control "$control" lease --read --on-recall=ignore ":/a$i" >/dev/null 2>&1 &
    holders+=($!)
done
for i in $(seq $n); do until_state "a$i" active; done
for i in $(seq $n); do
    truncate -s "$i" "a$i" &
    waiters+=($!)
done
for i in $(seq $n); do until_state "a$i" recalled; done

takes 0 30000 sh -c 'for i in $(seq 20); do echo $i >c$i; done; cat c* >/dev/null; rm c*; ls -lR . >/dev/null'
expect 8192 "$(wc -c <a7)"

kill "${holders[@]}"
for pid in "${waiters[@]}"; do
    wait_gone "$pid" 200 || fail "a waiter was forgotten"
    wait "$pid"
done
for i in $(seq $n); do expect "$i" "$(stat -c %s "a$i")"; done

# Leases and local writers for the same files, over and over.
for i in $(seq 4); do head -c 409600 /dev/zero >"b$i"; done
for i in $(seq 4); do
    (for _ in $(seq 10); do printf X | dd of="b$i" bs=4096 seek=$((RANDOM % 100)) conv=notrunc status=none; done) &
    workers+=($!)
    (for _ in $(seq 10); do "$LEASECTL" --control "$control" lease --write --prepare --for=0.01 ":/b$i" >/dev/null 2>&1; done) &
    workers+=($!)
done
for pid in "${workers[@]}"; do
    wait "$pid"
done
for i in $(seq 4); do
    until_state "b$i" ""
done
cd /
unmount_fs
