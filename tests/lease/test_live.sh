#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# map draws what a file is made of and who holds it; watch tells what happens; top shows rates. On a terminal or not, or as JSON.
: "${LEASEFS_SIMULATED:=leasefs_simulated}"
LEASEFS=$LEASEFS_SIMULATED device=simulated
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"
mount_fs pool=64M

# 0 to 64K written, 64K to 128K a hole, 128K to 192K unwritten.
head -c 65536 /dev/urandom >"$mnt/file"
fallocate -o 131072 -l 65536 "$mnt/file"
exits 0 ctl map "$mnt/file"
says '/file: 196608 bytes, 2 extents, 0 leases'
says '|######################....................----------------------|'
exits 0 ctl --json map "$mnt/file"
expect map "$(member event)"
expect '0+65536 written False, 131072+65536 unwritten False' "$(python3 -c 'import json, sys
print(", ".join("%d+%d %s %s" % (e["offset"], e["length"], e["state"], e["shared"]) for e in json.loads(sys.argv[1])["extents"]))' "$output")"
exits 0 ctl clone :/file :/clone
exits 0 ctl map :/clone
says '|++++'
exits 1 ctl map :/none
exits 1 ctl map :/
exits 2 ctl map
chmod 600 "$mnt/file"

ctl watch --interval=20 --json >"$dir/watch" &
watcher=$!
until_seen() # TEXT: in the watcher's words
{
    local i
    for ((i = 0; i < 400; i++)); do
        grep -q "$1" "$dir/watch" && return
        sleep 0.05
    done
    fail "watch did not tell of $1: $(cat "$dir/watch")"
}
until_seen '"what":"session"'
ctl lease --read --range=0:32K --on-recall=ignore :/file >"$dir/holder" &
holder=$!
until_seen '"what":"lease".*"length":32768'
exits 0 ctl map :/file
says '196608 bytes, 2 extents, 1 leases'
says '|RRRRRRRRRRR                                                     |  read, active'
truncate -s 0 "$mnt/file"
until_seen '"what":"state".*"state":"recalled"'
until_seen '"what":"lease-end"'
wait "$holder" || true
until_seen '"what":"session-end"'
kill "$watcher"
exits 0 ctl watch --for=0.05 --interval=10
says 'session'

# A file of more extents than one answer holds: every other block.
for ((i = 0; i < 300; i++)); do printf 'x%.0s' {1..10} | dd of="$mnt/many" bs=4096 seek=$((2 * i)) conv=notrunc status=none; done
exits 0 ctl --json map :/many
expect 300 "$(python3 -c 'import json, sys; print(len(json.loads(sys.argv[1])["extents"]))' "$output")"

exits 0 ctl top --count=2 --interval=50
says 'per second'
says 'total bytes'
exits 0 ctl top --count=2 --interval=50 --json
expect 2 "$(grep -c '"event":"top".*"rates"' <<<"$output")"
exits 2 ctl top --count=0
exits 2 ctl watch --for=-1
unmount_fs
exits 7 ctl top
