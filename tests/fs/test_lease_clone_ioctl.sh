#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Clones between open files, <leasefs/ioctl.h>: who may, what is shared, and what those get who may not.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=400ms,allow_other
cd "$mnt"
random_file a $((8 << 20))
sum=$(sum a)
free=$(free_blocks)

cat >"$dir/clone.py" <<'PY'
import errno, fcntl, mmap, os, struct
IOR, IOW, TYPE = 2 << 30, 1 << 30, ord("l") << 8
TOKEN, RANGE = IOR | 24 << 16 | TYPE | 0xe0, IOW | 48 << 16 | TYPE | 0xe1

def token(source):
    return bytes(fcntl.ioctl(source, TOKEN, bytes(24)))

def clone(source, destination, start=0, length=0, to=0):
    give(token(source), destination, start, length, to)

def give(bearer, destination, start=0, length=0, to=0):
    fcntl.ioctl(destination, RANGE, bearer + struct.pack("=QQQ", start, length, to))

def refused(error, function, *arguments):
    try:
        function(*arguments)
    except OSError as got:
        assert got.errno == error, (got, errno.errorcode[error])
        return
    raise AssertionError(f"{function.__name__} should have been refused: {errno.errorcode[error]}")
PY
export PYTHONPATH=$dir

python3 - <<'PY'
from clone import *
a, b = os.open("a", os.O_RDWR), os.open("b", os.O_RDWR | os.O_CREAT)
clone(a, b)
assert os.path.getsize("b") == 8 << 20

# A destination that is longer stays so; what Linux had cached of it is gone; ranges.
open("c", "wb").write(b"c" * (9 << 20))
c = os.open("c", os.O_RDWR)
cached, mapping = os.pread(c, 9 << 20, 0), mmap.mmap(c, 9 << 20)
assert cached == mapping[:]
clone(a, c)
assert os.pread(c, 9 << 20, 0) == os.pread(a, 8 << 20, 0) + b"c" * (1 << 20) == mapping[:]
clone(a, c, 4096, 8192, 1 << 20)
assert os.pread(c, 8192, 1 << 20) == os.pread(a, 8192, 4096)
clone(a, a, 0, 4096, 4096)
assert os.pread(a, 4096, 4096) == os.pread(a, 4096, 0)
for bad in ((1,), (0, 1), (0, 0, 1), (0, 9 << 20), (16 << 20,), (0, 8192, 4096)):
    refused(errno.EINVAL, clone, a, a if len(bad) == 3 else c, *bad)

# What a program wrote to its mapping, and Linux has not written back: fsync first, as leasefs_clone() does.
mapped = mmap.mmap(a, 4096)
mapped[:5] = b"fresh"
os.fsync(a)
clone(a, b)
assert os.pread(b, 5, 0) == b"fresh"
PY
[ "$(free_blocks)" -ge $((free - 300)) ] || fail "clones take blocks: $free, now $(free_blocks)"
cmp a b
[ "$(sum b)" != "$sum" ] || fail "the clone is an old one"

# Attackers, and mistakes.
chmod 666 b
chmod 600 a
head -c 4096 /dev/zero >p
chmod 666 p
ln -s a link
mkfifo fifo
python3 - <<'PY'
from clone import *
a, b = os.open("a", os.O_RDONLY), os.open("b", os.O_RDWR)
good = token(a)
give(good, b)
refused(errno.ESTALE, give, good, b)  # once
for word in range(3):
    spoilt = bytearray(token(a))
    spoilt[word * 8] ^= 1
    refused(errno.ESTALE, give, bytes(spoilt), b)
for garbage in (bytes(24), b"\xff" * 24, os.urandom(24)):
    refused(errno.ESTALE, give, garbage, b)
refused(errno.EBADF, token, os.open("b", os.O_WRONLY))
refused(errno.EBADF, token, os.open("a", os.O_PATH))
refused(errno.EBADF, clone, a, os.open("b", os.O_RDONLY))
refused(errno.EBADF, clone, a, os.open("b", os.O_WRONLY | os.O_APPEND))
refused(errno.EISDIR, token, os.open(".", os.O_RDONLY))
refused(errno.ENOTTY, token, os.open("fifo", os.O_RDWR))  # a pipe of Linux, not ours
refused(errno.ENOTTY, token, os.open("/proc/self/exe", os.O_RDONLY))
# A file that is gone meanwhile.
gone = os.open("gone", os.O_RDWR | os.O_CREAT)
orphan = token(gone)
os.unlink("gone")
give(orphan, b)  # still open
orphan = token(gone)
os.close(gone)
try:
    give(orphan, b)  # Linux may tell it later
except OSError as error:
    assert error.errno == errno.ESTALE, error
# Others: their own tokens are pushed out by their own, never mine.
mine = token(a)
if os.getuid() == 0:
    child = os.fork()
    if child == 0:
        try:
            os.setgid(12345)
            os.setuid(12345)
            refused(errno.EACCES, os.open, "a", os.O_RDONLY)
            p, b = os.open("p", os.O_RDONLY), os.open("b", os.O_RDWR)
            first = token(p)
            many = [token(p) for _ in range(200)]
            refused(errno.ESTALE, give, first, b)
            give(many[-1], b)
            os._exit(0)
        except BaseException as failure:
            print(failure, flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
give(mine, b)
PY

# Under a lease on the destination: waits for its holder, who is silent, up to the deadline.
head -c 100000 /dev/zero >d
hold /d --write --prepare --on-recall=ignore
takes 350 20000 python3 -c 'from clone import *; clone(os.open("a", os.O_RDONLY), os.open("d", os.O_RDWR))'
cmp a d
end_holder
# The socket's clone writes back what is in mappings of the source, too.
python3 - <<PY
from clone import *
import subprocess
e = os.open("e", os.O_RDWR | os.O_CREAT)
os.ftruncate(e, 8192)
mapped = mmap.mmap(e, 8192)
mapped[4096:4101] = b"dirty"
subprocess.run(["$LEASECTL", "clone", "e", "f"], check=True, stdout=subprocess.DEVNULL)
assert open("f", "rb").read()[4096:4101] == b"dirty"
PY
cd /
unmount_fs
