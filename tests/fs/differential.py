# SPDX-License-Identifier: BSD-2-Clause
"""Random operations on two directories side by side: differential.py DIRECTORY REFERENCE KIND SEED SEQUENCES LENGTH

KIND is the reference's filesystem: zeroing, collapsing and inserting ranges is left out where that is tmpfs, which does
not know it. In one of four sequences there is chattr, too: Linux does not know of flags that a FUSE filesystem keeps, so
of two reasons to refuse something it may name another there, and only whether it is refused is compared.

Every operation has to have the same result or errno on both, and both trees have to look the same in the end. A sequence
that shows a difference is shortened as far as it still does, and printed as commands (commands.py) with both results.
"""
import os, random, stat, sys
from commands import Commands, in_child, name_of, remove

NAMES = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/a", "d/.", "d/..", "a/", "none/x"]
HANDLES = ["f", "g", "h"]


class Sequence:
    def __init__(self, rnd, kind):
        self.rnd, self.kind = rnd, kind
        # One kind of flag: what else may be changed of an immutable file's flags, ext4 and tmpfs do not agree on.
        self.flag = rnd.choice("ia......")
        self.values = 0

    def name(self): return self.rnd.choice(NAMES)
    def fd(self): return "$" + self.rnd.choice(HANDLES)
    def mode(self): return self.rnd.choice("644 600 755 700 777 0 4755 2755 2775 2744 6666 1777 666 444".split())
    def size(self): return self.rnd.choice([0, 1, 100, 4095, 4096, 4097, 8192, 20000, self.rnd.randrange(50000)])
    def data(self): return self.rnd.choice("xyzuvw") * self.rnd.choice([1, 10, 4096, 5000])
    def user(self): return self.rnd.choice(["", "", "", "as 1001 ", "as 1002 "])
    def time(self): return self.rnd.choice(["omit", "now", str(10**18 + 1), "999999999000000007"])

    def acl(self):
        mode = lambda: self.rnd.randrange(8)
        named = [f"u:1001:{mode()}"] * self.rnd.randrange(2) + ["g::%d" % mode()] + [f"g:1002:{mode()}"] * self.rnd.randrange(2)
        mask = [f"m::{mode()}"] if len(named) > 1 and self.rnd.randrange(20) else [f"m::{mode()}"] * self.rnd.randrange(2)
        return ",".join([f"u::{mode()}"] + named + mask + [f"o::{mode()}"])

    def zero(self):
        return self.step() if self.kind == "tmpfs" else \
            f"fallocate {self.fd()} {self.rnd.choice(['ZERO', 'ZERO+KEEP'])} {self.size()} {self.size()}"

    def shift(self):
        place = lambda: self.rnd.choice([0, 4096, 4096, 8192, 16384, 40960, self.size()])
        return self.step() if self.kind == "tmpfs" else \
            f"fallocate {self.fd()} {self.rnd.choice(['COLLAPSE', 'INSERT', 'INSERT'])} {place()} {place()}"

    def chattr(self):
        return f"chattr {self.name()} {self.rnd.choice('+-')}{self.flag}" if self.flag != "." else self.step()

    def access(self):
        """Whether it may write, Linux does not ask a FUSE filesystem: it does not know that something is immutable."""
        choose = self.rnd.choice
        return f"{self.user()}access {self.name()} " + \
            choose(["R_OK", "X_OK"] + (["W_OK", "R_OK+W_OK"] if self.flag == "." else []))

    def lchown(self):
        """Of an immutable directory ext4 refuses one that changes nothing; tmpfs does not."""
        choose = self.rnd.choice
        uid = choose([-1, 0, 1001])
        return f"lchown {self.name()} {uid} {choose([0, 1001] if uid == -1 and self.flag != '.' else [-1, 0, 1001])}"

    def timed(self):
        path = self.rnd.choice(["a", "b", "c", "d", "d/a", "d/b", "d/e"])
        # To the size that it has: tmpfs changes no time then.
        truncate = f"truncate {path} {self.size()}" if self.kind != "tmpfs" else f"ls {path}"
        self.values += 1 # to the value that it has: ext4 changes no time then
        return f"times {path} " + self.rnd.choice([
            f"chmod {path} {self.mode()}", f"chown {path} -1 0", truncate, f"put {path} {self.data()}",
            f"ls {path}", f"unlink {path}", f"link {path} d/new", f"rename {path} d/b", f"create d/{self.rnd.choice('abe')}",
            f"rmdir {self.name()}", f"setxattr {path} trusted.a v{self.values}", f"pwrite {self.fd()} 0 {self.data()}",
            f"poke {self.fd()} 0 x", f"fallocate {self.fd()} KEEP 0 {self.size()}", f"fallocate {self.fd()} PUNCH+KEEP 0 4096",
            f"copy {self.fd()} 0 {self.fd()} 0 {self.size()}", f"setacl {path} access {self.acl()}"])

    def step(self):
        choice = self.rnd.choice
        kinds = [
            lambda: f"{self.user()}create {self.name()} {self.mode()}",
            lambda: f"{self.user()}mkdir {self.name()} {self.mode()}",
            lambda: f"mkdir {choice(['d', 'd/e', 'l'])} 777",
            lambda: f"{self.user()}mkfifo {self.name()}",
            lambda: f"bind {self.name()}",
            lambda: f"{self.user()}mknod {self.name()} {choice('cbsf')} {choice([0, 1, 7])} {choice([0, 3, 300])}",
            lambda: f"{self.user()}symlink {choice(NAMES + ['../c'])} {self.name()}",
            lambda: f"{self.user()}link {self.name()} {self.name()}",
            lambda: f"linkfd {self.fd()} {self.name()}",
            lambda: f"{self.user()}unlink {self.name()}",
            lambda: f"{self.user()}rmdir {self.name()}",
            lambda: f"{self.user()}rename {self.name()} {self.name()}",
            lambda: f"rename2 {self.name()} {self.name()} "
                    + choice(['NOREPLACE', 'EXCHANGE', 'NOREPLACE+EXCHANGE', 'WHITEOUT', 'WHITEOUT+NOREPLACE']),
            lambda: f"{choice(HANDLES)} = open {self.name()} "
                    + choice(["O_RDWR", "O_RDWR+O_CREAT", "O_RDONLY", "O_RDWR+O_CREAT+O_EXCL", "O_WRONLY+O_APPEND",
                              "O_RDWR+O_TRUNC", "O_RDONLY+O_DIRECTORY", "O_RDWR+O_NOFOLLOW+O_CREAT"])
                    + "+O_NONBLOCK " + self.mode(),
            lambda: f"{choice(HANDLES)} = tmpfile {choice(['.', 'd', 'd/e', 'a'])}",
            lambda: f"close {self.fd()}",
            lambda: f"{self.user()}put {choice(['a', 'b', 'c', 'd/a', 'd/b'])} {self.data()}",
            lambda: f"pwrite {self.fd()} {self.size()} {self.data()}",
            lambda: f"write {self.fd()} {self.data()}",
            lambda: f"pread {self.fd()} {self.size()} {self.size()}",
            lambda: f"read {self.fd()} {self.size()}",
            lambda: f"{self.user()}truncate {self.name()} {self.size()}",
            lambda: f"ftruncate {self.fd()} {self.size()}",
            lambda: f"fallocate {self.fd()} {choice(['none', 'KEEP', 'PUNCH+KEEP'])} {self.size()} {self.size()}",
            self.zero,
            self.shift,
            lambda: f"holes {self.fd()}",
            lambda: f"{self.user()}setacl {self.name()} {choice(['access', 'default'])} {self.acl()}",
            lambda: f"setacl {choice(['.', 'd', 'd/e'])} default {self.acl()}",
            lambda: f"{self.user()}getacl {self.name()} {choice(['access', 'default'])}",
            lambda: f"{self.user()}removeacl {self.name()} {choice(['access', 'default'])}",
            lambda: f"{self.user()}utimens {self.name()} {self.time()} {self.time()}",
            self.chattr,
            self.timed,
            lambda: f"{choice(['as 1001 ', 'as 1002 '])}pwrite {self.fd()} {self.size()} {self.data()}",
            lambda: f"copy {self.fd()} {self.size()} {self.fd()} {self.size()} {self.size()}",
            lambda: f"seek {self.fd()} {self.size()} {choice(['SET', 'CUR', 'END'])}",
            lambda: f"poke {self.fd()} {self.size()} {choice(['hello', 'x'])}",
            lambda: f"{self.user()}chmod {self.name()} {self.mode()}",
            lambda: f"fchmod {self.fd()} {self.mode()}",
            lambda: f"{self.user()}chown {self.name()} {choice([0, 1001])} {choice([-1, 0, 1001, 1002])}",
            self.lchown,
            lambda: f"utimes {self.name()} {choice([1, 10**18])} {choice([7, 10**18 + 1])}",
            lambda: f"setxattr {self.name()} trusted.{choice('ab')} {choice('vw')} {choice(['0', 'CREATE', 'REPLACE'])}",
            lambda: f"removexattr {self.name()} trusted.{choice('ab')}",
            lambda: f"getxattr {self.name()} trusted.{choice('ab')}",
            self.access,
            lambda: f"readlink {self.name()}",
            lambda: f"{self.user()}ls {self.name()}",
            lambda: f"{self.user()}lstat {self.name()} kind mode uid gid nlink",
            lambda: f"fstat {self.fd()} kind mode uid gid nlink size",
            lambda: f"umask {choice(['022', '077', '0', '027'])}",
        ]
        return choice(kinds)()


def tree():
    """All that shows of the files below here, but times set by the clock, sizes of directories, and inode numbers."""
    lines = []
    for top, dirs, files in os.walk("."):
        for name in sorted(dirs + files + ["."]):
            path = os.path.join(top, name)
            st = os.lstat(path)
            line = f"{path} {st.st_mode:o} {st.st_uid}:{st.st_gid} {st.st_nlink}"
            if st.st_mtime_ns % 10**18 in (1, 7) and st.st_size:  # truncate(2) may leave it when the size stays 0
                line += f" {st.st_mtime_ns}"
            line += "".join(f" {n}={os.getxattr(path, n, follow_symlinks=False)}"
                            for n in sorted(os.listxattr(path, follow_symlinks=False)) if n.startswith(("trusted.", "system.")))
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    data = f.read()
                line += f" {st.st_size} {hash_of(data)}"
                assert len(data) == st.st_size, path
            if stat.S_ISLNK(st.st_mode):
                line += " -> " + os.readlink(path)
            lines.append(line)
    return sorted(lines)


def hash_of(data):
    import zlib
    return f"{zlib.crc32(data):08x}"


def run(directory, steps):
    def all_of_them():
        commands, results = Commands(), []
        flags = any(step.startswith("chattr") for step in steps)
        for step in steps:
            try:
                result = commands.evaluate(step)
                results.append(result if len(result) < 60 else f"{len(result)} {hash_of(result.encode())}")
            except OSError as e:
                results.append("refused" if flags else name_of(e))
            except (KeyError, ValueError) as e:
                results.append(type(e).__name__)  # a handle that is not open
        return "\n".join(results + tree())
    place = os.path.join(directory, "differential")
    inside = os.path.join(place, "inside")  # a link may lead out by one
    os.makedirs(inside)
    os.chmod(inside, 0o777)
    answer = in_child(inside, all_of_them)
    remove(place)
    return answer.split("\n")


def differs(places, steps):
    return run(places[0], steps) != run(places[1], steps)


def shorten(places, steps):
    size = len(steps) // 2
    while size:
        at = 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + size:]
            if differs(places, shorter):
                steps = shorter
            else:
                at += size
        size //= 2
    return steps


def show(places, steps):
    ours, theirs = run(places[0], steps), run(places[1], steps)
    for i in range(max(len(ours), len(theirs))):
        what = steps[i] if i < len(steps) else "(tree)"
        a, b = (r[i] if i < len(r) else "" for r in (ours, theirs))
        print(f"{'  ' if a == b else '* '}{what[:100]}\n        {a}" + ("" if a == b else f"\n        {b}"))


def main():
    places, kind, (seed, sequences, length) = sys.argv[1:3], sys.argv[3], map(int, sys.argv[4:7])
    print("seed", seed)
    for i in range(sequences):
        make = Sequence(random.Random(seed + i), kind)
        steps = ["mkdir d 777"] + [make.step() for _ in range(length)]
        if differs(places, steps):
            print(f"sequence {i} (seed {seed + i}) differs; ours above, the reference below:")
            show(places, shorten(places, steps))
            sys.exit(1)
    print(f"{sequences} sequences of {length} operations: no difference")


main()
