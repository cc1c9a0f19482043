#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Times, modes, owners, extended attributes.
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"

python3 - <<'PY'
import os, time
def times(p):
    s = os.stat(p, follow_symlinks=False)
    return s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns
def changed(what, path, action):
    """Exactly the times in `what` (of a, m, c) grow."""
    time.sleep(0.005)
    before = times(path)
    action()
    after = times(path)
    got = "".join(l for l, b, a in zip("amc", before, after) if a > b)
    assert got == what, (path, what, got)

open("f", "w").write("0123456789")
fd = os.open("f", os.O_RDWR)
changed("mc", "f", lambda: os.pwrite(fd, b"x", 0))
changed("mc", "f", lambda: os.ftruncate(fd, 5))
changed("mc", "f", lambda: os.posix_fallocate(fd, 0, 100))
changed("c", "f", lambda: os.chmod("f", 0o600))
changed("c", "f", lambda: os.link("f", "g"))
changed("c", "f", lambda: os.unlink("g"))
changed("c", "f", lambda: os.rename("f", "h") or os.rename("h", "f"))
changed("c", "f", lambda: os.setxattr("f", "user.x", b"1"))
changed("a", "f", lambda: os.pread(fd, 3, 0))
os.mkdir("d")
changed("mc", "d", lambda: open("d/x", "w").close())
changed("mc", "d", lambda: os.rename("d/x", "d/y"))
changed("mc", "d", lambda: os.unlink("d/y"))
changed("a", "d", lambda: os.listdir("d"))  # relatime: once after each change
changed("", "d", lambda: os.listdir("d"))

# Nanoseconds, the past, the far future.
for ns in (1, 999999999, 1234567890123456789, -1_500_000_000, 5_000_000_000 * 10**9):
    os.utime("f", ns=(ns, ns + 1))
    s = os.stat("f")
    assert (s.st_atime_ns, s.st_mtime_ns) == (ns, ns + 1), (ns, s)

# Extended attributes.
os.setxattr("f", "user.a", b"\0binary\xff")
assert os.getxattr("f", "user.a") == b"\0binary\xff"
os.setxattr("f", "user.a", b"", os.XATTR_REPLACE)
assert os.getxattr("f", "user.a") == b""
for flags, name in ((os.XATTR_CREATE, "user.a"), (os.XATTR_REPLACE, "user.none")):
    try:
        os.setxattr("f", name, b"", flags); assert False
    except OSError as e:
        assert e.strerror in ("File exists", "No data available"), e
assert sorted(os.listxattr("f")) == ["user.a", "user.x"]
os.setxattr("f", "user.big", b"v" * 65536)
assert os.getxattr("f", "user.big") == b"v" * 65536
os.removexattr("f", "user.big")
assert sorted(os.listxattr("f")) == ["user.a", "user.x"]

# The filesystem's own: read only, not listed.
assert os.getxattr("f", "user.leasefs.leases") == b"[]"
assert os.getxattr("d", "user.leasefs.path") == b"/d"
assert os.getxattr(".", "user.leasefs.path") == b"/"
os.makedirs("d/e/e")
open("d/e/e/g", "w").close()
assert os.getxattr("d/e/e/g", "user.leasefs.path") == b"/d/e/e/g"
try:
    os.setxattr("f", "user.leasefs.path", b"/x"); assert False
except PermissionError:
    pass
PY
expect "$control" "$(getfattr --only-values -n user.leasefs.control .)"
getfattr -d f | grep -q leasefs && fail "the computed attributes are listed"
expect "----" "$(lsattr f | cut -c 1-4)"

# cp -a takes them along.
cp -a f f2
expect "$(getfattr -d f | tail -n +2)" "$(getfattr -d f2 | tail -n +2)"
expect "$(stat -c '%a %Y %U' f)" "$(stat -c '%a %Y %U' f2)"

if [ "$(id -u)" = 0 ]; then
    # set-user-id goes when somebody else changes the bytes or the owner.
    chmod 4755 f
    chown 1000 f
    expect 755 "$(stat -c %a f)"
    # Directories with set-group-id hand their group down.
    mkdir s
    chgrp 1234 s
    chmod 2775 s
    touch s/x
    mkdir s/y
    expect "1234 1234 2755" "$(stat -c %g s/x) $(stat -c '%g %a' s/y)"
    setfattr -n trusted.t -v 1 f
    setfattr -n security.s -v 1 f
    expect 1 "$(getfattr --only-values -n trusted.t f)"
fi
cd /
unmount_fs
