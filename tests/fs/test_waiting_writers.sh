#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Whoever writes while a lease is in the way waits, and what he writes waits with him: but not without end in the memory of
# the daemon. His write becomes a short one then, and no byte is lost.
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
mount_fs pool=384M,recall_timeout=120s
cd "$mnt"
fallocate -l 256M file
head -c 1M /dev/zero >mapped
hold /mapped --read --on-recall=ignore
mapped_holder=$holder
hold /file --read --prepare --on-recall=ignore
anonymous_kib() { awk '/^RssAnon:/ { print $2 }' "/proc/$daemon/status"; }
before_kib=$(anonymous_kib)
python3 -c '
import mmap, os, sys, threading
path, each, n = sys.argv[1], 1 << 20, int(sys.argv[2])
file = os.open(path, os.O_RDWR | os.O_DIRECT)
short = []

def write(i):
    whole = mmap.mmap(-1, each)  # aligned, as O_DIRECT wants it
    whole.write(bytes([i % 251 + 1]) * each)
    done = 0
    while done < each:
        more = os.pwrite(file, memoryview(whole)[done:], i * each + done)
        if more < each - done:
            short.append(more)
        done += more

threads = [threading.Thread(target=write, args=(i,)) for i in range(n)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(short))
' file 256 >"$dir/short" &
writers=$!
until_state file recalled
waiting() { "$LEASECTL" --control "$control" --json status | grep -o '"waiters": *[0-9]*' | grep -o '[0-9]*$'; }
for ((i = 0; i < 600 && $(waiting) < 256; i++)); do sleep 0.05; done
expect 256 "$(waiting)" 'who waits'
# What was stored by a mapping is written back whole: Linux takes a short write for all of it.
head -c 1M /dev/urandom >"$dir/stored"
python3 -c '
import mmap, sys
with open(sys.argv[1], "r+b") as file, open(sys.argv[2], "rb") as stored:
    mapping = mmap.mmap(file.fileno(), 1 << 20)
    mapping[:] = stored.read()
    mapping.flush()
' mapped "$dir/stored" &
mapper=$!
until_state mapped recalled
more_kib=$(($(anonymous_kib) - before_kib))
sanitized || [ $more_kib -lt $((96 * 1024)) ] || fail "$more_kib KiB are kept of those who wait"
[ $more_kib -gt $((32 * 1024)) ] || fail "$more_kib KiB are kept: did they wait with their bytes?"
end_holder
kill $mapped_holder
wait $mapper || fail "msync failed"
dd if=mapped bs=1M iflag=direct status=none | cmp - "$dir/stored" || fail "what a mapping stored was not all written"
wait $writers || fail "a writer failed"
# Each wrote the rest with another request, all at once.
more_kib=$(($(anonymous_kib) - before_kib))
sanitized || [ $more_kib -lt $((48 * 1024)) ] || fail "$more_kib KiB are kept of those who waited"
[ "$(cat "$dir/short")" -gt 0 ] || fail "no write was a short one"
python3 -c '
import sys
with open(sys.argv[1], "rb") as file:
    for i in range(int(sys.argv[2])):
        if file.read(1 << 20) != bytes([i % 251 + 1]) * (1 << 20):
            sys.exit(f"the bytes of writer {i} are not there")
' file 256
cd /
unmount_fs
