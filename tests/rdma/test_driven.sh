#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A program that drives its session itself: the library has no thread in it. It answers recalls while it waits for commands
# and while it waits for transfers, renews meanwhile, and goes on over a new connection when the server has broken one.
. "$(dirname "$0")/lib.sh"
size=1048576
mount_fs 16M "60s,lease_time=2s" # who does not answer keeps an operation waiting for a minute
for file in touched wanted revoked; do head -c $size /dev/urandom >"$mnt/$file"; done
peer_start driven
! grep -l leasefs-session /proc/"$peer_PID"/task/*/comm || fail "the library has a thread"
seconds_of() { # COMMAND...
    local started=$SECONDS
    "$@"
    echo $((SECONDS - started))
}
counter() { ctl status --json | jq ".counters.$1"; }

# ---- between commands ----
ask lease /wanted read 0 0 guarded
took=$(seconds_of truncate -s 100 "$mnt/wanted")
((took < 20)) || fail "a recall between commands was answered after $took s"

# ---- in a long call: five seconds of reads; another lease is recalled, a third revoked under the connection ----
head -c $size /dev/urandom >"$mnt/wanted"
touched=$(ask lease /touched read 0 0 guarded) || fail "$touched"
ask lease /wanted read 0 0 guarded
ask lease /revoked read 0 0 guarded
revoked=$(ctl status --json | jq '.leases | map(.lease) | max')
slot=${touched#*slot=}
tell touch "${slot%% *}" 0 $size 8000
took=$(seconds_of truncate -s 100 "$mnt/wanted")
((took < 6)) || fail "a recall during a transfer was answered after $took s"
ctl revoke "$revoked"
answer=$(peer_answer) && fail "reading ended: $answer"
[[ $answer == *"never refused"* ]] || fail "reading ended: $answer"
[[ $(counter recall_timeouts) == 0 && $(counter expired) == 0 ]] || fail "not all went well: $(ctl status --json | jq .counters)"
ask read "${slot%% *}" 0 $size || fail "the lease that was read from all the time is gone"

# ---- between commands again: a renewal each third of the lease's time ----
expires() { ctl status --json | jq '.leases[0].expires_in_ms'; }
renewed=0 last=$(expires)
until ((renewed == 4)); do
    now=$(expires)
    [[ $now != null ]] || fail "the lease has ended"
    ((now <= last)) || renewed=$((renewed + 1))
    last=$now
done
ask read "${slot%% *}" 0 $size || fail "the lease was not renewed between commands"

# ---- the server goes ----
fusermount3 -u -z "$mnt"
answer=$(ask lease /touched read 0 0) && fail "a lease of a server that is gone: $answer"
[[ $answer == "error ENOTCONN"* ]] || fail "$answer"
