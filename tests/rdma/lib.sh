# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A private mount with an RDMA device, for the scripts test_*.sh of this folder. Sourced. Run in the testbed's guest.
#
#   mount_fs POOL [RECALL_TIMEOUT[,OPTION]... [DAEMON]]    on $mnt; unmounted at the end
#   hold NAME ARGUMENTS OF leasectl lease...      a holder in the background, as process $holder
#   peer_start; ask COMMAND...                    a lease_peer that takes commands (see lease_peer.c)
set -euo pipefail
dir=$(mktemp -d)
mnt=$dir/mnt
control=$dir/control
programs=${LEASEFS_TESTS:-/usr/local/libexec/leasefs-tests}
jobs_started=()
ctl() { leasectl --control "$control" "$@"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
cleanup() {
    local status=$?
    trap - EXIT
    set +e # what is gone already is no failure
    ((${#jobs_started[@]})) && kill -9 "${jobs_started[@]}" 2>/dev/null
    fusermount3 -u "$mnt" 2>/dev/null || umount -l "$mnt" 2>/dev/null
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
mount_fs() {
    mkdir -p "$mnt"
    "${3:-leasefs}" -o "pool=$1,control=$control,recall_timeout=${2:-1000}" "$mnt"
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
peer_start() { # [DRIVEN]: without a thread of the library's
    [[ ! ${1:-} ]] || export LEASEFS_DRIVEN=1
    coproc peer { exec "$programs/lease_peer" "$control" 2>&1; }
    unset LEASEFS_DRIVEN
    jobs_started+=("$peer_PID")
    peer_answer >/dev/null
}
tell() { echo "$*" >&"${peer[1]}"; } # without waiting for the answer
peer_answer() { # prints the next answer; 1 if it is an error. Notices are passed over.
    local line
    while read -rt 120 line <&"${peer[0]}"; do
        [[ $line == notice* ]] && continue
        echo "$line"
        [[ $line == ok* ]]
        return
    done
    fail "the peer does not answer"
}
ask() {
    tell "$*"
    peer_answer
}
peer_end() {
    # shellcheck disable=SC1083,SC2093  # closes a descriptor by its variable
    exec {peer[1]}>&-
    wait "$peer_PID" || true
}
free_bytes() { ctl status --json | jq .pool.free_bytes; }
leases() { ctl status --json | jq '.leases | length'; }
no_leases() { [[ $(leases) == 0 ]]; }
sum() { sha256sum <"$1"; }
pool_sum() { dd if="$1" iflag=direct bs=1M 2>/dev/null | sha256sum; } # of the pool's bytes, not the page cache's
