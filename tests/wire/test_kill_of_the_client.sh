#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A client on another machine is killed with -9, with a lease: the lease goes the way of a return, long before it would
# expire (I6). Its successor, with the same key, is served at once.
# Labels: crash
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
serve pool=32M,recall_timeout=10min,lease_time=10min
free=$(status_of .pool.free_bytes)

server_file file 8M
sum=$(server_sum file)
hold victim :/file --read --on-recall=ignore --touch=20
status_is '.leases | length' 1 || fail "no lease"
client bash -ceu 'kill -9 $(pidof leasectl)'
until_true 60 status_is '.leases | length' 0
status_is .counters.recall_timeouts 0 || fail "the lease ended by its deadline"

remote get :/file /tmp/copy
[[ $(client cat /tmp/copy | sha256sum) == "$sum" ]] || fail "the successor read something else"
server rm "$mnt/file"
until_true 60 status_is .pool.free_bytes "$free"
status_is .pool.quarantined_bytes 0 || fail "blocks are quarantined"
