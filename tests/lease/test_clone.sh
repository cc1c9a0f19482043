#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# clone shares blocks; what changes later is each file's own.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

mount_fs pool=64M
random_file "$mnt/source" 10000000
before=$(sum "$mnt/source")
free=$(free_blocks)
exits 0 ctl clone :/source :/copy
expect "$before" "$(sum "$mnt/copy")"
expect "$free" "$(free_blocks)" 'a clone takes no blocks'
echo changed | dd of="$mnt/copy" bs=1 seek=5000000 conv=notrunc status=none
expect "$before" "$(sum "$mnt/source")"
[ "$before" != "$(sum "$mnt/copy")" ]

mkdir "$mnt/dir"
exits 0 "$LEASECTL" clone "$mnt/source" "$mnt/dir/"
expect "$before" "$(sum "$mnt/dir/source")"
exits 0 "$LEASECTL" clone "$mnt/source" "$mnt/dir/other"
expect "$before" "$(sum "$mnt/dir/other")"
# prepare --write gives it blocks of its own.
exits 0 ctl prepare --write :/dir/other
expect "$before" "$(sum "$mnt/dir/other")"

# What the kernel has cached of a destination is not shown any more.
random_file "$mnt/old" 500000
cat "$mnt/old" >"$dir/old"
exits 0 ctl clone :/source :/old
expect 10000000 "$(stat -c %s "$mnt/old")"
expect "$before" "$(sum "$mnt/old")"

# Nor is a name that was looked up in vain.
[ ! -e "$mnt/appears" ]
exits 0 ctl clone :/source :/appears
expect "$before" "$(sum "$mnt/appears")"

exits 1 ctl clone :/missing :/x
says 'No such file'
exits 1 ctl clone :/source :/no/such/dir
[ ! -e "$mnt/x" ]
unmount_fs
