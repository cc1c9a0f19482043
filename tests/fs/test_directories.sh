#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Reading large directories while they change: what stays is seen once.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

python3 - <<'PY'
import os
os.mkdir("d")
stay = {f"stay{i:05d}" for i in range(5000)}
for n in sorted(stay):
    open("d/" + n, "w").close()
for i in range(2000):
    open(f"d/go{i:05d}", "w").close()

# Enumerate, removing, adding and renaming others meanwhile.
seen = []
with os.scandir("d") as it:
    for i, e in enumerate(it):
        seen.append(e.name)
        if i < 2000:
            os.unlink(f"d/go{i:05d}")
        if i % 10 == 0:
            open(f"d/come{i:05d}", "w").close()
        if i % 10 == 5:
            os.rename(f"d/come{i - 5:05d}", f"d/came{i:05d}")
assert len(seen) == len(set(seen)), "an entry was seen twice"
assert stay <= set(seen), "an entry was missed"

# rm -r as simple programs do it: one pass.
for n in os.listdir("d"):
    os.unlink("d/" + n)
os.rmdir("d")

# A deep tree, and the same names in many directories.
path = "t"
for i in range(100):
    os.mkdir(path)
    open(path + "/same", "w").write(str(i))
    path += "/t"
assert open("t/t/t/same").read() == "2"
PY
# find reads with attributes (readdirplus); ls -f without.
expect 200 "$(find t | wc -l)"
expect 100 "$(find t -type f -size -2 | wc -l)"
find t -type f -printf '%i\n' | sort | uniq -d | grep . && fail "two files with one inode number"
rm -r t
expect 2 "$(stat -c %h .)"

# A removed directory that somebody is in is empty, and takes no new entries.
mkdir gone
(
    cd gone
    rmdir ../gone
    expect "" "$(ls)"
    refused touch x
)
cd /
unmount_fs
