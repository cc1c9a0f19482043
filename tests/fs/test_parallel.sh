#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Many at once: writers to one file and to many, name changes in shared directories, readers of what is written.
. "$(dirname "$0")/lib.sh"
mount_fs pool=128M
cd "$mnt"
free=$(free_blocks)

# Writers of one file, each its own part, with reads and clones meanwhile.
python3 - <<'PY'
import hashlib, os, random, threading
N, PART = 6, 1 << 20
fd = os.open("shared", os.O_RDWR | os.O_CREAT)
errors = []
def guarded(f, *args):
    try:
        f(*args)
    except Exception as e:
        errors.append(e)
def writer(i):
    rnd = random.Random(i)
    want = bytearray(PART)
    for _ in range(150):
        n = rnd.randint(1, 20000)
        at = rnd.randint(0, PART - n)
        data = rnd.randbytes(n)
        want[at:at + n] = data
        assert os.pwrite(fd, data, i * PART + at) == n
        if rnd.random() < 0.2:
            got = os.pread(fd, n, i * PART + at)
            assert got == data, (i, at, n)
        if rnd.random() < 0.1:
            h = rnd.randint(0, PART // 4096 - 8) * 4096
            os.posix_fallocate(fd, i * PART + h, 32768)
    assert os.pread(fd, PART, i * PART).ljust(PART, b"\0") == bytes(want), i
def cloner():
    for k in range(30):
        out = os.open(f"clone{k % 3}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.copy_file_range(fd, out, N * PART, 0, 0)
        os.close(out)
threads = [threading.Thread(target=guarded, args=(writer, i)) for i in range(N)]
threads += [threading.Thread(target=guarded, args=(cloner,)) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not errors, errors
PY
rm -f shared clone*

# Name changes: every process works in the same three directories.
mkdir a b c
shuffle()
{
    local i from to dirs=(a b c)
    set +e # half of this fails, depending on the others
    for ((i = 0; i < 120; i++)); do
        from=${dirs[RANDOM % 3]} to=${dirs[RANDOM % 3]}
        case $((RANDOM % 8)) in
        0) mkdir "$from/d$((RANDOM % 4))" ;;
        1) mv -T "$from/d$((RANDOM % 4))" "$to/d$((RANDOM % 4))/in" ;;
        2) rmdir "$from/d$((RANDOM % 4))/in" "$from/d$((RANDOM % 4))" ;;
        3) echo "$i" >"$from/f$((RANDOM % 8))" ;;
        4) mv -T "$from/f$((RANDOM % 8))" "$to/f$((RANDOM % 8))" ;;
        5) ln "$from/f$((RANDOM % 8))" "$to/f$((RANDOM % 8))" ;;
        6) rm "$from/f$((RANDOM % 8))" ;;
        7) find . >/dev/null ;;
        esac 2>/dev/null
    done
    return 0
}
for _ in 1 2 3 4 5 6; do shuffle & workers+=($!); done
wait "${workers[@]}"
# What is found can be looked up, and counts are right.
find . -type f -exec cat {} + >/dev/null
find . -type d | while read -r d; do
    expect $((2 + $(find "$d" -mindepth 1 -maxdepth 1 -type d | wc -l))) "$(stat -c %h "$d")" "links of $d"
done
rm -r a b c
expect_free "$free"
cd /
unmount_fs
