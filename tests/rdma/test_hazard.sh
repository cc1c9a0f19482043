#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A holder that goes on writing while and after its lease is taken away: nothing of it shows in another file (I1), nor
# in a clone (I2). A daemon built without gate and fence lets both happen, so the checks can fail.
. "$(dirname "$0")/lib.sh"
size=$((8 << 20))
late_writes=6

begin() { # DAEMON: a write lease, and writes under way
    mount_fs 24M 300 "$1"
    before=$(free_bytes)
    head -c $size /dev/zero >"$mnt/victim"
    peer_start
    ask "lease /victim write 0 $size ignore" >/dev/null || fail "no lease"
    for ((i = 1; i <= late_writes; i++)); do tell "write 0 0 $size $i"; done
}
finish_writes() { # how many of them were refused
    refused=0
    for ((i = 1; i <= late_writes; i++)); do peer_answer >/dev/null || ((++refused)); done
}
end() {
    peer_end
    fusermount3 -u "$mnt"
}

reuse() { # DAEMON: does the holder change a file that got its blocks?
    local now later
    begin "$1"
    rm "$mnt/victim"
    all_free() { [[ $(free_bytes) == "$before" ]]; }
    until_true 20 all_free
    dd if=/dev/zero of="$mnt/other" bs=1M 2>/dev/null && fail "the pool was not filled"
    now=$(pool_sum "$mnt/other")
    finish_writes
    later=$(pool_sum "$mnt/other")
    end
    # shellcheck disable=SC2055  # two different things to differ from
    [[ $now != "$later" || $now != "$(head -c "$before" /dev/zero | sha256sum)" ]]
}

share() { # DAEMON: does the holder change a clone?
    local now later
    begin "$1"
    ctl clone /victim /clone
    now=$(pool_sum "$mnt/clone")
    finish_writes
    later=$(pool_sum "$mnt/clone")
    end
    [[ $now != "$later" ]]
}

for scenario in reuse share; do
    $scenario leasefs && fail "$scenario: remote stores showed in another file"
    ((refused > 0)) || fail "$scenario: no late write was refused: the holder was not late"
    echo "$scenario: leasefs kept the other file as it was; $refused of $late_writes writes were refused"
    $scenario "$programs/leasefs-hazard" || fail "$scenario: without gate and fence no harm was seen: this test is blind"
    echo "$scenario: without gate and fence the other file was changed"
done
