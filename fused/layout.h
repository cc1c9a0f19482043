/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_LAYOUT_H
#define LEASEFS_FUSED_LAYOUT_H

/* What the filesystem does for the lease service; the contract is in lease/layout_ops.h. */

#include "lease/layout_ops.h"

extern const struct layout_ops fs_layout_ops; /* its `fs` argument is a struct fs */

#endif
