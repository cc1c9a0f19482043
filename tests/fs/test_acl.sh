#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Labels: security
# Access control lists: enforced, inherited, and in step with the mode (acl(5)).
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || skip "needs root, to be other users"
command -v setfacl >/dev/null || skip "no setfacl"
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
acl() { getfacl -cnE "${2:---access}" "$1" | tr '\n' ' ' | sed 's/ *$//'; }
mode() { stat -c %a "$1"; }
mount_fs pool=16M,allow_other
chmod 755 "$dir"
cd "$mnt"

# Named users and groups get what the list says, others do not; the group bits of the mode are the mask.
echo secret >f
chmod 600 f
setfacl -m u:1001:r,g:1002:rw f
expect "user::rw- user:1001:r-- group::--- group:1002:rw- mask::rw- other::---" "$(acl f)"
expect 660 "$(mode f)"
expect secret "$(as 1001 cat f)"
refused as 1001 sh -c 'echo x >>f'
as 1002 sh -c 'echo more >>f'
refused as 1003 cat f

# chmod changes the mask, and the mask bounds everybody but the owner and others.
chmod 640 f
expect "user::rw- user:1001:r-- group::--- group:1002:rw- mask::r-- other::---" "$(acl f)"
as 1002 cat f >/dev/null
refused as 1002 sh -c 'echo x >>f'
chmod 600 f
refused as 1001 cat f

# A list that says no more than a mode is a mode.
setfacl -b f
expect "" "$(getfattr -m - f)"
setfacl -m u::rwx,g::rx,o::r f
expect 754 "$(mode f)"
expect "" "$(getfattr -m - f)"
setfacl -b f
setfacl -k .

# A directory's default list goes to what is made in it, in place of the umask.
mkdir d
setfacl -d -m u::rwx,g::rx,o::-,u:1001:rwx d
(umask 077; touch d/f; mkdir d/d; mkfifo d/p; ln -s x d/l)
expect "user::rw- user:1001:rwx group::r-x mask::rw- other::---" "$(acl d/f)"
expect "660 770" "$(mode d/f) $(mode d/d)"
expect "$(acl d --default)" "$(acl d/d --default)"
expect "user::rwx user:1001:rwx group::r-x mask::rwx other::---" "$(acl d/d)"
expect 777 "$(mode d/l)"
python3 -c 'import os; os.close(os.open("d/c", os.O_CREAT, 0o604))'
expect 600 "$(mode d/c)"
refused setfacl -d -m u:1001:r f
# Without one, the umask.
(umask 027; touch u; mkdir v)
expect "640 750" "$(mode u) $(mode v)"

# Who changes the list and is not in the group loses set-group-id.
touch s
chown 1001:1002 s
chmod 2755 s
as 1001 setfacl -m u:1003:rx s
expect 755 "$(mode s)"
chmod 2755 s
setfacl -m u:1003:r s
expect 2755 "$(mode s)"
refused as 1003 setfacl -m u:1003:rwx s

# Copies keep them, ls shows them, a remount by the kernel's cache does not hide them.
setfacl -m u:1001:r f
cp -a f g
expect "$(acl f)" "$(acl g)"
echo 3 >/proc/sys/vm/drop_caches 2>/dev/null || true
expect "+" "$(ls -l g | cut -c 11)"
cd /
unmount_fs
