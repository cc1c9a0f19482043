#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Policy orphan over the fabric: nobody waits for a holder that never answers. A reader keeps what it leased while the file is
# cut off and written anew; a writer is told that its writes go nowhere, and they do. The old blocks are the lease's until its
# end, then free again (I1, I2, I4).
. "$(dirname "$0")/lib.sh"
size=1048576
mount_fs 16M 600000 # a recall would be waited for until the test is killed
ctl policy "$mnt" orphan >/dev/null
head -c 1M /dev/urandom >"$mnt/bystander"
bystander=$(pool_sum "$mnt/bystander")
free_at_first=$(free_bytes)

all_is_free() { [[ $(free_bytes) == "$free_at_first" ]]; }

peer_start
word_of() { # NAME ANSWER
    local rest=${2#*"$1"=}
    echo "${rest%% *}"
}
bytes() { head -c "$1" /dev/zero | tr '\0' "$2"; }
told() { # the next notice is this one
    local line
    read -rt 60 line <&"${peer[0]}" || fail "the holder was told nothing"
    [[ $line == "notice $1 "* ]] || fail "told '$line', not of '$1'"
    echo "$line"
}

# ---- a reader ----
granted=$(ask create /snapshot $size) || fail "$granted"
slot=$(word_of slot "$granted")
ask write "$slot" 0 $size 1 >/dev/null
ask commit "$slot" $size >/dev/null
ask publish "$slot" >/dev/null
granted=$(ask lease /snapshot read 0 0 ignore) || fail "$granted"
slot=$(word_of slot "$granted")
ask check "$slot" 0 $size 1 >/dev/null || fail "the file is not what was written"

truncate -s 0 "$mnt/snapshot"
told orphaned
ask check "$slot" 0 $size 1 || fail "the snapshot changed when the file was cut off"
held=$(ctl status --json | jq .pool.held_bytes)
((held == size)) || fail "the lease holds $held bytes"
bytes $size N >"$mnt/snapshot"
bytes $size N >"$mnt/more" # in whatever blocks are free
[[ $(pool_sum "$mnt/snapshot") == "$(bytes $size N | sha256sum)" ]] || fail "the file is not what was written last"
ask check "$slot" 0 $size 1 || fail "the snapshot changed when the file was written anew"
rm "$mnt/snapshot"
ask check "$slot" 0 $size 1 || fail "the snapshot changed when the file was removed"
rkey=$(word_of rkey "$granted") address=$(word_of remote_address "$granted")
ask return "$slot" >/dev/null
until_true 20 no_leases

# ---- its key is as dead as that of any lease that has ended (I8) ----
granted=$(ask lease /more read 0 0 ignore) || fail "$granted"
slot=$(word_of slot "$granted")
ask forge "$slot" "$rkey" "$address" >/dev/null
ask read "$slot" 0 4096 && fail "the key of a lease that has ended reads on"
ask return "$slot" >/dev/null || true
rm "$mnt/more"
until_true 20 no_leases
until_true 20 all_is_free

# ---- a writer ----
bytes $size O >"$mnt/written"
granted=$(ask lease /written write 0 0 ignore prepare) || fail "$granted"
slot=$(word_of slot "$granted")
ask write "$slot" 0 $size 2 >/dev/null || fail "a write under a good lease"
bytes 65536 N | dd of="$mnt/written" bs=64K seek=1 iflag=fullblock conv=notrunc status=none # the second 64 KiB
notice=$(told orphaned)
[[ $notice == *"65536+65536"* ]] || fail "told of another range: $notice"
in_pool=$(pool_sum "$mnt/written")
ask write "$slot" 65536 65536 3 || fail "a write that goes nowhere failed: the lease goes on"
ask check "$slot" 65536 65536 3 || fail "the holder does not see its own write"
[[ $(pool_sum "$mnt/written") == "$in_pool" ]] || fail "a write that goes nowhere is in the file"
[[ $(dd if="$mnt/written" iflag=direct bs=64K skip=1 count=1 status=none | sha256sum) == "$(bytes 65536 N | sha256sum)" ]] ||
    fail "the local write is not in the file"
ask write "$slot" 131072 65536 3 || fail "a write to what is still the file's"
[[ $(pool_sum "$mnt/written") != "$in_pool" ]] || fail "a write to what is still the file's is not in the file"
truncate -s 0 "$mnt/written"
told orphaned
ask write "$slot" 0 $size 4 || fail "a write that goes nowhere failed: the lease goes on"
[[ $(stat -c %s "$mnt/written") == 0 ]] || fail "the file has grown"
ask return "$slot" >/dev/null
until_true 20 no_leases

[[ $(ctl status --json | jq .counters.recalls) == 0 ]] || fail "somebody was recalled"
rm "$mnt/written"
until_true 20 all_is_free
[[ $(pool_sum "$mnt/bystander") == "$bystander" ]] || fail "another file changed"
