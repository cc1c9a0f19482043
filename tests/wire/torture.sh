# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The fence torture between two machines: the pool and the fences on the server, the storming peer on the client.
# Sourced.
# shellcheck source=tests/wire/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
peer_port=7471

# torture ROUNDS PART OF A TEST'S NAME [NETEM...]
# The rxe of Linux 7.3 sometimes stops its whole machine in this storm (a spin lock of rxe_rcv that nobody gives back:
# "rcu_preempt detected stalls" in the console). What the machine was doing is then not known: it is done again, by new ones.
torture() {
    for attempt in 1 2 3; do
        wire "${@:3}" && storm "$1" "$2" && return
        guests_live && return 1
        [[ -n ${LEASEFS_STAGE_FILE-} ]] && ((attempt < 3)) || return 1
        echo "# a guest's kernel stopped; once more on new ones"
        kill "${jobs_started[@]}" 2>/dev/null || :
        jobs_started=()
        "$(dirname "${BASH_SOURCE[0]}")/pair.sh" boot "$pair" --kernel 7 --memory 2G --max-seconds 50000 \
            --stage "$(cat "$LEASEFS_STAGE_FILE")" >"$dir/boot.log" 2>&1 </dev/null || { cat "$dir/boot.log"; return 1; }
    done
}
guests_live() {
    local name
    for name in "$pair-a" "$pair-b"; do
        "$bed" exec --name "$name" --timeout 60 -- true >/dev/null 2>&1 || return
    done
}
storm() {
    local rounds=${LEASEFS_TORTURE_ROUNDS:-$1}
    seconds=40000 in_background client socat "TCP-LISTEN:$peer_port,bind=$client_address,reuseaddr,fork" \
        "EXEC:$programs/torture_selftest peer"
    seconds=40000 server env "LEASEFS_TORTURE_ROUNDS=$rounds" "LEASEFS_TEST_SEED=${LEASEFS_TEST_SEED-}" \
        "LEASEFS_TEST_PEER=exec socat -t 30 STDIO TCP:$client_address:$peer_port,retry=100,interval=0.2" \
        "$programs/torture_selftest" "$server_address" "$2"
}
