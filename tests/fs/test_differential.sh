#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Random operations have the same results and errnos here as on tmpfs, and as on ext4. LEASEFS_TEST_SEED repeats a run,
# LEASEFS_TEST_SEQUENCES makes it longer, LEASEFS_TEST_REFERENCE takes a directory of another filesystem to compare with.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be other users"
here=$(cd "$(dirname "$0")" && pwd)
mount_fs pool=64M,allow_other,dev,suid
chmod 755 "$dir"
seed=${LEASEFS_TEST_SEED:-$RANDOM$RANDOM}
at_exit='umount -q "$dir/ext4" "$dir/tmpfs"'

# compare DIRECTORY KIND SEQUENCES
compare()
{
    python3 "$here/differential.py" "$mnt" "$1" "$2" "$seed" "${LEASEFS_TEST_SEQUENCES:-$3}" 60 || fail "not as on $2"
}

if [ -n "${LEASEFS_TEST_REFERENCE:-}" ]; then
    compare "$LEASEFS_TEST_REFERENCE" "$(stat -f -c %T "$LEASEFS_TEST_REFERENCE")" 60
    unmount_fs
    exit
fi
mkdir "$dir/tmpfs" "$dir/ext4"
mount -t tmpfs none "$dir/tmpfs" 2>/dev/null || skip "no tmpfs to compare with"
compare "$dir/tmpfs" tmpfs 30
truncate -s 256M "$dir/tmpfs/image" # what was deleted is not free before ext4 has committed that
if mkfs.ext4 -q -b 4096 "$dir/tmpfs/image" && mount -o loop "$dir/tmpfs/image" "$dir/ext4" 2>/dev/null; then
    compare "$dir/ext4" ext4 15
else
    echo "ext4 is not compared: it cannot be mounted here"
fi
unmount_fs
