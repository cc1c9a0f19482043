# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# shellcheck disable=SC2154  # bed and cache_base are set by ../testbed
# The cached image: building it, and noticing that it is missing or damaged.
# Sourced by ../testbed, which sets $bed (that folder), $cache_base, die() and say().

# Changes exactly when the inputs change: the recipe and the architecture. Not the mirror, nor the date.
image_key() {
    local arch
    arch=$(dpkg --print-architecture)
    (cd "$bed" && { echo "$arch"; sha256sum recipe/*; } | sha256sum | cut -c 1-16)
}

image_dir() { echo "$cache_base/testbed/$(image_key)"; }

# One line for each file that QEMU reads: size, modification time, checksum (against damage, not against
# malice: cksum is twenty times faster than SHA-256), name; then one for the root directory: number of
# entries and total size, which is what an interrupted deletion or a full disk changes.
image_list() {
    local dir=$1 checksum=$2 file sum=-
    (
        cd "$dir" || exit
        for file in root.ext4 */kernel */initrd */version; do
            [[ $checksum == yes ]] && sum=$(cksum <"$file" | cut -d ' ' -f 1)
            echo "$(stat -c '%s %.9Y' "$file") $sum $file"
        done
        find rootfs -xdev -printf '%y %s\n' |
            awk '{n[$1]++; if ($1 == "f") size += $2}
                 END {print n["f"] "/" n["d"] "/" n["l"], size, "-", "rootfs"}'
    )
}

# Is the image in $1 what was built? $2 = full: read every byte of the guest's files, otherwise compare
# sizes and times, and read only files whose time differs (a cache that was copied).
image_intact() {
    local dir=$1 mode=${2:-quick} size mtime sum file now_size now_mtime
    [[ -s $dir/manifest ]] || return 1
    local -A now=()
    while read -r now_size now_mtime _ file; do now[$file]="$now_size $now_mtime"; done \
        < <(image_list "$dir" no 2>/dev/null)
    while read -r size mtime sum file; do
        read -r now_size now_mtime <<<"${now[$file]:-none none}"
        if [[ $now_size != "$size" ]]; then
            say "image: $file is damaged (size $now_size, was $size)"
            return 1
        fi
        [[ $sum == - && $now_mtime != "$mtime" ]] && { say "image: $file is damaged"; return 1; }
        [[ $sum == - ]] && continue
        if [[ $mode == full || $now_mtime != "$mtime" ]] &&
            [[ $(cksum <"$dir/$file" | cut -d ' ' -f 1) != "$sum" ]]; then
            say "image: $file is damaged (checksum)"
            return 1
        fi
    done <"$dir/manifest"
}

# Prints apt source lines for trixie, taken from where this machine gets its own Debian packages.
image_sources() {
    local main security keyring=/usr/share/keyrings/debian-archive-keyring.gpg label site
    local sites
    # shellcheck disable=SC2016  # apt expands these
    sites=$(apt-get indextargets --format '$(LABEL)|$(SITE)' 'Created-By: Packages' 'Origin: Debian')
    if [[ -z $sites ]]; then # lists never fetched, as in a fresh container
        apt-get -qq update >&2 || :
        # shellcheck disable=SC2016
        sites=$(apt-get indextargets --format '$(LABEL)|$(SITE)' 'Created-By: Packages' 'Origin: Debian')
    fi
    main=$(sed -n 's/^Debian|//p' <<<"$sites" | head -n 1)
    security=$(sed -n 's/^Debian-Security|//p' <<<"$sites" | head -n 1)
    [[ -n $main ]] || die "apt on this machine knows no Debian archive ('apt-get indextargets' shows none)." \
        "The guest is built from the same mirror: add one to /etc/apt/sources.list.d and run apt-get update."
    # Debian 12's first keyrings know only the keys of older releases.
    if [[ ! -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ]] &&
        ! { apt-get -qq update && apt-get -qq -y install debian-archive-keyring; } >&2; then
        die "the package debian-archive-keyring is too old to verify Debian 13, and apt could not upgrade it"
    fi
    local sign="[signed-by=$keyring]"
    for label in trixie trixie-updates trixie-backports bookworm; do
        echo "deb $sign $main $label main"
    done
    for site in ${security:+"$security"}; do
        echo "deb $sign $site trixie-security main"
    done
    [[ -n $security ]] || say "image: no security archive in this machine's apt sources: doing without"
}

# This machine's proxy settings and the like hold for the guest's packages too.
image_aptopts() {
    apt-config dump | grep -iE '^Acquire::((http|https|ftp)::|Retries|ForceIPv|Check-Valid-Until|Check-Date)' |
        grep -v '""' || :
}

# Ends an unfinished build. KILL, because unshare --fork blocks other signals; its child is the first
# process of the name space, whose death kills the others, in a moment.
image_abandon() {
    local temp=$1 pid=$2 try
    [[ -z $pid ]] || { kill -KILL "$pid" && wait "$pid"; } 2>/dev/null || :
    for ((try = 0; try < 50; try++)); do
        rm -rf "$temp" 2>/dev/null && return
        sleep 0.2
    done
}

# testbed image [--verify] [--rebuild]
# shellcheck disable=SC2120  # most callers want no option
cmd_image() {
    local mode=quick rebuild=no dir temp status lock build_pid=
    while (($#)); do
        case $1 in
            --verify) mode=full ;;
            --rebuild) rebuild=yes ;;
            *) usage_error "image: unknown option $1" ;;
        esac
        shift
    done
    dir=$(image_dir)
    if [[ $rebuild == no ]] && image_intact "$dir" "$mode"; then
        echo "$dir"
        return
    fi

    [[ $(dpkg --print-architecture) == amd64 ]] ||
        die "the testbed knows amd64 only (QEMU's machine and the kernel packages are chosen for it)"
    ((EUID == 0)) || die "building the guest image needs root (mmdebstrap, chroot): run it with sudo"
    need_packages mmdebstrap e2fsprogs cpio zstd xz-utils kmod python3 debian-archive-keyring \
        ca-certificates || die "the packages above are needed to build the guest image"
    mkdir -p "$cache_base/testbed"
    exec {lock}>"$dir.lock"
    flock -n "$lock" || { say "image: another build is under way, waiting for it"; flock "$lock"; }
    # The other one may have done our work.
    if [[ $rebuild == yes ]] || ! image_intact "$dir" "$mode"; then
        say "image: building $dir (two to five minutes)"
        # We hold the lock: whatever temporary tree is here belongs to a build that was killed.
        rm -rf "$dir".tmp.*
        temp=$dir.tmp.$$
        mkdir "$temp"
        chmod 755 "$temp"
        # shellcheck disable=SC2064  # the name as it is now
        trap "image_abandon '$temp' \$build_pid" EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        status=0
        image_sources >"$temp/sources"
        image_aptopts >"$temp/aptopts"
        # In name spaces of its own, every process of the build and everything it mounts goes with it,
        # however it ends. It talks much and mostly to itself: shown only when it fails.
        unshare --mount --pid --mount-proc --fork --kill-child \
            "$bed/recipe/make-image" "$temp" {lock}>&- >"$temp/build.log" 2>&1 &
        build_pid=$!
        wait "$build_pid" || status=$?
        if ((status)); then
            cp "$temp/build.log" "$dir.failed.log" 2>/dev/null || :
            tail -n 40 "$temp/build.log" >&2 2>/dev/null || :
            die "the image could not be built (status $status); full log: $dir.failed.log"
        fi
        rm -f "$temp/sources" "$temp/aptopts"
        grep '^testbed: kernel' "$temp/build.log" >&2 || :
        image_list "$temp" yes >"$temp/manifest"
        if [[ -e $dir ]]; then
            mv "$dir" "$temp.old"
            rm -rf "$temp.old"
        fi
        mv "$temp" "$dir"
        rm -f "$dir.failed.log"
        trap - EXIT INT TERM HUP
    fi
    exec {lock}>&-
    echo "$dir"
}

# testbed kernels
cmd_kernels() {
    local dir version
    dir=$(cmd_image)
    for version in "$dir"/*/version; do
        echo "$(basename "$(dirname "$version")") $(<"$version")"
    done
}
