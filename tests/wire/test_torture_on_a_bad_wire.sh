#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Packets come late, out of order or never: still nothing crosses a fence, by any mechanism (I1, I2).
# Labels: torture
# shellcheck source=tests/wire/torture.sh
. "$(dirname "$0")/torture.sh"
torture 3 nothing delay 2ms loss 1% reorder 0.5%
