#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Put, get, a silent holder of a truncated file: recall, revocation, refused access; nothing else changes (I1, I2, I4).
set -euo pipefail
file=$(mktemp)
trap 'rm -f "$file"' EXIT
head -c $((64 << 20)) /dev/urandom >"$file"
"$(dirname "$0")/../../tools/lib/demo.sh" "$file"
