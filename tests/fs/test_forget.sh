#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every way to an inode counts one look-up, and the kernel gives each back: when all names are gone and the kernel has
# forgotten, nothing is left but the root. (df -i tells how many there are; one lost count keeps an inode for good.)
. "$(dirname "$0")/lib.sh"
mount_fs pool=16M
cd "$mnt"
free=$(stat -f -c %d .)
# Linux drops the names of a mount that is not in use at a remount, and with them the inodes.
forget() { [ "$(id -u)" != 0 ] || mount -i -o remount,rw "$mnt"; }

round()
{
    python3 - <<'PY'
import concurrent.futures as futures, ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def work(k):
    top = f"t{k}"
    os.mkdir(top)
    for i in range(40):
        name = f"{top}/{i}"
        with open(name, "w") as f:                                 # CREATE
            f.write("x")
        os.link(name, name + "l")                                  # LINK
        os.symlink("x", name + "s")                                # SYMLINK
        os.mkfifo(name + "f")                                      # MKNOD
        os.mkdir(name + "d")                                       # MKDIR
        os.rename(name + "l", name + "m")
        os.replace(name + "m", name + "n")
        libc.renameat2(-100, name.encode(), -100, (name + "s").encode(), 2)
        fd = os.open(top, os.O_TMPFILE | os.O_RDWR, 0o600)         # TMPFILE
        if i % 2:
            libc.linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, (name + "t").encode(), 0x400)
        os.close(fd)
        for other in "no", f"{top}/no", name + "d/.", name + "d/..":
            os.path.lexists(other)                                 # LOOKUP
    for entry in os.scandir(top):                                  # READDIRPLUS
        entry.stat(follow_symlinks=False)
    for _ in range(3):
        os.listdir(top)
    # Some are open while their last name goes.
    held = [os.open(f"{top}/{i}n", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) for i in range(0, 40, 7)]
    for path, dirs, files in os.walk(top, topdown=False):
        for f in files + [d for d in dirs if os.path.islink(f"{path}/{d}")]:
            os.unlink(f"{path}/{f}")
        if path != top:
            os.rmdir(path)
    for fd in held:
        os.fstat(fd)
        os.close(fd)
    os.rmdir(top)
with futures.ProcessPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
PY
}

for _ in 1 2; do
    round
    for ((i = 0; i < 200; i++)); do
        [ "$(stat -f -c %d .)" != "$free" ] || break
        forget # negative entries keep a removed directory
        sleep 0.05
    done
    expect "$free" "$(stat -f -c %d .)" "free inodes: a look-up was counted that the kernel does not know of, or forgotten"
done
cd /
unmount_fs
