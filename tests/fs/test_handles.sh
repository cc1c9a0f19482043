#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: security
# File handles, as NFS servers keep them (name_to_handle_at): each names its file for as long as that lives, whatever the
# kernel has forgotten, and then nothing, never another file; nor after a restart.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to open by handle"
cat >"$dir/handles.py" <<'PY'
import ctypes, errno, os, pickle, random, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]

def handle_of(path):
    h, mount = Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(h), ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), path)
    return h.type, bytes(h.handle[:h.bytes])

def open_handle(handle, flags=os.O_RDONLY):
    kind, value = handle
    h = Handle(bytes=len(value), type=kind, handle=(ctypes.c_ubyte * 128)(*value))
    mount = os.open(".", os.O_RDONLY)
    fd = libc.open_by_handle_at(mount, ctypes.byref(h), flags)
    error = ctypes.get_errno()
    os.close(mount)
    if fd < 0:
        raise OSError(error, "open_by_handle_at")
    return fd

def gone(handle):
    try:
        fd = open_handle(handle, os.O_PATH)
    except OSError as e:
        assert e.errno == errno.ESTALE, e
        return
    raise AssertionError(f"a stale handle opens {os.readlink(f'/proc/self/fd/{fd}')}")

def forget():
    """Linux drops the names of a mount that is not in use at a remount, and with them the inodes."""
    subprocess.run(["mount", "-i", "-o", "remount,rw", sys.argv[3]], check=True)

def make():
    os.makedirs("d/e/f")
    for i in range(50):
        with open(f"d/file{i}", "w") as f:
            f.write(f"contents {i}")
    os.symlink("target", "d/e/link")
    os.mkfifo("d/e/fifo")
    paths = ["d", "d/e", "d/e/f", "d/e/link", "d/e/fifo"] + [f"d/file{i}" for i in range(50)]
    return {p: (handle_of(p), os.lstat(p).st_ino) for p in paths}

def live():
    known = make()
    for again in range(3):
        forget()
        for path, (handle, ino) in random.sample(sorted(known.items()), len(known)):
            if path.startswith("d/file"):
                fd = open_handle(handle)
                assert os.read(fd, 100).decode() == "contents " + path[6:], path
            else:
                fd = open_handle(handle, os.O_PATH)
            assert os.fstat(fd).st_ino == ino, path
            os.close(fd)
    # The kernel looks for ".." of a directory that it knows by its number only.
    forget()
    fd = open_handle(known["d/e/f"][0])
    assert os.stat("..", dir_fd=fd).st_ino == known["d/e"][1]
    assert sorted(os.listdir(open_handle(known["d/e"][0]))) == ["f", "fifo", "link"]
    os.close(fd)
    # Another name, another directory: the same file.
    os.rename("d/file0", "d/e/f/other")
    forget()
    assert os.read(open_handle(known["d/file0"][0]), 100) == b"contents 0"
    # Removed: gone for good, also when others are made. Removed and open: there until closed.
    fd = os.open("d/file1", os.O_RDONLY)
    for i in range(1, 20):
        os.unlink(f"d/file{i}")
    os.unlink("d/e/link")
    for i in range(100):
        open(f"d/new{i}", "w").close()
    forget()
    for i in range(2, 20):
        gone(known[f"d/file{i}"][0])
    gone(known["d/e/link"][0])
    assert os.read(fd, 100) == b"contents 1"
    os.close(fd)
    forget()
    gone(known["d/file1"][0])
    # What nobody has handed out: every number, another generation, garbage.
    kind, value = known["d/file30"][0]
    for bit in range(len(value) * 8):
        other = bytearray(value)
        other[bit // 8] ^= 1 << bit % 8
        try:
            fd = open_handle((kind, bytes(other)), os.O_PATH)
        except OSError as e:
            assert e.errno == errno.ESTALE, (bit, e)
        else:
            assert os.fstat(fd).st_ino != known["d/file30"][1], bit
            os.close(fd)
    pickle.dump(known, open(sys.argv[2], "wb"))

def restarted():
    """The same files with the same inode numbers in another daemon's life."""
    known = pickle.load(open(sys.argv[2], "rb"))
    now = make()
    assert {p: ino for p, (_, ino) in known.items()} == {p: ino for p, (_, ino) in now.items()}
    for path, (handle, _) in known.items():
        assert handle != now[path][0], path
        gone(handle)
    forget()
    for handle, _ in known.values():
        gone(handle)

{"live": live, "restarted": restarted}[sys.argv[1]]()
PY

mount_fs pool=16M,debug
(cd "$mnt" && python3 "$dir/handles.py" live "$dir/known" "$mnt")
grep -q FORGET "$log" || fail "the kernel has forgotten nothing"
unmount_fs
mount_fs pool=16M
(cd "$mnt" && python3 "$dir/handles.py" restarted "$dir/known" "$mnt")
unmount_fs
