#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The example client, in Python's standard library alone, takes a lease, renews it, gives it back, and obeys a recall.
: "${LEASEFS_SIMULATED:=leasefs_simulated}"
LEASEFS=$LEASEFS_SIMULATED device=simulated
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"
client=$(cd "$(dirname "$0")/../../tools/examples" && pwd)/lease_client.py

mount_fs pool=64M,lease_time=4s
head -c 100000 /dev/urandom >"$mnt/file"

exits 0 python3 -I "$client" --renewals 4 "$control" /file
# Four thirds of its time: without renewals it would have ended.
says 'lease 1 (read) on /file: bytes 0+102400'
expect 4 "$(grep -c '^renewed' <<<"$output")"
says returned
expect '[]' "$(getfattr --absolute-names --only-values -n user.leasefs.leases "$mnt/file")"

python3 -I "$client" --write --renewals 1000 "$control" /file >"$dir/out" 2>&1 &
holder=$!
for ((i = 0; i < 200; i++)); do
    grep -q '^lease' "$dir/out" && break
    sleep 0.05
done
truncate -s 5 "$mnt/file"
wait "$holder" || fail "the client ended with $?: $(cat "$dir/out")"
grep -q '^recalled' "$dir/out" || fail "no recall in: $(cat "$dir/out")"
tail -n 1 "$dir/out" | grep -q returned || fail "not given back: $(cat "$dir/out")"

exits 1 python3 -I "$client" "$control" /none
says 'lease_client.py:'
exits 1 python3 -I "$client" "$control.none" /file
unmount_fs
