#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Holes, and fallocate in the modes that Linux lets through.
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M
cd "$mnt"

# A file larger than the pool, with little in it.
truncate -s 1T big
expect 0 "$(used_bytes big)"
echo end | dd of=big bs=1 seek=$((1 << 39)) conv=notrunc status=none
expect 4096 "$(used_bytes big)"
expect end "$(dd if=big bs=4096 skip=$((1 << 27)) count=1 status=none | head -c 3)"
expect "$(printf '\0\0')" "$(head -c 2 big 2>/dev/null | tr -d '\0')"

# Data and holes are found.
python3 - <<'PY'
import errno, os
fd = os.open("f", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
os.pwrite(fd, b"x" * 10, 65536)
assert os.lseek(fd, 0, os.SEEK_DATA) == 65536
assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
assert os.lseek(fd, 65536, os.SEEK_HOLE) == 65536 + 4096
assert os.lseek(fd, 65537, os.SEEK_DATA) == 65537
try:
    os.lseek(fd, 65536 + 4096, os.SEEK_DATA); assert False
except OSError as e:
    assert e.errno == errno.ENXIO
try:
    os.lseek(fd, 1 << 20, os.SEEK_HOLE); assert False
except OSError as e:
    assert e.errno == errno.ENXIO
# Allocated and not written reads as zeros, and counts as a hole.
os.posix_fallocate(fd, 0, 65536)
assert os.fstat(fd).st_blocks * 512 == 65536 + 4096
assert os.pread(fd, 65536, 0) == bytes(65536)
assert os.lseek(fd, 0, os.SEEK_DATA) == 65536
PY

# Allocate: with and without the size.
fallocate -l 1M alloc
expect "1048576 1048576" "$(stat -c %s alloc) $(used_bytes alloc)"
cmp <(head -c 1M /dev/zero) alloc
fallocate -n -o 1M -l 1M alloc
expect "1048576 2097152" "$(stat -c %s alloc) $(used_bytes alloc)"

# Punch: whole blocks go back, parts are zeroed, the size stays.
random_file data 100000
cp data "$dir/data"
before=$(free_blocks)
fallocate -p -o 5000 -l 50000 data
dd if=/dev/zero of="$dir/data" bs=1 seek=5000 count=50000 conv=notrunc status=none
cmp data "$dir/data"
expect 11 $(($(free_blocks) - before)) "blocks freed"
refused_with 'not supported' fallocate -c -o 0 -l 4096 data

# Zero range.
fallocate -z -o 60001 -l 20000 data
dd if=/dev/zero of="$dir/data" bs=1 seek=60001 count=20000 conv=notrunc status=none
cmp data "$dir/data"
fallocate -z -o 90000 -l 20000 data
expect 110000 "$(stat -c %s data)"
dd if=/dev/zero of="$dir/data" bs=1 seek=90000 count=20000 conv=notrunc status=none
cmp data "$dir/data"

# Copying a sparse file keeps the holes.
cp --sparse=always big big2
expect "$(stat -c %s big)" "$(stat -c %s big2)"
expect 4096 "$(used_bytes big2)"
cd /
unmount_fs
