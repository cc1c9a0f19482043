#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# status answers also without an RDMA device; probe says that there is none.
# shellcheck source=tests/lease/lib.sh
. "$(dirname "$0")/lib.sh"

mount_fs pool=64M
exits 0 ctl status
exits 0 ctl --json status
expect status "$(member event)"
expect 0 "$(echo "$output" | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["leases"]))')"
exits 6 ctl probe
exits 6 ctl probe --json
expect no-device "$(member reason)"
unmount_fs
exits 7 ctl status
