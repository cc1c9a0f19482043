#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Ctrl-C while the quickstart is in the testbed: it ends with 130, and leaves no guest, no process and no file.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
export TMPDIR=$dir/tmp
mkdir "$TMPDIR"
cleanup() {
    set +e
    [[ -n ${pid-} ]] && kill -KILL -- "-$pid" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
fail() { printf 'FAILED: %s\n' "$*"; cat "$dir/log"; exit 1; }

# As a terminal does it: a process group of its own, and the signal to all of it. (A shell lets its background jobs
# ignore SIGINT; python3 gives it back.)
python3 - "$top/tools/quickstart" --testbed >"$dir/log" 2>&1 <<'P' &
import os, signal, sys
os.setpgid(0, 0)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
P
pid=$!
for ((i = 0; i < 2400; i++)); do
    grep -q '== mount a pool' "$dir/log" && break
    kill -0 "$pid" 2>/dev/null || fail "the quickstart ended before it mounted"
    read -rt 0.1 <> <(:) || true
done
grep -q '== mount a pool' "$dir/log" || fail "the quickstart did not get as far as to mount"
kill -INT -- "-$pid"
status=0
wait "$pid" || status=$?
((status == 130)) || fail "exit status $status, not 130"
if kill -0 -- "-$pid" 2>/dev/null; then
    fail "processes are left: $(ps -o pid,args --no-headers -g "$pid")"
fi
pid=
guest=$(sed -n "s/^testbed: guest '\([^']*\)' is ready.*/\1/p" "$dir/log")
[[ -n $guest ]] || fail "which guest was it?"
if "$top/tests/testbed/testbed" list | grep -q "^${guest}[[:space:]]"; then
    fail "the guest $guest is left"
fi
[[ -z $(ls -A "$TMPDIR") ]] || fail "files are left: $(ls -A "$TMPDIR")"
if grep -q Traceback "$dir/log"; then
    fail "the testbed complained"
fi
