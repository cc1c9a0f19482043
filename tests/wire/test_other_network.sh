#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A server on several networks, of which a client knows one. For its RDMA connection it is told the address that it came to: no
# way leads from it to that of `device=`. By IPv6 as by IPv4, also where one socket listens for both. An address that is not of
# the RDMA device is told to nobody.
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
other=10.98.7.1 other6=fd98:7::1 not_rdma=10.97.7.1
gone_again() {
    server bash -c 'ip addr del '$other'/24 dev eth0; ip addr del '$other6'/64 dev eth0; ip link del d7'
    client bash -c 'ip addr del 10.98.7.2/24 dev eth0; ip addr del fd98:7::2/64 dev eth0; ip route del '$not_rdma'
        ip route del unreachable '$server_address
} >/dev/null 2>&1
on_exit+=(gone_again)
server bash -ceu 'ip addr add "$1/24" dev eth0; ip addr add "$2/64" dev eth0 nodad
    ip link add d7 type dummy; ip addr add "$3/32" dev d7; ip link set d7 up' - $other $other6 $not_rdma
client bash -ceu 'ip addr add 10.98.7.2/24 dev eth0; ip addr add fd98:7::2/64 dev eth0 nodad
    ip route add "$1" dev eth0; ip route add unreachable "$2"' - $not_rdma "$server_address"
listening() { server bash -ceu 'rdma resource show cm_id | grep LISTEN | grep -o "src-addr [^ ]*"'; }

server mkdir -p "$mnt"
server leasefs -o "pool=32M,device=$server_address,listen=[::],keys=$keys" "$mnt"
server_file file 4M
sum=$(server_sum file)
first=$(listening)
[[ $first == "src-addr $server_address:"* ]] || fail "connections are accepted at: $first"
port=${first##*:}
if client leasectl --server "$server_address" --key "$key" status; then fail "the client knows the way to $server_address"; fi

for address in "$other" "[$other6]"; do
    for ((i = 0; i < 2; i++)); do # the second time somebody listens already
        client leasectl --server "$address" --key "$key" get :/file /tmp/copy
        [[ $(client cat /tmp/copy | sha256sum) == "$sum" ]] || fail "$address: the copy differs"
    done
    [[ $(listening) == *"src-addr ${address//[][]/}:$port"* ]] || fail "connections are accepted at: $(listening)"
done
[[ $(listening | wc -l) == 3 ]] || fail "connections are accepted at: $(listening)"

# Not the device's: the client is told the address of `device=`, to which it knows no way.
client leasectl --server $not_rdma --key "$key" status >/dev/null || fail "the server cannot be reached at all"
if client leasectl --server $not_rdma --key "$key" get :/file /tmp/copy 2>"$dir/refused"; then
    fail "a connection without a way"
fi
grep -F "$server_address" "$dir/refused" || fail "it was told: $(<"$dir/refused")"
[[ $(listening | wc -l) == 3 ]] || fail "connections are accepted at: $(listening)"
status_is '.leases | length' 0 || fail "a lease is left"
