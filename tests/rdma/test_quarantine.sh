#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every rung fails (faults are injected), the last one, too. The operation goes on all the same; the blocks stay with the
# lease for good, seen as quarantined and never given to anybody else; an alarm says so (I1).
. "$(dirname "$0")/lib.sh"
size=$((4 << 20))
export LEASEFS_FAULTS=rereg=fail,dereg=fail,qp=fail,punch=fail
quarantined() { ctl status --json | jq .pool.quarantined_bytes; }
serves() { ctl status >/dev/null 2>&1; }
is_quarantined() { [[ $(quarantined) == "$size" ]]; }
alarmed() { grep -q "ALARM: lease .*quarantined" "$dir/log"; }

mkdir "$mnt"
"$programs/leasefs-faults" -f -o "pool=16M,control=$control,recall_timeout=300" "$mnt" 2>"$dir/log" &
jobs_started+=("$!")
until_true 60 serves
before=$(free_bytes)
head -c $size /dev/urandom >"$mnt/file"
peer_start
ask "lease /file write 0 $size ignore" >/dev/null || fail "no lease"
ask "write 0 0 $size 1" >/dev/null || fail "the lease does not serve"
[[ $(quarantined) == 0 ]] || fail "quarantined before anything failed"
truncate -s 0 "$mnt/file"
until_true 60 is_quarantined
until_true 20 alarmed
grep ALARM "$dir/log"

# What is left of the pool is used to the last block. The peer goes on writing: it hits nobody.
left=$(free_bytes)
((left <= before - size)) || fail "$left bytes free: quarantined blocks count as free"
head -c "$left" /dev/zero >"$mnt/other" 2>/dev/null || true
[[ $(stat -c %s "$mnt/other") -gt $((left / 2)) ]] || fail "the rest of the pool does not serve"
for ((i = 0; i < 4; i++)); do ask "write 0 0 $size 2" >/dev/null || true; done
cmp -n "$(stat -c %s "$mnt/other")" "$mnt/other" /dev/zero || fail "remote writes reached another file"
peer_end
is_quarantined || fail "the quarantine ended with nothing proven: $(quarantined) bytes"
rm "$mnt/other"
(($(free_bytes) <= before - size)) || fail "quarantined blocks were freed"
