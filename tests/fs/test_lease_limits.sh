#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How much may be leased at once: by a session, by a user, in all. The first two refuse; where the last is reached, the lease
# that was renewed least recently is recalled, and whoever asked gets his when it is back.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
cat >"$dir/session.py" <<'PY'
import json, socket, sys

class Session:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(sys.argv[1])
        self.lines, self.number, self.notices = self.socket.makefile(), 0, []
        self.call("session", version=1)
    def hear(self):
        message = json.loads(self.lines.readline())
        if "id" not in message:
            self.notices.append((message["method"], message["params"]["lease"]))
        return message
    def call(self, method, **params):
        self.number += 1
        self.socket.sendall((json.dumps({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}) +
                             "\n").encode())
        message = self.hear()
        while message.get("id") != self.number:
            message = self.hear()
        if "error" in message:
            return message["error"]["data"]["errno"], message["error"]["data"].get("reason")
        return message["result"]
    def lease(self, path, wait=False):
        result = self.call("lease", path=path, mode="read", wait=wait)
        return result if isinstance(result, tuple) else result["lease"]
PY
files()
{
    cd "$mnt"
    for file in a b c d; do head -c 2M /dev/zero >"$file"; done
    cd /
}
run_python() { PYTHONPATH=$dir PYTHONDONTWRITEBYTECODE=1 python3 - "$control" || fail "$1"; }

# ---- a session, a user ----
mount_fs pool=64M,session_bytes=4M,user_bytes=6M
files
run_python "limits of sessions and users" <<'PY'
from session import Session
limit = ("EDQUOT", "limit")
first, second = Session(), Session()
a, b = first.lease("/a"), first.lease("/b")
assert isinstance(a, int) and isinstance(b, int), (a, b)
assert first.lease("/c") == limit, "6 MiB in one session of 4"
c = second.lease("/c")
assert isinstance(c, int), c
assert second.lease("/d") == limit, "8 MiB of a user with 6, 4 in each session"
assert second.lease("/d", wait=True) == limit, "waiting does not help"
assert not first.notices and not second.notices, "somebody was recalled for a limit of his own"
first.call("return", lease=a)
assert isinstance(second.lease("/d"), int), "returned bytes count no more"
PY
unmount_fs

# ---- all ----
mount_fs pool=64M,leased_bytes=4M,recall_timeout=60s
files
run_python "the limit of all" <<'PY'
from session import Session
first, second, third = Session(), Session(), Session()
a, b = first.lease("/a"), second.lease("/b")
assert isinstance(a, int) and isinstance(b, int), (a, b)
first.call("renew", lease=a)
assert third.lease("/c") == ("ENFILE", "limit"), "6 MiB of 4"
first.call("status"), second.call("status")
assert not first.notices and not second.notices, "recalled for one who does not wait"
assert third.lease("/c", wait=True) == ("ENFILE", "limit")
while not second.notices:
    second.hear()
assert second.notices == [("recall", b)], second.notices
first.call("status")
assert not first.notices, "it was renewed since, and one is enough"
second.call("return", lease=b)
assert isinstance(third.lease("/c", wait=True), int)
first.call("status")
assert not first.notices, first.notices
PY
unmount_fs
