#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What can be wrong at the start is said, with exit code 1, also when the daemon goes to the background.
. "$(dirname "$0")/lib.sh"

none="device=none,control=$control"
refused_with 'pool' "$LEASEFS" -o "$none" "$mnt"
refused_with 'not a size' "$LEASEFS" -o "$none,pool=many" "$mnt"
refused_with 'not a size' "$LEASEFS" -o "$none,pool=0" "$mnt"
refused_with 'not a size' "$LEASEFS" -o "$none,pool=16X" "$mnt"
refused_with 'auto, none or always' "$LEASEFS" -o "$none,pool=16M,cache=some" "$mnt"
refused_with 'cache=none' "$LEASEFS" -o "$none,pool=16M,writeback,cache=none" "$mnt"
refused_with 'device=none only' "$LEASEFS" -o "pool=16M,device=lo,writeback,control=$control" "$mnt"
refused_with 'only pools in memory' "$LEASEFS" -o "$none,pool=/dev/shm/pool" "$mnt"
refused_with 'pool' "$LEASEFS" -o "$none,pool=4096T" "$mnt"
refused_with 'pool' "$LEASEFS" -f -o "$none,pool=900G" "$mnt"
refused_with 'where shall it be mounted' "$LEASEFS" -o "$none,pool=16M"
refused_with "$dir/nowhere" "$LEASEFS" -o "$none,pool=16M" "$dir/nowhere"
touch "$dir/file"
refused_with 'not a directory' "$LEASEFS" -o "$none,pool=16M" "$dir/file"
refused_with 'unknown option' "$LEASEFS" -o "$none,pool=16M,colour=red" "$mnt"
refused_with 'policies are' "$LEASEFS" -o "$none,pool=16M,policy=maybe" "$mnt"
refused_with 'not a time' "$LEASEFS" -o "$none,pool=16M,lease_time=soon" "$mnt"
refused_with 'session_bytes=few is not a size' "$LEASEFS" -o "$none,pool=16M,session_bytes=few" "$mnt"
refused_with 'not a port' "$LEASEFS" -o "$none,pool=16M,port=70000" "$mnt"
refused_with 'control' "$LEASEFS" -o "device=none,pool=16M,control=$dir/missing/socket" "$mnt"
refused "$LEASEFS" -o "pool=16M,control=$control,device=nosuchdevice0" "$mnt"
is_mounted && fail "mounted after all"
[ ! -e "$control" ] || fail "a control socket is left"
"$LEASEFS" --help | grep 'pool=SIZE' >/dev/null
"$LEASEFS" --version | grep '^leasefs [0-9]' >/dev/null

# In the background: when the command returns, the mount works and the socket is there.
"$LEASEFS" -o "$none,pool=16M" "$mnt"
echo x >"$mnt/x"
[ -S "$control" ]
expect "srw-------" "$(stat -c %A "$control")"
refused_with "$control" "$LEASEFS" -o "$none,pool=16M" "$mnt"
expect x "$(cat "$mnt/x")"
fusermount3 -u "$mnt"
for _ in $(seq 50); do
    [ -e "$control" ] || break
    sleep 0.1
done
[ ! -e "$control" ] || fail "the daemon does not end"

# Read only: reading works, the rest is refused.
mount_fs pool=16M,ro
ls "$mnt"
refused_with 'Read-only' touch "$mnt/x"
unmount_fs

# As from fstab: a source before the mountpoint, names of its own.
"$LEASEFS" mypool "$mnt" -o "$none,pool=16M,rw,noatime"
grep -q "^mypool $mnt fuse.leasefs " /proc/self/mounts
fusermount3 -u "$mnt"
