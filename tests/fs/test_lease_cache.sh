#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Linux takes names and attributes that it has seen for true until the daemon says otherwise. What leasectl and ioctls change
# shows at once all the same.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=64M,cache=always # as auto
cd "$mnt"

# shows BEFORE FORMAT AFTER FILE COMMAND...: what stat says (a pattern), before and after.
# shellcheck disable=SC2053
shows()
{
    local before=$1 format=$2 after=$3 file=$4 seen
    shift 4
    seen=$(stat -c "$format" "$file" 2>&1 || true)
    [[ $seen == $before ]] || fail "$file: $seen, not $before"
    "$@" >/dev/null || fail "failed: $*"
    seen=$(stat -c "$format" "$file" 2>&1 || true)
    [[ $seen == $after ]] || fail "$file after $*: $seen, not $after"
}
# changes FORMAT FILE COMMAND...: what stat says is something else then.
changes()
{
    local format=$1 file=$2 before after
    shift 2
    before=$(stat -c "$format" "$file")
    "$@" >/dev/null || fail "failed: $*"
    after=$(stat -c "$format" "$file")
    [ "$before" != "$after" ] || fail "$file after $*: still $before"
}

# Blocks are given by prepare; size and blocks by a clone onto a file.
truncate -s 1M sparse
shows 0 %b 2048 sparse "$LEASECTL" prepare sparse
random_file big 100000
echo old >target
shows 4 %s 100000 target "$LEASECTL" clone big target
cmp big target

# A name that was not there, and its directory's times.
mkdir in
shows '*No such file*' %s 100000 in/new "$LEASECTL" clone big in/new
changes %y in "$LEASECTL" --control "$control" clone :/big :/in/newer

# chattr: the time of change.
changes %z big chattr +d big

cd /
unmount_fs
