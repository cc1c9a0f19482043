#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# cp shares blocks; whoever writes afterwards changes its own file only.
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M
cd "$mnt"

random_file a $((20 << 20))
sum=$(sum a)
before=$(free_blocks)
cp a b
expect "$before" "$(free_blocks)" "a copy takes no blocks"
expect "$sum" "$(sum b)"

# More copies than the pool has room for.
for i in 1 2 3 4 5 6; do cp a "c$i"; done
expect "$before" "$(free_blocks)"

# A write to one: one block, and the others keep theirs.
printf 'changed' | dd of=a bs=1 seek=8190 conv=notrunc status=none
expect $((before - 2)) "$(free_blocks)" "the two blocks written"
expect "$sum" "$(sum b)"
[ "$(sum a)" != "$sum" ] || fail "the write is lost"
printf 'other' | dd of=c3 bs=1 seek=8190 conv=notrunc status=none
expect "$sum" "$(sum b)"
expect "$sum" "$(sum c6)"

# The last to refer to the blocks gives them back.
rm a b c1 c2 c3 c4 c5
expect_free $before
rm c6
expect_free $((before + 5120))

# A length that is not whole blocks; and into the middle of a file, at congruent and other offsets.
random_file a 100001
cp a b
cmp a b
python3 - <<'PY'
import os
a = os.open("a", os.O_RDONLY); data = os.pread(a, 200000, 0)
for src, dst, n in ((0, 4096, 50000), (4096, 4096, 8192), (100, 5000, 70000), (3, 0, 1), (90000, 200000, 50000)):
    before = os.urandom(150000)
    with open("dst", "wb") as f:
        f.write(before)
    fd = os.open("dst", os.O_RDWR)
    done = 0
    while done < n:
        r = os.copy_file_range(a, fd, n - done, src + done, dst + done)
        if r == 0:
            break
        done += r
    piece = data[src:src + n]
    assert done == len(piece), (src, dst, n, done)
    want = bytearray(before.ljust(dst, b"\0"))
    want[dst:dst + len(piece)] = piece
    assert os.pread(fd, 400000, 0) == bytes(want), (src, dst, n)
    os.close(fd)
# Within one file.
fd = os.open("self", os.O_RDWR | os.O_CREAT)
os.pwrite(fd, data[:40000], 0)
assert os.copy_file_range(fd, fd, 8192, 0, 65536) == 8192
assert os.pread(fd, 8192, 65536) == data[:8192]
os.pwrite(fd, b"new", 0)
assert os.pread(fd, 8192, 65536) == data[:8192]
assert os.pread(fd, 4, 40000) == bytes(4)
PY
cd /
unmount_fs
