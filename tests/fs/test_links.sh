#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Hard and symbolic links.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

echo text >a
ln a b
mkdir d
ln a d/c
expect "3 3 3" "$(stat -c %h a b d/c | xargs)"
expect "$(stat -c %i a)" "$(stat -c %i d/c)"
echo more >>b
expect "text more" "$(xargs <d/c)"
rm a
expect "2" "$(stat -c %h b)"
rm b
expect "text more" "$(xargs <d/c)"
refused ln d e
refused ln d/c d/c
rm d/c
expect 0 "$(find . -type f | wc -l)"

# Unlinked while open, and not to be brought back.
echo x >f
exec 7<f
rm f
expect 0 "$(stat -L -c %h /proc/self/fd/7)"
refused ln -L /proc/self/fd/7 g
exec 7<&-

# Symbolic links: relative, absolute, in a ring; their size is their length.
mkdir -p s/t
echo deep >s/t/u
ln -s t/u s/link
ln -s "$mnt/s" abs
expect deep "$(cat s/link)"
expect deep "$(cat abs/t/u)"
expect 3 "$(stat -c %s s/link)"
ln -s ring1 ring2
ln -s ring2 ring1
refused_with 'Too many levels' cat ring1
refused ln -s '' empty

# Inode numbers are not reused.
touch one
first=$(stat -c %i one)
rm one
touch two
[ "$(stat -c %i two)" -gt "$first" ] || fail "inode number reused"
cd /
unmount_fs
