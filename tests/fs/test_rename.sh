#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Renaming: over things, across directories, not into itself.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

echo one >a
echo two >b
mv -n a b
expect two "$(cat b)" "mv -n does not replace"
mv a b
expect one "$(cat b)"
refused cat a

# The replaced file lives on for those who have it open.
echo three >c
exec 7<c
mv b c
expect three "$(cat <&7)"
expect one "$(cat c)"
exec 7<&-

# Directories: the parents' link counts and ".." follow.
mkdir -p from/d to
touch from/d/x
mv from/d to/
expect "2 3" "$(stat -c %h from to | xargs)"
expect "$(stat -c %i to)" "$(stat -c %i to/d/..)"
refused mv to to/d/
mkdir from/d
refused_with 'not empty' mv -T from/d to/d
rm to/d/x
mv -T from/d to/d
refused ls from/d
refused mv -T c to/d
refused mv -T to/d c

# Two names of one file: nothing happens.
ln c c2
python3 -c 'import os; os.rename("c", "c2")'
expect "2 2" "$(stat -c %h c c2 | xargs)"

# Exchange, and refusing to replace, in one step.
python3 - <<'PY'
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags) != 0:
        return ctypes.get_errno()
    return 0
os.mkdir("dir"); open("dir/in", "w").close()
open("file", "w").write("f")
assert renameat2("file", "dir", 2) == 0
assert open("dir").read() == "f" and os.listdir("file") == ["in"]
assert renameat2("dir", "file", 1) == errno.EEXIST
assert renameat2("dir", "new", 1) == 0
assert renameat2("new", "missing", 2) == errno.ENOENT
os.mkdir("file/sub")
assert renameat2("file", "file/sub", 2) == errno.EINVAL
# Exchange a file and a directory across directories: link counts.
os.mkdir("p"); os.mkdir("p/q"); os.mkdir("r"); open("r/s", "w").close()
assert renameat2("p/q", "r/s", 2) == 0
assert os.stat("p").st_nlink == 2 and os.stat("r").st_nlink == 3
PY

# A long way round: many renames, and every name is found.
for i in $(seq 200); do echo "$i" >"n$i"; done
for i in $(seq 200); do mv "n$i" "to/m$i"; done
expect 200 "$(find to -name 'm*' | wc -l)"
expect 117 "$(cat to/m117)"
cd /
unmount_fs
