/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_RDMA_KEYS_H
#define LEASEFS_RDMA_KEYS_H

/*
 * Keys of leases that have ended, so that no new lease gets one of them while its last holder may still use it. A
 * device hands out numbers as it likes: some take the freed one next. Kept for KEYS_HOLD_NS, and the last
 * KEYS_CAPACITY of them only. Thread-safe; its lock is a leaf.
 */

#include <stdbool.h>
#include <stdint.h>

#define KEYS_CAPACITY 65536u
#define KEYS_HOLD_NS  (UINT64_C(600) * 1000000000)

struct keys;

int keys_new(struct keys **ret_keys); /* -ENOMEM */
void keys_free(struct keys *keys);    /* NULL is allowed */

/* To be called before the device can give the key away again. Never fails. */
void keys_reserve(struct keys *keys, uint32_t key, uint64_t now_ns);

bool keys_reserved(struct keys *keys, uint32_t key, uint64_t now_ns);

#endif
