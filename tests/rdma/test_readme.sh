#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The commands that README.md shows for a machine with an RDMA device work and print what it says.
# shellcheck source=tests/rdma/lib.sh
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
readme=/leasefs/files/README.md # of the guest
[[ -e $readme ]] || readme=$here/../../README.md
mkdir "$mnt" "$dir/work"
README_MOUNT=$mnt README_DIRECTORY=$dir/work python3 "$here/../lease/readme.py" "$readme" rdma
