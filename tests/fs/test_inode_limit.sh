#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The number of files has a limit, exact to the last one: df -i tells how many are left, so many can be made in every way,
# then none, and each that goes gives one back.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
[ "$(id -u)" = 0 ] || skip "needs root, to have the kernel forget"
python3 - "$mnt" <<'PY'
import errno, os, subprocess, sys
top = sys.argv[1]
os.chdir(top)
left = lambda: os.statvfs(".").f_ffree
total = os.statvfs(".").f_files
assert total == left() + 1 == 65536, "the root is one"

def refused(make):
    try:
        make()
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
        return
    raise AssertionError("one too many was made")

def nameless():
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))

makers = [lambda n: os.close(os.open(n, os.O_CREAT | os.O_EXCL | os.O_WRONLY)), os.mkfifo, os.mkdir, lambda n: os.symlink("x", n), os.mknod]
os.mkdir("d")
n = 0
while left() > 3:
    for _ in range(max(1, left() - 3 if n else 20)):
        makers[n % len(makers) if n < 100 else 4](f"d/{n}")
        n += 1
assert n == total - 1 - 1 - 3, n
held = os.open("d/4", os.O_RDONLY)
for i, make in enumerate(makers[:3]):
    assert left() == 3 - i
    make(f"last{i}")
assert left() == 0 and os.statvfs(".").f_favail == 0
for make in makers:
    refused(lambda: make("more"))
    assert not os.path.lexists("more")
refused(nameless)
# What needs none goes on.
os.link("last0", "link")
os.rename("link", "d/link")
with open("last0", "w") as f:
    f.write("still there")
os.unlink("d/link")
assert left() == 0

def comes_back(wanted):
    """Linux forgets a file at its leisure, and at a remount what nobody uses."""
    for _ in range(100):
        if left() == wanted:
            return
        subprocess.run(["mount", "-i", "-o", "remount,rw", top], check=True)
    raise AssertionError(f"{left()} left, not {wanted}")

# Removed and open is not gone.
os.unlink("d/4")
os.unlink("d/9")
comes_back(1)
os.close(held)
comes_back(2)
os.mkdir("again")
nameless()
comes_back(1)
os.symlink("x", "again/link")
comes_back(0)
refused(lambda: os.mkdir("more"))
PY
unmount_fs
