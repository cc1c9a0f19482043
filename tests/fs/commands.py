# SPDX-License-Identifier: BSD-2-Clause
"""Short commands for what programs do to files, as conformance.table and differential.py write them: `rename a b`,
`f = open a O_RDWR`, `pwrite $f 0 hello`. A result is what the call returns, or the name of its errno.

`x = COMMAND` keeps a result, $x is it; `as UID COMMAND` runs as that user, without groups but UID; `times PATH COMMAND`
returns which of a, m, c that command moved.
"""
import ctypes, errno, fcntl, mmap, os, shutil, signal, socket, stat, struct, time

names = dict(errno.errorcode) | {errno.EOPNOTSUPP: "EOPNOTSUPP"}
libc = ctypes.CDLL(None, use_errno=True)
long_path = {"NAME255": "n" * 255, "NAME256": "n" * 256, "PATH4096": "p/" * 2047 + "pp"}


def call(name, *args):
    result = getattr(libc, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def flags(names, prefix=""):
    value = 0
    for name in names.split("+"):
        value |= int(name, 0) if name[0].isdigit() else getattr(os, prefix + name)
    return value


def path_of(fd):
    return f"/proc/self/fd/{fd}"


# The modes that Linux does not pass on to FUSE: leasefs_fallocate() of <leasefs/ioctl.h>.
def leasefs_fallocate(fd, mode, offset, length, otherwise):
    os.fsync(fd)
    try:
        fcntl.ioctl(fd, 1 << 30 | 24 << 16 | ord("l") << 8 | 0xe2, struct.pack("=iIQQ", mode, 0, offset, length))
    except OSError as e:
        raise otherwise if e.errno == errno.ENOTTY else e
    os.fstat(fd)


class Commands:
    def __init__(self):
        self.vars = {}

    # ---- files and names
    def create(self, path, mode="644"):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, int(mode, 8)))
    def mkdir(self, path, mode="755"): os.mkdir(path, int(mode, 8))
    def mkfifo(self, path, mode="644"): os.mkfifo(path, int(mode, 8))
    def mknod(self, path, kind, major="0", minor="0"):
        kinds = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "s": stat.S_IFSOCK, "f": stat.S_IFREG, "d": stat.S_IFDIR}
        os.mknod(path, kinds[kind] | 0o644, os.makedev(int(major), int(minor)))
    def bind(self, path):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
    def symlink(self, target, path): os.symlink(target, path)
    def link(self, old, new): os.link(old, new, follow_symlinks=False)
    def linkfd(self, fd, new):
        call("linkat", -100, path_of(fd).encode(), -100, new.encode(), 0x400)
    def unlink(self, path): os.unlink(path)
    def rmdir(self, path): os.rmdir(path)
    def rename(self, old, new): os.rename(old, new)
    def rename2(self, old, new, how):
        call("renameat2", -100, old.encode(), -100, new.encode(),
             sum({"NOREPLACE": 1, "EXCHANGE": 2, "WHITEOUT": 4}[h] for h in how.split("+")))
    def readlink(self, path): return os.readlink(path)
    def ls(self, path="."): return ",".join(sorted(os.listdir(path)))
    def lsfd(self, fd): return ",".join(sorted(os.listdir(int(fd))))
    def chdir(self, path): os.chdir(path)
    def many(self, path, n):
        for i in range(int(n)):
            os.close(os.open(f"{path}/{i}", os.O_CREAT))
    def count(self, path): return len(os.listdir(path))
    # Lists, removes all that it has seen after each batch, goes on: how many it met.
    def drain(self, path):
        met = 0
        with os.scandir(path) as entries:
            for entry in entries:
                os.unlink(entry.path)
                met += 1
        return met

    # ---- open files
    def open(self, path, how="O_RDWR", mode="644"): return os.open(path, flags(how), int(mode, 8))
    def tmpfile(self, path, mode="600", extra="O_RDWR"): return os.open(path, os.O_TMPFILE | flags(extra), int(mode, 8))
    def close(self, fd): os.close(int(fd))
    def write(self, fd, data): return os.write(int(fd), data.encode())
    def pwrite(self, fd, offset, data): return os.pwrite(int(fd), data.encode(), int(offset, 0))
    def read(self, fd, n): return os.read(int(fd), int(n)).decode().replace("\0", ".")
    def pread(self, fd, offset, n): return os.pread(int(fd), int(n), int(offset, 0)).decode().replace("\0", ".")
    def put(self, path, data):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o666), "w") as f:
            f.write(data)
    def get(self, path):
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK)) as f:
            return f.read().replace("\0", ".")
    def seek(self, fd, offset, whence):
        if stat.S_ISDIR(os.fstat(int(fd)).st_mode):
            return "-"  # POSIX leaves it open
        return os.lseek(int(fd), int(offset, 0), {"SET": 0, "CUR": 1, "END": 2, "DATA": 3, "HOLE": 4}[whence])
    def truncate(self, path, size): os.truncate(path, int(size, 0))
    def ftruncate(self, fd, size): os.ftruncate(int(fd), int(size, 0))
    def fallocate(self, fd, mode, offset, length):
        modes = {"none": 0, "KEEP": 1, "PUNCH": 2, "COLLAPSE": 8, "ZERO": 16, "INSERT": 32, "UNSHARE": 64}
        fd, mode, offset, length = int(fd), sum(modes[m] for m in mode.split("+")), int(offset, 0), int(length, 0)
        try:
            call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
        except OSError as e:
            if e.errno != errno.EOPNOTSUPP or offset < 0 or length < 0:
                raise
            leasefs_fallocate(fd, mode, offset, length, e)
    def copy(self, src, src_offset, dst, dst_offset, length):
        return os.copy_file_range(int(src), int(dst), int(length, 0), int(src_offset, 0), int(dst_offset, 0))
    # What SEEK_DATA and SEEK_HOLE say of a file has to be true: holes read as zeroes, they take turns, and the last hole is at the end.
    def holes(self, fd):
        fd, at, size = int(fd), 0, os.fstat(int(fd)).st_size
        def look(at, whence):
            try:
                return os.lseek(fd, at, whence)
            except OSError as e:
                if e.errno != errno.ENXIO:
                    raise
                return size
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "-"
        place = os.lseek(fd, 0, os.SEEK_CUR)
        while at < size:
            data = look(at, os.SEEK_DATA)
            hole = look(data, os.SEEK_HOLE)
            if os.pread(fd, data - at, at).strip(b"\0") or not at <= data <= size or not data <= hole <= size or hole == at:
                return f"data in the hole {at}..{data}, or {hole} out of turn"
            at = hole
        os.lseek(fd, place, os.SEEK_SET)
        return "true"
    def fsync(self, fd): os.fsync(int(fd))
    def poke(self, fd, offset, data):
        with mmap.mmap(int(fd), 0) as m:
            m[int(offset):int(offset) + len(data)] = data.encode()
            m.flush()
    def peek_private(self, fd, data):
        with mmap.mmap(int(fd), 0, mmap.MAP_PRIVATE) as m:
            m[0:len(data)] = data.encode()
    def map(self, fd, prot):
        mmap.mmap(int(fd), 1, mmap.MAP_SHARED, {"r": mmap.PROT_READ, "rw": mmap.PROT_READ | mmap.PROT_WRITE}[prot]).close()

    # ---- attributes
    def chmod(self, path, mode): os.chmod(path, int(mode, 8))
    def fchmod(self, fd, mode): os.fchmod(int(fd), int(mode, 8))
    def chown(self, path, uid, gid): os.chown(path, int(uid), int(gid))
    def lchown(self, path, uid, gid): os.lchown(path, int(uid), int(gid))
    def utimes(self, path, atime, mtime):
        os.utime(path, ns=(int(atime), int(mtime)), follow_symlinks=False)
    def touch(self, path): os.utime(path)
    def utimens(self, path, *times): # "now", "omit" or nanoseconds
        special = {"now": (0, (1 << 30) - 1), "omit": (0, (1 << 30) - 2)}
        spec = struct.pack("4q", *(n for t in times for n in special.get(t) or divmod(int(t), 10**9)))
        call("utimensat", -100, path.encode(), spec, 0x100)
    def access(self, path, how):
        if not os.access(path, flags(how)):
            raise OSError(errno.EACCES, path)
    def stat(self, path, *fields): return self.fields(os.stat(path), fields)
    def lstat(self, path, *fields): return self.fields(os.lstat(path), fields)
    def fstat(self, fd, *fields): return self.fields(os.fstat(int(fd)), fields)
    def fields(self, st, names):
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
                 stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block"}
        get = {"mode": lambda: f"{stat.S_IMODE(st.st_mode):o}", "kind": lambda: kinds[stat.S_IFMT(st.st_mode)],
               "size": lambda: "-" if stat.S_ISDIR(st.st_mode) else st.st_size, "nlink": lambda: st.st_nlink, "uid": lambda: st.st_uid,
               "gid": lambda: st.st_gid, "blocks": lambda: st.st_blocks, "ino": lambda: st.st_ino,
               "rdev": lambda: f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}",
               "atime": lambda: st.st_atime_ns, "mtime": lambda: st.st_mtime_ns}
        return " ".join(str(get[name]()) for name in names)
    def same(self, a, b): return os.path.samestat(os.lstat(a), os.lstat(b))
    def setxattr(self, path, name, value="", how="0"):
        os.setxattr(path, name, value.encode(), flags(how, "XATTR_"), follow_symlinks=False)
    def bigxattr(self, path, name, size): os.setxattr(path, name, b"v" * int(size))
    def getxattr(self, path, name): return os.getxattr(path, name, follow_symlinks=False)
    def removexattr(self, path, name): os.removexattr(path, name)
    def listxattr(self, path): return ",".join(sorted(n for n in os.listxattr(path) if n != "security.selinux"))
    # "u::7,u:1001:4,g::5,m::7,o::0"; kind: access or default
    def setacl(self, path, kind, entries):
        value = struct.pack("<I", 2)
        for entry in entries.split(","):
            who, which, mode = entry.split(":")
            tag = {"u": 1, "g": 4, "m": 16, "o": 32}[who] << (which != "")
            value += struct.pack("<HHI", tag, int(mode), int(which) if which else 0xffffffff)
        os.setxattr(path, "system.posix_acl_" + kind, value)
    def getacl(self, path, kind):
        value = os.getxattr(path, "system.posix_acl_" + kind)
        entries = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
        return ",".join(f"{tag}:{'' if who == 0xffffffff else who}:{mode}" for tag, mode, who in entries)
    def removeacl(self, path, kind):
        # What is no directory has none by default, and Linux does not ask a FUSE filesystem whether it is immutable.
        if kind == "access" or stat.S_ISDIR(os.stat(path).st_mode):
            os.removexattr(path, "system.posix_acl_" + kind)
    def setcap(self, path): # cap_chown=p
        os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000000, 1, 0, 0, 0))
    def chattr(self, path, how):
        bits = {"i": 0x10, "a": 0x20, "d": 0x40, "A": 0x80, "c": 4}
        fd = os.open(path, os.O_RDONLY)
        try:
            value = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, b"\0" * 4))[0]
            bit = sum(bits[b] for b in how[1:])
            fcntl.ioctl(fd, 0x40086602, struct.pack("i", value | bit if how[0] == "+" else value & ~bit))
        finally:
            os.close(fd)
    def lsattr(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            value = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, b"\0" * 4))[0]
            xflags = struct.unpack("I6I", fcntl.ioctl(fd, 0x801c581f, b"\0" * 28))[0]
        finally:
            os.close(fd)
        assert bool(value & 0x10) == bool(xflags & 8) and bool(value & 0x20) == bool(xflags & 16)
        return "".join(c for c, b in (("i", 0x10), ("a", 0x20), ("d", 0x40), ("A", 0x80)) if value & b) or "-"

    # ---- locks
    def flock(self, fd, how):
        fcntl.flock(int(fd), {"sh": fcntl.LOCK_SH, "ex": fcntl.LOCK_EX, "un": fcntl.LOCK_UN}[how] | fcntl.LOCK_NB)
    def lock(self, fd, kind, start, length): self.posix_lock(fcntl.F_SETLK, fd, kind, start, length)
    def oflock(self, fd, kind, start, length): self.posix_lock(37, fd, kind, start, length)
    def posix_lock(self, cmd, fd, kind, start, length):
        kinds = {"r": fcntl.F_RDLCK, "w": fcntl.F_WRLCK, "u": fcntl.F_UNLCK}
        fcntl.fcntl(int(fd), cmd, struct.pack("hhqqi4x", kinds[kind], 0, int(start), int(length), 0))

    # ---- the rest
    def umask(self, mode): os.umask(int(mode, 8))
    def same_process(self): pass
    def sleep(self, seconds): time.sleep(float(seconds))
    def equal(self, a, b): return a == b
    def times(self, path, *command):
        def now():
            st = os.lstat(path)
            return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
        before = now()
        time.sleep(0.02)
        self.run(list(command))
        # mmap() in POSIX: the time of access may move at any time between mmap() and munmap(), or not at all.
        shown = "mc" if command[0] == "poke" else "amc"
        if stat.S_ISFIFO(os.lstat(path).st_mode) and command[0] in ("get", "put", "append"):
            shown = "" # of a pipe in a FUSE filesystem Linux does not keep them (S_NOCMTIME)
        return "".join(l for l, b, a in zip("amc", before, now()) if a > b and l in shown) or "-"
    def child(self, *command): return self.as_user(None, list(command))

    def as_user(self, uid, command):
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            try:
                answer = "v" + text(self.run(command))
            except OSError as e:
                answer = "e%d" % e.errno
            except BaseException as e:  # whatever it is, two of us must not go on
                answer = type(e).__name__
            os.write(w, answer.encode())
            os._exit(0)
        os.close(w)
        with os.fdopen(r) as f:
            answer = f.read()
        os.waitpid(pid, 0)
        if answer[:1] == "e":
            raise OSError(int(answer[1:]), "as user")
        if answer[:1] != "v":
            raise ValueError(answer or "the child died")
        return answer[1:]

    def run(self, words):
        words = [long_path.get(w, w) for w in words]
        if words[0] == "as":
            return self.as_user(int(words[1]), words[2:])
        words = [text(self.vars[w[1:]]) if w[0] == "$" else w for w in words]
        result = getattr(self, words[0])(*words[1:])
        return 0 if result is None else result

    def evaluate(self, command):
        words = command.split()
        if len(words) > 2 and words[1] == "=":
            result = self.vars[words[0]] = self.run(words[2:])
        else:
            result = self.run(words)
        return text(result)


def name_of(error):
    return names.get(error.errno, str(error.errno))


def in_child(directory, function):
    """What function() returns (a text), in a process of its own, so that handles, locks and the umask go with it."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        signal.alarm(60)
        os.chdir(directory)
        os.umask(0o022)
        try:
            answer = function()
        except OSError as e:
            answer = name_of(e)
        except BaseException as e:
            answer = f"{type(e).__name__}: {e}"
        with os.fdopen(w, "w") as f:
            f.write(answer)
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        answer = f.read()
    os.waitpid(pid, 0)
    return answer


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)
    if not os.path.exists(directory):
        return
    for top, dirs, files in os.walk(directory):
        for name in dirs + files + ["."]:
            path = os.path.join(top, name)
            if not os.path.islink(path) and (os.path.isdir(path) or os.path.isfile(path)):
                Commands().chattr(path, "-ia")
    shutil.rmtree(directory)
