# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For the tests in this folder: those of tests/fs, and leasectl ($LEASECTL) talking to the mounted filesystem.

# shellcheck source=tests/fs/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../fs/lib.sh"

: "${LEASECTL:=leasectl}"
command -v "$LEASECTL" >/dev/null || skip "no leasectl program: set LEASECTL"

ctl()
{
    "$LEASECTL" --control "$control" "$@"
}

# exits CODE COMMAND...: it ends with that exit code. Its output is in $output.
exits()
{
    local wanted=$1 got=0
    shift
    output=$("$@" 2>&1) || got=$?
    [ "$got" = "$wanted" ] || fail "'$*' ended with $got, not $wanted: $output"
}

# says TEXT: $output of the last exits has it.
says()
{
    case $output in *"$1"*) ;; *) fail "'$output' does not say '$1'" ;; esac
}

# member NAME: of the JSON object in $output.
member()
{
    python3 -c 'import json, sys; print(json.loads(sys.argv[1]).get(sys.argv[2]))' "$output" "$1"
}
