#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Load as people make it, for seconds (LEASEFS_TEST_SECONDS): no error, and memory and blocks are back where they were. And
# the daemon killed under it: nothing hangs.
. "$(dirname "$0")/lib.sh"
seconds=${LEASEFS_TEST_SECONDS:-4}
resident() { awk '/^RssAnon/ { print $2 }' "/proc/$daemon/status"; }

mount_fs pool=512M,allow_other
free=$(free_blocks)
cd "$mnt"

ran=0
if command -v stress-ng >/dev/null; then
    stress-ng --temp-path . --timeout "$seconds" --metrics-brief --verify \
        --hdd 1 --hdd-bytes 8M --dentry 1 --dentries 200 --rename 1 --link 1 --symlink 1 --fallocate 1 --fallocate-bytes 8M \
        --seek 1 --seek-size 4M --utime 1 --dir 1 --dir-dirs 200 --chmod 1 --flock 1 --lockf 1 --copy-file 1 \
        --copy-file-bytes 128M --mmap 1 --mmap-file --mmap-bytes 4M >"$dir/stress" 2>&1 ||
        fail "stress-ng: $(tail -n 5 "$dir/stress")"
    ran=$((ran + 1))
fi
if command -v dbench >/dev/null; then
    clients=$(dpkg -L dbench 2>/dev/null | grep -m 1 'client.txt$' || true)
    timeout 100 dbench -t "$seconds" -D . ${clients:+-c "$clients"} 4 >"$dir/dbench" 2>&1 || fail "dbench: $(tail -n 5 "$dir/dbench")"
    ran=$((ran + 1))
fi
if command -v fio >/dev/null; then
    fio --name=v --directory=. --size=8M --numjobs=2 --rw=randwrite --bsrange=1k-128k --verify=crc32c --verify_fatal=1 \
        --ioengine=psync --group_reporting >"$dir/fio" 2>&1 || fail "fio: $(tail -n 5 "$dir/fio")"
    fio --name=d --directory=. --size=8M --rw=randrw --bs=4k --direct=1 --verify=crc32c --verify_fatal=1 --ioengine=libaio \
        --iodepth=8 >"$dir/fio" 2>&1 || fail "fio, direct: $(tail -n 5 "$dir/fio")"
    ran=$((ran + 1))
fi

# Everything that was taken comes back.
find . -mindepth 1 -delete
expect_free "$free"
echo 2 >/proc/sys/vm/drop_caches 2>/dev/null || true
start=$(resident)
for _ in 1 2 3 4 5 6; do
    mkdir many
    (cd many && seq 3000 | xargs touch && ls -l >/dev/null)
    rm -r many
    [ -n "${first:-}" ] || first=$(resident)
done
echo "resident: $start KiB at first, $first after one round, $(resident) after six"
sanitized || [ "$(resident)" -lt $((first + 4096)) ] || fail "the daemon grows: $first KiB, then $(resident)"
cd /
unmount_fs

# Killed under load.
for _ in 1 2 3; do
    mount_fs pool=64M
    for i in 1 2 3; do
        (cd "$mnt" && while head -c 300000 /dev/zero >"y$i" && cp "y$i" "z$i" && mv "z$i" "x$i" && ls -l >/dev/null; do :; done) \
            2>/dev/null &
        load+=($!)
    done
    sleep 0.3
    kill -9 "$daemon"
    wait "$daemon" 2>/dev/null || true
    for pid in "${load[@]}"; do
        wait_gone "$pid" 100 || fail "who used the mount hangs"
        wait "$pid" || true
    done
    load=()
done
mount_fs pool=64M # takes the dead one off
echo x >"$mnt/x"
unmount_fs
[ $ran -gt 0 ] || skip "no stress-ng, dbench or fio; the rest passed"
