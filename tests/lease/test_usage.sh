#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Wrong usage and a missing server have exit codes of their own, and say what to do.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

for words in '' frob lease 'lease :/f' 'lease --read --write :/f' 'lease --read' 'lease --read --range=x :/f' \
    'lease --read --touch=0 :/f' 'lease --read --on-recall=maybe :/f' get 'get :/f' 'get :/f a b' 'put a' \
    'prepare' 'clone :/a' 'revoke' 'fallocate :/f' 'fallocate --collapse' 'fallocate --insert /f' \
    'fallocate --collapse --insert --range=0:4K /f' 'fallocate --collapse --range=0:x /f' 'revoke -1' 'revoke x' 'revoke 0' 'prepare --range=1:2:3 :/f'; do
    # shellcheck disable=SC2086  # words
    exits 2 ctl $words
done
exits 2 ctl get host:relative "$dir/out"
says 'SERVER:/PATH'

for words in status probe 'revoke 1' 'prepare :/f' 'clone :/a :/b' 'lease --read :/f' "get :/f $dir/out"; do
    # shellcheck disable=SC2086
    exits 7 ctl $words
    says "$control"
done
exits 7 ctl --json status
expect error "$(member event)"
expect ENOENT "$(member errno)"
expect 7 "$(member exit_code)"
exits 0 ctl --version
exits 0 ctl lease --help
