#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Two guests on one wire, named PAIR-a (10.99.1.1) and PAIR-b (10.99.1.2).
#   pair.sh boot PAIR [OPTIONS OF testbed boot]    both are ready, or neither is left
#   pair.sh stop PAIR
set -euo pipefail
bed=$(cd "$(dirname "$0")/../testbed" && pwd)/testbed
(($# >= 2)) || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
what=$1 pair=$2
shift 2
socket=${XDG_RUNTIME_DIR:-/tmp}/leasefs-wire-$(id -u)-$pair

stop() {
    "$bed" stop --name "$pair-b" || true
    "$bed" stop --name "$pair-a" || true
    rm -f "$socket"
}
# Each machine waits for nothing of the other but the socket, so both boot at once.
boot() {
    local first
    "$bed" boot --name "$pair-a" --net "server:$socket" "$@" &
    first=$!
    for ((i = 0; i < 600; i++)); do
        [[ -S $socket ]] && break
        kill -0 "$first" 2>/dev/null || break
        read -rt 0.1 <> <(:) || true
    done
    "$bed" boot --name "$pair-b" --net "client:$socket" "$@" && wait "$first" && return
    kill "$first" 2>/dev/null && wait "$first" || true
    stop
    return 1
}
case $what in
    boot) stop >/dev/null 2>&1; boot "$@" ;;
    stop) stop ;;
    *) echo "pair.sh: unknown command $what" >&2; exit 2 ;;
esac
