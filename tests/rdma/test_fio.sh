#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# fio moves data under leases with tools/fio's engine and verifies each block; a recall and a read lease refuse it.
. "$(dirname "$0")/lib.sh"
engine=$programs/fio-leasefs.so fio=$programs/fio
[[ -e $engine ]] || { echo "no engine for fio here (tests/rdma/build_fio.sh)"; exit 77; }
[[ -x $fio ]] || fio=fio
mount_fs 64M 20000
# job NAME OPTIONS...: fio's JSON in $dir/NAME.
job() {
    local name=$1
    shift
    "$fio" --output-format=json --output="$dir/$name" --ioengine="external:$engine" --leasefs_control="$control" \
        --name="$name" --filename=/file --size=8M "$@"
}
result() { sed -n '/^{/,$p' "$dir/$1" | jq ".jobs[0].$2"; } # fio puts messages before its JSON
moved() { result "$1" "$2.io_bytes"; }                    # bytes that job NAME read or wrote

# A missing file is made; what is written is read again and compared, block by block, and is there for others.
job write --rw=write --bs=64k --iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1 --end_fsync=1
[[ $(moved write write) == $((8 << 20)) ]] || fail "it did not write all: $(<"$dir/write")"
[[ $(stat -c %s "$mnt/file") == $((8 << 20)) ]] || fail "the file's size is $(stat -c %s "$mnt/file")"
job again --rw=read --bs=64k --iodepth=4 --verify=crc32c --verify_fatal=1
[[ $(moved again read) == $((8 << 20)) ]] || fail "it did not read all"
until_true 20 no_leases

# The negative of that: a byte changed behind its back is found.
cp "$mnt/file" "$dir/copy"
printf x | dd of="$mnt/file" bs=1 seek=3000000 conv=notrunc status=none
if job damaged --rw=read --bs=64k --verify=crc32c --verify_fatal=1 >"$dir/words" 2>&1; then
    fail "fio verified a file with a wrong byte: it reads something else"
fi
until_true 20 no_leases

# Both directions at once, 16 deep, on a part of the file; the rest is as it was.
cp "$dir/copy" "$mnt/file"
job both --rw=randrw --bs=4k --iodepth=16 --offset=2M --size=2M --verify=crc32c --verify_fatal=1
((($(moved both read) + $(moved both write)) >= 2 << 20)) || fail "randrw moved too little"
for part in "0 2M" "4M 4M"; do
    cmp -i "${part% *}" -n "${part#* }" "$mnt/file" "$dir/copy" || fail "randrw wrote outside of its part"
done
cmp -s "$mnt/file" "$dir/copy" && fail "randrw wrote nothing"
until_true 20 no_leases

# A local truncate takes the lease from a running job, which ends with an error; the truncate does not wait for more.
job recalled --rw=randread --bs=4k --iodepth=16 --time_based --runtime=120 >"$dir/words" 2>&1 &
running=$!
jobs_started+=("$running")
holds() { [[ $(leases) == 1 ]]; }
until_true 60 holds
truncate -s 4096 "$mnt/file"
status=0
wait "$running" || status=$?
((status != 0)) || fail "the job whose lease was recalled ended well"
[[ $(result recalled error) == 116 ]] || fail "it ended with another error than ESTALE: $(result recalled error)"
until_true 20 no_leases
[[ $(ctl status --json | jq .counters.recall_timeouts) == 0 ]] || fail "it was revoked, not recalled"

# Without a server there is a sentence.
if job nobody --rw=read --leasefs_control="$dir/none" >"$dir/words" 2>&1; then fail "no server, no error"; fi
grep -h 'leasefs: session' "$dir/words"
