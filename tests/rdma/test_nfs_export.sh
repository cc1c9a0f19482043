#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The mount is exported by Linux's NFS server and used through a client on the same machine: names, bytes, long directories, what a
# lease makes a client wait for; handles that stay good whatever the server has forgotten, and are stale, never another file's, when
# the file is gone or the daemon a new one.
. "$(dirname "$0")/lib.sh"
client=$dir/client
modprobe nfsd 2>/dev/null || { echo "skipped: no NFS server in this kernel"; exit 77; }
command -v exportfs >/dev/null || { echo "skipped: no nfs-kernel-server"; exit 77; }
mkdir "$client"
through_nfs=(python3 "$(dirname "$0")/nfs_client.py" "$mnt" "$client")

serve() {
    mount_fs 64M 1000,allow_other
    exportfs -o rw,no_root_squash,no_subtree_check,insecure,fsid=77 "127.0.0.1:$mnt"
    rpc.nfsd --no-nfs-version 3 4
}
stop_serving() {
    rpc.nfsd 0
    exportfs -ua
    exportfs -f
}
# The daemon, too. A client that is mounted finds the next one.
end_life() {
    stop_serving
    fusermount3 -u "$mnt"
    until_true 10 test ! -e "$control"
}
mount_client() { mount -t nfs -o vers=4.2,softerr,timeo=300,retrans=2,actimeo=0 "127.0.0.1:$mnt" "$client"; }

finish() {
    local status=$?
    set +e
    umount -f "$client" 2>/dev/null || umount -l "$client" 2>/dev/null
    stop_serving
    [ -z "${mountd:-}" ] || kill "$mountd" 2>/dev/null
    (exit $status)
    cleanup
}
trap finish EXIT

mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
for setting in nfsv4leasetime nfsv4gracetime; do # a new open waits for the grace period's end
    echo 10 >/proc/fs/nfsd/$setting 2>/dev/null || true
done
rpc.mountd --no-nfs-version 3 --foreground &
mountd=$!
serve
mount_client
"${through_nfs[@]}" work
"${through_nfs[@]}" handles

# A client's change waits for a holder, as a local one does.
if [ -d /sys/class/infiniband ] && [ -n "$(ls /sys/class/infiniband)" ]; then
    head -c 100000 /dev/urandom >"$client/leased"
    hold silent /leased --read --on-recall=ignore
    truncate -s 10 "$client/leased"
    grep -q recall "$dir/silent" || fail "a truncate by a client did not recall the lease"
    [ "$(stat -c %s "$mnt/leased")" = 10 ] || fail "the truncate did not happen"
    kill "$holder" 2>/dev/null || true
    wait "$holder" || true
fi

# Another life of the daemon, with nothing open; and one that meets a handle of the last.
umount "$client"
end_life
serve
mount_client
coproc keeper { exec "${through_nfs[@]}" keep; }
jobs_started+=("$keeper_PID")
read -r -t 60 _ <&"${keeper[0]}"
end_life
serve
mkdir "$mnt/kept"
: >"$mnt/kept/file"
: >"$mnt/kept/other"
echo >&"${keeper[1]}"
wait "$keeper_PID" || fail "a handle of the daemon before"
