#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Clocks that are wrong. Wall clocks that jump by hours and years, on either machine, end no lease and prolong none. A client
# whose monotonic clock runs a tenth too slow or too fast (adjtimex, as far as Linux goes) has its lease for no byte longer than
# the server says: it stops by itself, or is refused. That the wire is whole and the session lives prolongs none either.
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
lease_seconds=8
serve pool=32M,recall_timeout=10min,lease_time=${lease_seconds}s

set_tick() { # microseconds of a tick, of ten thousand
    client python3 -c 'import ctypes, struct, sys
timex = ctypes.create_string_buffer(struct.pack("=I4x", 0x4000) + bytes(256)) # ADJ_TICK
ctypes.c_long.from_buffer(timex, 88).value = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(0 if libc.adjtimex(timex) >= 0 else "adjtimex: errno %d" % ctypes.get_errno())' "$1"
}
# The client hears no more answers of the server and the server no more renewals; RDMA (by UDP) goes on.
cut_control() { client ip rule add to "$server_address" ipproto tcp blackhole; }
whole_again() {
    client ip rule del to "$server_address" ipproto tcp blackhole
    set_tick 10000
    for machine in server client; do "$machine" date -s "@$(date +%s)"; done
} >/dev/null 2>&1
on_exit+=(whole_again)
jump() { "$1" date -s "$2" >/dev/null; }

# ---- wall clocks: renewed leases go on ----
server_file held 1M
hold holder :/held --read --touch=20
started=$SECONDS
while ((SECONDS < started + 2 * lease_seconds + 2)); do
    jump client "+5 hours" && jump server "-3 days"
    status_is '.leases | length' 1 || fail "the lease ended when clocks jumped: $(<"$dir/holder")"
    jump client "-400 days" && jump server "+1000 days"
    status_is '.leases | length' 1 || fail "the lease ended when clocks jumped: $(<"$dir/holder")"
done
status_is .counters.expired 0 || fail "a lease expired when clocks jumped"
gone "$holder" && fail "the holder ended: $(<"$dir/holder")"

# ---- and are given back as ever, with clocks far apart ----
server truncate -s 4096 "$mnt/held"
end_of_holder 60
((ended == 0)) || fail "the holder did not give back: $(<"$dir/holder")"

# ---- who does not renew: neither jumps back nor a slow or fast clock keeps a lease ----
# Writes the whole file over and over, whatever it knows of its lease, until that is refused.
write_until_refused() {
    in_background client env "LEASEFS_SERVER=$server_address" "LEASEFS_KEY=$key" bash -ceu '
        coproc peer { exec "$1/lease_peer"; }
        ask() { echo "$*" >&"${peer[1]}"; until read -r answer <&"${peer[0]}" && [[ $answer != notice* ]]; do :; done; }
        read -r answer <&"${peer[0]}"
        ask lease "$2" write 0 0 ignore
        echo "$answer"
        n=0
        while ask write 0 0 1048576 $((n % 250)) && [[ $answer == ok* ]]; do n=$((n + 1)); done
        echo "refused after $n writes: $answer"' - "$programs" "$1" >"$dir/writer" 2>&1
    writer=$!
    until_true 60 grep -q '^ok' "$dir/writer"
}
for tick in 9000 11000; do
    set_tick "$tick" || fail "the client's clock keeps its speed"
    server_file read 1M
    server_file written 1M
    hold reader :/read --read --touch=20
    reader=$holder
    write_until_refused /written
    cut_control
    cut=$SECONDS
    jump server "-3 days" && jump client "-3 days"
    server rm "$mnt/read" & # these two wait until the leases are gone
    jobs_started+=($!)
    server dd if=/dev/zero "of=$mnt/written" bs=1M count=1 conv=notrunc,fsync status=none &
    overwriting=$!
    jobs_started+=("$overwriting")
    until_true 60 gone "$overwriting"
    wait "$overwriting" || fail "the local write failed"
    echo "clock $tick: the local write went on $((SECONDS - cut)) s after the last renewal (lease time $lease_seconds s)"
    zeros=$(head -c 1M /dev/zero | sha256sum)
    [[ $(server_sum written) == "$zeros" ]] || fail "clock $tick: the file is not what was written last"
    until_true 60 gone "$writer"
    until_true 60 gone "$reader"
    tail -n 1 "$dir/writer" "$dir/reader"
    wait "$reader" && fail "clock $tick: the reader ended well"
    [[ $(server_sum written) == "$zeros" ]] || fail "clock $tick: a late byte"
    status_is .counters.recall_timeouts 0 || fail "the recall's deadline ended a lease"
    until_true 60 status_is '.leases | length' 0
    client ip rule del to "$server_address" ipproto tcp blackhole
done

# ---- who does not renew while all is well otherwise: the lease expires, and nothing else ends it ----
# A peer with a read lease that its library guards and a write lease that nothing guards. It does not renew them, and uses both
# until it is refused. Then it takes a new lease in the same session.
expire() { # READ WRITTEN
    in_background client env "LEASEFS_SERVER=$server_address" "LEASEFS_KEY=$key" bash -ceu '
        coproc peer { exec "$1/lease_peer"; }
        ask() { echo "$*" >&"${peer[1]}"; until read -r answer <&"${peer[0]}" && [[ $answer != notice* ]]; do :; done; }
        reads=0 writes=0 read=ok write=ok
        try() { # READ|WRITE COMMAND...
            local -n last=$1 count=$1s
            [[ $last == ok* ]] && ask "${@:2}" && last=$answer && [[ $last == ok* ]] && count=$((count + 1)) || :
        }
        read -r answer <&"${peer[0]}"
        ask lease "$2" read 0 0 ignore guarded
        ask lease "$3" write 0 0 ignore
        ask unrenewed 0
        ask unrenewed 1
        echo "$answer"
        while [[ $read == ok* || $write == ok* ]]; do
            try read read 0 0 65536
            try write write 1 0 1048576 7
        done
        echo "reads refused after $reads: $read"
        echo "writes refused after $writes: $write"
        ask lease "$2" read 0 0
        ask read 2 0 65536
        echo "the session goes on: $answer"' - "$programs" "$1" "$2" >"$dir/expiring" 2>&1
    expiring=$!
    until_true 60 grep -q '^ok' "$dir/expiring"
}
for tick in 9000 11000; do
    set_tick "$tick"
    expired=$(status_of .counters.expired)
    server_file read 1M
    server_file written 1M
    expire /read /written
    server dd if=/dev/zero "of=$mnt/written" bs=1M count=1 conv=notrunc,fsync status=none & # waits for the expiry
    overwriting=$!
    jobs_started+=("$overwriting")
    until_true 60 gone "$overwriting"
    wait "$overwriting" || fail "the local write failed"
    until_true 60 gone "$expiring"
    cat "$dir/expiring"
    wait "$expiring" || fail "clock $tick: the peer"
    grep -q '^reads refused after [1-9].*ESTALE' "$dir/expiring" || fail "clock $tick: the library read on"
    grep -q '^writes refused after [1-9]' "$dir/expiring" || fail "clock $tick: nothing was written before the expiry"
    grep -q '^the session goes on: ok' "$dir/expiring" || fail "clock $tick: more than the lease ended"
    [[ $(server_sum written) == "$zeros" ]] || fail "clock $tick: a late byte"
    (($(status_of .counters.expired) > expired)) || fail "clock $tick: the lease did not expire: $(status_of .counters)"
    until_true 60 status_is '.leases | length' 0
done
status_is .counters.recall_timeouts 0 || fail "the recall's deadline ended a lease"
status_is .pool.quarantined_bytes 0 || fail "blocks are quarantined"
