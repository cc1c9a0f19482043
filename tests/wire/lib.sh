# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Two machines on one wire, for the scripts test_*.sh of this folder. Sourced. The scripts run on the host and act on
# both guests of a pair that pair.sh has booted (LEASEFS_PAIR, default "pair").
#
#   server COMMAND...; client COMMAND...    runs there; its output and status are the caller's
#   in_background server|client COMMAND...  as process $!, ended with the script
#   wire [ARGUMENTS OF netem]               what both directions of the wire do to packets from now on; none: nothing
#   until_true SECONDS COMMAND...           asks again until it succeeds
#
# At the end, however it comes, the wire is whole again and what was started is gone.
set -euo pipefail
bed=$(cd "$(dirname "${BASH_SOURCE[0]}")/../testbed" && pwd)/testbed
pair=${LEASEFS_PAIR:-pair}
# shellcheck disable=SC2034  # these are for the scripts
server_address=10.99.1.1 client_address=10.99.1.2 programs=/usr/local/libexec/leasefs-tests
dir=$(mktemp -d)
jobs_started=()
on_exit=() # functions

fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
server() { "$bed" exec --name "$pair-a" --timeout "${seconds:-120}" -- "$@"; }
client() { "$bed" exec --name "$pair-b" --timeout "${seconds:-120}" -- "$@"; }
in_background() {
    local where=$pair-a
    [[ $1 == client ]] && where=$pair-b
    shift
    "$bed" exec --name "$where" --timeout "${seconds:-120}" -- "$@" &
    jobs_started+=($!)
}
# shellcheck disable=SC2120
wire() {
    local change=(replace dev eth0 root netem "$@")
    (($#)) || change=(replace dev eth0 root pfifo)
    server tc qdisc "${change[@]}" && client tc qdisc "${change[@]}"
}
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "not in time: $*"
        read -rt 0.1 <> <(:) || : # the guests need the processors
    done
}
guests_live() {
    local name
    for name in "$pair-a" "$pair-b"; do
        "$bed" exec --name "$name" --timeout 60 -- true >/dev/null 2>&1 || return
    done
}
# new_pair KERNEL: in place of one that is lost.
new_pair() {
    [[ -n ${LEASEFS_STAGE_FILE-} ]] || return
    ((${#jobs_started[@]})) && kill "${jobs_started[@]}" 2>/dev/null || :
    jobs_started=()
    "$(dirname "${BASH_SOURCE[0]}")/pair.sh" boot "$pair" --kernel "$1" --memory 2G --max-seconds "${guest_seconds:-3600}" \
        --stage "$(cat "$LEASEFS_STAGE_FILE")" >"$dir/boot.log" 2>&1 </dev/null || { cat "$dir/boot.log"; return 1; }
}
cleanup() {
    local status=$?
    trap - EXIT
    set +e # what is gone already is no failure
    ((${#jobs_started[@]})) && kill "${jobs_started[@]}" 2>/dev/null && wait "${jobs_started[@]}" 2>/dev/null
    wire
    for function in "${on_exit[@]}"; do "$function"; done
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
"$bed" list | grep -q "^$pair-b" || {
    echo "there is no pair '$pair': tests/wire/pair.sh boot $pair --kernel 7 --stage ..."
    exit 77
}
wire || { # whatever a test before this one left, and be it a machine that has stopped
    guests_live && fail "the wire cannot be mended"
    echo "# a guest is lost; new ones"
    new_pair 7
    wire
}
