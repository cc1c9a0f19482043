#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Local operations that meet a lease: the holder gives it back and they go on at once; a silent holder delays them by
# the deadline, not more; what lies beside the lease is not delayed.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=400ms
cd "$mnt"

copy() { head -c 100000 /dev/zero | tr '\0' "$1" >"$1"; }
for f in a b c d e f g h; do copy $f; done

# A lease shows.
hold /a --read
expect ----i "$(lsattr a | cut -c 1-5)"
expect active "$(lease_states a)"

# Reading is no conflict; nor a copy under a read lease.
cp a a2
cmp a a2
expect active "$(lease_states a)"
# A write is.
sh -c 'printf X | dd of=a bs=1 seek=5 conv=notrunc status=none'
expect "" "$(lease_states a)"
expect ----- "$(lsattr a | cut -c 1-5)"
end_holder
grep -q recall "$dir/holder"

# The same under a silent holder, for everything that changes bytes or layout.
slow() # FILE COMMAND...
{
    local file=$1
    shift
    hold "/$file" --write --prepare --on-recall=ignore
    takes 350 10000 "$@"
    until_state_gone "$file"
    end_holder
}
until_state_gone() { [ ! -e "$1" ] || until_state "$1" ""; }
slow b sh -c 'printf X | dd of=b bs=1 seek=5 conv=notrunc status=none'
slow b truncate -s 5000 b
slow b truncate -s 9000 b # the slack of the last block
slow c fallocate -p -o 0 -l 8192 c
slow c fallocate -z -o 8192 -l 100 c
slow d cp d d2 # a reflink of what a remote writer may change
slow d cp a d
slow e rm e
slow f mv a f
slow g sh -c ': >g'
expect X "$(dd if=b bs=1 skip=5 count=1 status=none)"
expect 0 "$(stat -c %s g)"
cmp d2 <(head -c 100000 /dev/zero | tr '\0' d)

# Beside the lease: other ranges, other files, other names.
hold /h --write --on-recall=ignore --range=8192:4096
beside() # COMMAND...: had it been in conflict, the lease would be gone
{
    "$@"
    expect active "$(lease_states h*)"
}
beside sh -c 'printf X | dd of=h bs=1 seek=8191 conv=notrunc status=none; printf X | dd of=h bs=1 seek=12288 conv=notrunc status=none'
beside truncate -s 12288 h
beside ln h h2
beside rm h
beside mv h2 h
beside chmod 600 h
# Who may not wait is told at once.
python3 - <<'PY'
import os
fd = os.open("h", os.O_WRONLY | os.O_NONBLOCK)
try:
    os.pwrite(fd, b"x", 8192)
    raise SystemExit("the write went through the lease")
except BlockingIOError:
    pass
PY
end_holder
cd /
unmount_fs
