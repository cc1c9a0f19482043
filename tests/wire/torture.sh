# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The fence torture between two machines: the pool and the fences on the server, the storming peer on the client.
# Sourced.
# shellcheck source=tests/wire/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
peer_port=7471

# torture ROUNDS PART OF A TEST'S NAME
torture() {
    local rounds=${LEASEFS_TORTURE_ROUNDS:-$1}
    seconds=10000 in_background client socat "TCP-LISTEN:$peer_port,bind=$client_address,reuseaddr,fork" \
        "EXEC:$programs/torture_selftest peer"
    seconds=10000 server env "LEASEFS_TORTURE_ROUNDS=$rounds" "LEASEFS_TEST_SEED=${LEASEFS_TEST_SEED-}" \
        "LEASEFS_TEST_PEER=exec socat -t 30 STDIO TCP:$client_address:$peer_port,retry=100,interval=0.2" \
        "$programs/torture_selftest" "$server_address" "$2"
}
