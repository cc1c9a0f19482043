# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For the tests in this folder: a leasefs of their own, mounted on $mnt, in a private directory that is gone afterwards.
#
#   . "$(dirname "$0")/lib.sh"
#   mount_fs pool=64M
#   ... commands; the first that fails ends the test ...
#
# $LEASEFS is the daemon. It runs in the foreground, as process $daemon, with its messages in $log.

set -eu -o pipefail
trap 'echo "FAILED: $0 line $LINENO: $BASH_COMMAND" >&2' ERR
umask 022

skip()
{
    echo "skipped: $*"
    exit 77
}

fail()
{
    echo "FAILED: $*" >&2
    exit 1
}

# In a mount namespace of its own: others that are made meanwhile would keep copies of our mounts, and the daemon with them.
if [ -z "${LEASEFS_TEST_NAMESPACE:-}" ] && [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    LEASEFS_TEST_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi

# A sanitizer's build keeps what was freed for a while, and needs more memory.
sanitized()
{
    grep -q -e __asan_init -e __tsan_init "$LEASEFS"
}

# What the others need.
: "${LEASEFS:=leasefs}"
command -v "$LEASEFS" >/dev/null || skip "no leasefs program: set LEASEFS"
[ -w /dev/fuse ] || skip "no /dev/fuse"

supp=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tsan.supp
export TSAN_OPTIONS="suppressions=$supp:${TSAN_OPTIONS:-}"

dir=$(mktemp -d "${TMPDIR:-/tmp}/leasefs-test.XXXXXX")
mnt=$dir/mnt
log=$dir/log
control=$dir/control
daemon=
fuse_magic=65735546 # statfs(2)
mkdir "$mnt"

show_daemon()
{
    [ -s "$log" ] && { echo "--- daemon's messages"; tail -n 100 "$log"; }
    [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null || return 0
    echo "--- daemon's threads"
    if command -v gdb >/dev/null; then
        timeout 20 gdb -p "$daemon" -batch -ex 'thread apply all bt 12' 2>/dev/null |
            sed -n -E 's/^(Thread [0-9]+).*/\1/p; s/^(#[0-9]+ )( 0x[0-9a-f]+ in|) *([^ ]+) .* at (.*)$/\1 \3 (\4)/p' || true
    else
        for task in /proc/"$daemon"/task/*; do
            echo "$task: $(cat "$task/wchan" 2>/dev/null)"
            cat "$task/stack" 2>/dev/null || true
        done
    fi
}

clean_up()
{
    status=$?
    trap - EXIT
    [ -z "${at_exit:-}" ] || eval "$at_exit" || true
    cd / # whoever stands in the mount, and stops the daemon to look at it, stops for good
    if [ $status -ne 0 ] && [ $status -ne 77 ]; then
        show_daemon >&2
    fi
    fusermount3 -u -q "$mnt" 2>/dev/null || true
    while is_mounted; do
        umount -l "$mnt" 2>/dev/null || fusermount3 -u -z "$mnt" || break
    done
    # After a failure files may still be open, which a mount outlives.
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    if [ -n "$daemon" ] && ! wait_gone "$daemon" 100; then
        echo "FAILED: the daemon does not end" >&2
        show_daemon >&2
        kill -9 "$daemon"
        [ $status -ne 0 ] || status=1
    fi
    rm -rf --one-file-system "$dir"
    exit $status
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# wait_gone PID TENTHS: until the process has ended.
wait_gone()
{
    local i
    for ((i = 0; i < $2; i++)); do
        # A zombie has ended.
        case $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) in '' | Z) return 0 ;; esac
        sleep 0.1
    done
    return 1
}

is_mounted()
{
    grep -q " $mnt fuse" /proc/self/mounts
}

# mount_fs OPTIONS: waits until it is there. LEASEFS_TEST_OPTIONS adds options to every mount.
mount_fs()
{
    local i
    "$LEASEFS" -f -o "device=${device:-none},control=$control${1:+,$1}${LEASEFS_TEST_OPTIONS:+,$LEASEFS_TEST_OPTIONS}" "$mnt" 2>"$log" &
    daemon=$!
    for ((i = 0; i < 200; i++)); do
        [ "$(stat -f -c %t "$mnt" 2>/dev/null)" = $fuse_magic ] && return
        kill -0 $daemon 2>/dev/null || fail "the daemon ended at start: $(cat "$log")"
        sleep 0.05
    done
    fail "not mounted after 10 seconds"
}

# Unmounts and checks that the daemon ends well, with nothing to complain of.
unmount_fs()
{
    local i pid=$daemon
    # The kernel lets go of closed files a little later.
    for ((i = 0; i < 50; i++)); do
        ! fusermount3 -u -q "$mnt" || break
        sleep 0.1
    done
    ! is_mounted || fusermount3 -u "$mnt"
    wait_gone "$pid" 300 || fail "the daemon runs on after the unmount; mounted in: $(grep -l " $mnt " /proc/[0-9]*/mounts)"
    daemon=
    wait "$pid" || fail "the daemon's exit code is $?"
    if grep -E 'internal error|ERROR: |WARNING: |runtime error' "$log"; then
        fail "the daemon complained"
    fi
}

# expect WANTED GOT [ABOUT]
expect()
{
    [ "$1" = "$2" ] || fail "expected '$1', got '$2' ${3:+($3)}"
}

# refused COMMAND...: it fails. refused_with TEXT COMMAND...: and says so.
refused()
{
    if "$@" >/dev/null 2>&1; then
        fail "should have been refused: $*"
    fi
}

refused_with()
{
    local text=$1 output
    shift
    if output=$("$@" 2>&1); then
        fail "should have been refused: $*"
    fi
    case $output in *"$text"*) ;; *) fail "'$*' says '$output', not '$text'" ;; esac
}

sum()
{
    sha256sum "$1" | cut -d ' ' -f 1
}

# expect_free BLOCKS: soon. The kernel forgets an unlinked file at its leisure, and then its blocks come back.
expect_free()
{
    local i
    for ((i = 0; i < 100; i++)); do
        [ "$(free_blocks)" != "$1" ] || return 0
        sleep 0.05
    done
    fail "expected $1 free blocks, got $(free_blocks)"
}

# free_blocks, used_bytes FILE: as the filesystem tells.
free_blocks()
{
    stat -f -c %a "$mnt"
}

used_bytes()
{
    echo $(($(stat -c %b "$1") * 512))
}

random_file()
{
    head -c "$2" /dev/urandom >"$1"
}
