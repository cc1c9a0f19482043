/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_LOCK_ORDER_H
#define LEASEFS_LEASE_LOCK_ORDER_H

/*
 * Every lock of the tree, outermost first. Here, because lease/ is what fused/ and rdma/ may both include.
 *
 * While a thread holds a lock it may take only those of a later rank; under a leaf it takes none. It waits on a
 * condition with that condition's lock alone. With any lock held nobody calls the kernel's FUSE connection (but to
 * reply to a read), verbs, rdma_cm or a socket; the three exceptions are said below. References are given back, and
 * callbacks made, without locks: the last reference frees, a callback comes back.
 *
 * A new lock gets a place in this list and a lock_rank() beside its init (tools/lib/check-includes looks). Debug and
 * ASan builds abort on the spot when a thread breaks the order, or comes to a lock_none_held() with a lock
 * (lock_order.c); TSan looks for cycles by itself.
 */
enum lock_rank {
    LOCK_FS_RENAME = 1, /* fs.rename_lock: exclusive while a directory moves, shared while one walks up by `parent` */
    LOCK_FS_INODE,      /* fs_inode.lock: several in order of inode number, by inode_lock_set() */
    LOCK_REQUESTS,      /* session.requests_lock: a control session's requests under way */
    LOCK_LEASE_TABLE,   /* lease_table.lock: the front door asks with inodes locked; lease_events.post and
                           lease_waiter.resume, which may only enqueue, run under it */
    LOCK_FABRIC,        /* fabric.lock: sessions, connections, regions and exposures of the server's side */

    /* Leaves: of the daemon, */
    LOCK_LEAVES,
    LOCK_FS_ATTR = LOCK_LEAVES, /* fs_inode.attr_lock: times, by those who share the inode's lock */
    LOCK_FS_SHARD,              /* fs_shard.lock: inodes by number, lookup counts */
    LOCK_FS_ACCOUNTS,           /* space_accounts.lock: which users have one */
    LOCK_FS_SPACE,              /* fs_space.lock: large files that are being given back */
    LOCK_POOL_GROUP,            /* pool_group.lock: free blocks and counts of 128 MiB of the pool */
    LOCK_PARK,                  /* park.lock: requests that wait without a thread */
    LOCK_NOTIFIER,              /* fuse_notifier.lock: what the kernel is still to be told */
    LOCK_TURN,                  /* turn.lock: who reads requests; passed on with inodes locked */
    LOCK_LISTENER,              /* fuse_listener.lock: who asks it to look */
    LOCK_RING,                  /* ring_thread.lock: a ring's entries and what others answered; fuse_ring.lock */
    LOCK_AWAKE,                 /* awake.lock: whether it shall end */
    LOCK_OPEN_DIRS,             /* fuse_server.open_dirs.lock: directories that programs have open */
    LOCK_CLONE_TOKENS,          /* clone_tokens.lock: who may clone from which file */
    LOCK_SERVICE,               /* lease_service.lock: mail for the control thread, grants by id */
    LOCK_OUTPUT,                /* session.output_lock: what a client is still to be sent, whose turn it is to send */
    LOCK_WORKQUEUE,             /* workqueue.lock */
    LOCK_HELPERS,               /* helper_pool.lock */
    LOCK_WATCHDOG,              /* watchdog.lock: calls on the device that somebody watches */
    LOCK_LADDER,                /* revoke_ladder.lock: counts and times of the rungs */
    LOCK_KEYS,                  /* keys.lock: keys of ended leases that stay reserved */
    LOCK_WINDOWS,               /* windows.lock */
    /* and of the client library, where every lock is one. */
    LOCK_SESSION, /* leasefs_session.lock: leases and their states, the connection in use */
    LOCK_DEVICE,  /* device.lock: the client's registered buffers */
    LOCK_CONN,    /* conn.lock: work requests under way; held across ibv_post_send (it keeps their order) */
    LOCK_CONN_CM, /* conn.cm_lock: held across rdma_disconnect and rdma_destroy_qp (keeps them apart) */
    LOCK_RPC,     /* rpc.lock: calls that wait for an answer, whose turn it is to read */
    LOCK_CHANNEL, /* channel.lock: the TLS session, whose turn it is to send; held across non-blocking sends */
};

#include <pthread.h>
#include <stdint.h>

#ifdef LEASEFS_LOCK_CHECK
/* Says where a new lock (mutex or rwlock) stands. `order`: among several of one rank, smaller ones first. */
void lock_rank(const void *lock, enum lock_rank rank, uint64_t order);

/* This thread holds no lock of the list: said where somebody else is called who may wait for ours. */
void lock_none_held(void);
#else
static inline void lock_rank(const void *lock, enum lock_rank rank, uint64_t order)
{
    (void)lock;
    (void)rank;
    (void)order;
}

static inline void lock_none_held(void)
{
}
#endif

#endif
