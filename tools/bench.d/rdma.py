#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Measures libleasefs against bare verbs and NFS over RDMA, both ends on this machine; prints the samples as JSON."""

import argparse
import collections
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time

from samples import STARTED, Samples, output_of, rotated, say

MIB, GIB = 1 << 20, 1 << 30
DEPTH = 16
PORT = 18515
# file: of 64 KiB or 1 MiB requests, moved in one go. sizes: of leases, with the rounds that each gets a pass.
Extent = collections.namedtuple("Extent", "passes file latencies runtime pool sizes")
FULL = Extent(15, 32 * MIB, 600, "1s", "1216M",
              {4096: 100, 256 << 10: 100, 16 * MIB: 40, 256 * MIB: 12, GIB: 6})
# Where the clock counts instructions one pass is like the other; a round of a GiB takes ten seconds. A timer's tick comes
# in between now and then, which takes longer than a small revocation: it is not to be one of the hundred that p99 is of.
COUNTED = FULL._replace(passes=1, sizes={4096: 1000, 256 << 10: 1000, 16 * MIB: 20, 256 * MIB: 4, GIB: 3})
QUICK = Extent(1, 4 * MIB, 50, "300ms", "96M", {4096: 5, 16 * MIB: 3})
BYTES_SHARE = 0.45  # of the time, for bytes; the rest is for leases
MECHANISMS = ("rereg", "mw", "odp", "dereg")


class Clock:
    """Turns of one thing, as many as wanted, but only as long as there is time; one in any case."""

    def __init__(self, until):
        self.until = until

    def turns(self, wanted, what):
        longest = 0
        for turn in range(wanted):
            started = time.monotonic()
            if turn and self.until and started + longest > self.until:
                say(f"{what}: no time for more than {turn} of {wanted} passes")
                return
            say(f"{what}: pass {turn + 1} of {wanted}")
            yield turn
            longest = max(longest, time.monotonic() - started)


def cpu_seconds(threads):
    """Of these directories below /proc."""
    total = 0
    for thread in threads:
        with contextlib.suppress(FileNotFoundError), open(f"{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1e9


class Leasefs:
    """A mounted leasefs with an RDMA device, and the program that measures it."""

    def __init__(self, options, extent, scratch, revoke="auto"):
        self.mountpoint, self.control, self.options = f"{scratch}/leasefs", f"{scratch}/control", options
        os.makedirs(self.mountpoint, exist_ok=True)
        self.daemon = subprocess.Popen(
            [options.leasefs, "-f", "-o", f"pool={extent.pool},control={self.control},revoke={revoke}",
             self.mountpoint], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while not os.path.ismount(self.mountpoint):
            if self.daemon.poll() is not None:
                raise RuntimeError(f"leasefs does not mount: {self.daemon.stderr.read()}")
            time.sleep(0.05)

    def file(self, name, size):
        fill(f"{self.mountpoint}/{name}", size)
        return f"/{name}"

    def command(self, what, path, **settings):
        words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.items()]
        return [f"{self.options.programs}/leasefs_bench", f"--control={self.control}", *words, what, path]

    def measure(self, what, path, **settings):
        return json.loads(output_of(self.command(what, path, **settings)))

    def stream(self, path, **settings):
        """What it told, and the server's CPU seconds from the first byte to the last."""
        command = self.command("bandwidth", path, steps=True, **settings)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            try:
                if client.stdout.readline() != "ready\n":
                    raise RuntimeError(f"{' '.join(command)} moves nothing")
                before = cpu_seconds(self.threads())
                client.stdin.write("\n")
                client.stdin.flush()
                told = json.loads(client.stdout.readline())
                spent = cpu_seconds(self.threads()) - before
                client.communicate("\n", timeout=60)
            except BaseException:
                client.kill()
                raise
        return told, spent

    def peak_memory(self):
        """MiB, the pool included as far as it was used."""
        with open(f"/proc/{self.daemon.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024

    def threads(self):
        return [f"/proc/{self.daemon.pid}/task/{thread}" for thread in os.listdir(f"/proc/{self.daemon.pid}/task")]

    def end(self):
        subprocess.run(["fusermount3", "-u", self.mountpoint], check=False)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()


class Nfs:
    """The same kernel's NFS over RDMA, of a file on tmpfs."""

    def __init__(self, address, scratch):
        self.exported, self.mountpoint = f"{scratch}/exported", f"{scratch}/nfs"
        os.makedirs(self.exported)
        os.makedirs(self.mountpoint)
        output_of(["mount", "-t", "tmpfs", "tmpfs", self.exported])
        output_of(["modprobe", "-a", "rpcrdma", "nfsd"])
        if not os.path.ismount("/proc/fs/nfsd"):
            output_of(["mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd"])
        for setting in ("nfsv4leasetime", "nfsv4gracetime"):  # new opens wait for the grace period's end
            with contextlib.suppress(OSError), open(f"/proc/fs/nfsd/{setting}", "w", encoding="ascii") as file:
                file.write("10")
        output_of(["rpc.mountd", "--no-nfs-version", "3"])
        output_of(["exportfs", "-o", "rw,no_root_squash,fsid=1,insecure,no_subtree_check", f"*:{self.exported}"])
        output_of(["rpc.nfsd", "--no-nfs-version", "3", "--rdma=20049", "8"])
        output_of(["mount", "-t", "nfs", "-o", "vers=4.2,rdma,port=20049", f"{address}:{self.exported}",
                   self.mountpoint], timeout=90)

    def threads(self):
        found = []
        for process in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/comm", encoding="ascii") as file:
                if file.read().strip() == "nfsd":
                    found.append(f"/proc/{process}")
        return found

    def fio(self, name, *words):
        told = json.loads(output_of(["fio", "--name=job", f"--filename={self.mountpoint}/{name}", "--direct=1",
                                     "--output-format=json", "--overwrite=1", "--lat_percentiles=1", *words]))
        return told["jobs"][0]

    def end(self):
        for command in (["umount", "-f", self.mountpoint], ["rpc.nfsd", "0"], ["exportfs", "-ua"],
                        ["pkill", "-x", "rpc.mountd"], ["umount", self.exported]):
            subprocess.run(command, check=False)


def fill(path, size):
    block = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(max(size // MIB, 1)):
            file.write(block[:size])


# --- bytes ---

def is_listening(port):
    """By rdma_cm, whose ports no table of sockets has."""
    return any("state LISTEN" in line and f":{port} " in f"{line} "
               for line in output_of(["rdma", "resource", "show", "cm_id"]).splitlines())


def perftest(options, program, *words):
    """The figures of the last line that the client prints. Connected by rdma_cm, as libleasefs is."""
    command = [program, "-F", "-R", "-p", str(PORT), *(["-d", options.device] if options.device else []), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while not is_listening(PORT):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(command)} does not listen")
                time.sleep(0.02)
            printed = output_of([*command, options.address])
        finally:
            server.terminate()
    rows = [line.split() for line in printed.splitlines() if line.strip()[:1].isdigit()]
    return [float(word) for word in rows[-1]]


def per_gib(seconds, count):
    return seconds * GIB / count


class Bandwidth:
    """One direction and size of request. Counted: by a clock that counts instructions, on one processor."""

    def __init__(self, write, size, counted=False):
        self.direction, self.size, self.counted = "write" if write else "read", size, counted
        self.name = f"{self.direction}.{size // MIB}M" if size >= MIB else f"{self.direction}.{size // 1024}K"
        self.metric = f"bandwidth.counted.{self.name}" if counted else f"bandwidth.{self.name}"

    def add(self, samples, subject, megabytes, server_cpu=None):
        samples.add(self.metric, subject, "MB/s", megabytes)
        if server_cpu is not None and not self.counted:
            samples.add(f"server_cpu.{self.name}", subject, "s/GiB", server_cpu)

    def leasefs(self, samples, options, extent, leasefs):
        told, spent = leasefs.stream("/data", size=self.size, depth=DEPTH, bytes=extent.file,
                                     **({"write": True} if self.direction == "write" else {}))
        self.add(samples, "leasefs", told["bytes"] / told["seconds"] / 1e6, per_gib(spent, told["bytes"]))

    def verbs(self, samples, options, extent, _):
        if self.counted:  # perftest polls without a pause: of the only processor it leaves too little to the emulated NIC
            return
        figures = perftest(options, f"ib_{self.direction}_bw", "-s", str(self.size), "-t", str(DEPTH),
                           "-n", str(max(extent.file // self.size, 2 * DEPTH)))
        if figures[3]:  # perftest prints 0 when a machine is too slow for it
            self.add(samples, "verbs", figures[3] * MIB / 1e6)

    def nfs(self, samples, options, extent, nfs):
        before = cpu_seconds(nfs.threads())
        job = nfs.fio("data", f"--rw={self.direction}", f"--bs={self.size}", f"--size={extent.file}", "--time_based",
                      f"--runtime={extent.runtime}", "--ioengine=libaio", f"--iodepth={DEPTH}")[self.direction]
        self.add(samples, "nfs", job["bw_bytes"] / 1e6, per_gib(cpu_seconds(nfs.threads()) - before, job["io_bytes"]))


class Latency:
    """4 KiB, one at a time."""

    def __init__(self, name):
        self.name = name

    def leasefs(self, samples, options, extent, leasefs):
        told = leasefs.measure("latency", "/data", size=4096, count=extent.latencies)
        samples.add_latencies(self.name, "leasefs", told["latency_us"])

    def verbs(self, samples, options, extent, _):
        figures = perftest(options, "ib_read_lat", "-s", "4096", "-n", str(extent.latencies))
        samples.add(f"{self.name}.p50", "verbs", "us", figures[4])
        samples.add(f"{self.name}.p99", "verbs", "us", figures[7])

    def nfs(self, samples, options, extent, nfs):
        job = nfs.fio("data", "--rw=randread", "--bs=4k", f"--size={extent.file}", "--ioengine=psync",
                      f"--io_size={extent.latencies * 4096}")
        percentiles = job["read"]["lat_ns"]["percentile"]
        samples.add(f"{self.name}.p50", "nfs", "us", percentiles["50.000000"] / 1e3)
        samples.add(f"{self.name}.p99", "nfs", "us", percentiles["99.000000"] / 1e3)


def start_nfs(stack, samples, options, scratch):
    try:
        nfs = Nfs(options.address, scratch)
    except (RuntimeError, OSError) as problem:
        samples.skip("NFS over RDMA", str(problem))
        return None
    stack.callback(nfs.end)
    return nfs


def measure_bytes(samples, options, extent, scratch, clock, measures):
    with contextlib.ExitStack() as stack:
        subjects = {"leasefs": Leasefs(options, extent, scratch), "verbs": None}
        stack.callback(subjects["leasefs"].end)
        subjects["leasefs"].file("data", extent.file)
        nfs = start_nfs(stack, samples, options, scratch)
        if nfs:
            subjects["nfs"] = nfs
            fill(f"{nfs.mountpoint}/data", extent.file)
        for turn in clock.turns(extent.passes, "bytes"):
            for measure in measures:
                for name in rotated(list(subjects), turn):
                    samples.attempt(f"bytes, {name}", getattr(measure, name), samples, options, extent, subjects[name])
                samples.save()
        if any(isinstance(measure, Bandwidth) for measure in measures):
            samples.add("memory.server.peak", "leasefs", "MiB", subjects["leasefs"].peak_memory())


# --- leases ---

def bare(options, mechanism, size, rounds, *words):
    """None: this device cannot do it."""
    command = [f"{options.programs}/verbs_bench", f"--size={size}", f"--count={rounds}", *words, mechanism]
    if options.device:
        command.append(f"--device={options.device}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    if done.returncode == 77:
        return None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout)


def known_mechanisms(options, leasefs):
    told = json.loads(output_of([options.leasectl, "--control", leasefs.control, "probe", "--json"]))
    return {mechanism["name"]: mechanism for mechanism in told["mechanisms"]}


def ladder_of(mechanism):
    """A gate needs a fence behind it, and a lease that is returned ends by that alone."""
    return mechanism if mechanism == "dereg" else f"{mechanism}\\,dereg"


def measure_size(samples, options, mechanism, size, rounds, leasefs):
    grants = mechanism in ("dereg", "odp")
    verbs = bare(options, mechanism, size, rounds, *(["--exchange"] if grants else []))
    told = leasefs.measure("revoke", "/data", size=size, count=rounds, mechanism=mechanism)
    for subject, taken in (("leasefs", told), ("verbs", verbs)):
        samples.add_latencies(f"revoke.{mechanism}", subject, taken["revoke_us"], size)
    if grants:
        told = leasefs.measure("grant", "/data", size=size, count=rounds)
        style = "pinned" if mechanism == "dereg" else mechanism
        for subject, taken in (("leasefs", told["first_byte_us"]), ("verbs", verbs["first_byte_us"]),
                               ("calls", verbs["expose_us"])):
            samples.add_latencies(f"grant.{style}", subject, taken, size)


def measure_mechanism(samples, options, extent, scratch, clock, mechanism):
    with contextlib.ExitStack() as stack:
        leasefs = Leasefs(options, extent, scratch, ladder_of(mechanism))
        stack.callback(leasefs.end)
        leasefs.file("data", max(extent.sizes))
        for turn in clock.turns(extent.passes, f"leases, {mechanism}"):
            for size in rotated(list(extent.sizes), turn):
                measure_size(samples, options, mechanism, size, extent.sizes[size], leasefs)
                samples.save()


def usable_mechanisms(samples, options, scratch):
    leasefs = Leasefs(options, QUICK, scratch)
    try:
        known = known_mechanisms(options, leasefs)
    finally:
        leasefs.end()
    for mechanism in MECHANISMS:
        if not bare(options, mechanism, 4096, 1):
            for what in ("revoke", "grant"):
                samples.absent(f"{what}.{mechanism}.", "the device cannot do it")
        elif mechanism not in known:
            samples.skip(f"revoke.{mechanism}", "leasefs has no such mechanism")
        elif not known[mechanism]["available"]:
            samples.skip(f"revoke.{mechanism}", "leasefs does not use it on this device")
        else:
            yield mechanism


def measure_leases(samples, options, extent, scratch, until):
    mechanisms = list(usable_mechanisms(samples, options, scratch))
    while mechanisms:
        share = time.monotonic() + (until - time.monotonic()) / len(mechanisms) if until else None
        mechanism = mechanisms.pop(0)
        samples.attempt(f"leases, {mechanism}", measure_mechanism, samples, options, extent, scratch, Clock(share),
                        mechanism)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--leasefs", default="leasefs")
    parser.add_argument("--leasectl", default="leasectl")
    parser.add_argument("--programs", default="/usr/local/libexec/leasefs-tests")
    parser.add_argument("--device", help="RDMA device")
    parser.add_argument("--address", default="10.99.0.1", help="its address")
    parser.add_argument("--only", choices=("bytes", "leases"), help="of what is measured by time; or leases, and what else is counted")
    parser.add_argument("--clock", choices=("time", "instructions"), default="time", help="what this machine's counts")
    parser.add_argument("--passes", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float,
                        help="for bytes and leases together, after which no further pass is begun")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    extent = QUICK if options.quick else COUNTED if options.clock == "instructions" else FULL
    extent = extent._replace(passes=options.passes or extent.passes)
    samples = Samples("rdma", options.output)
    scratch = tempfile.mkdtemp(prefix="leasefs-bench.")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        seconds = options.minutes and options.minutes * 60
        measures = []
        if options.only != "leases":
            measures += [Latency("latency.read.4K")]
            measures += [Bandwidth(write, size) for write in (False, True) for size in (65536, MIB)]
        if options.clock == "instructions":
            measures += [Latency("latency.counted.4K")]
            measures += [Bandwidth(write, size, counted=True) for write in (False, True) for size in (65536, MIB)]
        if measures:
            until = seconds and STARTED + seconds * BYTES_SHARE
            samples.attempt("bytes", measure_bytes, samples, options, extent, scratch, Clock(until), measures)
        if options.only != "bytes":
            samples.document["clock"] = options.clock
            until = seconds and STARTED + seconds * (1 - BYTES_SHARE if options.only else 1)
            samples.attempt("leases", measure_leases, samples, options, extent, scratch, until)
    samples.save()


if __name__ == "__main__":
    main()
