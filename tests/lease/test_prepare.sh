#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# prepare allocates holes and fills them with zeros; its refusals name file and reason.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

used_now()
{
    echo $(($(stat -c %b "$1") * 512))
}

mount_fs pool=64M
truncate -s 1M "$mnt/sparse"
expect 0 "$(used_now "$mnt/sparse")"
exits 0 ctl prepare --range=64K:128K :/sparse
expect 131072 "$(used_now "$mnt/sparse")"
# A path on the mount needs no --control.
exits 0 "$LEASECTL" prepare "$mnt/sparse"
expect 1048576 "$(used_now "$mnt/sparse")"
cmp "$mnt/sparse" <(head -c 1M /dev/zero)

mkdir "$mnt/dir"
random_file "$mnt/dir/data" 300000
before=$(sum "$mnt/dir/data")
exits 0 ctl prepare --write /dir/data
expect "$before" "$(sum "$mnt/dir/data")"

exits 1 ctl prepare :/missing
says 'No such file'
exits 1 ctl --json prepare :/missing
expect ENOENT "$(member errno)"
exits 1 ctl prepare :/dir
# More than there is room for leaves the file as it was.
truncate -s 1G "$mnt/large"
exits 1 ctl --json prepare :/large
expect ENOSPC "$(member errno)"
expect 0 "$(used_now "$mnt/large")"
unmount_fs
