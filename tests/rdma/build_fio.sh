#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# build_fio.sh STAGE: a fio and the engine of tools/fio, both of one source, into a stage that guests boot with. The source is
# Debian's package: of the guest's own fio, whose binary then needs no building, or else of Debian 12's, which is what can be
# had. Sources and the built fio are kept in the cache. Without a source it says so, and what needs it is skipped.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
bed=$top/tests/testbed/testbed
stage=$1
libexec=$stage/usr/local/libexec/leasefs-tests
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/leasefs/fio
root=$("$bed" image)/rootfs
mkdir -p "$cache/lists/partial"
exec {lock}>"$cache/lock"
flock "$lock"

# apt with the archive that the guest's packages came from, and its sources.
awk '$1 == "deb" && $4 ~ /^(trixie|bookworm)$/ {$1 = "deb-src"; print}' "$root/etc/apt/sources.list" >"$cache/sources"
sources_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$cache/sources" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$cache/lists" \
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}
# Downloads into a folder that has its name when it is complete.
download() {
    [[ -d $cache/$1 ]] && return
    rm -rf "$cache/new" && mkdir "$cache/new"
    (cd "$cache/new" && sources_apt --download-only source "$2" 2>/dev/null) && mv "$cache/new" "$cache/$1"
}
guest_version=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${source:Version}' fio)
[[ -d $cache/$guest_version || -d $cache/bookworm ]] || sources_apt update || :
target=
if download "$guest_version" "fio=$guest_version"; then
    version=$guest_version
elif download bookworm fio/bookworm; then
    version=bookworm target=fio
else
    echo "no source of fio can be had by apt: its engine is not tested"
    rm -f "$libexec/fio" "$libexec/fio-leasefs.so"
    exit 77
fi

# In the guest's build environment, whose working directory this puts things into. fio's own choice of the machine's
# instructions (-march=native) is not the guest's; optimizing it takes a minute that no test needs.
work=$("$bed" chroot --name fio -- pwd)
built=$cache/$version-$(basename "$(dirname "$root")").tar
rm -rf "$work/fio"
mkdir -p "$work/fio"
if [[ -s $built ]]; then
    tar -C "$work/fio" -xf "$built"
else
    tar -C "$work/fio" --strip-components 1 -xf "$cache/$version"/fio_*.orig.tar.gz
    # shellcheck disable=SC2016  # expanded inside
    "$bed" chroot --name fio -- sh -euc '
        cd fio
        { ./configure --disable-native --disable-optimizations --disable-rdma --disable-http --disable-pmem &&
            make -j "$(nproc)" EXTFLAGS=-g0 FIO-VERSION-FILE $1; } >build.log 2>&1 || { tail -n 40 build.log; exit 1; }
        find . -name "*.[oad]" -delete' - "$target"
    tar -C "$work/fio" -cf "$built.new" . && mv "$built.new" "$built"
fi
# shellcheck disable=SC2016
"$bed" chroot --name fio -- sh -euc '
    cmake -S "$SOURCE" -B engine -G Ninja -DLEASEFS_FIO_SOURCE="$PWD/fio" -DLEASEFS_DAEMON=OFF -DBUILD_TESTING=OFF >/dev/null
    cmake --build engine --target leasefs_fio'
install -D -t "$libexec" "$work/engine/tools/fio/fio-leasefs.so"
rm -f "$libexec/fio"
[[ -z $target ]] || install "$work/fio/fio" "$libexec/fio"
