#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What was deleted is free when the call that deleted it returns, as on other filesystems: the next file may need it.
. "$(dirname "$0")/lib.sh"
mount_fs pool=32M
cd "$mnt"
python3 - <<'PY'
import os
LARGE = 30 << 20
free = os.statvfs(".").f_bfree

def large(name, flags=os.O_CREAT | os.O_EXCL):
    """Takes nearly all there is, and returns a handle."""
    fd = os.open(name, os.O_RDWR | flags, 0o600)
    os.posix_fallocate(fd, 0, LARGE)
    return fd

def close_and_unlink(n):
    os.close(large("file"))
    os.unlink("file")

def unlink_and_close(n):
    fd = large("file")
    os.unlink("file")
    os.close(fd)

def never_a_name(n):
    os.close(large(".", os.O_TMPFILE))

def rename_over(n):
    os.close(large("file"))
    os.close(os.open("other", os.O_CREAT | os.O_WRONLY, 0o600))
    os.rename("other", "file")
    os.unlink("file")

def truncate(n):
    fd = large("file")
    os.ftruncate(fd, 0)
    os.close(fd)
    os.unlink("file")

def write(n):
    """A write that begins in what is free takes what comes, too."""
    with open("file", "xb", buffering=0) as f:
        f.truncate(LARGE)
        assert f.write(bytes(4 << 20)) == 4 << 20
    os.unlink("file")

def seen(n):
    os.close(large("file"))
    os.unlink("file")
    # A close(2) is told later than it returns; nothing is asked of that here but that it comes.
    for _ in range(100000):
        if os.statvfs(".").f_bfree == free:
            return
    raise AssertionError("the space does not come back")

ways = [close_and_unlink, unlink_and_close, never_a_name, rename_over, truncate, write, seen]
for n in range(600):
    way = ways[n % len(ways)]
    try:
        way(n)
    except OSError as e:
        raise AssertionError(f"round {n}, {way.__name__}, behind {ways[(n - 1) % len(ways)].__name__}: {e}")

# Nobody waits for what does not come.
fds = [large("file"), os.open("other", os.O_CREAT | os.O_RDWR, 0o600)]
os.unlink("file")
try:
    os.posix_fallocate(fds[1], 0, LARGE)
    raise AssertionError("there is no space, as somebody has the file open")
except OSError as e:
    assert e.errno == 28, e
PY
cd /
unmount_fs
