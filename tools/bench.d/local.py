#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures leasefs, tmpfs and libfuse's own passthrough examples side by side; writes the samples as JSON."""

import argparse
import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from samples import Samples, output_of, rotated, say

MIB = 1 << 20
# files: of one metadata workload, shared by its threads. sizes: of directories. settle_ms: until the kernel has
# forgotten names that a filesystem lets it remember for the usual second. minutes: of the whole, see Clock.
Extent = collections.namedtuple("Extent", "passes runtime data cached pool files sizes settle_ms minutes")
FULL = Extent(5, "600ms", 384 * MIB, 96 * MIB, "4608M", 6000, (1000, 10000, 100000, 1000000), 1200, 12)
QUICK = Extent(1, "50ms", 8 * MIB, 4 * MIB, "128M", 200, (50, 500), 10, 12)
OPERATIONS = ("create", "stat", "open_close", "readdir_stat", "rename", "unlink")
PARTS = {"data": 0.35, "names": 0.7, "directories": 1}  # by when each is to be over


class Clock:
    """Every part is measured once, whatever it takes; again only as long as its share of the time lasts."""

    def __init__(self, minutes):
        self.started, self.seconds = time.monotonic(), minutes * 60

    def left(self, part):
        return self.started + PARTS[part] * self.seconds - time.monotonic()

    def passes(self, part, most):
        """0, 1, ...: ends where another pass, as long as the longest until now, would not fit."""
        longest = 0
        for turn in range(most):
            began = time.monotonic()
            if turn and longest > self.left(part):
                say(f"{part}: no time for more than {turn} of {most} passes")
                return
            say(f"{part}: pass {turn + 1} of {most}")
            yield turn
            longest = max(longest, time.monotonic() - began)


class Mount:
    """One filesystem under test, and its daemon if it has one."""

    def __init__(self, name, directory, command=None, mountpoint=None, environment=None):
        self.name, self.directory, self.mountpoint, self.daemon = name, directory, mountpoint, None
        if command:
            os.makedirs(mountpoint)
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                           env=environment)
            self.await_mount()
        os.makedirs(directory, exist_ok=True)

    def await_mount(self):
        deadline = time.monotonic() + 60
        while not os.path.ismount(self.mountpoint):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not mount: {' '.join(self.daemon.args)}")
            time.sleep(0.02)

    def anonymous_memory(self):
        """Bytes of the daemon's own memory, without its pool."""
        with open(f"/proc/{self.daemon.pid}/status", encoding="ascii") as file:
            return int(re.search(r"RssAnon:\s+(\d+)", file.read())[1]) * 1024

    def end(self):
        if self.daemon:
            subprocess.run(["fusermount3", "-u", "-z", self.mountpoint], check=False)
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.send_signal(signal.SIGKILL)
                self.daemon.wait()


def offers_io_uring():
    """Does Linux offer it to FUSE servers? leasefs uses it then."""
    try:
        with open("/sys/module/fuse/parameters/enable_uring", encoding="ascii") as file:
            return file.read().strip() == "Y"
    except FileNotFoundError:
        return False


def mount_all(stack, options, extent, scratch):
    """tmpfs first, then the FUSE filesystems; the examples serve a directory of that same tmpfs."""
    mounts = []

    def add(*arguments):
        mounts.append(Mount(*arguments))
        stack.callback(mounts[-1].end)

    add("tmpfs", f"{scratch}/tmpfs")
    at = f"{scratch}/mnt.passthrough_ll"
    os.makedirs(f"{scratch}/ll")
    add("passthrough_ll", f"{at}/work", [f"{options.peers}/passthrough_ll", "-f", "-o", f"source={scratch}/ll", at], at)
    at = f"{scratch}/mnt.passthrough_fh"  # shows all of /
    add("passthrough_fh", f"{at}{scratch}/fh", [f"{options.peers}/passthrough_fh", "-f", at], at)
    at = f"{scratch}/mnt.leasefs"
    words = f"pool={extent.pool},control={scratch}/control,device=none"
    add("leasefs", f"{at}/work", [options.leasefs, "-f", "-o", words, at], at)
    if offers_io_uring():  # then also as where it does not
        at = f"{scratch}/mnt.leasefs_read"
        pool = extent.data + extent.cached + 128 * MIB  # no large directories
        words = f"pool={pool >> 20}M,control={scratch}/control.read,device=none,io_uring=off"
        add("leasefs_read", f"{at}/work", [options.leasefs, "-f", "-o", words, at], at)
    return mounts


# --- data ---

STREAM, RANDOM = ["--bs=1M", "--direct=1"], ["--bs=4k", "--direct=1"]
DATA = {  # metric: options of fio
    "stream.read": ["--rw=read", *STREAM],
    "stream.write": ["--rw=write", *STREAM],
    "random.read.1": ["--rw=randread", *RANDOM],
    "random.read.4": ["--rw=randread", *RANDOM, "--numjobs=4"],
    "random.write.1": ["--rw=randwrite", *RANDOM],
    "random.write.4": ["--rw=randwrite", *RANDOM, "--numjobs=4"],
    "cached.read": ["--rw=randread", "--bs=4k", "--invalidate=0", "--fadvise_hint=0", "--norandommap"],
}


def fill(path, size):
    block = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(size // MIB):
            file.write(block)


def touch_all(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def takes_direct(path):
    """tmpfs does since Linux 6.6."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
        return True
    except OSError:
        return False


def run_fio(mount, metric, extent):
    """MB/s for streams, operations a second else."""
    cached = metric == "cached.read"
    path = f"{mount.directory}/{'cached' if cached else 'data'}"
    words = DATA[metric]
    if cached:
        touch_all(path)
    elif not takes_direct(path):
        words = [word for word in words if word != "--direct=1"]
    told = json.loads(output_of(["fio", "--name=job", f"--filename={path}", "--ioengine=psync", "--time_based",
                                 f"--runtime={extent.runtime}", f"--size={extent.cached if cached else extent.data}",
                                 "--group_reporting", "--output-format=json", "--overwrite=1", "--end_fsync=0",
                                 *words]))
    job = told["jobs"][0]["read" if "read" in metric else "write"]
    return (job["bw_bytes"] / 1e6, "MB/s") if metric.startswith("stream") else (job["iops"], "ops/s")


def measure_data(samples, mounts, extent, clock):
    metrics = [metric for metric in DATA if samples.wanted(metric)]
    for mount in mounts if metrics else ():
        fill(f"{mount.directory}/data", extent.data)
        fill(f"{mount.directory}/cached", extent.cached)
    for turn in clock.passes("data", extent.passes if metrics else 0):
        for metric in metrics:
            for mount in rotated(mounts, turn):
                figure, unit = run_fio(mount, metric, extent)
                samples.add(metric, mount.name, unit, figure)
            samples.save()
    for mount in mounts if metrics else ():
        os.unlink(f"{mount.directory}/data")
        os.unlink(f"{mount.directory}/cached")


# --- names ---

def run_metadata(options, extent, directory, files, *words):
    return json.loads(output_of([options.metadata, f"--files={files}", f"--settle={extent.settle_ms}", *words,
                                 directory], timeout=1800))


def measure_metadata(samples, mounts, options, extent, clock):
    """A run does all operations, one after the other; those that are wanted count."""
    counts = [n for n in (1, 4) if any(samples.wanted(f"meta.{operation}.{n}") for operation in OPERATIONS)]
    for turn in clock.passes("names", extent.passes if counts else 0):
        for threads in counts:
            for mount in rotated(mounts, turn):
                rates = run_metadata(options, extent, mount.directory, extent.files // threads, f"--threads={threads}")
                for operation, rate in rates.items():
                    if samples.wanted(f"meta.{operation}.{threads}"):
                        samples.add(f"meta.{operation}.{threads}", mount.name, "ops/s", rate)
        samples.save()


def populate(samples, mount, options, extent):
    """Directories of all sizes. What the files of the largest take of the daemon's memory is a sample."""
    for size in extent.sizes:
        say(f"directories: {mount.name}, {size} files")
        os.makedirs(f"{mount.directory}/of.{size}")
        before = mount.anonymous_memory() if mount.daemon else 0
        run_metadata(options, extent, f"{mount.directory}/of.{size}", 1, f"--population={size}")
        if mount.daemon and size == extent.sizes[-1]:
            samples.add("memory.per_file", mount.name, "bytes", (mount.anonymous_memory() - before) / size)
        samples.save()


def measure_directories(samples, mounts, options, extent, clock):
    """What an operation costs in directories of all sizes."""
    grown = [f"grown.{operation}.{size}" for operation in OPERATIONS for size in extent.sizes]
    if not any(map(samples.wanted, ["memory.per_file", *grown])):
        return
    for mount in mounts:
        populate(samples, mount, options, extent)
    for turn in clock.passes("directories", extent.passes):
        for size in rotated(extent.sizes, turn):
            for mount in rotated(mounts, turn):
                rates = run_metadata(options, extent, f"{mount.directory}/of.{size}", extent.files // 4,
                                     f"--population={size}")
                for operation, rate in rates.items():
                    if samples.wanted(f"grown.{operation}.{size}"):
                        samples.add(f"grown.{operation}.{size}", mount.name, "us", 1e6 / rate)
        samples.save()


def need_memory(extent, directory):
    """tmpfs and the pool hold all at once, and a million names take some too."""
    need = 5 * (extent.data + extent.cached) + extent.sizes[-1] * 4096
    there = os.statvfs(directory)
    if there.f_bavail * there.f_frsize < need:
        sys.exit(f"tools/bench: {directory} has too little room: {need >> 20} MiB are needed")


def remove(scratch):
    """Never into a filesystem that is still mounted below: one of them shows all of /."""
    subprocess.run(["rm", "-rf", "--one-file-system", scratch], check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--leasefs", required=True)
    parser.add_argument("--metadata", required=True)
    parser.add_argument("--peers", required=True, help="the folder with libfuse's examples")
    parser.add_argument("--dir", default="/dev/shm", help="a directory on tmpfs")
    parser.add_argument("--output", required=True, help="where the samples go, after each pass")
    parser.add_argument("--passes", type=int)
    parser.add_argument("--minutes", type=int)
    parser.add_argument("--only", action="append", default=[], help="a pattern of metrics")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    extent = QUICK if options.quick else FULL
    extent = extent._replace(passes=options.passes or extent.passes, minutes=options.minutes or extent.minutes)
    clock = Clock(extent.minutes)
    samples = Samples("local", options.output)
    samples.only(options.only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    need_memory(extent, options.dir)
    scratch = tempfile.mkdtemp(prefix="leasefs-bench.", dir=options.dir)
    with contextlib.ExitStack() as stack:
        stack.callback(remove, scratch)
        mounts = mount_all(stack, options, extent, scratch)
        samples.document["io_uring"] = offers_io_uring()
        measure_data(samples, mounts, extent, clock)
        measure_metadata(samples, mounts, options, extent, clock)
        mounts = [mount for mount in mounts if mount.name in ("tmpfs", "leasefs")]
        measure_directories(samples, mounts, options, extent, clock)
    samples.save()


if __name__ == "__main__":
    main()
