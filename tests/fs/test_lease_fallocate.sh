#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: security
# The modes of fallocate that Linux does not pass on, by the ioctl of <leasefs/ioctl.h>: bytes, space, whom it waits for, and
# who may not.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=16M,recall_timeout=400ms,allow_other,suid
cat >"$dir/modes.py" <<'PY'
import errno, fcntl, mmap, os, struct
COLLAPSE, INSERT, UNSHARE, KEEP = 8, 32, 64, 1
B = 4096

def ioctl(fd, mode, offset, length, reserved=0):
    fcntl.ioctl(fd, 1 << 30 | 24 << 16 | ord("l") << 8 | 0xe2, struct.pack("=iIQQ", mode, reserved, offset, length))

def refused(error, function, *arguments):
    try:
        function(*arguments)
    except OSError as got:
        assert got.errno == error, (got, errno.errorcode[error], arguments)
        return
    raise AssertionError(f"{arguments} should have been refused: {errno.errorcode[error]}")
PY
export PYTHONPATH=$dir
cd "$mnt"

python3 - <<'PY'
from modes import *
fd = os.open("f", os.O_RDWR | os.O_CREAT)
blocks = [bytes([97 + i]) * B for i in range(6)]
os.write(fd, b"".join(blocks)[:-100])
reader = os.open("f", os.O_RDONLY)
mapping = mmap.mmap(fd, 2 * B)
assert mapping[:1] == b"a"

def is_now(expected):
    assert os.pread(reader, 1 << 20, 0) == expected, "read"
    assert os.fstat(fd).st_size == len(expected) == os.stat("f").st_size
    assert open("f", "rb").read() == expected
    assert mapping[:2 * B] == expected[:2 * B], "mapping"

ioctl(fd, COLLAPSE, B, 2 * B)
is_now((blocks[0] + blocks[3] + blocks[4] + blocks[5])[:-100])
ioctl(fd, INSERT, B, 3 * B)
is_now((blocks[0] + bytes(3 * B) + blocks[3] + blocks[4] + blocks[5])[:-100])
assert os.fstat(fd).st_blocks == 4 * 8, "a hole takes no blocks"
assert os.lseek(fd, 0, os.SEEK_HOLE) == B and os.lseek(fd, B, os.SEEK_DATA) == 4 * B

# The page that a program has written to, and Linux has not.
mapping[10:15] = b"fresh"
os.fsync(fd)
ioctl(fd, COLLAPSE, B, 3 * B)
is_now((b"a" * 10 + b"fresh" + b"a" * (B - 15) + blocks[3] + blocks[4] + blocks[5])[:-100])

# After the caller has asked for the size, everybody's O_APPEND goes by the new one.
appender = os.open("f", os.O_WRONLY | os.O_APPEND)
ioctl(fd, COLLAPSE, 0, B)
size = os.fstat(fd).st_size
os.write(appender, b"end")
assert os.fstat(fd).st_size == size + 3 and os.pread(fd, 10, size) == b"end"

# Rules.
size = os.fstat(fd).st_size
last = size // B * B
for bad in ((COLLAPSE, 1, B), (COLLAPSE, 0, 1), (COLLAPSE, 0, 0), (COLLAPSE, last, B), (COLLAPSE, 0, last + B), (COLLAPSE, B, 1 << 40),
            (INSERT, 1, B), (INSERT, 0, B + 1), (INSERT, 0, 0), (INSERT, last + B, B), (UNSHARE, 0, 0),
            (COLLAPSE, 1 << 63, B), (COLLAPSE, 0, 1 << 63), (INSERT, (1 << 64) - B, B), (COLLAPSE, 0, B, 1)):
    refused(errno.EINVAL, ioctl, fd, *bad)
refused(errno.EFBIG, ioctl, fd, INSERT, 0, (1 << 63) - B)
refused(errno.EFBIG, ioctl, fd, UNSHARE, B, (1 << 63) - B)
for other in (0, KEEP, 2 | KEEP, 16, COLLAPSE | KEEP, INSERT | KEEP, COLLAPSE | INSERT, UNSHARE | COLLAPSE, 128, -1):
    refused(errno.EOPNOTSUPP, ioctl, fd, other, 0, B)
assert os.fstat(fd).st_size == size

# The last block but one can go, and a range of one block be put in before the last byte.
exact = os.open("exact", os.O_RDWR | os.O_CREAT)
os.write(exact, b"x" * (2 * B))
refused(errno.EINVAL, ioctl, exact, COLLAPSE, B, B)
refused(errno.EINVAL, ioctl, exact, INSERT, 2 * B, B)
ioctl(exact, COLLAPSE, 0, B)
assert os.fstat(exact).st_size == B
# Blocks behind the end of file move, too.
libc = __import__("ctypes").CDLL(None)
assert libc.fallocate(exact, KEEP, __import__("ctypes").c_long(0), __import__("ctypes").c_long(4 * B)) == 0
ioctl(exact, INSERT, 0, B)
assert os.fstat(exact).st_size == 2 * B and os.fstat(exact).st_blocks == 4 * 8

# Unshare: then writing takes no block.
source = os.open("source", os.O_RDWR | os.O_CREAT)
os.write(source, b"s" * (8 * B))
copy = os.open("copy", os.O_RDWR | os.O_CREAT)
free = lambda: os.statvfs(".").f_bfree
before = free()
assert os.copy_file_range(source, copy, 8 * B, 0, 0) == 8 * B
assert free() == before
ioctl(copy, UNSHARE, 0, 4 * B)
assert free() == before - 4
ioctl(copy, UNSHARE, 0, 4 * B)
os.pwrite(copy, b"c" * (4 * B), 0)
assert free() == before - 4
assert os.pread(source, 8 * B, 0) == b"s" * (8 * B)
assert os.pread(copy, 8 * B, 0) == b"c" * (4 * B) + b"s" * (4 * B)
ioctl(copy, UNSHARE | KEEP, 8 * B, 2 * B)
assert os.fstat(copy).st_size == 8 * B and free() == before - 6
ioctl(copy, UNSHARE, 0, 12 * B)
assert os.fstat(copy).st_size == 12 * B and free() == before - 12
refused(errno.ENOSPC, ioctl, copy, UNSHARE, 0, 1 << 30)
assert os.fstat(copy).st_size == 12 * B and free() == before - 12

# Who may not, and what cannot.
refused(errno.EBADF, ioctl, os.open("f", os.O_RDONLY), COLLAPSE, 0, B)
refused(errno.EBADF, ioctl, os.open(".", os.O_RDONLY), COLLAPSE, 0, B)
gone = os.open("gone", os.O_RDWR | os.O_CREAT)
os.write(gone, b"g" * (2 * B))
os.unlink("gone")
ioctl(gone, COLLAPSE, 0, B)
assert os.fstat(gone).st_size == B
before = os.fstat(fd)
ioctl(fd, INSERT, 0, B)
after = os.fstat(fd)
assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns
if os.getuid() == 0:
    os.chmod("f", 0o6777)
    ioctl(fd, COLLAPSE, 0, B)
    assert os.stat("f").st_mode & 0o6000 == 0o6000, "root keeps set-user-id"
    if os.fork() == 0:
        os.setgid(12345), os.setuid(12345)
        ioctl(fd, INSERT, 0, B)
        os._exit(0)
    assert os.wait()[1] == 0
    assert os.stat("f").st_mode & 0o6000 == 0, "others do not"
PY
if [ "$(id -u)" = 0 ]; then
    for flag in a i; do
        head -c 8192 /dev/zero >"flag$flag"
        exec 5<>"flag$flag"
        chattr "+$flag" "flag$flag"
        python3 -c '
from modes import *
for mode in (COLLAPSE, INSERT, UNSHARE):
    refused(errno.EPERM, ioctl, 5, mode, 0, B)'
        exec 5>&-
        chattr "-$flag" "flag$flag"
    done
fi

# Leases: what moves waits for the holder, up to the deadline; what lies before the range does not.
random_file leased 65536
cp leased "$dir/leased"
hold /leased --read --range=0:8192 --prepare --on-recall=ignore
"$LEASECTL" fallocate --collapse --range=8192:4096 leased >"$dir/said"
"$LEASECTL" fallocate --insert --range=8192:4096 leased >"$dir/said"
"$LEASECTL" fallocate --unshare --range=8192:4096 leased >"$dir/said"
expect active "$(lease_states leased)"
refused_with 'whole blocks' "$LEASECTL" fallocate --collapse --range=0:65536 leased
expect active "$(lease_states leased)"
takes 350 20000 "$LEASECTL" fallocate --collapse --range=4096:4096 leased >"$dir/said"
end_holder
{ head -c 4096 "$dir/leased"; head -c 4096 /dev/zero; tail -c +12289 "$dir/leased"; } >"$dir/wanted"
cmp leased "$dir/wanted"
# A holder that gives back.
hold /leased --write --prepare
takes 0 20000 "$LEASECTL" fallocate --insert --range=0:4K leased >"$dir/said"
[ "$(stat -c %s leased)" = 65536 ]
cmp <(tail -c +4097 leased) "$dir/wanted"
end_holder
setfattr -n user.leasefs.policy -v busy leased
hold /leased --write --prepare
status=0
"$LEASECTL" fallocate --insert --range=0:4K leased 2>"$dir/said" || status=$?
expect 4 $status
end_holder

# The command.
expect "leased: 61440 bytes" "$("$LEASECTL" fallocate --collapse --range=0:4K leased)"
expect 65536 "$("$LEASECTL" --json fallocate -I -r 4K:4K leased | python3 -c 'import json, sys; print(json.load(sys.stdin)["size"])')"
"$LEASECTL" fallocate --unshare leased >"$dir/said"
refused_with 'No such file' "$LEASECTL" fallocate --unshare nothing
refused_with 'not on a mounted leasefs' "$LEASECTL" fallocate --unshare "$dir/wanted"
cd /
unmount_fs

mount_fs pool=16M,writeback,device=none
head -c 16384 /dev/zero >"$mnt/f"
refused_with 'writeback' "$LEASECTL" fallocate --collapse --range=0:4K "$mnt/f"
expect 16384 "$(stat -c %s "$mnt/f")"
# Nor do clones change sizes there.
cat >"$dir/clone.py" <<'PY'
import errno, fcntl, os, struct, sys
from modes import refused
def clone(source, destination):
    token = bytes(fcntl.ioctl(source, 2 << 30 | 24 << 16 | ord("l") << 8 | 0xe0, bytes(24)))
    fcntl.ioctl(destination, 1 << 30 | 48 << 16 | ord("l") << 8 | 0xe1, token + struct.pack("=QQQ", 0, 0, 0))
os.chdir(sys.argv[1])
f, g = os.open("f", os.O_RDWR), os.open("g", os.O_RDWR | os.O_CREAT)
refused(errno.EOPNOTSUPP, clone, f, g)
os.pwrite(g, b"g" * 20000, 0)
os.fsync(g)
clone(f, g)
assert os.pread(g, 30000, 0) == bytes(16384) + b"g" * 3616
PY
python3 "$dir/clone.py" "$mnt"
refused_with 'not supported' "$LEASECTL" clone "$mnt/f" "$mnt/g"
"$LEASECTL" clone "$mnt/f" "$mnt/new" >"$dir/said"
cmp "$mnt/f" "$mnt/new"
truncate -s 16384 "$mnt/g"
"$LEASECTL" clone "$mnt/f" "$mnt/g" >"$dir/said"
cmp "$mnt/f" "$mnt/g"
unmount_fs
