# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A filesystem on the server, and a client with a key for it (TLS 1.3). Sourced.
#
#   serve OPTIONS         mounts on $mnt with these options of leasefs
#   remote ARGUMENTS      leasectl on the client
#   hold NAME ARGUMENTS   `leasectl lease` on the client, in the background as process $holder of this machine; its
#                         words are in $dir/NAME. Returns when it holds.
# shellcheck source=tests/wire/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
mnt=/mnt/lfs
keys=/run/wire.keys key=/run/wire.key # on the server, on the client

stop_serving() {
    client bash -c 'kill -9 $(pidof leasectl lease_peer); rm -f '$key
    server bash -c 'kill -9 $(pidof leasefs); umount -l '$mnt'; rm -f '$keys
} >/dev/null 2>&1
on_exit+=(stop_serving)
serve() {
    server bash -ceu '{ mkdir -p "$1" 2>/dev/null || :; } && exec leasefs -o "listen=$2,keys=$3,$4" "$1"' - \
        "$mnt" "$server_address" "$keys" "$1"
}
remote() { client env "LEASEFS_SERVER=$server_address" "LEASEFS_KEY=$key" leasectl "$@"; }
hold() {
    local name=$1
    shift
    in_background client env "LEASEFS_SERVER=$server_address" "LEASEFS_KEY=$key" leasectl lease "$@" \
        >"$dir/$name" 2>&1
    holder=$!
    until_true 60 grep -q 'remote key' "$dir/$name"
}
# Sets `ended` to the holder's exit status, which has to come within so many seconds.
# shellcheck disable=SC2034
end_of_holder() {
    ended=0
    until_true "$1" gone "$holder"
    wait "$holder" || ended=$?
}
gone() { ! kill -0 "$1" 2>/dev/null; }
status_of() { server leasectl status --json | jq "$1"; }
status_is() { [[ $(status_of "$1") == "$2" ]]; }
server_sum() { server dd "if=$mnt/$1" iflag=direct bs=1M status=none | sha256sum; } # the pool's bytes
server_file() { server bash -ceu 'head -c "$2" /dev/urandom >"$1"' - "$mnt/$1" "$2"; }

server leasectl key new wire --uid 0 --gid 0 --export / --keys "$keys" --out - >"$dir/key"
client bash -ceu 'umask 077; printf "%s\n" "$2" >"$1"' - "$key" "$(<"$dir/key")"
