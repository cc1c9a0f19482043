#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# status and probe answer, also without an RDMA device, which they tell of.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

mount_fs pool=64M
exits 0 ctl status
exits 0 ctl --json status
expect status "$(member event)"
exits 0 ctl probe
exits 0 ctl probe --json
expect probe "$(member event)"
unmount_fs
exits 7 ctl status
