# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash disable=SC2034
# What leasefs needs on Debian 12 and 13. Sourced.
build_packages=(
    gcc libc6-dev cmake ninja-build pkgconf
    libfuse3-dev fuse3 libibverbs-dev librdmacm-dev ibverbs-providers
    libaio-dev liburing-dev libjansson-dev libsystemd-dev libgnutls28-dev libbsd-dev uthash-dev libxxhash-dev
    libcmocka-dev scdoc
)
test_packages=(attr acl e2fsprogs python3 jq procps util-linux xxd git shellcheck mandoc clang-format fio stress-ng dbench)
bench_packages=(fio python3 gcc libc6-dev pkgconf libfuse3-dev fuse3)
