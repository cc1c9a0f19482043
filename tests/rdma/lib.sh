# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A private mount with an RDMA device, for the scripts test_*.sh of this folder. Sourced. Run in the testbed's guest.
set -euo pipefail
dir=$(mktemp -d)
mnt=$dir/mnt
control=$dir/control
jobs_started=()
ctl() { leasectl --control "$control" "$@"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
cleanup() {
    local status=$?
    trap - EXIT
    ((${#jobs_started[@]})) && kill -9 "${jobs_started[@]}" 2>/dev/null
    fusermount3 -u "$mnt" 2>/dev/null || umount -l "$mnt" 2>/dev/null
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
mount_fs() {
    mkdir "$mnt"
    leasefs -o "pool=$1,control=$control,recall_timeout=${2:-1000}" "$mnt"
}
# until_true SECONDS COMMAND...: asks again until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "not in time: $*"
    done
}
# hold NAME ARGUMENTS OF lease...: a holder in the background; its words are in $dir/NAME. Returns when it holds.
hold() {
    local name=$1
    shift
    leasectl --control "$control" lease "$@" >"$dir/$name" 2>&1 &
    holder=$!
    jobs_started+=("$holder")
    until_true 20 grep -q 'remote key' "$dir/$name"
}
free_bytes() { ctl status --json | jq .pool.free_bytes; }
leases() { ctl status --json | jq '.leases | length'; }
no_leases() { [[ $(leases) == 0 ]]; }
sum() { sha256sum <"$1"; }
