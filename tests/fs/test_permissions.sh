#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: security
# Other users are kept to the mode bits, and lose set-user-id bits by writing.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be other users"
command -v setpriv >/dev/null || skip "no setpriv"
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
mount_fs pool=16M,allow_other
chmod 755 "$dir"
cd "$mnt"

chmod 1777 .
as 1001 sh -c 'echo mine >a; chmod 600 a; mkdir d; chmod 711 d; echo in >d/x; chmod 644 d/x'
expect "1001 1001" "$(stat -c '%u %g' a)"
refused as 1002 cat a
refused as 1002 sh -c 'echo x >a'
refused as 1002 rm -f a
refused as 1002 mv a b
refused as 1002 chmod 777 a
refused as 1002 ls d
expect in "$(as 1002 cat d/x)"
refused as 1002 touch d/y
refused as 1002 truncate -s 0 d/x
expect mine "$(cat a)"

# Root bypasses, also to write; a user who writes, or truncates, takes the set-user-id bit away.
echo root >>a
for how in 'echo x >>s' 'truncate -s 1 s' 'printf x | dd of=s conv=notrunc status=none'; do
    echo xxxx >s
    chown 1001 s
    chmod 6777 s
    as 1002 sh -c "$how"
    expect 777 "$(stat -c %a s)" "$how"
done
chmod 6777 s
echo x >>s
expect 6777 "$(stat -c %a s)" "root may"
# A change of the owner to what it is counts.
python3 -c 'import os; os.chown("s", -1, -1)'
expect 777 "$(stat -c %a s)" "chown(-1, -1)"
# A set-group-id bit that does not mean execution stays for members of the group, by whichever of their groups.
member() { setpriv --reuid 1002 --regid 1002 --groups 7,4242 "$@"; }
for how in 'echo x >>s' 'truncate -s 1 s'; do
    chown 0:4242 s
    chmod 2767 s
    member sh -c "$how"
    expect 2767 "$(stat -c %a s)" "a member: $how"
    as 1002 sh -c "$how"
    expect 767 "$(stat -c %a s)" "no member: $how"
done
cd /
unmount_fs

# Without allow_other, nobody but the mounter.
mount_fs pool=16M
chmod 777 "$mnt"
refused as 1001 ls "$mnt"
unmount_fs
