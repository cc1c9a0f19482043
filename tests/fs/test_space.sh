#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# df tells the truth: what it calls free can be written, and then there is an error and no harm.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

total=$(stat -f -c %b .)
expect 4096 "$(stat -f -c %S .)"
expect 4096 "$total" "16 MiB in blocks"
free=$(free_blocks)

# All of it, to the last block.
head -c $((free * 4096)) /dev/zero >all
expect 0 "$(free_blocks)"
expect $((free * 4096)) "$(stat -c %s all)"
refused_with 'No space left' dd if=/dev/zero of=more bs=4096 count=1 status=none

# Files without data, and overwriting, need no space.
touch empty
mkdir d
ln -s x y
printf 'x' | dd of=all bs=1 seek=4096 conv=notrunc status=none
refused_with 'No space left' fallocate -l 4096 empty
expect 0 "$(stat -c %s empty)"

# A write that does not fit leaves what did.
truncate -s $(((free - 10) * 4096)) all
expect 10 "$(free_blocks)"
refused_with 'No space left' dd if=/dev/urandom of=part bs=1M count=1 status=none
[ "$(stat -c %s part)" -le 40960 ] || fail "part is larger than what was free"
rm part
expect_free 10

# Copy on write needs space, and fails without harm when there is none.
cp all clone
expect 10 "$(free_blocks)"
head -c 40960 /dev/zero >rest
sum=$(sum clone)
refused_with 'No space left' dd if=/dev/urandom of=all bs=4096 count=1 conv=notrunc status=none
expect "$sum" "$(sum clone)"
expect "$sum" "$(sum all)"

# And everything comes back.
cd /
find "$mnt" -mindepth 1 -delete
expect_free "$free"

# Inodes have a limit too, and df -i tells it.
expect 65536 "$(stat -f -c %c "$mnt")"
unmount_fs
