#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Without an RDMA device leases are refused with what to do about it, and copies leave nothing behind.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

mount_fs pool=64M
random_file "$mnt/file" 100000
exits 6 ctl lease --read :/file
exits 6 ctl --json lease --write "$mnt/file"
expect ENODEV "$(member errno)"
expect no-device "$(member reason)"
exits 6 ctl get :/file "$dir/out"
[ ! -e "$dir/out" ]
exits 6 ctl put "$mnt/file" :/new
[ ! -e "$mnt/new" ]
exits 1 ctl put "$dir/missing" :/new
exits 1 ctl put "$dir" :/new
says 'not a regular file'
exits 1 ctl --json revoke 12345
expect ENOENT "$(member errno)"
expect '' "$(find "$dir" -maxdepth 1 -name '.*' -type f)" 'temporary files'

# An empty file has nothing to lease and needs no device.
: >"$dir/empty"
exits 0 ctl --json put "$dir/empty" :/empty
expect e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "$(member sha256)"
[ -e "$mnt/empty" ]
unmount_fs
