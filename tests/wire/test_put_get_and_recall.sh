#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A client on another machine, known by its key: it puts and gets files, gives a lease back when it is recalled, and
# loses its access when it does not; nothing else changes (I1, I2, I4). Without its key it is nobody.
# Labels: security
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
size=8M
serve pool=32M,recall_timeout=10s

client bash -ceu 'head -c "$1" /dev/urandom >/tmp/source' - $size
source_sum=$(client cat /tmp/source | sha256sum)
remote put /tmp/source :/file
[[ $(server_sum file) == "$source_sum" ]] || fail "the mounted file differs from its source"
remote get :/file /tmp/copy
[[ $(client cat /tmp/copy | sha256sum) == "$source_sum" ]] || fail "the copy differs from its source"

if client leasectl --server "$server_address" --key /tmp/source get :/file /tmp/stolen; then
    fail "a client without its key was served"
fi
server_file bystander $size
bystander_sum=$(server_sum bystander)

hold answering :/file --read
server truncate -s 4096 "$mnt/file"
end_of_holder 60
((ended == 0)) || fail "the holder that answers: $(<"$dir/answering")"
grep -q recall "$dir/answering" || fail "it was not told of a recall"
status_is .counters.recall_timeouts 0 || fail "it answered, but lost its lease all the same"

remote put /tmp/source :/file
hold silent :/file --read --on-recall=ignore --touch=20
server truncate -s 0 "$mnt/file"
end_of_holder 60
cat "$dir/silent"
[[ $ended == 5 ]] || fail "the silent holder's access was not refused (exit $ended)"
status_is .counters.recall_timeouts 1 || fail "the silent holder was not revoked at the deadline"

until_true 60 status_is '.leases | length' 0
until_true 60 status_is .pool.quarantined_bytes 0
server_file again $size # in the blocks that were leased
[[ $(server_sum bystander) == "$bystander_sum" ]] || fail "another file changed"
