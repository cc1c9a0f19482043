#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A holder killed with -9: its lease is fenced and gone, its blocks reusable, within a second (I6).
. "$(dirname "$0")/lib.sh"
mount_fs 64M 60000
before=$(free_bytes)
head -c 16M /dev/urandom >"$mnt/file"
hold victim /file --read --on-recall=ignore --touch=10
kill -9 "$holder"
start=$(date +%s%N)
until_true 10 no_leases
ms=$((($(date +%s%N) - start) / 1000000))
echo "gone after $ms ms"
((ms < 1000)) || fail "the lease outlived its holder by $ms ms"
rm "$mnt/file"
as_before() { [[ $(free_bytes) == "$before" ]]; }
until_true 5 as_before
