# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The fence torture between two machines: the pool and the fences on the server, the storming peer on the client.
# Sourced.
# shellcheck source=tests/wire/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
peer_port=7471

# LEASEFS_TORTURE_ROUNDS asks for a night; otherwise a storm, its repetitions with it, ends within the test's ten minutes.
storm_seconds=180 last_start=360
[[ -n ${LEASEFS_TORTURE_ROUNDS-} ]] && storm_seconds=40000 guest_seconds=50000 last_start=40000

# torture ROUNDS PART OF A TEST'S NAME [NETEM...]
# The rxe of Linux 7.3 often stops a processor of its machine in this storm (a spin lock of rxe_rcv that nobody gives
# back), which is then ended after a minute. What it was doing is not known: it is done again, by Linux 6.12, which was not
# seen to stop.
torture() {
    for attempt in 1 2 3; do
        wire "${@:3}" && storm "$1" "$2" && return
        guests_live && return 1
        ((attempt < 3 && SECONDS < last_start)) || return 1
        echo "# a guest's kernel stopped; once more on Linux 6.12"
        new_pair 6.12 || return
    done
}
# Ends with the storm, or with the client's machine.
storm() {
    local rounds=${LEASEFS_TORTURE_ROUNDS:-$1} seconds=$storm_seconds listener status=0
    in_background client socat "TCP-LISTEN:$peer_port,bind=$client_address,reuseaddr,fork" \
        "EXEC:$programs/torture_selftest peer"
    listener=$!
    in_background server env "LEASEFS_TORTURE_ROUNDS=$rounds" "LEASEFS_TEST_SEED=${LEASEFS_TEST_SEED-}" \
        "LEASEFS_TEST_PEER=exec socat -t 30 STDIO TCP:$client_address:$peer_port,retry=100,interval=0.2" \
        "$programs/torture_selftest" "$server_address" "$2"
    wait -n "$listener" "$!" || status=$?
    kill -0 "$listener" 2>/dev/null && return "$status"
}
