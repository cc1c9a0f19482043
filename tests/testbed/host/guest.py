# SPDX-License-Identifier: BSD-2-Clause
"""The guest commands of testbed: boot, exec, stop, run, list, console. See ../README.md."""

import argparse
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import wire

TIMED_OUT, GUEST_LOST, COMPLAINED = 124, 125, 123
HERE = os.path.dirname(os.path.abspath(__file__))


class Failure(Exception):
    """Ends the command with a message and an exit status."""

    def __init__(self, message, status=GUEST_LOST):
        super().__init__(message)
        self.status = status


def say(text):
    print(f"testbed: {text}", file=sys.stderr, flush=True)


# --- state directories: one for each guest, locked by its supervisor ---

def state_base():
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or "/tmp", f"leasefs-testbed-{os.getuid()}")


def state_of(name):
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name):
        raise Failure(f"bad guest name '{name}': up to 40 letters, digits, '.', '_' and '-'", 2)
    return os.path.join(state_base(), name)


def try_lock(path):
    """Opens and locks a directory; None if it is not there or someone else holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def claim_state(name):
    """A fresh, locked state directory: its path and the lock."""
    path = state_of(name)
    for _ in range(100):
        try:
            os.makedirs(state_base(), mode=0o700, exist_ok=True)
            if os.lstat(state_base()).st_uid != os.getuid():
                raise Failure(f"{state_base()} belongs to someone else: set XDG_RUNTIME_DIR")
            os.mkdir(path, 0o700)
        except FileNotFoundError:           # another guest's end removed the empty base
            continue
        except FileExistsError:
            lock = try_lock(path)
            if lock is None:
                raise Failure(f"a guest named '{name}' is running: choose another --name, or end it with"
                              f" 'testbed stop --name {name}'", 2) from None
            shutil.rmtree(path)             # its supervisor was killed
            os.close(lock)
            continue
        lock = try_lock(path)
        if lock is not None:
            return path, lock
    raise Failure(f"cannot make a state directory in {state_base()}")


# --- boot ---

def make_stage_disk(state, options):
    """A small read-only disk: the agent, staged programs, the checkout's tests and tools, extra files."""
    tree = os.path.join(state, "tree")
    top = os.environ["TESTBED_TOP"]
    guest = os.path.join(HERE, "..", "guest")
    os.makedirs(f"{tree}/.testbed")
    os.makedirs(f"{tree}/files")
    shutil.copy(f"{guest}/init", f"{tree}/.testbed/init")
    os.chmod(f"{tree}/.testbed/init", 0o755)
    shutil.copy(f"{guest}/agent.py", f"{tree}/.testbed/")
    shutil.copy(f"{HERE}/wire.py", f"{tree}/.testbed/")
    sources = [(f"{top}/tests", f"{tree}/tests"), (f"{top}/tools", f"{tree}/tools")]
    if options.stage:
        if not os.path.isdir(options.stage):
            raise Failure(f"--stage {options.stage}: no such directory (testbed build prints it)", 2)
        sources.append((options.stage, f"{tree}/stage"))
    for file in options.file:
        if not os.path.exists(file):
            raise Failure(f"--file {file}: no such file", 2)
        sources.append((file, f"{tree}/files/{os.path.basename(os.path.abspath(file))}"))
    for source, target in sources:
        if os.path.lexists(target):
            raise Failure(f"two files named {os.path.basename(target)} for the guest: rename one", 2)
        subprocess.run(["cp", "-aL" if "/files/" in target else "-a", "--reflink=auto", "-T",
                        source, target], check=True)
    entries = size = 0
    for folder, folders, files in os.walk(tree):
        entries += len(folders) + len(files)
        for name in files:
            size += (os.lstat(os.path.join(folder, name)).st_size + 4095) // 4096 * 4096
    kib = size * 11 // 10 // 1024 + entries * 2 + 8192
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0",
                    "-N", str(entries + 256), "-b", "4096", "-d", tree,
                    f"{state}/stage.ext4", f"{kib}K"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)


def kvm_choice(image):
    """Which accelerators to try, and where to note whether KVM works. It may exist and yet not run a
    guest (nested, restricted): then one failed boot is remembered until this machine's next start."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    marker = os.path.join(image, "kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["tcg"], marker, boot_id
    try:
        with open(marker, encoding="ascii") as file:
            known, answer = file.read().split()
        if known == boot_id:
            return (["kvm"] if answer == "yes" else ["tcg"]), marker, boot_id
    except (FileNotFoundError, ValueError):
        pass
    return ["kvm", "tcg"], marker, boot_id


def parse_net(value, state):
    if not value:
        return None
    role, _, path = value.partition(":")
    if role not in ("server", "client") or not path:
        raise Failure(f"--net {value}: say server:SOCKET or client:SOCKET", 2)
    path = os.path.abspath(path)
    if "," in path or len(path) > 100 or len(f"{state}/socket") > 100:
        raise Failure(f"--net {path}: a socket's path has at most 100 characters, and no comma", 2)
    if role == "client" and not os.path.exists(path):
        raise Failure(f"--net {path}: no such socket; boot the server's side first", 2)
    return {"role": role, "socket": path}


class Guest:
    """A booted guest; end() is safe at any time."""

    def __init__(self, options, owner_only_for_boot):
        image = os.environ["TESTBED_IMAGE"]
        kernel = os.path.join(image, options.kernel)
        if not os.path.exists(f"{kernel}/kernel"):
            raise Failure(f"no kernel '{options.kernel}' in the image: see 'testbed kernels'", 2)
        self.name = options.name
        self.process = None
        self.state, self.lock = claim_state(options.name)
        try:
            accels, marker, boot_id = kvm_choice(image)
            if options.clock == "instructions":     # which only the emulator can count
                accels = ["tcg"]
            config = {
                "name": options.name, "state": self.state, "memory": options.memory, "cpus": options.cpus,
                "kernel": f"{kernel}/kernel", "initrd": f"{kernel}/initrd", "kernel_name": options.kernel,
                "root": f"{image}/root.ext4", "append": options.append, "accels": accels,
                "kvm_marker": marker, "boot_id": boot_id, "max_seconds": options.max_seconds,
                "clock": options.clock,
                "net": parse_net(options.net, self.state), "owner": os.getpid(),
                "owner_only_for_boot": owner_only_for_boot, "lock": self.lock}
            if os.environ.get("TESTBED_SILENCE"):       # for selftest, which has no 90 s to wait
                config["silence"] = float(os.environ["TESTBED_SILENCE"])
            make_stage_disk(self.state, options)
            # A session of its own: Ctrl-C is for us to handle, in order. "timeout" is for the case that
            # the supervisor itself hangs; QEMU dies with it.
            self.process = subprocess.Popen(
                ["timeout", "--signal=KILL", str(options.max_seconds + 300),
                 sys.executable, "-B", f"{HERE}/supervisor.py", json.dumps(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
                pass_fds=[self.lock])
        except BaseException:
            if not self.process:
                shutil.rmtree(self.state, ignore_errors=True)
                try:
                    os.rmdir(state_base())
                except OSError:
                    pass
            else:
                self.end()
            raise

    def wait_ready(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its supervisor died"}
        if "error" in answer:
            show_console(answer.get("console", ""))
            raise Failure(f"the guest could not be booted: {answer['error']}")
        say(f"guest '{self.name}' is ready: Linux {answer['release']}, {answer['accel']},"
            f" {answer['seconds']} s" + (f", {answer['tries']} tries" if answer["tries"] > 1 else ""))

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def show_console(text):
    if text.strip():
        print("--- end of the guest's console ---\n" + text.rstrip() + "\n---", file=sys.stderr)


# --- exec ---

class Connection:
    def __init__(self, name):
        path = f"{state_of(name)}/socket"
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            raise Failure(f"there is no guest named '{name}': it was never booted, was stopped, or is older"
                          " than its --max-seconds") from None
        self.splitter = wire.Splitter()
        self.frames = []
        self.next_session = 1

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, deadline=None):
        """The next frame, or None when the deadline has passed."""
        while not self.frames:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                    return None
            try:
                data = self.socket.recv(wire.CHUNK * 4)
            except ConnectionResetError:
                data = b""
            if not data:
                raise Failure("the guest was stopped from elsewhere")
            self.frames.extend(self.splitter.feed(data))
        return self.frames.pop(0)

    def ask(self, kind):
        self.send(wire.frame(kind, 0))
        return json.loads(self.receive(time.monotonic() + 10)[2])

    def session(self, argv, env, script, deadline, output):
        """Runs a program; returns its status (None: time-out) and the kernel's complaints."""
        number = self.next_session
        self.next_session += 1
        self.send(wire.json_frame(wire.OPEN, number, {"argv": argv, "env": env}))
        if script is not None:
            for start in range(0, len(script), wire.CHUNK):
                self.send(wire.frame(wire.DATA, number, script[start:start + wire.CHUNK]))
        self.send(wire.frame(wire.START, number))
        timed_out = False
        while True:
            message = self.receive(None if timed_out else deadline)
            if message is None:
                timed_out = True
                self.send(wire.json_frame(wire.KILL, number, {"reason": "timeout"}))
                continue
            kind, _, payload = message
            if kind == wire.OUT:
                output(payload[0], payload[1:])
            elif kind == wire.EXIT:
                answer = json.loads(payload)
                return None if timed_out else answer["status"], answer["kernel"]
            elif kind == wire.DIED:
                answer = json.loads(payload)
                show_console(answer["console"])
                raise Failure(f"the guest is lost: {answer['reason']}")


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]


def collect(connection, guest_path, host_path):
    """Copies a file or directory out of the guest; a directory is merged into an existing one."""
    host_path = os.path.abspath(host_path)
    parent = os.path.dirname(host_path)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".collect-") as temp:
        with subprocess.Popen(["tar", "-x", "-f", "-", "--no-same-owner", "--warning=no-timestamp", "-C", temp],
                              stdin=subprocess.PIPE) as tar:
            errors = bytearray()

            def output(stream, data):
                if stream == 1:
                    tar.stdin.write(data)
                else:
                    errors.extend(data)
            folder, base = os.path.split(guest_path.rstrip("/"))
            status, _ = connection.session(["tar", "-C", folder or "/", "-cf", "-", "--", base], {}, None,
                                           time.monotonic() + 300, output)
            tar.stdin.close()
            unpacked = tar.wait()
        # 1: a file changed while it was read, as logs do
        if status not in (0, 1) or unpacked:
            raise Failure(f"--collect {guest_path}: {errors.decode('utf-8', 'replace').strip() or status}", 1)
        source = os.path.join(temp, base)
        if os.path.isdir(source) and os.path.isdir(host_path):
            shutil.copytree(source, host_path, symlinks=True, dirs_exist_ok=True)
        else:
            os.replace(source, host_path)


def execute(options):
    argv = options.command
    script = sys.stdin.buffer.read() if argv[0] == "-" else None
    pairs = [pair.rpartition("=") for pair in options.collect]
    if not all(guest and host for guest, _, host in pairs):
        raise Failure("--collect takes GUESTPATH=HOSTPATH", 2)
    env = dict(pair.split("=", 1) if "=" in pair else (pair, os.environ.get(pair, ""))
               for pair in options.env)
    connection = Connection(options.name)
    status, complaints = connection.session(argv, env, script, time.monotonic() + options.timeout,
                                            write_all)
    if complaints:
        print("testbed: warning: the kernel complained while this ran:\n  " + "\n  ".join(complaints),
              file=sys.stderr)
        if options.strict_dmesg and status == 0:
            status = COMPLAINED
    if status is None:
        say(f"time-out: {' '.join(argv)} did not end within {options.timeout:g} s and was killed")
        status = TIMED_OUT
    for guest, _, host in pairs:
        try:
            collect(connection, guest, host)
        except Failure as error:
            if error.status == GUEST_LOST:
                raise
            say(str(error))
            status = status or error.status
    return status


# --- commands ---

def cmd_boot(options):
    guest = Guest(options, owner_only_for_boot=True)
    try:
        guest.wait_ready()
    except BaseException:
        guest.end()
        raise
    return 0


def cmd_run(options):
    guest = Guest(options, owner_only_for_boot=False)
    try:
        guest.wait_ready()
        return execute(options)
    finally:
        guest.end()


def cmd_stop(options):
    try:
        connection = Connection(options.name)
    except Failure:
        # Nothing there, or something that a killed supervisor left.
        lock = try_lock(state_of(options.name))
        if lock is not None:
            shutil.rmtree(state_of(options.name))
        elif os.path.exists(state_of(options.name)):
            raise Failure(f"guest '{options.name}' is still booting: end its 'testbed boot'", 1) from None
        return 0
    connection.send(wire.frame(wire.STOP, 0))
    try:
        connection.receive(time.monotonic() + 15)
    except Failure:                 # the end of the connection is the answer
        return 0
    raise Failure(f"guest '{options.name}' did not end within 15 s", 1)


def cmd_list(_options):
    try:
        names = sorted(os.listdir(state_base()))
    except FileNotFoundError:
        return 0
    for name in names:
        try:
            status = Connection(name).ask(wire.STATUS)
            print(f"{name}\t{status['release']}\t{status['accel']}\tqemu {status['qemu']}\t"
                  + (f"dead: {status['died']}" if status["died"] else f"{status['sessions']} running"))
        except Failure:
            print(f"{name}\t(booting, or left over: 'testbed stop --name {name}')")
    return 0


def cmd_console(options):
    try:
        with open(f"{state_of(options.name)}/console.log", "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    except FileNotFoundError:
        raise Failure(f"there is no guest named '{options.name}'", 1) from None
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog="testbed", allow_abbrev=False,
                                     epilog="'testbed help' explains the options.")
    commands = parser.add_subparsers(dest="what", required=True)
    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--name")
    boots = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    boots.add_argument("--kernel", required=True)
    boots.add_argument("--memory", default="4G")
    boots.add_argument("--cpus", type=int)
    boots.add_argument("--stage")
    boots.add_argument("--file", action="append", default=[])
    boots.add_argument("--append", default="")
    boots.add_argument("--max-seconds", type=int, default=3600)
    boots.add_argument("--net")
    boots.add_argument("--clock", choices=("time", "instructions"), default="time")
    execs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    execs.add_argument("--timeout", type=float, default=600)
    execs.add_argument("--strict-dmesg", action="store_true")
    execs.add_argument("--collect", action="append", default=[])
    execs.add_argument("--env", action="append", default=[])
    for name, parents in (("boot", [named, boots]), ("exec", [named, execs]), ("stop", [named]),
                          ("run", [named, boots, execs]), ("list", []), ("console", [named])):
        commands.add_parser(name, parents=parents, allow_abbrev=False)
    # What follows "--" is not ours to read, options or not.
    arguments = sys.argv[1:]
    command = []
    if "--" in arguments:
        cut = arguments.index("--")
        arguments, command = arguments[:cut], arguments[cut + 1:]
    options = parser.parse_args(arguments)
    options.command = command
    if options.what in ("exec", "run") and not command:
        parser.error("say what to run after '--'")
    if options.what not in ("exec", "run") and command:
        parser.error(f"{options.what} runs nothing: no '--'")
    if options.what in ("boot", "run"):
        counts = options.clock == "instructions"
        options.cpus = options.cpus or (1 if counts else 2)
        if counts and options.cpus > 1:
            parser.error("--clock instructions: there is one clock for all processors, which take turns; leave --cpus 1")
    if options.what != "list":
        options.name = options.name or (f"run-{os.getpid()}" if options.what == "run" else "default")
    return options


COMMANDS = {"boot": cmd_boot, "exec": execute, "stop": cmd_stop, "run": cmd_run, "list": cmd_list,
            "console": cmd_console}


def main():
    def end(number, _frame):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    options = parse_arguments()
    try:
        return COMMANDS[options.what](options)
    except Failure as error:
        say(str(error))
        return error.status
    except BrokenPipeError:         # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except subprocess.CalledProcessError as error:
        say(str(error))
        return GUEST_LOST


if __name__ == "__main__":
    sys.exit(main())
