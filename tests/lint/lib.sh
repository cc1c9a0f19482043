# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# For the tests in this folder: the files of the checkout, and one way to complain.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

skip() { echo "skipped: $*"; exit 77; }
needs() { command -v "$1" >/dev/null || skip "no $1 here"; }

complaints=0
complain() { printf 'FAILED: %s\n' "$*" >&2; complaints=$((complaints + 1)); }
finish() { ((complaints == 0)) || exit 1; }

# What git knows, and what it would be told of: a new file is looked at before it is added.
files() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do [[ -f $file ]] && echo "$file"; done; }
git rev-parse --git-dir >/dev/null 2>&1 || skip "no git checkout"
