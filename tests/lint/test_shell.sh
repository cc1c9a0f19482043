#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# No shell script has what shellcheck warns of.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"
needs shellcheck

mapfile -t scripts < <(files | xargs -d '\n' awk 'FNR == 1 && /^#!.*(bash|sh)$/ { print FILENAME }; FNR == 1 { nextfile }')
mapfile -t sourced < <(files '*.sh')
mapfile -t all < <(printf '%s\n' "${scripts[@]}" "${sourced[@]}" | sort -u)
((${#all[@]} > 20)) || complain "only ${#all[@]} scripts found: the search is broken"
printf '%s\n' "${all[@]}" | xargs -d '\n' -P 2 -n 12 shellcheck -x -P SCRIPTDIR -S warning || complain "see above"
finish
