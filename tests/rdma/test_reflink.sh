#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A reflink recalls a write lease on its source, not a read lease.
. "$(dirname "$0")/lib.sh"
mount_fs 64M
head -c 4M /dev/urandom >"$mnt/file"
hold reader /file --read
ctl clone /file /clone-of-read
grep -q recall "$dir/reader" && fail "a reflink recalled a read lease"
kill -TERM "$holder"
wait "$holder" || true
until_true 5 no_leases
hold writer /file --write
ctl clone /file /clone-of-write
grep -q recall "$dir/writer" || fail "a reflink did not recall the write lease"
until_true 5 no_leases
[[ $(sum "$mnt/file") == "$(sum "$mnt/clone-of-write")" ]] || fail "the clone differs"
