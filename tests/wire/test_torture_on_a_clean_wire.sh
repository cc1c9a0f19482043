#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The peer is on another machine: nothing crosses a fence (I1, I2), and the controls, which have none, are seen to do
# harm. They are for the clean wire alone: on a bad one a READ that meets a gate without a fence may be repeated for ever,
# for soft-RoCE takes seven retries for endless ones.
# Labels: torture
# shellcheck source=tests/wire/torture.sh
. "$(dirname "$0")/torture.sh"
torture 3 ""
