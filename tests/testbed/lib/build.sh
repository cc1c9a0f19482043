# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# shellcheck disable=SC2154  # bed, top and cache_base are set by ../testbed
# Building a checkout with the image's compilers and libraries. Sourced by ../testbed.

# Where the build "name" of the checkout $1 lives.
build_dir() {
    local source=$1 name=$2
    echo "$cache_base/build-trixie/$(basename "$source")-$(sha256sum <<<"$source" | cut -c 1-8)/$name"
}

# Runs a command inside the image's root file system, in directory $3. It sees the image read-only, the
# checkout $2 read-only and directory $3 writable, both at their own paths, so that messages and debug
# information name files that exist. All of it is mounted in a name space that ends with the command.
build_enter() {
    local image=$1 source=$2 work=$3 status=0 child
    shift 3
    ((EUID == 0)) || die "the build environment needs root (mount, chroot): run it with sudo"
    # In the background so that signals to us are handled at once; stdin is kept.
    unshare --mount --pid --mount-proc --fork --kill-child \
        "$bed/lib/enter" "$image" "$source" "$work" "$@" <&0 &
    child=$!
    # KILL, because unshare --fork blocks other signals; the name space's processes die with it.
    # shellcheck disable=SC2064  # the number as it is now
    trap "kill -KILL $child 2>/dev/null; exit 130" INT
    # shellcheck disable=SC2064
    trap "kill -KILL $child 2>/dev/null; exit 143" TERM HUP
    wait "$child" || status=$?
    trap - INT TERM HUP
    return "$status"
}

# Sets source, name, compiler and definitions from the arguments; the rest goes to "rest".
build_options() {
    source=$top name='' compiler=gcc definitions=() rest=()
    while (($#)); do
        case $1 in
            --name | --cc | --source)
                (($# > 1)) || usage_error "$1 needs a value"
                case $1 in
                    --name) name=$2 ;;
                    --cc) compiler=$2 ;;
                    --source) source=$2 ;;
                esac
                shift
                ;;
            -D?*) definitions+=("$1") ;;
            --) shift; rest=("$@"); break ;;
            -*) usage_error "unknown option $1" ;;
            *) rest=("$@"); break ;;
        esac
        shift
    done
    [[ $compiler == gcc || $compiler == clang ]] || usage_error "--cc is gcc or clang, not $compiler"
    [[ -z $name || $name =~ ^[A-Za-z0-9._-]+$ ]] || usage_error "--name: letters, digits, '.', '_' and '-' only"
    source=$(realpath -e -- "$source") || die "no such checkout: $source"
    if [[ -z $name ]]; then # other options, other directory: no option outlives the call it was given to
        name=$compiler
        ((${#definitions[@]} == 0)) || name+=-$(sha256sum <<<"${definitions[*]}" | cut -c 1-8)
    fi
}

# testbed build
cmd_build() {
    local source name compiler definitions rest image work lock options file
    build_options "$@"
    ((${#rest[@]} == 0)) || usage_error "build: unexpected argument ${rest[0]}"
    [[ -e $source/CMakeLists.txt ]] || die "no CMakeLists.txt in $source: nothing to build"
    image=$(cmd_image)
    work=$(build_dir "$source" "$name")
    mkdir -p "$work"
    exec {lock}>"$work.lock"
    flock -n "$lock" || { say "build: another build of '$name' is under way, waiting for it"; flock "$lock"; }

    # Incremental, unless something changed that CMake's cache or ninja would not notice.
    options=$(printf '%s\n' "$image" "$compiler" "${definitions[@]}")
    if [[ $(cat "$work/.options" 2>/dev/null) != "$options" ]]; then
        rm -rf "$work"
        mkdir -p "$work"
        printf '%s\n' "$options" >"$work/.options"
    fi
    # shellcheck disable=SC2016  # expanded inside
    build_enter "$image" "$source" "$work" sh -euc '
        source=$1; shift
        cmake -S "$source" -B build -G Ninja "$@" >configure.log 2>&1 || { cat configure.log; exit 1; }
        grep -A 5 "CMake Warning" configure.log || :
        cmake --build build
        rm -rf stage.new
        DESTDIR=$PWD/stage.new cmake --install build >install.log 2>&1 || { cat install.log; exit 1; }
    ' sh "$source" "-DCMAKE_C_COMPILER=$compiler" -DCMAKE_INSTALL_PREFIX=/usr/local \
        "${definitions[@]}" </dev/null >&2 {lock}>&- || die "the build of $source failed (build '$name')"
    mkdir -p "$work/stage.new/usr/local"
    # Test programs are not installed, but the guest wants to run them.
    while IFS= read -r -d '' file; do
        install -D "$work/build/tests/$file" "$work/stage.new/usr/local/libexec/leasefs-tests/$file"
    done < <(cd "$work/build/tests" 2>/dev/null &&
        find . -name CMakeFiles -prune -o -type f -executable -printf '%P\0')
    rm -rf "$work/stage"
    mv "$work/stage.new" "$work/stage"
    exec {lock}>&-
    echo "$work/stage"
}

# testbed chroot
cmd_chroot() {
    local source name compiler definitions rest image work
    build_options "$@"
    ((${#rest[@]})) || usage_error "chroot: which command?"
    image=$(cmd_image)
    work=$(build_dir "$source" "$name")
    mkdir -p "$work"
    build_enter "$image" "$source" "$work" "${rest[@]}"
}
