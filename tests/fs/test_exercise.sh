#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The data exerciser in every cache mode, and while leases on its files are taken, recalled and given back at random.
# LEASEFS_TEST_SEED repeats its operations, LEASEFS_TEST_OPERATIONS makes it longer (nightly: 10000000).
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
[ -x "${LEASEFS_EXERCISE:-}" ] || skip "set LEASEFS_EXERCISE"
operations=${LEASEFS_TEST_OPERATIONS:-200000}
seed=${LEASEFS_TEST_SEED:-$RANDOM}

# Alone, at full speed; the other cache modes for a part of it. (writeback goes without leases. The later device= counts.)
for mode in cache=auto cache=none writeback,device=none; do
    mount_fs "pool=64M,$mode"
    echo "$mode"
    "$LEASEFS_EXERCISE" "$mnt" "$operations" "$seed" || fail "the exerciser with $mode"
    unmount_fs
    operations=$((${LEASEFS_TEST_OPERATIONS:-200000} / 5))
done

# With holders that give back when asked, and some that do not.
mount_fs pool=64M,recall_timeout=30ms
touch "$dir/busy" "$mnt/exercise0" "$mnt/exercise1"
for i in 0 1; do
    while [ -e "$dir/busy" ]; do
        modes=(--read --write)
        answers=(return return ignore)
        "$LEASECTL" --control "$control" lease "${modes[RANDOM % 2]}" --prepare --for=0.0$((RANDOM % 9 + 1)) \
            --on-recall="${answers[RANDOM % 3]}" ":/exercise$i" >>"$dir/leases" 2>&1 || true
    done &
    holders+=($!)
done
status=0
"$LEASEFS_EXERCISE" "$mnt" $((operations / 2)) "$seed" leased || status=$?
rm "$dir/busy"
wait "${holders[@]}"
[ $status = 0 ] || fail "the exerciser under leases"
grep -q sequence "$dir/leases" || fail "no lease was given: $(tail -n 3 "$dir/leases")"
echo "$(grep -c sequence "$dir/leases") leases, $(grep -c -i recall "$dir/leases" || true) recalled"
unmount_fs
