#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every C file is as .clang-format has it. Versions differ in taste: that of Debian 12 judges.
# shellcheck source=tests/lint/lib.sh
. "$(dirname "$0")/lib.sh"
format=$(command -v clang-format-14 || command -v clang-format) || skip "no clang-format here"
[[ $("$format" --version) == *"version 14."* ]] || skip "not clang-format 14"
mapfile -t sources < <(files '*.c' '*.h')
while read -r line; do
    complain "$line"
done < <("$format" --dry-run "${sources[@]}" 2>&1 | sed -n 's/: warning: code should be clang-formatted.*/: not as .clang-format has it/p' | sort -u | head -n 50)
finish
