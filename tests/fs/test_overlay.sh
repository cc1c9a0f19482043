#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# An overlay keeps its changes on leasefs, as containers do: it asks for RENAME_WHITEOUT, trusted attributes and O_TMPFILE.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || skip "no overlayfs"
[ "$(printf '%s\n' 5.8 "$(uname -r)" | sort -V | head -n 1)" = 5.8 ] || skip "overlayfs takes no FUSE above before Linux 5.8"
mount_fs pool=16M,dev
mkdir "$mnt/lower" "$mnt/upper" "$mnt/work" "$dir/merged"
cd "$mnt/lower"
mkdir -p d/e
echo lower | tee kept gone renamed d/in >changed
at_exit="umount -l $dir/merged 2>/dev/null"
mount -t overlay overlay -o "lowerdir=$mnt/lower,upperdir=$mnt/upper,workdir=$mnt/work" "$dir/merged"
cd "$dir/merged"

echo upper >>changed
rm gone
mv renamed new
rm -r d
mkdir d
ln new linked
expect "changed d kept linked new" "$(echo *)"
expect "lower upper" "$(xargs <changed)"
expect lower "$(cat linked)"
expect "" "$(ls d)" "the new directory hides the old one's files"

# Below: what is hidden, and nothing of the lower files changed.
cd "$mnt"
expect "character special file 0:0" "$(stat -c '%F %Hr:%Lr' upper/gone)"
expect "character special file 0:0" "$(stat -c '%F %Hr:%Lr' upper/renamed)"
expect y "$(getfattr --only-values -n trusted.overlay.opaque upper/d)"
expect lower "$(cat lower/changed)"
refused ls upper/kept

# A second mount finds the same.
cd /
umount "$dir/merged"
mount -t overlay overlay -o "lowerdir=$mnt/lower,upperdir=$mnt/upper,workdir=$mnt/work" "$dir/merged"
expect "changed d kept linked new" "$(cd "$dir/merged" && echo *)"
umount "$dir/merged"
unmount_fs
