#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a program wrote to a mapping is what peers read, from the moment it was written: still mapped, unmapped, killed.
. "$(dirname "$0")/lib.sh"
mount_fs 64M
head -c 1M /dev/zero >"$mnt/file"

cat >"$dir/write.py" <<'PY'
import mmap, os, signal, sys, time
path, copy, end = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
mapping = mmap.mmap(fd, 1 << 20)
os.close(fd)
data = os.urandom(1 << 20)
open(copy, "wb").write(data)
mapping[:] = data
if end == "unmapped":
    mapping.close()
elif end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print("written", flush=True)
time.sleep(0 if end == "exited" else 1000)
PY
for end in mapped unmapped exited killed; do
    for _ in 1 2 3; do
        coproc program { exec python3 "$dir/write.py" "$mnt/file" "$dir/copy" $end; }
        pid=$!
        jobs_started+=("$pid")
        read -rt 60 _ <&"${program[0]}" || [[ $end == killed ]] || fail "nothing was written"
        [[ $end != exited && $end != killed ]] || wait "$pid" || [[ $end == killed ]]
        ctl get :/file "$dir/read" >/dev/null
        cmp "$dir/read" "$dir/copy" || fail "a peer reads other bytes than those that a program wrote, which is $end"
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
done
