# SPDX-License-Identifier: BSD-2-Clause
"""Owns one guest: starts QEMU, talks to the agent in it, serves clients, and leaves nothing behind.

Started by guest.py with a JSON configuration as argument; reports readiness as one JSON line on its
standard output. It ends, and takes QEMU and the state directory with it, when a client says STOP, when
the owner process ends, on SIGTERM, and in any case when the guest's maximum lifetime is over. Should it
be killed itself, the kernel kills QEMU (setpriv --pdeathsig).
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sys
import time

import wire

BOOT_SECONDS = 240          # emulated, on a busy machine
KVM_BOOT_SECONDS = 20       # a KVM that works needs 3; one that does not may hang
SILENCE_SECONDS = 90        # the agent beats every 2 s
KILL_SECONDS = 40           # for the agent to end a session by force
STALL_SECONDS = 60          # a processor that long in the guest's kernel, and the kernel panics
CONSOLE_TAIL = 24000
BOOT_TRIES = 3              # of the last accelerator, when the guest's clock is wrong or its kernel panics in the boot
CLOCK_SECONDS = 2.5         # the guest reads the real time at its start, in whole seconds
INSTRUCTION_SHIFT = 0       # with "clock": "instructions", each takes 2^0 ns by the guest's clock


class Client:
    """A connection from exec or stop."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.queue = asyncio.Queue()

    async def pump(self, on_taken):
        """Writes what is queued; tells the agent when output was taken, so that it sends more."""
        while True:
            data, count, session = await self.queue.get()
            if data is None:
                break
            self.writer.write(data)
            await self.writer.drain()
            if count:
                on_taken(session, count)

    def put(self, data, count=0, session=0):
        self.queue.put_nowait((data, count, session))


class Supervisor:
    def __init__(self, config):
        self.config = config
        self.state = config["state"]
        self.counts = config["clock"] == "instructions"
        self.sessions = {}          # agent's session -> [client, client's session, kill timer]
        self.next_session = 1
        self.clients = set()
        self.serving = set()        # the clients' tasks
        self.qemu = None
        self.channel = None
        self.hello = None
        self.accel = None
        self.died = None            # reason, once the guest is dead
        self.last_heard = 0.0
        self.done = asyncio.Event()
        self.ready_seconds = None
        self.tries = 0                  # to boot; of the last one:
        self.ended_by_itself = False    # QEMU

    # --- QEMU ---

    def arguments(self, accel, channel_fd):
        config = self.config
        append = ("root=/dev/vda console=ttyS0 loglevel=5 panic=-1 oops=panic net.ifnames=0 mitigations=off"
                  " log_buf_len=4M audit=0 selinux=0 apparmor=0 cryptomgr.notests printk.devkmsg=on"
                  " watchdog_thresh=30 tsc=reliable random.trust_cpu=on"
                  # A processor that spins for ever: the agent, on the other one, would beat on.
                  f" rcupdate.rcu_cpu_stall_timeout={STALL_SECONDS} sysctl.kernel.panic_on_rcu_stall=1")
        arguments = [
            "setpriv", "--pdeathsig", "KILL", "--",
            "qemu-system-x86_64", "-name", f"leasefs-testbed-{config['name']}",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "q35", "-smp", str(config["cpus"]), "-m", config["memory"],
            "-serial", f"file:{self.state}/console.log",
            "-kernel", config["kernel"], "-initrd", config["initrd"],
            # snapshot: writes go to a temporary file that QEMU has already unlinked
            "-drive", f"if=none,id=root,format=raw,snapshot=on,cache=unsafe,file={config['root']}",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=stage,format=raw,readonly=on,file={self.state}/stage.ext4",
            "-device", "virtio-blk-pci,drive=stage",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,fd={channel_fd}",
            "-device", "virtserialport,chardev=agent,name=testbed.agent",
        ]
        if accel == "kvm":
            arguments += ["-accel", "kvm", "-cpu", "host"]
        else:
            # Five-level page tables cost the emulator time and give nothing here.
            arguments += ["-accel", f"tcg,thread={'single' if self.counts else 'multi'},tb-size=512",
                          "-cpu", "max,la57=off"]
            if self.counts:     # sleep: an idle guest waits for its timers in real time, as it waits for the agent
                arguments += ["-icount", f"shift={INSTRUCTION_SHIFT},sleep=on,align=off"]
        if config.get("net"):
            server = config["net"]["role"] == "server"
            number = 1 if server else 2
            append += f" testbed.address=10.99.1.{number}"
            arguments += [
                "-netdev", f"stream,id=n0,server={'on' if server else 'off'},addr.type=unix,"
                           f"addr.path={config['net']['socket']}",
                "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:99:01:0{number}"]
        else:
            arguments += ["-nic", "none"]
        return arguments + ["-append", f"{append} {config.get('append', '')}".strip()]

    async def start_qemu(self, accel):
        ours, theirs = socket.socketpair()
        self.accel = accel
        with open(f"{self.state}/qemu.log", "ab") as log:
            self.qemu = await asyncio.create_subprocess_exec(
                *self.arguments(accel, theirs.fileno()), pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                # A snapshot may grow to gigabytes: not in a /tmp that lives in memory.
                env={**os.environ, "TMPDIR": os.environ.get("TMPDIR", "/var/tmp")})
        theirs.close()
        ours.setblocking(False)
        reader, self.channel = await asyncio.open_connection(sock=ours, limit=wire.MAX_PAYLOAD)
        self.last_heard = time.monotonic()
        return asyncio.gather(self.read_channel(reader), self.qemu.wait(), return_exceptions=True)

    async def read_channel(self, reader):
        splitter = wire.Splitter()
        try:
            while data := await reader.read(wire.CHUNK * 4):
                self.last_heard = time.monotonic()
                for message in splitter.feed(data):
                    self.from_agent(*message)
        except ConnectionError:     # QEMU was killed; its exit status tells the rest
            pass

    def kill_qemu(self):
        if self.qemu and self.qemu.returncode is None:
            try:
                self.qemu.kill()
            except ProcessLookupError:
                pass

    def tail(self):
        texts = []
        for name in ("qemu.log", "console.log"):
            try:
                with open(f"{self.state}/{name}", "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - CONSOLE_TAIL))
                    texts.append(file.read().decode("utf-8", "replace"))
            except OSError:
                pass
        return "".join(texts)

    # --- messages ---

    def to_agent(self, data):
        if not self.died:
            self.channel.write(data)

    def from_agent(self, kind, number, payload):
        if kind == wire.HELLO:
            self.hello = json.loads(payload)
            self.hello["drift"] = self.hello["time"] - time.time()
            return
        if kind == wire.BEAT or number not in self.sessions:
            return
        client, client_number, timer = self.sessions[number]
        if kind == wire.OUT:
            # An orphaned session's output is thrown away, but still acknowledged: else it never ends.
            if client:
                client.put(wire.frame(kind, client_number, payload), len(payload) - 1, number)
            else:
                self.taken(number, len(payload) - 1)
        elif kind == wire.EXIT:
            if timer:
                timer.cancel()
            del self.sessions[number]
            if client:
                client.put(wire.frame(kind, client_number, payload))

    def taken(self, number, count):
        if number in self.sessions:
            self.to_agent(wire.frame(wire.ACK, number, wire.ACK_FORMAT.pack(count)))

    def kill_session(self, number, reason):
        entry = self.sessions.get(number)
        if not entry or entry[2]:
            return
        self.to_agent(wire.json_frame(wire.KILL, number, {"reason": reason}))
        entry[2] = asyncio.get_running_loop().call_later(
            KILL_SECONDS, self.declare_dead,
            f"it hung: the agent did not end a session within {KILL_SECONDS} s")

    def declare_dead(self, reason):
        if self.died:
            return
        self.died = reason
        self.kill_qemu()
        for client, client_number, timer in self.sessions.values():
            if timer:
                timer.cancel()
            if client:
                client.put(self.died_frame(client_number))
        self.sessions.clear()

    def died_frame(self, number):
        return wire.json_frame(wire.DIED, number, {"reason": self.died, "console": self.tail()})

    async def serve(self, reader, writer):
        client = Client(reader, writer)
        self.clients.add(client)
        self.serving.add(asyncio.current_task())
        pump = asyncio.ensure_future(client.pump(self.taken))
        numbers = {}                # client's session -> agent's session
        splitter = wire.Splitter()
        try:
            while data := await reader.read(wire.CHUNK):
                for kind, number, payload in splitter.feed(data):
                    self.from_client(client, numbers, kind, number, payload)
                if self.channel and not self.died:
                    await self.channel.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            for number in numbers.values():
                if number in self.sessions:
                    self.sessions[number][0] = None
                    self.kill_session(number, "client gone")
            client.put(None)
            try:
                await asyncio.wait_for(pump, 5)
            except (asyncio.TimeoutError, ConnectionError):
                pass
            self.clients.discard(client)
            self.serving.discard(asyncio.current_task())
            writer.close()

    def from_client(self, client, numbers, kind, number, payload):
        if kind == wire.STATUS:
            client.put(wire.json_frame(wire.STATUS, number, {
                "died": self.died, "accel": self.accel, "kernel": self.config["kernel_name"],
                "release": self.hello and self.hello["release"], "seconds": self.ready_seconds,
                "qemu": self.qemu and self.qemu.pid, "sessions": len(self.sessions)}))
        elif kind == wire.STOP:
            self.done.set()
        elif self.died:
            if kind == wire.START:
                client.put(self.died_frame(number))
        elif kind == wire.OPEN:
            numbers[number] = self.next_session
            self.sessions[self.next_session] = [client, number, None]
            self.to_agent(wire.frame(kind, self.next_session, payload))
            self.next_session += 1
        elif number in numbers:
            if kind == wire.KILL:
                self.kill_session(numbers[number], json.loads(payload)["reason"])
            else:
                self.to_agent(wire.frame(kind, numbers[number], payload))

    # --- life ---

    async def boot(self):
        """Starts the guest with the first accelerator that works. Returns QEMU's end as a future."""
        accels = self.config["accels"]
        for self.tries, accel in enumerate(accels + accels[-1:] * (BOOT_TRIES - 1), 1):
            reason, ended = await self.boot_with(accel)
            if not reason:
                return ended
            self.kill_qemu()
            await ended
            # A kernel that patches its own code while another emulated processor runs it may meet the breakpoint that
            # was there for a moment (an int3 oops in the first seconds, QEMU 7.2): it goes well the next time. One
            # that hangs has had its time.
            if accel == accels[-1] and not self.hello and not self.ended_by_itself:
                break
            self.hello = None
        raise RuntimeError(reason)

    async def boot_with(self, accel):
        """One try. Returns why it failed (None: it did not, or the end is wanted) and QEMU's end."""
        limit = KVM_BOOT_SECONDS if accel == "kvm" else BOOT_SECONDS
        ended = await self.start_qemu(accel)
        deadline = time.monotonic() + limit
        while not self.hello and not ended.done() and time.monotonic() < deadline \
                and not self.done.is_set():
            await asyncio.sleep(0.05)
        self.ended_by_itself = ended.done()
        if self.config.get("kvm_marker") and accel == "kvm":
            with open(self.config["kvm_marker"], "w", encoding="ascii") as file:
                file.write(f"{self.config['boot_id']} {'yes' if self.hello else 'no'}\n")
        if self.done.is_set():
            return None, ended
        if self.hello:
            # On a busy machine the kernel may measure its processor's clock wrong at the start, and then believe in
            # time-outs that are not. One that counts instructions cannot, and goes its own way.
            drift = self.hello["drift"]
            if abs(drift) <= CLOCK_SECONDS or self.counts:
                return None, ended
            return f"its clock is wrong: {drift:+.1f} s after its boot", ended
        if not ended.done():
            return f"it did not become ready within {limit} s", ended
        return f"QEMU ended (status {self.qemu.returncode}) before the guest was ready", ended

    async def watch(self, ended):
        """Until the end is wanted, notice that the guest is dead."""
        finish = asyncio.ensure_future(self.done.wait())
        while not finish.done():
            await asyncio.wait([finish] + ([] if ended.done() else [ended]), timeout=1,
                               return_when=asyncio.FIRST_COMPLETED)
            if self.died or finish.done():
                continue
            if ended.done():
                panics = re.findall(r"Kernel panic - not syncing: (.*?)\r?\n", self.tail())
                self.declare_dead(f"kernel panic: {panics[-1]}" if panics else
                                  f"QEMU ended (status {self.qemu.returncode}): a power-off in the guest,"
                                  " or a kill from outside")
            elif time.monotonic() - self.last_heard > self.config["silence"]:
                self.declare_dead(f"it hung: not a sign of life for {self.config['silence']} s")

    def watch_owner(self):
        try:
            pidfd = os.pidfd_open(self.config["owner"])
        except ProcessLookupError:
            self.done.set()
            return None
        asyncio.get_running_loop().add_reader(pidfd, self.done.set)
        return pidfd

    async def run(self):
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.done.set)
        loop.call_later(self.config["max_seconds"], self.done.set)
        owner = self.watch_owner()
        server = None
        try:
            ended = await self.boot()
            if self.done.is_set():
                return
            if self.hello["problems"]:
                raise RuntimeError("its set-up failed: " + "; ".join(self.hello["problems"]))
            self.ready_seconds = round(time.monotonic() - started, 1)
            server = await asyncio.start_unix_server(self.serve, f"{self.state}/socket")
            self.report({"ready": True, "seconds": self.ready_seconds, "accel": self.accel,
                         "release": self.hello["release"], "tries": self.tries})
            if self.config["owner_only_for_boot"] and owner is not None:
                loop.remove_reader(owner)
            await self.watch(ended)
        except RuntimeError as error:
            self.report({"error": str(error), "console": self.tail()})
        finally:
            if server:
                server.close()
            self.kill_qemu()
            if self.qemu:
                await self.qemu.wait()
            shutil.rmtree(self.state, ignore_errors=True)
            try:
                os.rmdir(os.path.dirname(self.state))
            except OSError:             # other guests live there
                pass
            for client in list(self.clients):   # tells "stop" that all is gone
                client.writer.close()
            if self.serving:        # a task that the loop's end would cancel complains
                await asyncio.wait(self.serving, timeout=5)

    @staticmethod
    def report(value):
        try:
            print(json.dumps(value), flush=True)
        except OSError:             # whoever started us has gone
            pass
        null = os.open("/dev/null", os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def main():
    config = json.loads(sys.argv[1])
    config.setdefault("silence", SILENCE_SECONDS)
    # config["lock"] is inherited and held for life: this state directory has an owner. Not for QEMU.
    os.set_inheritable(config["lock"], False)
    asyncio.run(Supervisor(config).run())


if __name__ == "__main__":
    main()
