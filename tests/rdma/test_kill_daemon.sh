#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# kill -9 of the daemon while peers read and write deep, a copy runs and a local program writes. Everybody gets an error
# in bounded time; a new daemon mounts at once where the dead one's mount still is; of the old process no MR is left; and
# no handle from before works on the new one (I8).
. "$(dirname "$0")/lib.sh"
patience=100 # seconds, on an emulated and busy machine: what counts is that nothing waits for ever
size=$((16 << 20))
mrs() { rdma resource show mr | grep -c . || true; }
no_mrs() { [[ $(mrs) == 0 ]]; }
ended() { ! kill -0 "$1" 2>/dev/null; }
running() { grep -q "$2" "$dir/$1"; }
mounts() { grep -c " $mnt fuse" /proc/mounts || true; }
daemon() { pgrep -f "control=$control"; }

no_mrs || fail "somebody else has memory registered: $(rdma resource show mr)"
mount_fs 128M 60000
daemon=$(daemon)
head -c $size /dev/urandom >"$mnt/read"
head -c $size /dev/zero >"$mnt/written"

(
    peer_start
    ask "lease /written write 0 $size ignore"
    while ask "write 0 0 $size 1"; do :; done # until the first error, which is the last line
    peer_end
) >"$dir/writer" 2>&1 &
writer=$!
peer_start
held=$(ask "lease /read read 0 $size ignore") || fail "no lease: $held"
old_key=${held##*rkey=}
old_address=${held##*remote_address=}
old_address=${old_address%% *}
tell "touch 0 0 $size $((patience * 2000))" # one-sided reads of 16 MiB until one is refused
head -c 64M /dev/urandom >"$dir/source"
ctl put "$dir/source" :/put >"$dir/put" 2>&1 &
put=$!
# dd says why it stops; it is on the mount when the daemon dies.
dd if=/dev/zero of="$mnt/local" bs=64k count=1000000 oflag=direct conv=notrunc 2>"$dir/local" &
local=$!
jobs_started+=("$writer" "$put" "$local")
until_true $patience running writer '^ok$'
until_true $patience test -s "$mnt/local"
(($(mrs) > 0)) || fail "no memory is registered, so that none being left would show nothing"

kill -9 "$daemon"
start=$SECONDS
leasefs -o "pool=128M,control=$control,recall_timeout=1000" "$mnt" || fail "a new daemon does not mount where the dead one was"
echo "a new daemon is there $((SECONDS - start)) s after the kill"
[[ $(mounts) == 1 ]] || fail "the dead daemon's mount is still there: $(grep "$mnt" /proc/mounts)"
[[ $(daemon) != "$daemon" ]] || fail "the old daemon lives"
timeout $patience ls "$mnt" >/dev/null || fail "the new mount does not serve"

answer=$(peer_answer) || fail "the reader: $answer"
[[ $answer == ok\ refused=* ]] || fail "the reader: $answer"
echo "reader: $answer"
until_true $patience ended "$local"
grep -q 'error' "$dir/local" || fail "a local writer was not told: $(cat "$dir/local")"
until_true $patience ended "$put"
wait "$put" && fail "a copy whose server was killed reports success"
echo "put: $(tail -n 1 "$dir/put")"
until_true $patience ended "$writer"
tail -n 1 "$dir/writer" | grep '^error' || fail "the writer's last word: $(tail -n 1 "$dir/writer")"
echo "all had their errors $((SECONDS - start)) s after the kill"

# The library may have found the new daemon. The old lease is not there.
answer=$(ask "read 0 0 4096") && fail "a lease from before the restart still reads: $answer"
echo "the old lease: $answer"
peer_end
until_true $patience no_mrs || fail "of the old process: $(rdma resource show mr)"

# What a thief would try: the old key on a connection that is admitted, against the new pool.
head -c $size /dev/zero >"$mnt/read"
peer_start
held=$(ask "lease /read write 0 $size ignore") || fail "the new daemon gives no lease: $held"
[[ ${held##*rkey=} != "$old_key" ]] || fail "the new daemon gives the old key away again"
ask "read 0 0 4096" >/dev/null || fail "the new lease does not read"
ask "forge 0 $old_key $old_address" >/dev/null
answer=$(ask "write 0 0 4096 7") && fail "a key from before the restart works"
echo "the old key: $answer"
peer_end
cmp -n $size "$mnt/read" /dev/zero || fail "a key from before the restart wrote"
until_true 20 no_leases
ctl put "$dir/source" :/put >/dev/null
cmp "$dir/source" "$mnt/put" || fail "the new daemon does not work"
