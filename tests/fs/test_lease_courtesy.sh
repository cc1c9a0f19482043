#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A holder that slept through its lease's time: as long as nobody wants the bytes it may renew, and goes on as if nothing had
# been. The first conflict ends the lease at once, recalls nobody and waits for nobody; the holder hears so when it wakes.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,lease_time=3s,recall_timeout=60s
cd "$mnt"
head -c 8192 /dev/zero >file

in_courtesy() { "$LEASECTL" --control "$control" status --json | grep -q '"courtesy": *true'; }
# until_true COMMAND...: within 30 seconds.
until_true()
{
    local i
    for ((i = 0; i < 600; i++)); do
        ! "$@" || return 0
        sleep 0.05
    done
    fail "not in time: $*"
}
not_in_courtesy() { ! in_courtesy; }

hold /file --read
kill -STOP $holder
until_true in_courtesy
expect active "$(lease_states file)"
kill -CONT $holder
until_true not_in_courtesy
expect active "$(lease_states file)" "renewed"
! grep -qi -e recall -e revoked "$dir/holder" || fail "it was told: $(cat "$dir/holder")"
truncate -s 100 file # recalled and given back as ever
wait $holder || fail "the holder ended with $?: $(cat "$dir/holder")"
grep -q recall "$dir/holder" || fail "it was not recalled: $(cat "$dir/holder")"
expect "" "$(lease_states file)"

head -c 8192 /dev/zero >file
hold /file --read --on-recall=ignore
kill -STOP $holder
until_true in_courtesy
takes 0 10000 truncate -s 100 file # the recall's time is a minute
expect "" "$(lease_states file)"
kill -CONT $holder
status=0
wait $holder || status=$?
[ $status != 0 ] || fail "the holder noticed nothing: $(cat "$dir/holder")"
grep -q expired "$dir/holder" || fail "it was not told that its lease has expired: $(cat "$dir/holder")"
! grep -q 'recall:' "$dir/holder" || fail "a holder that had expired was recalled: $(cat "$dir/holder")"
cd /
unmount_fs
