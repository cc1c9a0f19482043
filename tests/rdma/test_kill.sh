#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A holder killed with -9: its lease is fenced and gone, its blocks reusable, within a second (I6). The best of five
# counts, for this may run on an emulated and busy machine.
. "$(dirname "$0")/lib.sh"
mount_fs 64M 60000
as_before() { [[ $(free_bytes) == "$before" ]]; }
before=$(free_bytes)
best=
for ((i = 0; i < 5; i++)); do
    head -c 2M /dev/urandom >"$mnt/file"
    hold victim /file --read --on-recall=ignore --touch=10
    # One client asks on: to start a program for each question takes longer than what is measured.
    ms=$(python3 - "$control" "$holder" <<'P'
import json, os, signal, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
lines = server.makefile("rw")
def ask(method, **params):
    print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), file=lines, flush=True)
    return json.loads(lines.readline())["result"]
ask("session", client="test", version=1)
assert ask("status")["leases"]
start = time.monotonic()
os.kill(int(sys.argv[2]), signal.SIGKILL)
while ask("status")["leases"]:
    if time.monotonic() - start > 10:
        sys.exit("the lease outlived its holder by 10 s")
print(int((time.monotonic() - start) * 1000))
P
    )
    rm "$mnt/file"
    until_true 5 as_before
    [[ -z $best ]] || ((ms < best)) && best=$ms
done
echo "best of 5: gone after $best ms"
((best < 1000)) || fail "the lease outlived its holder by $best ms"
