#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A holder commits another size. Linux shows it at once, also when an answer that was made before, with the old size, arrives
# only after it was told: such an answer is held up here, in the daemon (held_answers.c).
# shellcheck source=tests/fs/lease_lib.sh
. "$(dirname "$0")/lease_lib.sh"
examples=$(cd "$(dirname "$0")/../../tools/examples" && pwd)

# A holder on one connection: "METHOD {MEMBERS}" a line, answered by a line. (Python without -I would list the directory.)
start_rpc()
{
    coproc rpc { exec python3 -I -B -u -c '
import json, sys
sys.path.insert(0, sys.argv[1])
from lease_client import Client
client = Client(sys.argv[2], "test")
for line in sys.stdin:
    method, members = line.split(" ", 1)
    print(client.call(method, **json.loads(members)).get("lease"))' "$examples" "$control" 2>"$dir/rpc"; }
    rpc_process=$! to_rpc=${rpc[1]}
}
call()
{
    echo "$*" >&"$to_rpc"
    read -r -t 30 answer <&"${rpc[0]}" || fail "$*: $(cat "$dir/rpc")"
}

# The lengths of answers: header and fuse_attr_out, fuse_entry_out, three of fuse_direntplus.
attr=120 entry=144 three=496

# crosses LENGTH FILE COMMAND...: the command's answer is of that length and crosses the commit of a size; afterwards
# Linux knows that size.
size=5000
crosses()
{
    local i length=$1 file=$2 command
    shift 2
    rm -f "$answers/held"
    echo "$length" >"$answers/hold"
    "$@" >/dev/null &
    command=$!
    for ((i = 0; i < 200; i++)); do
        [ ! -e "$answers/held" ] || break
        sleep 0.05
    done
    [ -e "$answers/held" ] || fail "no answer of $length bytes to $*"
    size=$((size + 1))
    call "commit {\"lease\": $lease, \"size\": $size}"
    : >"$answers/go"
    wait $command || fail "failed: $*"
    expect $size "$(stat -c %s "$file")" "after $*"
}
leased()
{
    call "lease {\"path\": \"/$1\", \"mode\": \"write\", \"prepare\": true}"
    lease=$answer
}
return_it()
{
    call "return {\"lease\": $lease}"
}

answers=$dir/answers
mkdir "$answers"
mkfifo "$answers/go"
LEASEFS_TEST_ANSWERS=$answers
export LEASEFS_TEST_ANSWERS
mount_fs pool=64M
cd "$mnt"
random_file known $size
mkdir in
for new in found in/listed; do # names that Linux has not seen
    "$LEASECTL" --control "$control" clone :/known ":/$new" >/dev/null
    "$LEASECTL" --control "$control" prepare --write ":/$new" >/dev/null
done
start_rpc

# Nothing crosses.
leased known
before=$(stat -c %y known)
size=5001
call "commit {\"lease\": $lease, \"size\": $size}"
expect $size "$(stat -c %s known)"
[ "$before" != "$(stat -c %y known)" ] || fail "a commit does not change mtime"

# GETATTR. Linux takes no notice of answers to what it asked before it was told (since 5.8).
call "commit {\"lease\": $lease}"
crosses $attr known stat -c %s known

# SETATTR and LINK: it does not look (SETATTR: older versions). The answers are not to be kept while there is a writer's lease.
crosses $attr known python3 -I -c 'import os; os.chmod("known", 0o600)'
crosses $entry known python3 -I -c 'import os; os.link("known", "other")'
return_it

# LOOKUP and READDIRPLUS of a file that Linux does not know yet, so the notice was lost on it: the same.
size=5000
leased found
crosses $entry found stat -c %s found
return_it
size=5000
leased in/listed
crosses $three in/listed ls -U in
return_it

# Without a lease Linux keeps them.
stat -c %s known found in/listed >/dev/null
echo $attr >"$answers/hold"
stat -c %s known found in/listed >/dev/null
[ -e "$answers/hold" ] || fail "Linux asks for attributes that cannot change"
rm "$answers/hold"

exec {to_rpc}>&-
wait $rpc_process || fail "$(cat "$dir/rpc")"
cd /
unmount_fs
