# SPDX-License-Identifier: BSD-2-Clause
"""Runs programs in the guest for the supervisor on the host, over a virtio-serial port.

One thread, one selector. Each session is a process in a control group of its own, so that it can be
ended with everything it started, daemons included.
"""

import fcntl
import glob
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time

import wire

PORT_NAME = "testbed.agent"
BEAT_SECONDS = 2
TERM_SECONDS = 3        # from SIGTERM to SIGKILL
STUCK_SECONDS = 10      # from SIGKILL to giving a process up as unkillable
CGROUPS = "/sys/fs/cgroup"

COMPLAINT = re.compile(
    r"WARNING:|BUG:|BUG at |Oops|general protection|unable to handle|stack segment|divide error"
    r"|INFO: task .* blocked|INFO: rcu|rcu: INFO|detected stall|soft lockup|hard LOCKUP|workqueue lockup"
    r"|UBSAN|KASAN|KCSAN|KFENCE|circular locking|inconsistent lock|unregister_netdevice: waiting"
    r"|Out of memory|oom-kill|EXT4-fs error|I/O error|XFS .*[Cc]orrupt")
CONTEXT_LINES = 40      # of kernel messages after a complaint


def read_text(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return default


class KernelLog:
    """The kernel's messages since this object was made."""

    def __init__(self):
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def complaints(self):
        lines, wanted = [], 0
        while True:
            try:
                record = os.read(self._fd, 16384)
            except BlockingIOError:
                break
            except BrokenPipeError:         # the ring buffer went round: go on with what is left
                lines.append("(messages lost)")
                continue
            prefix, _, text = record.decode("utf-8", "replace").partition(";")
            fields = prefix.split(",")
            if int(fields[0]) >> 3:         # not from the kernel: someone wrote to /dev/kmsg
                continue
            text = text.split("\n", 1)[0]
            if COMPLAINT.search(text):
                wanted = CONTEXT_LINES
            if wanted:
                lines.append(f"[{int(fields[2]) / 1e6:12.6f}] {text}")
                wanted -= 1
        os.close(self._fd)
        return lines if any(COMPLAINT.search(line) for line in lines) else []


class Session:
    def __init__(self, agent, number, request):
        self.agent = agent
        self.number = number
        self.argv = request["argv"]
        self.env = request.get("env", {})
        self.cgroup = f"{CGROUPS}/exec-{number}"
        self.script = None
        if self.argv[0] == "-":
            self.script = f"/run/testbed/script-{number}"
            self.script_fd = os.open(self.script, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755)
        self.streams = {}       # fd -> stream number
        self.credit = wire.WINDOW
        self.child = None
        self.status = None
        self.drain_left = None
        self.log = None
        self.kill_stage = None  # (what comes next, when)

    # --- life ---

    def data(self, payload):
        os.write(self.script_fd, payload)

    def start(self):
        if self.script:
            os.close(self.script_fd)
            with open(self.script, "rb") as file:
                interpreted = file.read(2) == b"#!"
            self.argv = ([] if interpreted else ["bash"]) + [self.script] + self.argv[1:]
        self.log = KernelLog()
        os.makedirs(self.cgroup, exist_ok=True)
        env = {"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb",
               "LEASEFS_TESTBED": os.uname().release, **self.env}
        try:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                cwd="/tmp", env=env, start_new_session=True, preexec_fn=self._enter_cgroup)
        except OSError as error:
            self.say(f"cannot run {self.argv[0]} in the guest: {error.strerror}")
            self.status = 126 if isinstance(error, PermissionError) else 127
            self.finish()
            return
        for stream, pipe in ((1, self.child.stdout), (2, self.child.stderr)):
            fd = os.dup(pipe.fileno())
            pipe.close()
            os.set_blocking(fd, False)
            self.streams[fd] = stream
            self.agent.watch(fd, self.readable)
        self.pidfd = os.pidfd_open(self.child.pid)
        self.agent.watch(self.pidfd, self.exited)

    def _enter_cgroup(self):
        with open(f"{self.cgroup}/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("0")
        # Python ignores these two, and children would inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)

    def exited(self, _fd):
        self.agent.unwatch(self.pidfd)
        os.close(self.pidfd)
        code = self.child.wait()
        self.status = code if code >= 0 else 128 - code
        if self.kill_stage:             # what is left of a session that was ended by force goes too
            self._kill_cgroup()
            self.kill_stage = None
        # A daemon may have inherited the pipes: take what is in them now, not what comes later.
        self.drain_left = wire.WINDOW
        self.pump()

    def finish(self):
        for fd in list(self.streams):
            self.agent.unwatch(fd)
            self.agent.discard(fd)
        self.streams.clear()
        complaints = self.log.complaints()
        if self.script:
            os.unlink(self.script)
        try:
            os.rmdir(self.cgroup)       # fails while a daemon lives in it: then it stays
        except OSError:
            pass
        self.agent.send(wire.json_frame(wire.EXIT, self.number,
                                        {"status": self.status, "kernel": complaints}))
        self.agent.sessions.pop(self.number, None)

    # --- output ---

    def say(self, text):
        self.output(2, f"testbed: {text}\n".encode())

    def output(self, stream, data):
        self.credit -= len(data)
        self.agent.send(wire.frame(wire.OUT, self.number, bytes([stream]) + data))

    def readable(self, fd):
        """Passes on one piece; returns whether there may be more."""
        if self.credit <= 0:
            self.agent.unwatch(fd)      # until the client has taken some
            return False
        try:
            data = os.read(fd, wire.CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.agent.unwatch(fd)
            os.close(fd)
            del self.streams[fd]
            return False
        if self.drain_left is not None:
            self.drain_left -= len(data)
        self.output(self.streams[fd], data)
        return True

    def ack(self, count):
        self.credit += count
        if self.drain_left is not None:
            self.pump()
        elif self.credit > 0:
            for fd in self.streams:
                self.agent.watch(fd, self.readable)

    def pump(self):
        """After the end of the process: empty the pipes, then say so."""
        for fd in list(self.streams):
            while self.drain_left > 0 and self.readable(fd):
                pass
        if self.credit > 0 or not self.streams or self.drain_left <= 0:
            self.finish()

    # --- end by force ---

    def kill(self, reason):
        if self.child is None or self.status is not None or self.kill_stage:
            return
        if reason == "timeout":
            self.output(2, self.stacks().encode("utf-8", "replace"))
        self._signal_all(signal.SIGTERM)
        self.kill_stage = ("kill", time.monotonic() + TERM_SECONDS)

    def tick(self, now):
        if not self.kill_stage or now < self.kill_stage[1]:
            return
        if self.kill_stage[0] == "kill":
            self._kill_cgroup()
            self.kill_stage = ("give up", now + STUCK_SECONDS)
            return
        self.output(2, ("testbed: process cannot be killed; where it hangs in the kernel:\n"
                        + self.stacks()).encode("utf-8", "replace"))
        self.kill_stage = None
        self.agent.unwatch(self.pidfd)
        self.status = 137
        self.finish()

    def pids(self):
        return [int(pid) for pid in read_text(f"{self.cgroup}/cgroup.procs").split()]

    def _signal_all(self, number):
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def _kill_cgroup(self):
        try:
            with open(f"{self.cgroup}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
        except OSError:
            self._signal_all(signal.SIGKILL)

    def stacks(self):
        """Which processes are there, and where each thread waits in the kernel."""
        lines = []
        for pid in self.pids():
            command = read_text(f"/proc/{pid}/cmdline").replace("\0", " ")
            lines.append(f"testbed: process {pid}: {command or read_text(f'/proc/{pid}/comm')}")
            for task in sorted(glob.glob(f"/proc/{pid}/task/*"))[:32]:
                state = re.search(r"State:\s*(.*)", read_text(f"{task}/status"))
                lines.append(f"  thread {os.path.basename(task)} {read_text(f'{task}/comm')}:"
                             f" {state.group(1) if state else 'gone'}")
                lines += ["    " + line for line in read_text(f"{task}/stack").split("\n")[:12] if line]
        return "\n".join(lines) + "\n"


class Agent:
    def __init__(self, port):
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.watched = {}
        self.outgoing = bytearray()
        self.sessions = {}
        self.splitter = wire.Splitter()
        self.selector.register(port, selectors.EVENT_READ)

    def watch(self, fd, callback):
        if fd not in self.watched:
            self.selector.register(fd, selectors.EVENT_READ)
            self.watched[fd] = callback

    def unwatch(self, fd):
        if self.watched.pop(fd, None):
            self.selector.unregister(fd)

    def discard(self, fd):
        """Nobody reads this any more, but who writes to it must neither block nor get SIGPIPE."""
        def drop(fd):
            try:
                if os.read(fd, wire.CHUNK):
                    return
            except BlockingIOError:
                return
            self.unwatch(fd)
            os.close(fd)
        self.watch(fd, drop)

    def send(self, data):
        self.outgoing += data
        self.flush()

    def flush(self):
        while self.outgoing:
            try:
                del self.outgoing[:os.write(self.port, self.outgoing[:wire.CHUNK])]
            except BlockingIOError:
                break
        self.selector.modify(self.port, selectors.EVENT_READ
                             | (selectors.EVENT_WRITE if self.outgoing else 0))

    def handle(self, kind, number, payload):
        if kind == wire.OPEN:
            self.sessions[number] = Session(self, number, json.loads(payload))
            return
        session = self.sessions.get(number)
        if session is None:             # it ended while this message was under way
            return
        if kind == wire.DATA:
            session.data(payload)
        elif kind == wire.START:
            session.start()
        elif kind == wire.KILL:
            session.kill(json.loads(payload)["reason"])
        elif kind == wire.ACK:
            session.ack(wire.ACK_FORMAT.unpack(payload)[0])

    def run(self):
        while not os.path.exists("/run/testbed/ready"):
            time.sleep(0.05)
        self.send(wire.json_frame(wire.HELLO, 0, {
            "release": os.uname().release,
            "time": time.time(),
            "problems": read_text("/run/testbed/problems").splitlines()}))
        next_beat = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                # Only when nothing is queued: output proves the same, and the queue must not grow.
                if not self.outgoing:
                    self.send(wire.frame(wire.BEAT, 0))
                next_beat = now + BEAT_SECONDS
            for session in list(self.sessions.values()):
                session.tick(now)
            for key, events in self.selector.select(timeout=1):
                if key.fd != self.port:
                    callback = self.watched.get(key.fd)
                    if callback:
                        callback(key.fd)
                    continue
                if events & selectors.EVENT_WRITE:
                    self.flush()
                if events & selectors.EVENT_READ:
                    try:
                        data = os.read(self.port, wire.CHUNK)
                    except BlockingIOError:
                        continue
                    if not data:        # the host has gone: QEMU is about to follow
                        time.sleep(0.2)
                    for message in self.splitter.feed(data):
                        self.handle(*message)


def open_port():
    for _ in range(100):
        for path in glob.glob("/sys/class/virtio-ports/*/name"):
            if read_text(path) == PORT_NAME:
                device = "/dev/" + path.split("/")[-2]
                fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
                fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
                return fd
        time.sleep(0.1)
    sys.exit("testbed: the guest has no virtio port named " + PORT_NAME)


def main():
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")
    Agent(open_port()).run()


if __name__ == "__main__":
    main()
