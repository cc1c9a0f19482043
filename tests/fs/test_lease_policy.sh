#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Policies of files and directories, through the mount; and who is told at once instead of waiting.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,recall_timeout=30s
cd "$mnt"

# A directory's policy is taken over by what is made in it.
mkdir d
setfattr -n user.leasefs.policy -v orphan d
head -c 8192 /dev/zero >d/a
expect orphan "$(getfattr --only-values -n user.leasefs.policy d/a)"
refused setfattr -n user.leasefs.policy -v anarchy d/a

# orphan: operations go on at once, and the lease lives on.
hold /d/a --write --on-recall=ignore
takes 0 10000 truncate -s 5000 d/a
echo local >d/a
expect local "$(cat d/a)"
expect active "$(lease_states d/a)"
end_holder
until_state d/a ""

# busy, of one file.
setfattr -n user.leasefs.policy -v busy d/a
hold /d/a --read --on-recall=ignore
refused truncate -s 0 d/a
expect active "$(lease_states d/a)"
end_holder

# The file's own policy is gone: the mount's holds, and the process that would wait for itself is told, whichever thread
# of it asks; and so is one that will not wait.
setfattr -x user.leasefs.policy d/a
python3 - "$control" <<'PY'
import errno, json, os, socket, sys, threading
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
lines = s.makefile()
def call(number, method, params):
    s.sendall((json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n").encode())
    return json.loads(lines.readline())
call(1, "session", {"version": 1})
lease = call(2, "lease", {"path": "/d/a", "mode": "read"})["result"]["lease"]
errors = []
def attempt(call):
    try:
        call()
        errors.append(0)
    except OSError as error:
        errors.append(error.errno)
for run in (lambda f: f(), lambda f: [t.start() or t.join() for t in [threading.Thread(target=f)]]):
    run(lambda: attempt(lambda: os.truncate("d/a", 1)))
assert errors == [errno.EDEADLK] * 2, errors
# Somebody else waits, and that is the first that the holder hears.
child = os.fork()
if child == 0:
    fd = os.open("d/a", os.O_WRONLY | os.O_NONBLOCK)
    attempt(lambda: os.write(fd, b"x"))
    os._exit(0 if errors[-1] == errno.EAGAIN else 1)
assert json.loads(lines.readline())["method"] == "recall"
assert os.waitpid(child, 0)[1] == 0
call(3, "return", {"lease": lease})
os.truncate("d/a", 1)
PY
expect 1 "$(stat -c %s d/a)"
cd /
unmount_fs
