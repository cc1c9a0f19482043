#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Random operations have the same results and errnos here as on tmpfs. LEASEFS_TEST_SEED repeats a run,
# LEASEFS_TEST_SEQUENCES makes it longer, LEASEFS_TEST_REFERENCE takes another filesystem to compare with.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be other users"
here=$(cd "$(dirname "$0")" && pwd)
mount_fs pool=64M,allow_other,dev,suid
chmod 755 "$dir"
reference=${LEASEFS_TEST_REFERENCE:-$dir/reference}
if [ -z "${LEASEFS_TEST_REFERENCE:-}" ]; then
    mkdir "$reference"
    mount -t tmpfs none "$reference" 2>/dev/null || skip "no tmpfs to compare with"
    at_exit="umount $reference"
fi
python3 "$here/differential.py" "$mnt" "$reference" "${LEASEFS_TEST_SEED:-$RANDOM$RANDOM}" \
    "${LEASEFS_TEST_SEQUENCES:-60}" 60
unmount_fs
