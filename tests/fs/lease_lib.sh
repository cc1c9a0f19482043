# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For test_lease_*.sh: the daemon with a simulated fabric, leasectl as the holder.
# shellcheck disable=SC2034,SC2154 # variables of lib.sh and for it

: "${LEASEFS_SIMULATED:=leasefs_simulated}" "${LEASECTL:=leasectl}"
command -v "$LEASEFS_SIMULATED" >/dev/null || { echo "skipped: set LEASEFS_SIMULATED"; exit 77; }
command -v "$LEASECTL" >/dev/null || { echo "skipped: set LEASECTL"; exit 77; }
LEASEFS=$LEASEFS_SIMULATED
device=simulated

# shellcheck source=tests/fs/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# hold PATH OPTIONS...: a lease, held in the background by process $holder, which tells in $dir/holder.
hold()
{
    local i path=$1
    shift
    rm -f "$dir/holder"
    "$LEASECTL" --control "$control" lease "$@" ":$path" >"$dir/holder" 2>&1 &
    holder=$!
    for ((i = 0; i < 600; i++)); do
        grep -qs 'sequence' "$dir/holder" && return
        kill -0 $holder 2>/dev/null || fail "no lease: $(cat "$dir/holder")"
        sleep 0.05
    done
    fail "no lease after 30 seconds: $(cat "$dir/holder")"
}

# lease_states FILE: of its leases, by spaces.
lease_states()
{
    getfattr --absolute-names --only-values -n user.leasefs.leases "$1" |
        grep -o '"state":"[^"]*"' | cut -d '"' -f 4 | tr '\n' ' ' | sed 's/ $//'
}

# until_state FILE STATES: waits for it.
until_state()
{
    local i
    for ((i = 0; i < 100; i++)); do
        [ "$(lease_states "$1")" != "$2" ] || return 0
        sleep 0.05
    done
    fail "the leases of $1 are '$(lease_states "$1")', not '$2'"
}

end_holder()
{
    kill "$holder" 2>/dev/null || true
    wait "$holder" 2>/dev/null || true
}

now_ms()
{
    echo $(($(date +%s%N) / 1000000))
}

# takes MIN MAX COMMAND...: milliseconds.
takes()
{
    local min=$1 max=$2 start took
    shift 2
    start=$(now_ms)
    "$@" || fail "failed: $*"
    took=$(($(now_ms) - start))
    if [ $took -lt "$min" ] || [ $took -gt "$max" ]; then
        fail "'$*' took $took ms, not $min to $max"
    fi
}
