#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The server's daemon is killed with -9 while a client on another machine reads: the client ends with an error that says
# so. A new daemon on the same mount point serves it again, and what the old one gave out never works again (I8).
# Labels: crash
# shellcheck source=tests/wire/service.sh
. "$(dirname "$0")/service.sh"
options=pool=32M,recall_timeout=10s
serve $options
server_file file 8M
hold reader :/file --read --touch=20
old=$(sed -n 's/^ *remote key *\([0-9a-fx]*\).*/\1/p' "$dir/reader")
old_address=$(sed -n 's/^ *remote address *\([0-9a-fx]*\).*/\1/p' "$dir/reader")
[[ $old && $old_address ]] || fail "no key in: $(<"$dir/reader")"

server bash -ceu 'kill -9 $(pidof leasefs)'
end_of_holder 90
cat "$dir/reader"
((ended != 0)) || fail "a client whose server is gone ended well"
grep -qiE 'server|connection' "$dir/reader" || fail "it does not say why it ended"

serve $options # over the dead mount
server_file file 8M
sum=$(server_sum file)
remote get :/file /tmp/copy
[[ $(client cat /tmp/copy | sha256sum) == "$sum" ]] || fail "the new daemon serves something else"

# A lease of today, with yesterday's key and address.
client env "LEASEFS_SERVER=$server_address" "LEASEFS_KEY=$key" bash -ceu '"$1" <<END
lease /file read 0 0
read 0 0 4096
forge 0 $2 $3
read 0 0 4096
END' - "$programs/lease_peer" "$old" "$old_address" | tee "$dir/answers"
mapfile -t answers < <(grep -v '^notice' "$dir/answers")
[[ ${answers[2]} == ok* ]] || fail "the new lease does not serve"
[[ ${answers[3]} == ok* && ${answers[4]} == "error EREMOTEIO"* ]] || fail "a key of the dead daemon was not refused"
