#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Load as people make it, for seconds (LEASEFS_TEST_SECONDS): no error, and memory and blocks are back where they were. And
# the daemon killed under it: nothing hangs.
. "$(dirname "$0")/lib.sh"
seconds=${LEASEFS_TEST_SECONDS:-4}
resident() { awk '/^RssAnon/ { print $2 }' "/proc/$daemon/status"; }

threads() { find "/proc/$daemon/task" -mindepth 1 -maxdepth 1 | wc -l; }

# KiB that the daemon has from malloc(); 0 where a sanitizer is in its place.
in_use()
{
    if [ -e "$dir/malloc" ]; then echo $(($(head -n 1 "$dir/malloc") / 1024)); else echo 0; fi
}
if [ -e "${LEASEFS_MALLOC_IN_USE:-}" ] && ! sanitized; then
    mkfifo "$dir/malloc"
    export LEASEFS_TEST_MALLOC=$dir/malloc
    LD_PRELOAD=$LEASEFS_MALLOC_IN_USE mount_fs pool=512M,allow_other
else
    mount_fs pool=512M,allow_other
fi
free=$(free_blocks)
cd "$mnt"

# Makes files and removes them, and has the kernel forget: what is resident then is the measure.
small_round()
{
    mkdir many
    (cd many && seq 3000 | xargs touch && ls -l >/dev/null)
    rm -r many
    echo 2 >/proc/sys/vm/drop_caches 2>/dev/null || true
}
# What stays resident by design is there before the load: a request buffer of 1 MiB for each thread that has read a large
# write, and what the allocator keeps for each thread that has made files.
warm_up()
{
    local i pids=()
    for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
        (mkdir "warm$i" && cd "warm$i" && dd if=/dev/zero of=large bs=1M count=20 oflag=direct status=none &&
            seq 3000 | xargs touch && ls -l >/dev/null && cd .. && rm -r "warm$i") &
        pids+=($!)
    done
    wait "${pids[@]}"
    small_round
}
warm_up
start=$(resident)
start_in_use=$(in_use)
start_threads=$(threads)

# Every stressor of stress-ng's class "filesystem" that works in a directory, a group at a time.
stress()
{
    local name stressors=()
    for name; do stressors+=("--$name" 1); done
    stress-ng --temp-path . --timeout "$seconds" --verify "${stressors[@]}" --hdd-bytes 8M --dentries 200 --fallocate-bytes 8M \
        --seek-size 4M --dir-dirs 200 --copy-file-bytes 128M --mmap-file --mmap-bytes 4M --iomix-bytes 16M >"$dir/stress" 2>&1 ||
        fail "stress-ng: $(grep -v dispatching "$dir/stress" | tail -n 5)"
    ran=$((ran + 1))
}
ran=0
if command -v stress-ng >/dev/null; then
    stress access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany
    stress fallocate fcntl file-ioctl filename flock fpunch fsize fstat getdent handle
    stress hdd inode-flags inotify io iomix lease link locka lockf lockofd
    stress mknod mmap open rename seek symlink sync-file touch utime xattr
fi
if command -v dbench >/dev/null; then
    clients=$(dpkg -L dbench 2>/dev/null | grep -m 1 'client.txt$' || true)
    timeout 100 dbench -t "$seconds" -D . ${clients:+-c "$clients"} 4 >"$dir/dbench" 2>&1 || fail "dbench: $(tail -n 5 "$dir/dbench")"
    grep -q '^Throughput' "$dir/dbench" || fail "dbench did nothing: $(tail -n 5 "$dir/dbench")"
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
[ -z "$(ls)" ] || chattr -R -i -a . 2>/dev/null || true # what a stressor left that was ended in the middle
find . -mindepth 1 -delete
expect_free "$free"
small_round
after=$(resident)
for _ in 1 2 3 4 5; do small_round; done
echo "resident: $start KiB before the load, $after after it, $(resident) after some more; in use: $start_in_use KiB, $(in_use)"
# Of a thread that was started meanwhile: its request buffer.
allowed=$((start_in_use + 1024 + ($(threads) - start_threads) * 1100))
[ "$(in_use)" -lt $allowed ] || fail "the load has left the daemon with $(in_use) KiB in use, not $allowed"
if ! sanitized; then # the allocator keeps some of what was freed, for each thread: a leak shows in what is in use
    [ "$after" -lt $((start + 32768)) ] || fail "the load has left the daemon with $after KiB, not $start"
    [ "$(resident)" -lt $((after + 4096)) ] || fail "the daemon grows: $after KiB, then $(resident)"
fi
cd /
unmount_fs

# Killed under load, once every process of that has been round.
for _ in 1 2 3; do
    mount_fs pool=64M
    for i in 1 2 3; do
        (cd "$mnt" && while head -c 300000 /dev/zero >"y$i" && cp "y$i" "z$i" && mv "z$i" "x$i" && ls -l >/dev/null; do :; done) \
            2>/dev/null &
        load+=($!)
    done
    tries=0
    until [ -e "$mnt/x1" ] && [ -e "$mnt/x2" ] && [ -e "$mnt/x3" ]; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || fail "the load does not start"
        sleep 0.02
    done
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
