#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Handles opened with O_DIRECT: buffered readers and mappings see what they write, and one that waits for a lease keeps
# no other waiting.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=60s
cd "$mnt"

python3 - <<'PY'
import mmap, os
BLOCK, BLOCKS = 4096, 16
open("f", "wb").write(bytes(BLOCK * BLOCKS))
direct = os.open("f", os.O_RDWR | os.O_DIRECT)
shared = mmap.mmap(direct, BLOCK * BLOCKS)  # of the very handle
cached = os.open("f", os.O_RDONLY)
reader = os.fork()
if reader == 0:  # brings pages into the cache at every moment of a write
    while True:
        os.pread(cached, BLOCK * BLOCKS, 0)
try:
    buffer = mmap.mmap(-1, BLOCK)
    for i in range(600):
        at = i % BLOCKS * BLOCK
        buffer[:] = i.to_bytes(4, "little") * (BLOCK // 4)
        assert os.pwritev(direct, [buffer], at) == BLOCK
        assert os.pread(cached, BLOCK, at) == buffer[:], f"a buffered reader sees old bytes, round {i}"
        assert shared[at:at + BLOCK] == buffer[:], f"a mapping shows old bytes, round {i}"
    shared[100:105] = b"hello"
    assert os.preadv(direct, [buffer], 0) == BLOCK and buffer[100:105] == b"hello"
finally:
    os.kill(reader, 9)
    os.waitpid(reader, 0)
# The same bytes twice at once, growing, appending.
os.ftruncate(direct, BLOCK)
assert os.pwritev(direct, [buffer], BLOCK) == BLOCK and os.fstat(direct).st_size == 2 * BLOCK
appender = os.open("f", os.O_WRONLY | os.O_APPEND | os.O_DIRECT)
assert os.writev(appender, [buffer]) == BLOCK and os.fstat(cached).st_size == 3 * BLOCK
assert os.pread(cached, 2 * BLOCK, BLOCK) == buffer[:] * 2
PY

# A silent holder has the first bytes: a write there waits, one beside it does not.
if python3 -c 'import os, re; raise SystemExit(tuple(map(int, re.findall(r"[0-9]+", os.uname().release)[:3])) < (6, 18, 10))'; then
    head -c 65536 /dev/zero >g
    hold /g --read --on-recall=ignore --range=0:4096
    dd if=/dev/zero of=g bs=4096 count=1 conv=notrunc oflag=direct status=none &
    waits=$!
    until_state g recalled
    timeout 30 dd if=/dev/zero of=g bs=4096 seek=8 count=1 conv=notrunc oflag=direct status=none ||
        fail "a direct writer waits for another, which waits for a lease"
    kill -0 $waits || fail "the write under the lease did not wait"
    expect recalled "$(lease_states g)"
    end_holder
    wait $waits
else
    echo "not looked at on Linux $(uname -r): direct writers wait for each other"
fi
cd /
unmount_fs
