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

# cached FILE: how many of its pages Linux has, by mincore(2).
cached()
{
    python3 - "$1" <<'PY'
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
address = libc.mmap(None, ctypes.c_size_t(size), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
pages = (ctypes.c_ubyte * ((size + 4095) // 4096))()
assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
print(sum(page & 1 for page in pages))
PY
}
# left OPTIONS...: how many of the 16 are there when a lease has been taken so.
left()
{
    cat pages >/dev/null
    expect 16 "$(cached pages)"
    hold /pages "$@"
    pages=$(cached pages)
    end_holder
    until_state pages ''
}
# keeps PAGES OPTIONS...
keeps()
{
    local wanted=$1 pages
    shift
    left "$@"
    expect "$wanted" "$pages"
}
# Linux tells of a close after close(2) has returned.
keeps_in_the_end()
{
    local pages i
    for ((i = 0; i < 50; i++)); do
        left --read
        [ "$pages" -ne 16 ] || return 0
    done
    fail "no handle may write, and a lease to read drops the pages"
}
# Pages that are only read stay when a peer only reads. They go when it may write, and when somebody here may have
# written to a mapping.
random_file pages 65536
keeps_in_the_end
keeps 0 --write
exec 3<>pages
keeps 0 --read
exec 3>&-
keeps_in_the_end
exec 3>>pages
keeps 0 --read
exec 3>&-
keeps_in_the_end
rm pages
(exec 3<>pages && random_file again 65536 && cat again >&3 && keeps 0 --read) # as it was made
keeps_in_the_end

cd /
unmount_fs
