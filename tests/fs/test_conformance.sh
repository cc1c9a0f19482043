#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The rules of conformance.table hold, on leasefs as on tmpfs.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be other users"
here=$(cd "$(dirname "$0")" && pwd)
mount_fs pool=64M,allow_other,dev,suid
chmod 755 "$dir"
python3 "$here/conformance.py" "$here/conformance.table" "$mnt" "leasefs,${LEASEFS_TEST_OPTIONS:-}"
unmount_fs

mount_fs pool=16M,noatime
cd "$mnt"
echo x >a
before=$(stat -c %x a)
cat a >/dev/null
expect "$before" "$(stat -c %x a)" "noatime"
cd /
unmount_fs

# The table itself is tried, too. LEASEFS_TEST_REFERENCE: a directory on another filesystem, and its kind.
if [ -n "${LEASEFS_TEST_REFERENCE:-}" ]; then
    mkdir "$LEASEFS_TEST_REFERENCE/rules"
    python3 "$here/conformance.py" "$here/conformance.table" "$LEASEFS_TEST_REFERENCE/rules" reference
    rmdir "$LEASEFS_TEST_REFERENCE/rules"
fi
