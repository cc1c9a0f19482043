/* SPDX-License-Identifier: BSD-2-Clause */
#include "rdma/keys.h"

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "lease/lock_order.h"

#define BUCKETS KEYS_CAPACITY /* a power of two */
#define NONE    UINT32_MAX

struct entry {
    uint64_t until_ns;
    uint32_t key;
    uint32_t next; /* in its bucket: an index, or NONE */
};

struct keys {
    pthread_mutex_t lock;
    /* Guarded by lock. */
    uint64_t count;                      /* ever reserved; the next goes to entries[count % KEYS_CAPACITY] */
    uint32_t buckets[BUCKETS];           /* the newest entry of each, or NONE */
    struct entry entries[KEYS_CAPACITY]; /* a ring: the next one to be replaced is the oldest */
};

int keys_new(struct keys **ret_keys)
{
    /* Shared: or else whenever the process forks, each page of it would be copied when it is next written, which is in
     * the middle of a revocation. */
    struct keys *keys = mmap(NULL, sizeof(*keys), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (keys == MAP_FAILED)
        return -ENOMEM;
    for (uint32_t i = 0; i < BUCKETS; i++)
        keys->buckets[i] = NONE;
    pthread_mutex_init(&keys->lock, NULL);
    lock_rank(&keys->lock, LOCK_KEYS, 0);
    *ret_keys = keys;
    return 0;
}

void keys_free(struct keys *keys)
{
    if (!keys)
        return;
    pthread_mutex_destroy(&keys->lock);
    munmap(keys, sizeof(*keys));
}

/* The low byte of a key varies least usefully: devices count in the others. */
static uint32_t *bucket_of(struct keys *keys, uint32_t key)
{
    return &keys->buckets[(key * UINT32_C(2654435761) >> 16) % BUCKETS];
}

static void forget_locked(struct keys *keys, uint32_t index)
{
    uint32_t *place = bucket_of(keys, keys->entries[index].key);

    while (*place != index)
        place = &keys->entries[*place].next;
    *place = keys->entries[index].next;
}

void keys_reserve(struct keys *keys, uint32_t key, uint64_t now_ns)
{
    uint32_t *bucket = bucket_of(keys, key);

    pthread_mutex_lock(&keys->lock);
    uint32_t index = (uint32_t)(keys->count % KEYS_CAPACITY);

    if (keys->count >= KEYS_CAPACITY)
        forget_locked(keys, index);
    keys->entries[index] = (struct entry){now_ns + KEYS_HOLD_NS, key, *bucket};
    *bucket = index;
    keys->count++;
    pthread_mutex_unlock(&keys->lock);
}

bool keys_reserved(struct keys *keys, uint32_t key, uint64_t now_ns)
{
    bool found = false;

    pthread_mutex_lock(&keys->lock);
    for (uint32_t i = *bucket_of(keys, key); i != NONE && !found; i = keys->entries[i].next)
        found = keys->entries[i].key == key && now_ns < keys->entries[i].until_ns;
    pthread_mutex_unlock(&keys->lock);
    return found;
}
