#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What `cmake --install` leaves is enough to build against and to run, under any prefix and DESTDIR.
# Environment (from ctest): LEASEFS_BUILD, and CC, SANITIZE, LIBDIR, MANUAL as that build was configured.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${LEASEFS_BUILD:?the build directory}" "${CC:=cc}" "${SANITIZE=}" "${LIBDIR:=lib}" "${MANUAL:=yes}"
[[ $CC == *clang* ]] && CXX=${CC/clang/clang++} || CXX=${CC/gcc/g++}
[[ $CXX == "$CC" ]] && CXX=c++
command -v pkg-config >/dev/null || { echo "skipped: no pkg-config"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
read -ra sanitize <<<"$SANITIZE"

# every_file_is_there ROOT: programs, library, headers, completion; a manual page for each source.
every_file_is_there()
{
    local file page
    for file in bin/leasefs bin/leasectl include/leasefs/leasefs.h include/leasefs/protocol.h include/leasefs/ioctl.h \
        "$LIBDIR/libleasefs.so" "$LIBDIR/libleasefs.so.0" "$LIBDIR/pkgconfig/leasefs.pc" \
        share/bash-completion/completions/leasectl; do
        [[ -s $1/$file ]] || fail "$file is not installed"
    done
    [[ $MANUAL == yes ]] || return 0
    for page in "$here"/../../tools/man/*.scd; do
        page=$(basename "$page" .scd)
        [[ -s $1/share/man/man${page##*.}/$page ]] || fail "the manual page $page is not installed"
    done
}

# the_example_builds ROOT: against the installed tree alone, with what pkg-config says; and says what is wrong.
the_example_builds()
{
    local flags output
    read -ra flags <<<"$(pkg-config --cflags --libs leasefs)"
    "$CC" -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror "${sanitize[@]}" "$here/read_file.c" -o "$dir/read_file" "${flags[@]}"
    if output=$(LD_LIBRARY_PATH=$1/$LIBDIR "$dir/read_file" "$dir/no-daemon" /file 2>&1); then
        fail "the example found a server at $dir/no-daemon"
    fi
    [[ $output == *"$dir/no-daemon"* && $output == *leasefs* ]] || fail "without a server the example says '$output'"
    output=$(LD_LIBRARY_PATH=$1/$LIBDIR ldd "$dir/read_file")
    [[ $output == *"$1/$LIBDIR/libleasefs.so.0"* ]] || fail "the example does not run with the installed library: $output"
}

# headers_stand_alone ROOT: each compiles by itself, as C and as C++, and an unmangled name comes out.
headers_stand_alone()
{
    local header
    for header in "$1"/include/leasefs/*.h; do
        echo "#include <leasefs/$(basename "$header")>" >"$dir/header.c"
        for standard in c99 c17; do
            "$CC" -std=$standard -Wall -Wextra -Wpedantic -Werror -I"$1/include" -fsyntax-only "$dir/header.c"
        done
        if command -v "$CXX" >/dev/null; then
            "$CXX" -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -I"$1/include" -fsyntax-only "$dir/header.c"
        fi
    done
    if command -v "$CXX" >/dev/null; then
        printf '%s\n' '#include <leasefs/leasefs.h>' 'const char *f() { return leasefs_error(); }' >"$dir/names.cc"
        "$CXX" -I"$1/include" -c "$dir/names.cc" -o "$dir/names.o"
        [[ $(nm "$dir/names.o") == *' U leasefs_error' ]] || fail "leasefs.h lacks extern \"C\""
    fi
}

# only_the_api_is_exported ROOT: what leasefs.h declares, each with a version, and nothing else.
only_the_api_is_exported()
{
    local exported declared
    exported=$(nm -D --defined-only "$1/$LIBDIR/libleasefs.so" | awk '$2 != "A" { print $3 }' | sort)
    if grep -v '@@LEASEFS_[0-9]*$' <<<"$exported"; then
        fail "exported without a version"
    fi
    declared=$("$CC" -E -P "$1/include/leasefs/leasefs.h" | grep -oE '\bleasefs_[a-z_]+\(' | tr -d '(' | sort)
    [[ $declared == "${exported//@@LEASEFS_[0-9]/}" ]] ||
        fail "declared is not what is exported: $(diff <(echo "$declared") <(echo "$exported"))"
}

DESTDIR=$dir/stage cmake --install "$LEASEFS_BUILD" --prefix /opt/leasefs >/dev/null
root=$dir/stage/opt/leasefs
every_file_is_there "$root"
headers_stand_alone "$root"
only_the_api_is_exported "$root"
PKG_CONFIG_SYSROOT_DIR=$dir/stage PKG_CONFIG_PATH=$root/$LIBDIR/pkgconfig the_example_builds "$root"

cmake --install "$LEASEFS_BUILD" --prefix "$dir/other" >/dev/null
PKG_CONFIG_PATH=$dir/other/$LIBDIR/pkgconfig the_example_builds "$dir/other"
[[ $("$dir/other/bin/leasectl" --version) == *"$(PKG_CONFIG_PATH=$dir/other/$LIBDIR/pkgconfig pkg-config --modversion leasefs)"* ]] ||
    fail "leasectl and leasefs.pc have different versions"
