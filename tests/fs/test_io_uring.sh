#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Requests come by io_uring: whatever their size and however many wait for leases, and it ends in every way that a mount
# ends. (Where Linux offers it, all tests of this folder run over it; those named fs.read.* do not.)
# Labels: crash
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
# shellcheck source=tools/lib/io_uring.sh
. "$(dirname "$0")/../../tools/lib/io_uring.sh"

[ -e "$io_uring_parameter" ] || skip "this Linux has no FUSE over io_uring"
[ -w "$io_uring_parameter" ] || skip "$io_uring_parameter is not ours to change"
# shellcheck disable=SC2034 # for at_exit
before=$(cat "$io_uring_parameter")
at_exit='echo "$before" >"$io_uring_parameter"'

# Threads that wait for requests from a ring.
ring_threads()
{
    grep -lx leasefs-ring /proc/"$daemon"/task/*/comm | wc -l
}

# Memory of the daemon's besides the pool.
private_kib()
{
    awk '/^RssAnon:/ { print $2 }' "/proc/$daemon/status"
}

recalled()
{
    "$LEASECTL" --control "$control" --json status | grep -o '"state": *"recalled"' | wc -l
}

# all_at_once WHAT: lets go who waits at $dir/open and $dir/go. All of the $n requests come before any is served; then each
# gets as far as its lease. We ask by the control socket: no other request may help.
all_at_once()
{
    local i waiting
    waiting=$connections/$(awk -v mnt="$mnt" '$5 == mnt { sub(/.*:/, "", $3); n = $3 } END { print n }' /proc/self/mountinfo)/waiting
    cat "$dir/open"
    kill -STOP "$daemon"
    echo >"$dir/go"
    for ((i = 0; i < 200; i++)); do
        [ "$(cat "$waiting")" -lt $n ] || break
        sleep 0.05
    done
    [ "$(cat "$waiting")" -ge $n ] || fail "only $(cat "$waiting") of $n $1 came"
    kill -CONT "$daemon"
    for ((i = 0; i < 200; i++)); do
        [ "$(recalled)" -lt $n ] || break
        sleep 0.05
    done
    expect $n "$(recalled)" "leases recalled for $1"
}

# ---- when it is used ----
echo N >"$io_uring_parameter"
if "$LEASEFS" -f -o "device=$device,control=$control,pool=16M,io_uring=on" "$mnt" 2>"$log"; then
    fail "io_uring=on succeeds where Linux does not offer it"
fi
grep -q "io_uring=on: Linux does not offer it.*enable_uring" "$log" || fail "it says: $(cat "$log")"
! is_mounted || fail "a mount is left"
mount_fs pool=16M
expect 0 "$(ring_threads)" 'not offered'
unmount_fs
echo Y >"$io_uring_parameter"
mount_fs pool=16M,io_uring=off
expect 0 "$(ring_threads)" 'offered, but off'
unmount_fs
mount_fs pool=192M,io_uring=on,recall_timeout=120s
[ "$(ring_threads)" -ge "$(nproc)" ] || fail "$(ring_threads) threads for $(nproc) processors"

# ---- sizes: with and without a header of the operation, from no payload to the largest, answered and refused ----
cd "$mnt"
name=$(printf 'n%.0s' {1..255})
random_file "$dir/random" 5M
dd if="$dir/random" of=large bs=1M oflag=direct status=none
dd if=large of="$dir/back" bs=1M iflag=direct status=none
cmp "$dir/random" "$dir/back"
dd if="$dir/random" of=odd bs=123457 status=none
cmp "$dir/random" odd
mkdir "$name"
ln -s "$(printf 't%.0s' {1..4000})" "$name/link"
expect 4000 "$(readlink "$name/link" | tr -d '\n' | wc -c)"
value=$(head -c 30000 /dev/zero | tr '\0' v)
setfattr -n user.large -v "$value" odd
expect "$value" "$(getfattr --absolute-names --only-values -n user.large odd)" 'a large attribute'
for i in $(seq 3000); do echo "$name/$i"; done | xargs touch
expect 3001 "$(ls -l "$name" | tail -n +2 | wc -l)" 'names of a large directory'
refused_with 'No such file' cat none
refused_with 'No such attribute' getfattr -n user.none odd
rm -r "$name"

# On each processor.
for ((i = 0; i < $(nproc); i++)); do
    taskset -c $i sh -c "echo $i >cpu$i && cat cpu$i >/dev/null && mv cpu$i moved$i && rm moved$i" || fail "on processor $i"
done

# ---- more requests wait than threads or entries there are, each with much to write; the rest goes on ----
# All come at once, on one processor, before any is served.
connections=$dir/fusectl
mkdir "$connections"
mount -t fusectl none "$connections"
at_exit="$at_exit; umount $connections"
n=32
for i in $(seq $n); do
    head -c 1M /dev/zero >"w$i"
    "$LEASECTL" --control "$control" lease --read --on-recall=ignore ":/w$i" >/dev/null 2>&1 &
    holders+=($!)
done
for i in $(seq $n); do until_state "w$i" active; done
before_kib=$(private_kib)
cd / # away from a server that does not answer
mkfifo "$dir/open" "$dir/go"
python3 -c '
import mmap, os, sys
source, opened, go, mnt, n = *sys.argv[1:5], int(sys.argv[5])
os.sched_setaffinity(0, {0})
bytes = mmap.mmap(-1, 1 << 20)  # aligned, as O_DIRECT wants it
with open(source, "rb") as file:
    bytes.write(file.read(1 << 20))
files = [os.open(f"{mnt}/w{i}", os.O_WRONLY | os.O_DIRECT) for i in range(1, n + 1)]
open(opened, "w").close()
open(go).read()
children = []
for file in files:
    child = os.fork()
    if child == 0:
        os._exit(0 if os.write(file, bytes) == len(bytes) else 1)
    children.append(child)
for child in children[1:]:
    if os.waitpid(child, 0)[1]:
        sys.exit("a writer failed")
os.kill(children[0], 9)
if os.waitpid(children[0], 0)[1] == 0:
    sys.exit("a writer that was killed has succeeded")
' "$dir/random" "$dir/open" "$dir/go" "$mnt" $n &
writers=$!
all_at_once writes
cd "$mnt"
takes 0 30000 taskset -c 0 sh -c 'echo a >b && cat b >/dev/null && rm b && ls -l . >/dev/null'
# The first goes on waiting for its lease, until it is killed.
kill "${holders[@]:1}"
wait $writers || fail "see above"
kill "${holders[0]}"
head -c 1M "$dir/random" >"$dir/written"
for i in $(seq 2 $n); do cmp "$dir/written" "w$i"; done
# What they had brought is not kept, but for a buffer of 512 KiB for each that waited and each thread, for who comes next.
sanitized || {
    more_kib=$(($(private_kib) - before_kib))
    [ $more_kib -lt $((32 * 1024)) ] || fail "$more_kib KiB are kept of $n writers' requests"
}
cd /
unmount_fs

# ---- the same of requests that have no file of their own, where none was ever opened ----
holders=()
mount_fs pool=64M,io_uring=on,recall_timeout=120s
for i in $(seq $n); do
    mkdir "$mnt/d$i"
    head -c 4k /dev/zero >"$mnt/d$i/f"
    "$LEASECTL" --control "$control" lease --read --on-recall=ignore ":/d$i/f" >/dev/null 2>&1 &
    holders+=($!)
done
cd "$mnt"
for i in $(seq $n); do until_state "d$i/f" active; done
cd / # away from a server that does not answer
python3 -c '
import os, sys
opened, go, mnt, n = *sys.argv[1:4], int(sys.argv[4])
os.sched_setaffinity(0, {0})
names = [f"{mnt}/d{i}/f" for i in range(1, n + 1)]
for name in names:
    os.stat(name)
open(opened, "w").close()
open(go).read()
children = []
for name in names:
    child = os.fork()
    if child == 0:
        os.unlink(name)
        os._exit(0)
    children.append(child)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
' "$dir/open" "$dir/go" "$mnt" $n &
writers=$!
all_at_once unlinks
kill "${holders[@]}"
wait $writers || fail "an unlink failed"
unmount_fs

# ---- ends ----
load()
{
    (cd "$mnt" && while head -c 300k /dev/zero >"l$1" && mv "l$1" "m$1" && rm "m$1"; do :; done) 2>/dev/null &
    loads+=($!)
}
end_of_load()
{
    for pid in "${loads[@]}"; do wait_gone "$pid" 100 || fail "who was in there hangs after $1"; done
    loads=()
}
mount_fs pool=64M,io_uring=on
for i in 1 2 3; do load $i; done
until [ -e "$mnt/m1" ]; do :; done
kill -TERM "$daemon"
wait_gone "$daemon" 100 || fail "the daemon runs on after SIGTERM"
end_of_load SIGTERM

mount_fs pool=64M,io_uring=on
for i in 1 2 3; do load $i; done
until [ -e "$mnt/m1" ]; do :; done
kill -9 "$daemon"
end_of_load 'kill -9'
wait "$daemon" 2>/dev/null || true
mount_fs pool=64M,io_uring=on
echo new >"$mnt/new"
expect new "$(cat "$mnt/new")"
unmount_fs
