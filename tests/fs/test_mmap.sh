#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Shared mappings, locks, and programs that use them.
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M
cd "$mnt"

python3 - <<'PY'
import fcntl, mmap, os, time
fd = os.open("m", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 100000)
m = mmap.mmap(fd, 100000)
before = os.fstat(fd).st_mtime_ns
time.sleep(0.02) # the clock of times moves on
m[50000:50005] = b"hello"
m.flush()
os.close(os.open("m", os.O_RDONLY)) # attributes may be a second old for who has no new handle
assert os.fstat(fd).st_mtime_ns > before, "a store in a mapping leaves the time of modification"
assert os.pread(fd, 5, 50000) == b"hello"
# Past the cache it is there too.
d = os.open("m", os.O_RDONLY | os.O_DIRECT)
buf = mmap.mmap(-1, 8192)
os.preadv(d, [buf], 49152)
assert buf[848:853] == b"hello"
os.pwrite(fd, b"world", 50000)
assert m[50000:50005] == b"world"
# fcntl and flock locks: the kernel keeps them.
fcntl.lockf(fd, fcntl.LOCK_EX)
pid = os.fork()
if pid == 0:
    fd2 = os.open("m", os.O_RDWR)
    try:
        fcntl.lockf(fd2, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os._exit(1)
    except OSError:
        os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
PY
# A database: locks, mappings, fsync, truncate, rename of journals.
python3 - <<'PY'
import sqlite3
for mode in ("delete", "wal"):
    db = sqlite3.connect(f"db-{mode}")
    assert db.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode
    db.execute("create table t (a integer primary key, b text)")
    for i in range(50):
        with db:
            db.executemany("insert into t (b) values (?)", [("x" * 500,)] * 20)
    assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert db.execute("select count(*) from t").fetchone()[0] == 1000
    db.close()
PY
# Executables.
cp "$(type -P true)" run
./run
cd /
unmount_fs
