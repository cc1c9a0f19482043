# SPDX-License-Identifier: BSD-2-Clause
"""What test_nfs_export.sh does through an NFS client: nfs_client.py SERVER CLIENT work|handles|keep

SERVER is the mount that is exported, CLIENT where it is mounted by NFS.
"""
import errno, faulthandler, fcntl, hashlib, os, stat, subprocess, sys
faulthandler.dump_traceback_later(150, exit=True)
server, client = sys.argv[1:3]

def forget():
    """All that the server's kernel keeps of the mount: handles have to be looked up by their numbers again."""
    subprocess.run(["exportfs", "-f"], check=True)
    # By mount(2): to the newer calls FUSE says that options cannot change.
    subprocess.run(["mount", "-i", "-o", "remount,rw", server], check=True, env=os.environ | {"LIBMOUNT_FORCE_MOUNT2": "always"})
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")

def tree(top):
    lines = []
    for path, dirs, files in os.walk(top):
        dirs[:] = sorted(set(dirs) - {"long"})
        for name in sorted(dirs + files):
            full = os.path.join(path, name)
            st = os.lstat(full)
            what = os.readlink(full) if os.path.islink(full) else \
                hashlib.sha256(open(full, "rb").read()).hexdigest() if stat.S_ISREG(st.st_mode) and st.st_size else ""
            lines.append((os.path.relpath(full, top), oct(st.st_mode), st.st_nlink, st.st_ino, what))
    return lines

def work():
    os.chdir(client)
    os.makedirs("d/e/f")
    for i in range(200):
        with open(f"d/{i}", "w") as f:
            f.write(f"contents {i}")
    for i in range(0, 200, 2):
        os.rename(f"d/{i}", f"d/e/{i}")
    for i in range(0, 200, 4):
        os.unlink(f"d/e/{i}")
    os.replace("d/1", "d/3")
    os.link("d/5", "d/e/hard")
    os.symlink("5", "d/soft")
    os.mkfifo("d/fifo")
    os.chmod("d/5", 0o640)
    with open("big", "wb") as f:
        for i in range(64):
            f.write(bytes([i]) * 100003)
    with open("big", "r+b") as f:
        f.seek(3000000)
        f.write(b"middle" * 1000)
        f.truncate(6000001)
        os.fsync(f.fileno())
        os.posix_fallocate(f.fileno(), 6500000, 4096)
    with open("big", "ab") as f:
        f.write(b"end")
    with open("big", "rb") as source, open("copy", "wb") as copy:
        left = os.path.getsize("big")
        while left:
            n = os.copy_file_range(source.fileno(), copy.fileno(), left)
            assert n > 0
            left -= n
    with open("sparse", "wb") as f:
        f.truncate(1 << 40)
        os.pwrite(f.fileno(), b"x", 1 << 39)
    with open("sparse", "rb") as f:
        assert os.lseek(f.fileno(), 0, os.SEEK_DATA) == 1 << 39
    os.unlink("sparse")
    with open("locked", "w") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
    for wrong, call in ((errno.EEXIST, lambda: os.mkdir("d")), (errno.ENOTEMPTY, lambda: os.rmdir("d")),
                        (errno.ENOENT, lambda: os.unlink("none")), (errno.ENAMETOOLONG, lambda: os.mkdir("n" * 256)),
                        (errno.ENOTDIR, lambda: os.mkdir("d/5/x")), (errno.EINVAL, lambda: os.rename("d", "d/e/inside"))):
        try:
            call()
        except OSError as e:
            assert e.errno == wrong, (e, errno.errorcode[wrong])
        else:
            raise AssertionError(errno.errorcode[wrong])
    os.mkdir("n" * 255)
    # A long directory, listed while entries come and go: what stays is there once.
    os.mkdir("long")
    for i in range(1200):
        os.close(os.open(f"{server}/long/{i}", os.O_WRONLY | os.O_CREAT))
    names = []
    for n, entry in enumerate(os.scandir("long")):
        names.append(entry.name)
        if n % 10 == 0 and n < 800:
            os.unlink(f"{server}/long/{1199 - n // 10}")
            os.close(os.open(f"{server}/long/new{n}", os.O_WRONLY | os.O_CREAT))
    assert len(names) == len(set(names)), "doubled"
    assert {str(i) for i in range(1120)} <= set(names), "dropped"
    assert sorted(os.listdir("long")) == sorted(os.listdir(f"{server}/long"))
    assert tree(client) == tree(server)
    assert os.statvfs(client).f_files == os.statvfs(server).f_files

def handles():
    os.chdir(client)
    os.makedirs("h/sub/deep")
    for i in range(20):
        with open(f"h/sub/{i}", "w") as f:
            f.write(f"handle {i}")
    directory, deep = os.open("h/sub", os.O_RDONLY), os.open("h/sub/deep", os.O_RDONLY)
    file = os.open("h/sub/1", os.O_RDONLY)
    for again in range(3):
        os.rename(f"{server}/h/sub", f"{server}/h/moved{again}")
        os.rename(f"{server}/h/moved{again}", f"{server}/moved{again}")
        forget()
        assert len(os.listdir(directory)) == 21
        assert os.stat("..", dir_fd=deep).st_ino == os.fstat(directory).st_ino
        fd = os.open("2", os.O_RDWR, dir_fd=directory)
        assert os.read(fd, 100) == b"handle 2"
        os.close(fd)
        assert os.pread(file, 100, 0) == b"handle 1"
        os.close(os.open(f"made{again}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory))
        assert os.path.exists(f"{server}/moved{again}/made{again}")
        os.unlink(f"made{again}", dir_fd=directory)
        os.rename(f"{server}/moved{again}", f"{server}/h/sub")
    # Gone, and others of the same name there.
    subprocess.run(["rm", "-r", f"{server}/h"], check=True)
    forget()
    os.makedirs(f"{server}/h/sub/deep")
    forget()
    for fd in directory, deep:
        try:
            names = os.listdir(fd)
        except OSError as e:
            assert e.errno == errno.ESTALE, e
        else: # the server had it open (a delegation): then it is empty
            assert names == [], names
        try:
            os.open("in", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        except OSError as e:
            assert e.errno in (errno.ESTALE, errno.ENOENT), e
        else:
            raise AssertionError("something is made in a directory that is gone")
    assert os.listdir("h/sub") == ["deep"]

def keep():
    """Holds handles of one daemon's life, and looks at them when the next serves the same names and numbers."""
    os.chdir(client)
    os.mkdir("kept")
    open("kept/file", "w").close()
    fd, ino = os.open("kept", os.O_RDONLY), os.stat(f"{server}/kept").st_ino
    os.chdir("/")
    print("ready", flush=True)
    sys.stdin.readline()
    assert os.stat(f"{server}/kept").st_ino == ino, "the test wants the same number again"
    try:
        names = os.listdir(fd)
    except OSError as e:
        assert e.errno == errno.ESTALE, e
    else:
        raise AssertionError(f"the old handle lists {names}")

{"work": work, "handles": handles, "keep": keep}[sys.argv[3]]()
