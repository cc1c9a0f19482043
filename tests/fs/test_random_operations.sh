#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: model
# Random operations on three files against a model in memory: writes, buffered, direct and mapped; truncates, holes,
# copies between the files. LEASEFS_TEST_SEED repeats a run, LEASEFS_TEST_STEPS makes it longer.
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M
cd "$mnt"
python3 - <<'PY'
import ctypes, mmap, os, random
seed = int(os.environ.get("LEASEFS_TEST_SEED", random.randrange(1 << 30)))
steps = int(os.environ.get("LEASEFS_TEST_STEPS", 3000))
print("seed", seed, "steps", steps)
rnd = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
LIMIT = 300_000
names = ["a", "b", "c"]
fds = [os.open(n, os.O_RDWR | os.O_CREAT) for n in names]
direct = [os.open(n, os.O_RDWR | os.O_DIRECT) for n in names]
models = [bytearray() for _ in names]
buffer = mmap.mmap(-1, 1 << 19)

def grow(m, size):
    if len(m) < size:
        m.extend(bytes(size - len(m)))
def at(limit=LIMIT):
    x = rnd.randrange(limit)
    return x & ~4095 if rnd.random() < 0.3 else x
def fallocate(i, mode, offset, length):
    r = libc.fallocate(fds[i], mode, ctypes.c_long(offset), ctypes.c_long(length))
    assert r == 0, (mode, offset, length, os.strerror(ctypes.get_errno()))

def write(i):
    o, n = at(), rnd.randint(1, 40000)
    data = rnd.randbytes(n)
    assert os.pwrite(fds[i], data, o) == n
    grow(models[i], o + n)
    models[i][o:o + n] = data
def write_direct(i):
    o, n = at() & ~4095, rnd.randint(1, 8) * 4096
    data = rnd.randbytes(n)
    buffer[:n] = data
    assert os.pwritev(direct[i], [memoryview(buffer)[:n]], o) == n
    grow(models[i], o + n)
    models[i][o:o + n] = data
def write_mapped(i):
    m = models[i]
    if not m:
        return
    o = rnd.randrange(len(m))
    n = min(rnd.randint(1, 20000), len(m) - o)
    data = rnd.randbytes(n)
    mm = mmap.mmap(fds[i], len(m))
    mm[o:o + n] = data
    if rnd.random() < 0.5:
        mm.flush()
    mm.close()
    m[o:o + n] = data
def truncate(i):
    n = at()
    os.ftruncate(fds[i], n)
    del models[i][n:]
    grow(models[i], n)
def punch(i):
    o, n = at(), rnd.randint(1, 60000)
    fallocate(i, 3, o, n)
    end = min(o + n, len(models[i]))
    if o < end:
        models[i][o:end] = bytes(end - o)
def zero(i):
    keep = rnd.random() < 0.5
    o, n = at(), rnd.randint(1, 60000)
    fallocate(i, 16 | (1 if keep else 0), o, n)
    if not keep:
        grow(models[i], o + n)
    end = min(o + n, len(models[i]))
    if o < end:
        models[i][o:end] = bytes(end - o)
def allocate(i):
    keep = rnd.random() < 0.5
    o, n = at(), rnd.randint(1, 60000)
    fallocate(i, 1 if keep else 0, o, n)
    if not keep:
        grow(models[i], o + n)
def copy(i):
    j = rnd.randrange(3)
    o, p, n = at(), at(), rnd.randint(1, 100000)
    if rnd.random() < 0.5:
        o &= ~4095
        p &= ~4095
    if o >= len(models[j]):
        return
    n = min(n, len(models[j]) - o)
    if i == j and o < p + n and p < o + n:
        return
    done = os.copy_file_range(fds[j], fds[i], n, o, p)
    assert done == n, (done, n)
    data = bytes(models[j][o:o + n])
    grow(models[i], p + n)
    models[i][p:p + n] = data
def replace(i):
    """Copies a whole file over, as cp does."""
    j = (i + 1) % 3
    os.ftruncate(fds[i], 0)
    os.lseek(fds[i], 0, 0); os.lseek(fds[j], 0, 0)
    while os.copy_file_range(fds[j], fds[i], 1 << 40):
        pass
    models[i][:] = models[j]
def check(i):
    m = models[i]
    assert os.fstat(fds[i]).st_size == len(m), (os.fstat(fds[i]).st_size, len(m))
    o = at()
    n = rnd.randint(1, 100000)
    assert os.pread(fds[i], n, o) == bytes(m[o:o + n]), (i, o, n)
def check_direct(i):
    os.fsync(fds[i])
    o = at() & ~4095
    n = os.preadv(direct[i], [memoryview(buffer)[:65536]], o)
    assert buffer[:n] == bytes(models[i][o:o + 65536]), (i, o)
def check_holes(i):
    """No byte that is not zero lies in a hole."""
    size, pos = len(models[i]), 0
    os.fsync(fds[i])
    while pos < size:
        try:
            data = os.lseek(fds[i], pos, os.SEEK_DATA)
        except OSError:
            data = size
        assert not any(models[i][pos:data]), (i, pos, data)
        if data >= size:
            break
        pos = os.lseek(fds[i], data, os.SEEK_HOLE)

ops = [(write, 6), (write_direct, 2), (write_mapped, 2), (truncate, 2), (punch, 2), (zero, 2), (allocate, 1), (copy, 4),
       (replace, 1), (check, 6), (check_direct, 2), (check_holes, 1)]
for step in range(steps):
    op = rnd.choices([o for o, _ in ops], [w for _, w in ops])[0]
    i = rnd.randrange(3)
    try:
        op(i)
    except BaseException:
        print(f"step {step}: {op.__name__} of {names[i]}, seed {seed}")
        raise
for i in range(3):
    assert os.pread(fds[i], LIMIT * 2, 0) == bytes(models[i]), names[i]
PY
cd /
unmount_fs
