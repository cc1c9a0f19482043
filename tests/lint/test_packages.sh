#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every header that is included comes with a package that tools/lib/packages.sh and the testbed's recipe name: otherwise
# a fresh machine cannot build, and the machine that wrote it does not notice.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tools/lib/packages.sh
. tools/lib/packages.sh
needs dpkg
needs gcc

# libc6-dev and gcc bring these by themselves, in every version of theirs.
implied='^(linux-libc-dev|libgcc-[0-9]+-dev|libc6-dev)$'
mapfile -t folders < <(gcc -xc -E -v - </dev/null 2>&1 | sed -n '/^#include <...>/,/^End/s/^ //p')
folders+=(/usr/include/bsd /usr/include/fuse3)

package_of() {
    local folder
    for folder in "${folders[@]}"; do
        [[ -e $folder/$1 ]] || continue
        dpkg -S "$(realpath "$folder/$1")" 2>/dev/null | sed -n '1s/[:,].*//p'
        return
    done
}

looked=0
while read -r header; do
    [[ -e include/$header ]] && continue
    package=$(package_of "$header")
    if [[ -z $package ]]; then
        # Of newer systems, perhaps: then the code asks first.
        git grep -q "__has_include(<$header>)" || complain "<$header>: no installed package has it"
        continue
    fi
    looked=$((looked + 1))
    [[ $package =~ $implied || " ${build_packages[*]} " == *" $package "* ]] ||
        complain "<$header> is of $package, which build_packages in tools/lib/packages.sh does not name"
    [[ $package =~ $implied || $package == libc6-dev ]] ||
        grep -v '^#' tests/testbed/recipe/packages | tr -s ' ' '\n' | grep -qxF "$package" ||
        complain "<$header> is of $package, which tests/testbed/recipe/packages does not name"
done < <(files '*.c' '*.h' | grep -v '^tests/fuzz/corpus/' | xargs -d '\n' sed -n 's/^#[ \t]*include <\([^>]*\)>.*/\1/p' | sort -u)
((looked > 50)) || complain "only $looked headers looked at: this test does not see them"
finish
