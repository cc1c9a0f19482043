#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A program gives parts of a lease back: libleasefs and the control service agree on what is left, and who waits for a
# part that is free again does not wait.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/../fs/lease_lib.sh"
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"
: "${CUT_LEASE:?the program}"

mount_fs pool=64M,recall_timeout=60s,policy=busy
random_file "$mnt/file" 1048576
coproc cut { exec "$CUT_LEASE" "$control" 2>&1; }
# bash closes and forgets its own when the program ends.
# shellcheck disable=SC2154 # coproc sets them
exec {answers}<&"${cut[0]}" {question}>&"${cut[1]}"
# shellcheck disable=SC2154
program=$cut_PID
left=
while read -rt 60 line <&"$answers"; do
    [ "$line" != held ] || break
    left+="$line; "
done
expect 'write 0+102400; write 299008+749568; read 299008+749568; read 524288+524288; ' "$left"

write_at() # BLOCK: of 4 KiB
{
    dd if=/dev/zero of="$mnt/file" bs=4096 seek="$1" count=1 conv=notrunc status=none 2>/dev/null
}
write_at 25 || fail 'bytes that were given back cannot be written'
write_at 127 || fail 'bytes that were given back later cannot be written'
if write_at 24; then
    fail 'a write went into the front part that is kept'
fi
if write_at 128; then
    fail 'a write went into the part that is kept as a read lease'
fi
echo >&"$question"
read -rt 60 line <&"$answers" || true
expect 'done' "$line"
wait "$program"
write_at 24 || fail 'the ended lease still refuses'
write_at 128 || fail 'the other ended lease still refuses'
unmount_fs
