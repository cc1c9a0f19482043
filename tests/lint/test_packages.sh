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

place_of() {
    local folder
    for folder in "${folders[@]}"; do
        [[ -e $folder/$1 ]] && realpath "$folder/$1" && return
    done
    return 1
}

mapfile -t headers < <(files '*.c' '*.h' | xargs -d '\n' sed -n 's/^#[ \t]*include <\([^>]*\)>.*/\1/p' | sort -u)
declare -A place package
for header in "${headers[@]}"; do
    place[$header]=$(place_of "$header") || unset "place[$header]"
done
while IFS=: read -r name rest; do # "name:amd64: /usr/include/...", or without ":amd64"
    package[${rest##*: }]=$name
    package[${rest# }]=$name
done < <(dpkg -S "${place[@]}" 2>/dev/null)

recipe=" $(grep -v '^#' tests/testbed/recipe/packages | tr -s '\n' ' ') "
looked=0
for header in "${headers[@]}"; do
    [[ -e include/$header ]] && continue
    of=${package[${place[$header]:-none}]:-}
    if [[ -z $of ]]; then
        # Of newer systems, perhaps: then the code asks first.
        git grep -q "__has_include(<$header>)" || complain "<$header>: no installed package has it"
        continue
    fi
    looked=$((looked + 1))
    [[ $of =~ $implied ]] && continue
    [[ " ${build_packages[*]} " == *" $of "* ]] ||
        complain "<$header> is of $of, which build_packages in tools/lib/packages.sh does not name"
    [[ $recipe == *" $of "* ]] ||
        complain "<$header> is of $of, which tests/testbed/recipe/packages does not name"
done
((looked > 50)) || complain "only $looked headers looked at: this test does not see them"
finish
