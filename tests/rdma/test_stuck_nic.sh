#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A NIC that never answers again (faults are injected: rereg, dereg and QP hang). Whatever drops or replaces blocks does
# not wait for it (I4): it is done at the recall deadline, while the fence is still being tried. The space comes back
# afterwards, too: the last rung gives the pool other pages. A local write under a write lease waits, but not for ever.
. "$(dirname "$0")/lib.sh"
size=$((4 << 20))
slack=15000 # ms, for an emulated and busy machine; what counts is that the fence is still going on
export LEASEFS_FAULTS=rereg=stuck,dereg=stuck,qp=stuck
mount_fs 96M 300 "$programs/leasefs-faults"
ctl probe --json >/dev/null

ms() { echo $(($(date +%s%N) / 1000000)); }
states() { ctl status --json | jq -r '[.leases[].state] | join(" ")'; }
states_are() { [[ $(states) == "$1" ]]; }
# What is left is told at the end of the time, before the test fails.
no_leases_or_told() {
    no_leases && return
    ((SECONDS < told)) && return 1
    told=$((SECONDS + 1000))
    ctl status --json | jq -c '{leases, pool, counters, fabric: .fabric.revocations}'
    return 1
}
all_free() { [[ $(free_bytes) == "$before" ]]; }
quarantined() { ctl status --json | jq .pool.quarantined_bytes; }

drop_truncate() { truncate -s 0 "$mnt/file"; }
drop_punch() { fallocate -p -o 0 -l $size "$mnt/file"; }
drop_unlink() { rm "$mnt/file"; }
drop_overwrite() { head -c $size /dev/zero | dd of="$mnt/file" bs=1M conv=notrunc iflag=fullblock 2>/dev/null; }

# What it says is whether the fence was still being tried when the operation was done.
fencing_after() {
    local how=$1 start took now
    head -c $size /dev/urandom >"$mnt/file"
    peer_start
    ask "lease /file read 0 $size ignore" >/dev/null || fail "no lease"
    ask "read 0 0 $size" >/dev/null || fail "the lease does not serve"
    start=$(ms)
    "drop_$how" || fail "$how failed"
    took=$(($(ms) - start))
    now=$(states)
    echo "$how: $took ms; the lease is then: ${now:-gone}"
    ((took < 300 + slack)) || fail "$how took $took ms"
    if [[ $how == overwrite ]]; then
        cmp -n $size "$mnt/file" /dev/zero || fail "the file is not what was written"
    fi
    rm -f "$mnt/file"
    told=$((SECONDS + 110))
    until_true 120 no_leases_or_told
    until_true 20 all_free
    [[ $(quarantined) == 0 ]] || fail "quarantined although the pool got other pages"
    peer_end
    [[ $now == fencing ]]
}

before=$(free_bytes)
for how in truncate punch unlink overwrite; do
    # A machine that is busy with others may need longer for the operation than the ladder does: it is asked again.
    fencing_after $how || fencing_after $how || fencing_after $how || fail "$how waited for the NIC"
done

head -c $size /dev/urandom >"$mnt/file"
peer_start
ask "lease /file write 0 $size ignore" >/dev/null || fail "no lease"
for ((i = 1; i <= 4; i++)); do tell "write 0 0 $size $i"; done
start=$(ms)
drop_overwrite
took=$(($(ms) - start))
echo "overwrite under a write lease: $took ms"
((took < 300 + 5000 + slack)) || fail "a write waited $took ms for the NIC"
cmp -n $size "$mnt/file" /dev/zero || fail "remote stores show in the file after a local write"
peer_end
cmp -n $size "$mnt/file" /dev/zero || fail "late remote stores show in the file"
