#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The main job on one file, step by step; run by tools/quickstart where there is an RDMA device. Needs leasefs and
# leasectl in PATH. Exits 0 only if every step did what it says.
set -euo pipefail
file=$1
size=$(stat -c %s "$file")
deadline_ms=1000
dir=$(mktemp -d)
mnt=$dir/mnt
control=$dir/control
holder=
ctl() { leasectl --control "$control" "$@"; }
step() { printf '\n== %s\n' "$*"; }
pool_sum() { dd if="$1" iflag=direct bs=1M status=none | sha256sum; } # of the pool's bytes, not the page cache's
fail() { printf 'quickstart: FAILED: %s\n' "$*" >&2; exit 1; }
cleanup() {
    set +e # what is gone already is no failure
    [[ -n $holder ]] && kill "$holder" 2>/dev/null
    fusermount3 -u "$mnt" 2>/dev/null || umount -l "$mnt" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$mnt"

# Two files and a little: a third goes where the first one's blocks were.
pool_mib=$((size / 1048576 * 2 + 16))
step "mount a pool of $pool_mib MiB"
leasefs -o "pool=${pool_mib}M,control=$control,recall_timeout=$deadline_ms" "$mnt"
df -h "$mnt"

step "put the file in over RDMA: one-sided writes under a write lease"
ctl put "$file" :/file
source_sum=$(sha256sum <"$file")
[[ $(pool_sum "$mnt/file") == "$source_sum" ]] || fail "the mounted file differs from its source"
echo "SHA-256 through the mount equals the source: ${source_sum%% *}"

step "get it back over RDMA: one-sided reads under a read lease"
ctl get :/file "$dir/copy"
[[ $(sha256sum <"$dir/copy") == "$source_sum" ]] || fail "the copy differs from its source"
echo "SHA-256 of the copy equals the source"
cp "$file" "$mnt/bystander"

step "a holder that does not answer keeps reading; truncate the file here"
ctl lease /file --read --on-recall=ignore --touch=50 >"$dir/holder" 2>&1 &
holder=$!
for ((i = 0; i < 200; i++)); do
    grep -q 'remote key' "$dir/holder" && break
    read -rt 0.05 <> <(:) || true
done
lsattr "$mnt/file" 2>/dev/null || true
python3 - "$mnt/file" "$deadline_ms" <<'P'
import os, sys, time
start = time.monotonic()
os.truncate(sys.argv[1], 4096)
print("truncate took %.1f ms; the recall's deadline is %s ms" % ((time.monotonic() - start) * 1000, sys.argv[2]))
P
status=0
wait "$holder" || status=$?
holder=
cat "$dir/holder"
grep -q 'recall' "$dir/holder" || fail "the holder was not told of a recall"
[[ $status == 5 ]] || fail "the holder's access was not refused (exit $status)"

step "the freed blocks are used again; nothing else changed"
for ((i = 0; i < 200; i++)); do # the fence runs behind the truncate
    [[ $(ctl status --json | jq '.pool.free_bytes') -ge $size ]] && break
    read -rt 0.05 <> <(:) || true
done
cp "$file" "$mnt/again"
[[ $(pool_sum "$mnt/again") == "$source_sum" ]] || fail "a new file in the freed blocks is damaged"
[[ $(pool_sum "$mnt/bystander") == "$source_sum" ]] || fail "another file changed"
[[ $(stat -c %s "$mnt/file") == 4096 ]] || fail "the truncate did not happen"
echo "other files are as they were"

step "unmount"
fusermount3 -u "$mnt"
echo "quickstart: done"
