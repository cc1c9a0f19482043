#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: security
# A daemon that listens, leasectl from "another host", keys that are made, limited to exports, and taken away by SIGHUP.
: "${LEASEFS_SIMULATED:=leasefs_simulated}"
LEASEFS=$LEASEFS_SIMULATED device=simulated
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"
keys=$dir/keys

key() # CLIENT OPTION...: made, in $dir/CLIENT.key
{
    local client=$1
    shift
    "$LEASECTL" key new "$client" --keys "$keys" --out "$dir/$client.key" --uid "$(id -u)" --gid "$(id -g)" "$@" >/dev/null
}

# The daemon's own, as port 0 lets the system choose.
find_port()
{
    python3 - "$daemon" <<'PY'
import os, sys
fds = f"/proc/{sys.argv[1]}/fd"
mine = {os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)}
for line in open(f"/proc/{sys.argv[1]}/net/tcp"):
    word = line.split()
    if word[3] == "0A" and f"socket:[{word[9]}]" in mine:
        print(int(word[1].split(":")[1], 16))
PY
}

as() # CLIENT ARGUMENT...: leasectl with its key
{
    local client=$1
    shift
    "$LEASECTL" --server "127.0.0.1:$port" --key "$dir/$client.key" "$@"
}

# ---- keys
key all --export /
key data --export /data --export /pub:ro
exits 1 "$LEASECTL" key new all --keys "$keys" --out "$dir/again.key" --uid 0 --gid 0 --export /
says 'client all is there already'
[ ! -e "$dir/again.key" ]
exits 1 "$LEASECTL" key new new --keys "$keys" --out "$dir/all.key" --uid 0 --gid 0 --export / # never overwritten
exits 2 "$LEASECTL" key new 'a b' --keys "$keys" --uid 0 --gid 0 --export /
exits 2 "$LEASECTL" key new new --keys "$keys" --uid 0 --gid 0
says '--export'
exits 2 "$LEASECTL" key new new --keys "$keys" --uid 0 --gid 0 --export /a/../b
expect 600 "$(stat -c %a "$keys")" 'mode of the keys'
expect 600 "$(stat -c %a "$dir/all.key")" 'mode of a key'
exits 0 "$LEASECTL" key list --keys "$keys"
says "data: uid $(id -u), gid $(id -g), /data, /pub read-only"
secret=$(sed -n 's/^key = //p' "$dir/all.key")
expect 64 "${#secret}" 'digits of a key'
grep -q "$secret" "$keys"
case $output in *"$secret"*) fail 'key list shows a secret' ;; esac

# ---- a start that cannot be
exits 1 "$LEASEFS" -f -o "pool=64M,device=none,control=$control,listen=127.0.0.1:0" "$mnt"
says 'needs keys=FILE'
chmod 640 "$keys"
exits 1 "$LEASEFS" -f -o "pool=64M,device=none,control=$control,listen=127.0.0.1:0,keys=$keys" "$mnt"
says 'chmod 600'
chmod 600 "$keys"

# ---- service
mount_fs "pool=64M,listen=127.0.0.1:0,keys=$keys"
port=$(find_port)
mkdir "$mnt/data" "$mnt/pub"
random_file "$mnt/data/file" 100000
random_file "$mnt/pub/file" 100000
random_file "$mnt/secret" 100000
ln -s ../secret "$mnt/data/link"

exits 0 as all --json map /secret
exits 0 as data --json map /data/file
exits 0 as data prepare --write /data/file
exits 0 as data clone /pub/file /data/copy
cmp "$mnt/pub/file" "$mnt/data/copy"
exits 0 as data lease --read /data/file --for 0.1
exits 0 as data lease --read /pub/file --for 0.1
for path in /secret /data/../secret /data/link /; do
    exits 3 as data --json map "$path"
    expect EACCES "$(member errno)"
    exits 3 as data lease --read "$path" --for 0.1
done
exits 3 as data --json prepare --write /pub/file
expect EROFS "$(member errno)"
exits 3 as data lease --write /pub/file --for 0.1
exits 3 as data clone /data/file /pub/new
exits 3 as data clone /data/file /secret
[ ! -e "$mnt/pub/new" ]

# By the file's name and the environment, too.
exits 0 env LEASEFS_SERVER="127.0.0.1:$port" LEASEFS_KEY="$dir/all.key" "$LEASECTL" status
mkdir -p "$dir/config/leasefs"
cp "$dir/all.key" "$dir/config/leasefs/key"
exits 0 env -u LEASEFS_KEY XDG_CONFIG_HOME="$dir/config" "$LEASECTL" --server "127.0.0.1:$port" status

# ---- no service
sed 's/^key = ..../key = 0000/' "$dir/all.key" >"$dir/wrong.key"
sed 's/client all/client nobody/' "$dir/all.key" >"$dir/unknown.key"
chmod 600 "$dir"/*.key
exits 7 as wrong status
says 'does not take this key'
exits 7 as unknown status
says 'does not take this key'
exits 7 as missing status
says 'leasectl key new'
chmod 644 "$dir/wrong.key"
exits 7 as wrong status
says 'chmod 600'

# ---- a key that is taken away
as data --json lease --write /data/file >"$dir/held" &
holder=$!
for ((i = 0; i < 600; i++)); do
    ! grep -q '"lease"' "$dir/held" || break
    sleep 0.1
done
grep -q '"lease"' "$dir/held"
cp "$keys" "$dir/good"
echo '[client broken' >>"$keys"
kill -HUP "$daemon"
for ((i = 0; i < 600; i++)); do
    ! grep -q 'the old keys stay' "$log" || break
    sleep 0.1
done
grep -q "line .*a section is" "$log"
exits 0 as data map /data/file
sed '/client data/,$d' "$dir/good" >"$keys"
kill -HUP "$daemon"
wait "$holder" && fail 'a lease outlived its key'
exits 7 as data status
exits 0 as all status
exits 0 truncate -s 1000 "$mnt/data/file" # nobody is in the way any more
unmount_fs
