#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A lease covers only written, and for writing unshared, blocks (I3); prepared bytes are zero whatever was there before.
. "$(dirname "$0")/lib.sh"
mount_fs 64M
refused() { # REASON ARGUMENTS OF lease...
    local reason=$1 answer
    shift
    answer=$(ctl --json lease "$@" 2>&1) && fail "granted: $*"
    [[ $answer == *"\"$reason\""* && $answer == *offset* && $answer == *"leasectl prepare"* ]] ||
        fail "expected a refusal with $reason, range and remedy: $answer"
}
tr '\0' 'x' </dev/zero | dd of="$mnt/fill" bs=1M iflag=fullblock 2>/dev/null || true # until the pool is full
rm "$mnt/fill"
truncate -s 1M "$mnt/sparse"
refused hole /sparse --read
fallocate -l 1M "$mnt/unwritten"
refused unwritten /unwritten --read
head -c 1M /dev/urandom >"$mnt/source"
ctl clone /source /shared
refused shared /shared --write
for file in sparse unwritten; do
    ctl prepare --write "/$file"
    ctl get ":/$file" "$dir/$file"
    cmp "$dir/$file" <(head -c 1M /dev/zero) || fail "prepared bytes of $file are not zero"
done
ctl prepare --write /shared
hold shared /shared --write
[[ $(sum "$mnt/source") == "$(sum "$mnt/shared")" ]] || fail "unsharing changed the bytes"
