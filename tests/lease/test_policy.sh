#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# leasectl policy shows and sets what a file and a directory do with leases, and a lease may say more.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/../fs/lease_lib.sh"
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

mount_fs pool=64M,recall_timeout=60s,policy=busy
random_file "$mnt/file" 100000
mkdir "$mnt/dir"

exits 0 ctl policy "$mnt/file"
says "inherit (the mount's: busy)"
exits 0 ctl policy "$mnt/file" orphan
expect orphan "$(getfattr --absolute-names --only-values -n user.leasefs.policy "$mnt/file")"
exits 0 ctl --json policy "$mnt/file"
expect orphan "$(member own)"
exits 0 ctl policy "$mnt/file" inherit
exits 0 ctl policy "$mnt/file" inherit
exits 0 ctl --json policy "$mnt/file"
expect inherit "$(member own)"
expect busy "$(member policy)"

exits 0 ctl policy "$mnt/dir" recall
touch "$mnt/dir/new"
exits 0 ctl policy "$mnt/dir/new"
says recall

exits 2 ctl policy "$mnt/file" never
exits 2 ctl policy
exits 2 ctl policy "$dir"
says 'not on a mounted leasefs'
exits 1 ctl policy "$mnt/missing"

# What the policies do: a truncate fails, or goes on and the holder hears of it.
hold /file --read
if truncate -s 1 "$mnt/file" 2>/dev/null; then
    fail 'busy: the truncate went through'
fi
end_holder
hold /file --read --policy=orphan
truncate -s 1 "$mnt/file"
for ((i = 0; i < 200; i++)); do
    ! grep -q 'orphaned: the file has other bytes at 0+' "$dir/holder" || break
    sleep 0.05
done
grep -q 'orphaned: the file has other bytes at 0+' "$dir/holder" || fail "the holder was told: $(cat "$dir/holder")"
kill -0 "$holder" || fail 'the lease did not go on'
end_holder
unmount_fs
