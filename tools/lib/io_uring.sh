# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced by what shall use FUSE over io_uring where Linux has it.

io_uring_parameter=/sys/module/fuse/parameters/enable_uring

# offer_io_uring: Linux offers it to FUSE servers until give_io_uring_back. Without Linux's support, or the right to
# change that, nothing happens, and requests come by read(2).
offer_io_uring() {
    io_uring_before=
    [[ -w $io_uring_parameter && $(<"$io_uring_parameter") == N ]] || return 0
    if echo Y >"$io_uring_parameter"; then io_uring_before=N; fi 2>/dev/null
}
give_io_uring_back() {
    [[ -z $io_uring_before ]] || echo "$io_uring_before" >"$io_uring_parameter"
}
