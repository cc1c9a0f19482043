#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the files of one user may take, and how many there may be, by programs of two users and of root.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be others"
mount_fs pool=64M,user_space=1M,user_files=20,allow_other
chmod 755 "$dir"
chmod 1777 "$mnt"
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
taken() { # uid: blocks of its files
    find "$mnt" -type f -uid "$1" -printf '%b\n' | awk '{ sum += $1 } END { print sum / 8 + 0 }'
}
cd "$mnt"

# To the block; another user and root have their own, and none.
as 1001 dd if=/dev/zero of=a bs=4096 count=256 status=none
expect 256 "$(taken 1001)"
refused_with 'quota exceeded' as 1001 dd if=/dev/zero of=b bs=4096 count=1 status=none
refused_with 'quota exceeded' as 1001 fallocate -l 4096 b
expect 0 "$(stat -c %s b)"
as 1001 dd if=/dev/urandom of=a bs=4096 count=256 conv=notrunc status=none
as 1002 dd if=/dev/zero of=theirs bs=4096 count=200 status=none
head -c 4M /dev/zero >ours

# What does not fit is written as far as it does.
as 1001 truncate -s 1000K a
refused_with 'quota exceeded' as 1001 dd if=/dev/zero of=b bs=64k count=1 status=none
expect 24576 "$(stat -c %s b)"
expect 256 "$(taken 1001)"

# A clone is paid for as if it were a copy. Who deletes can write at once.
as 1001 truncate -s 512K a
rm b
as 1001 cp a copy
expect 256 "$(taken 1001)"
refused_with 'quota exceeded' as 1001 cp a more
for i in $(seq 40); do
    as 1001 rm a copy
    as 1001 fallocate -l 1M a || fail "round $i: what was deleted still counts"
    as 1001 truncate -s 512K a
    as 1001 cp a copy
done

# To give away is to charge.
as 1001 dd if=/dev/zero of=copy bs=4096 count=128 status=none
refused_with 'quota exceeded' chown 1001 theirs
expect 1002 "$(stat -c %u theirs)"
refused_with 'quota exceeded' chown 1002 copy
chown 0 copy
as 1001 fallocate -l 512K again
refused_with 'quota exceeded' chown 1001 copy

# The number of files, of all types.
as 1001 rm -f a again
rm -f b more
made=$(find . -uid 1001 | wc -l)
for i in $(seq $((made + 1)) 20); do
    as 1001 mkdir "d$i"
done
refused_with 'quota exceeded' as 1001 mkdir one-more
refused_with 'quota exceeded' as 1001 ln -s x one-more
refused_with 'quota exceeded' as 1001 touch one-more
as 1001 ln theirs link 2>/dev/null || true
as 1001 rmdir d20
as 1001 touch one-more
as 1002 touch other

refused_with 'not a size' "$LEASEFS" -o pool=16M,user_space=much "$dir/mnt"
refused_with 'less than a block' "$LEASEFS" -o pool=16M,user_space=100 "$dir/mnt"
refused_with 'not a number' "$LEASEFS" -o pool=16M,user_files=many "$dir/mnt"
cd /
unmount_fs
