# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Debian packages that a script needs, for Debian 12 and 13. Source it:
#
#     . "$top/tools/lib/deps.sh"
#     need_packages shellcheck mandoc
#
# need_packages returns at once if every package is installed; otherwise it installs
# what is missing, without questions and without recommended packages.
# It returns 1, with the reason and the remedy on stderr, if it cannot.

_deps_error() { printf 'deps: %s\n' "$@" >&2; }

# Prints those of the named packages that are not installed. A package that is only
# half configured counts as missing: apt finishes it.
_deps_missing() {
    local package status
    for package; do
        # shellcheck disable=SC2016  # dpkg-query expands this, not the shell
        status=$(dpkg-query -W -f '${db:Status-Abbrev}' -- "$package" 2>/dev/null) || status=
        [[ $status == ii* || $status == hi* ]] || printf '%s\n' "$package"
    done
}

# apt with no questions, and patience for another apt that holds dpkg's lock. Our own lock is
# not passed on: a daemon that a package starts would hold it for good.
_deps_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 "$@" </dev/null {lock}>&-
}

need_packages() {
    local missing log lock
    mapfile -t missing < <(_deps_missing "$@")
    ((${#missing[@]} == 0)) && return 0

    if ! command -v apt-get >/dev/null; then
        _deps_error "missing packages: ${missing[*]}" \
            "this is not a Debian system (no apt-get): install their equivalents by hand"
        return 1
    fi
    if ((EUID != 0)); then
        _deps_error "missing packages: ${missing[*]}" \
            "installing them needs root: sudo apt-get install --no-install-recommends ${missing[*]}"
        return 1
    fi

    # apt waits for dpkg's lock but not for the lock of the package lists, so two
    # callers at once are put in a row here.
    mkdir -p /run/lock
    exec {lock}>/run/lock/leasefs-deps.lock
    if ! flock -w 900 "$lock"; then
        _deps_error "another installation has held /run/lock/leasefs-deps.lock for 15 minutes"
        exec {lock}>&-
        return 1
    fi
    mapfile -t missing < <(_deps_missing "$@")
    if ((${#missing[@]})); then
        echo "deps: installing ${missing[*]}" >&2
        log=$(mktemp)
        # First with the package lists at hand: usually enough, and quick. If that fails, the
        # lists are absent or old.
        if ! _deps_apt install --no-install-recommends "${missing[@]}" >"$log" 2>&1 &&
            ! { _deps_apt update >"$log" 2>&1 &&
                _deps_apt install --no-install-recommends "${missing[@]}" >>"$log" 2>&1; }; then
            tail -n 20 "$log" >&2
            _deps_error "apt-get could not install: ${missing[*]}" \
                "see the messages above; check the package names, /etc/apt/sources.list.d and the network"
            rm -f "$log"
            exec {lock}>&-
            return 1
        fi
        rm -f "$log"
    fi
    exec {lock}>&-

    mapfile -t missing < <(_deps_missing "$@")
    if ((${#missing[@]})); then
        _deps_error "apt-get succeeded, yet these are not installed: ${missing[*]}" \
            "perhaps they are virtual packages: name the real ones"
        return 1
    fi
}
