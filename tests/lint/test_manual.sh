#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The manual pages are well formed for mandoc, and every option of the programs is in them.
# Environment (from ctest): MAN, where the pages are; LEASECTL, LEASEFS.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"
needs mandoc
[[ -e $MAN/leasectl.1 ]] || skip "no manual pages were made"

for page in "$MAN"/*.[1-8]; do
    # Paragraph macros after headings and long lines are scdoc's way to write.
    while read -r line; do
        complain "${line#"$MAN/"}"
    done < <(mandoc -T lint "$page" |
        grep -vE 'skipping paragraph macro|longer than 80 bytes|lower case character in document title' || true)
done

page() { mandoc -T utf8 -O width=200 "$MAN/$1" | sed 's/.\x08//g'; }
ctl=$(page leasectl.1)
for command in '' $("$LEASECTL" --help | sed -n 's/^  \([a-z]\+\) .*/\1/p'); do
    # shellcheck disable=SC2086  # the main command is no word
    for option in $("$LEASECTL" $command --help | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
        grep -qE -- "$option([^a-z-]|\$)" <<<"$ctl" || complain "leasectl(1) does not tell of $command $option"
    done
    [[ -z $command ]] || grep -qE "^ *$command( |\$)" <<<"$ctl" || complain "leasectl(1) does not tell of $command"
done
finish
