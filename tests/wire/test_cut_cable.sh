#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The cable between client and server is cut: nobody hears of it, no packet arrives. Within the lease time the server
# takes the lease away and fences it, and its blocks are used again (I6); what the client does when the cable is whole
# again reaches none of them.
# Labels: crash
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
lease_seconds=6
serve pool=16M,recall_timeout=10min,lease_time=${lease_seconds}s
free=$(status_of .pool.free_bytes)

server_file file 10M
hold reader :/file --read --on-recall=ignore --touch=20
server rm "$mnt/file" & # meets the lease, and may take as long as that lasts
removal=$!
jobs_started+=("$removal")
wire loss 100%
cut=$SECONDS
until_true 60 status_is '.leases | length' 0
echo "gone $((SECONDS - cut)) s after the cut (lease time $lease_seconds s)"
status_is .counters.recall_timeouts 0 || fail "the recall's deadline ended it"
wait "$removal" || fail "rm failed"
until_true 60 status_is .pool.free_bytes "$free"
status_is .pool.quarantined_bytes 0 || fail "blocks are quarantined"

server_file file 10M # there is no room but where the leased one was
sum=$(server_sum file)
wire
end_of_holder 120
cat "$dir/reader"
((ended != 0)) || fail "the client that was cut off ended well"
[[ $(server_sum file) == "$sum" ]] || fail "the new file changed"
remote get :/file /tmp/copy
[[ $(client cat /tmp/copy | sha256sum) == "$sum" ]] || fail "the client reads something else"
