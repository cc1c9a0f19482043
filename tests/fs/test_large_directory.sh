#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A directory of many files (LEASEFS_TEST_FILES; a million by night): every one is listed once and found, a file takes less
# than 1 KiB of the daemon's memory, the last thousand take about as long as the first, and the system has the memory back
# when they are gone.
. "$(dirname "$0")/lib.sh"
files=${LEASEFS_TEST_FILES:-20000}
mount_fs "pool=$((files / 250 + 64))M" # a block a file
limit=1024
! sanitized || limit=0
python3 - "$mnt" "$files" "$daemon" "$limit" <<'PY'
import os, sys, time
top, n, pid, limit = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
def resident():
    with open(f"/proc/{pid}/status") as f:
        return int(f.read().split("RssAnon:")[1].split()[0]) * 1024
os.mkdir(f"{top}/d")
d = os.open(f"{top}/d", os.O_RDONLY)
def make(start, end):
    for i in range(start, end):
        os.close(os.open(f"file number {i}", os.O_CREAT | os.O_WRONLY, dir_fd=d))
def timed(function, *args):
    times = []
    for _ in range(3):
        start = time.monotonic()
        function(*args)
        times.append(time.monotonic() - start)
    return min(times)
def stat_some(step):
    for i in range(0, step * 500, step):
        os.stat(f"file number {i}", dir_fd=d)
before = resident()
make(0, 1000)
few = timed(stat_some, 2)
make(1000, n)
each = (resident() - before) / n
many = timed(stat_some, n // 500)
print(f"{n} files, {each:.0f} bytes each; 500 stats among a thousand {few:.4f} s, among all {many:.4f} s")
assert not limit or each < limit, each
assert many < few * 20 + 0.5, (few, many)
names = os.listdir(d)
assert len(names) == len(set(names)) == n, len(names)
for i in range(0, n, 2):
    os.unlink(f"file number {i}", dir_fd=d)
assert sorted(os.listdir(d)) == sorted(f"file number {i}" for i in range(1, n, 2))
for i in range(1, n, 2):
    os.unlink(f"file number {i}", dir_fd=d)
deadline = time.monotonic() + 20 # Linux waits for no answer to FORGET
while limit and (left := (resident() - before) / n) > each / 2:
    assert time.monotonic() < deadline, f"{left:.0f} bytes of each file are left"
    time.sleep(0.01)
PY
unmount_fs
