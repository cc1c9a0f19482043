#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Direct I/O from and to mappings of files of the same filesystem, while others truncate: it ends, and with the right
# bytes. Asynchronous direct writes beside readers through the cache: no older bytes. LEASEFS_TEST_ROUNDS makes it longer.
. "$(dirname "$0")/lib.sh"
[ -x "${LEASEFS_DIRECT_MAPPED:-}" ] || skip "set LEASEFS_DIRECT_MAPPED"
[ -x "${LEASEFS_DIRECT_FRESH:-}" ] || skip "set LEASEFS_DIRECT_FRESH"
rounds=${LEASEFS_TEST_ROUNDS:-36}
sanitized && rounds=$((rounds / 3))
grep -q __tsan_init "$LEASEFS" && rounds=$((rounds / 3)) # it looks at each byte that is copied

mount_fs pool=64M
"$LEASEFS_DIRECT_FRESH" "$mnt/fresh" $((rounds * 20))

mkdir "$dir/fusectl"
mount -t fusectl none "$dir/fusectl" || skip "no fusectl, so nothing would end a hang"
at_exit="umount $dir/fusectl"
minor=$(awk -v mnt="$mnt" '$5 == mnt { sub(/.*:/, "", $3); print $3 }' /proc/self/mountinfo)
[ -w "$dir/fusectl/$minor/abort" ] || fail "the connection of $mnt is not $minor"

ran=
for engine in psync libaio io_uring; do
    status=0
    "$LEASEFS_DIRECT_MAPPED" "$mnt" $engine "$rounds" "${LEASEFS_TEST_SEED:-$RANDOM}" "$dir/fusectl/$minor/abort" || status=$?
    case $status in
    0) ran+=" $engine" ;;
    77) echo "$engine: not allowed here" ;;
    *) fail "$engine" ;;
    esac
done
echo "ran:$ran"
unmount_fs
