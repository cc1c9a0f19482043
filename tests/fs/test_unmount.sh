#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: crash
# Every way a mount ends, in bounded time.
. "$(dirname "$0")/lib.sh"

ended()
{
    wait_gone "$daemon" 300 || fail "the daemon runs on after $1"
    is_mounted && fail "still mounted after $1"
    [ ! -e "$control" ] || fail "the control socket is left after $1"
    local status=0
    wait "$daemon" || status=$?
    expect "$2" $status "exit code after $1"
    daemon=
}

# fusermount3 -u: done by unmount_fs. In use, it is refused, and nothing breaks.
mount_fs pool=16M
echo x >"$mnt/x"
exec 7<"$mnt/x"
refused fusermount3 -u "$mnt"
expect x "$(cat <&7)"
exec 7<&-
unmount_fs

for signal in TERM INT HUP; do
    mount_fs pool=16M
    echo x >"$mnt/x"
    kill -$signal "$daemon"
    ended "SIG$signal" 0
done

# In use, a signal unmounts all the same; who is in there gets an error, not a hang.
mount_fs pool=16M
echo x >"$mnt/x"
exec 7<>"$mnt/x"
kill -TERM "$daemon"
ended 'SIGTERM in use' 0
refused timeout 5 sh -c 'echo y >&7'
exec 7<&-

# start_load: process $load works in the mount, as long as there is $dir/busy and nothing fails.
start_load() {
    touch "$dir/busy"
    (cd "$mnt" && while [ -e "$dir/busy" ] && head -c 1M /dev/zero >y && cp y z && ls -l >/dev/null; do touch "$dir/round"; done) \
        2>/dev/null &
    load=$!
}
a_round() { # of the load, from its start to its end
    local tries=0
    rm -f "$dir/round"
    while [ ! -e "$dir/round" ] && kill -0 "$load"; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || fail 'the load does not go on'
        sleep 0.02
    done
    [ -e "$dir/round" ] || fail 'the load has ended'
}

# Under load.
mount_fs pool=64M
start_load
a_round
kill -TERM "$daemon"
ended 'SIGTERM under load' 0
wait $load || true

# umount -l under load, which goes on as long as it likes.
mount_fs pool=64M
start_load
a_round
umount -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt"
a_round # the one that was under way
a_round
kill -0 "$load" || fail "a lazy unmount ended who was in there"
kill -0 "$daemon"
rm "$dir/busy"
wait $load || true
ended 'lazy unmount under load' 0

# umount -l with a file open: the mount is out of sight, the file works on, the daemon ends with the last user.
mount_fs pool=16M
echo x >"$mnt/x"
exec 7<"$mnt/x"
umount -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt"
expect x "$(cat <&7)"
kill -0 "$daemon"
exec 7<&-
ended 'lazy unmount' 0

# kill -9: the mount is dead, and the next start cleans it away.
mount_fs pool=16M
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
refused ls "$mnt"
mount_fs pool=16M
grep -q 'dead' "$log" || fail "no word about the dead mount"
ls "$mnt"
unmount_fs
