#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Files and directories as everybody uses them.
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M
cd "$mnt"

grep -q " $mnt fuse.leasefs " /proc/self/mounts

# What is written is read, whole and in parts.
random_file "$dir/data" 5000000
cp "$dir/data" file
cmp "$dir/data" file
expect 5000000 "$(stat -c %s file)"
cmp -i 4093 -n 10000 "$dir/data" file

# Overwriting the middle, appending.
printf 'hello' | dd of=file bs=1 seek=4094 conv=notrunc status=none
printf 'hello' | dd of="$dir/data" bs=1 seek=4094 conv=notrunc status=none
echo tail >>file
echo tail >>"$dir/data"
cmp "$dir/data" file

# The pages of the file are not the pool's: also what is read past the kernel's cache is right.
cmp "$dir/data" <(dd if=file iflag=direct bs=1M status=none)
{ echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null || true
cmp "$dir/data" file

# Truncate down, up: the new end reads as zeros.
truncate -s 4097 file
truncate -s 12000 file
cmp <(head -c 4097 "$dir/data"; head -c 7903 /dev/zero) file

# Directories.
mkdir -p a/b/c
touch a/b/c/x a/.hidden
expect "3" "$(stat -c %h a)"
expect ".hidden b" "$(find a -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs)"
refused_with 'not empty' rmdir a/b
refused mkdir a
refused_with 'Not a directory' ls file/x
rm -r a
refused ls a
expect 2 "$(stat -c %h .)"
ln -s nowhere broken
expect nowhere "$(readlink broken)"
refused cat broken

# Names: 255 bytes, and no more.
long=$(printf 'n%.0s' $(seq 255))
touch "$long"
expect "$long" "$(echo n*)"
refused_with 'too long' touch "${long}n"

# Fifos, sockets, devices.
mkfifo pipe
expect p "$(stat -c %A pipe | cut -c 1)"
(echo through >pipe &)
expect through "$(cat pipe)"
if [ "$(id -u)" = 0 ]; then
    mknod null c 1 3
    expect "character special file 1,3" "$(stat -c '%F %t,%T' null)"
fi

# Still open, no longer named.
exec 7<>file
rm file
echo more >&7
expect more "$(dd if=/proc/self/fd/7 bs=5 count=1 status=none)"
exec 7>&-
cd /
unmount_fs
