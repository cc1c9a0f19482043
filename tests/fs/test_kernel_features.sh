#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the kernel offers and libfuse 3.14 does not pass on is there with every libfuse (fused/fuse_wire.h).
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M,debug
cd "$mnt"

# Files without a name, which may get one.
python3 - <<'PY'
import os
root = os.open("/", os.O_PATH)
def link(fd, name):  # linkat(AT_SYMLINK_FOLLOW)
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=root, follow_symlinks=True)
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b"unnamed")
assert os.listdir(".") == [] and os.fstat(fd).st_nlink == 0
link(fd, "named")
assert open("named").read() == "unnamed" and os.stat("named").st_nlink == 1
assert os.stat("named").st_mode & 0o777 == 0o640
os.close(fd)
# With O_EXCL it stays without.
fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
try:
    link(fd, "no")
    raise AssertionError("linked")
except FileNotFoundError:
    pass
PY
kernel_has() { [ "$(printf '%s\n' "$1" "$(uname -r)" | sort -V | head -n 1)" = "$1" ]; }

# The time of birth, which no change of the file moves.
if kernel_has 6.6; then
    : >born # not touch, which sets times once more
    birth=$(stat -c %.W born)
    expect "$(stat -c %.Z born)" "$birth"
    echo more >>born
    touch -d '2001-01-01' born
    expect "$birth" "$(stat -c %.W born)"
fi

# A write need not ask first whether the file has capabilities to lose.
if kernel_has 5.12; then
    echo x >>named # it asks once
    asked=$(grep -c GETXATTR "$log" || true)
    for _ in $(seq 20); do echo x >>named; done
    expect "$asked" "$(grep -c GETXATTR "$log" || true)" "requests for security.capability"
    getfattr -n security.capability named 2>/dev/null || true
    [ "$(grep -c GETXATTR "$log")" -gt "$asked" ] || fail "the log does not show requests"
fi
cd /
unmount_fs
