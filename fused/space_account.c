/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/space_account.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifndef __unused /* a BSD name that sys/tree.h takes for granted */
#define __unused __attribute__((unused))
#endif
#include <bsd/sys/tree.h>

#include "lease/lock_order.h"

struct space_account {
    RB_ENTRY(space_account) link;
    uid_t uid;
    uint64_t max_blocks, max_files;
    _Atomic uint64_t blocks, files;
};

RB_HEAD(account_tree, space_account);

struct space_accounts {
    uint64_t max_blocks, max_files;
    pthread_mutex_t lock; /* guards the tree */
    struct account_tree tree;
};

static int by_uid(struct space_account *a, struct space_account *b)
{
    return a->uid < b->uid ? -1 : a->uid > b->uid;
}

RB_GENERATE_STATIC(account_tree, space_account, link, by_uid)

int space_accounts_new(uint64_t max_blocks, uint64_t max_files, struct space_accounts **ret_accounts)
{
    struct space_accounts *accounts = calloc(1, sizeof(*accounts));

    if (!accounts)
        return -ENOMEM;
    accounts->max_blocks = max_blocks ? max_blocks : UINT64_MAX;
    accounts->max_files = max_files ? max_files : UINT64_MAX;
    pthread_mutex_init(&accounts->lock, NULL);
    lock_rank(&accounts->lock, LOCK_FS_ACCOUNTS, 0);
    RB_INIT(&accounts->tree);
    *ret_accounts = accounts;
    return 0;
}

void space_accounts_free(struct space_accounts *accounts)
{
    struct space_account *account;

    if (!accounts)
        return;
    while ((account = RB_ROOT(&accounts->tree))) {
        RB_REMOVE(account_tree, &accounts->tree, account);
        free(account);
    }
    pthread_mutex_destroy(&accounts->lock);
    free(accounts);
}

static struct space_account *account_new_locked(struct space_accounts *accounts, uid_t uid)
{
    struct space_account *account = calloc(1, sizeof(*account));

    if (!account)
        return NULL;
    account->uid = uid;
    account->max_blocks = accounts->max_blocks;
    account->max_files = accounts->max_files;
    RB_INSERT(account_tree, &accounts->tree, account);
    return account;
}

int space_account_of(struct space_accounts *accounts, uid_t uid, struct space_account **ret_account)
{
    struct space_account wanted = {.uid = uid}, *account;

    *ret_account = NULL;
    if (!accounts || uid == 0)
        return 0;
    pthread_mutex_lock(&accounts->lock);
    account = RB_FIND(account_tree, &accounts->tree, &wanted);
    if (!account)
        account = account_new_locked(accounts, uid);
    pthread_mutex_unlock(&accounts->lock);
    *ret_account = account;
    return account ? 0 : -ENOMEM;
}

/* How many of these were taken: never more than there may be, not even for a moment. */
static uint64_t take(_Atomic uint64_t *taken, uint64_t max, uint64_t wanted, bool all)
{
    uint64_t n = atomic_load(taken), take;

    do {
        take = wanted < max - n ? wanted : max - n;
        if (all && take < wanted)
            return 0;
    } while (take && !atomic_compare_exchange_weak(taken, &n, n + take));
    return take;
}

bool space_account_take(struct space_account *account, uint64_t blocks)
{
    return !account || take(&account->blocks, account->max_blocks, blocks, true) == blocks;
}

uint64_t space_account_take_some(struct space_account *account, uint64_t blocks)
{
    return account ? take(&account->blocks, account->max_blocks, blocks, false) : blocks;
}

void space_account_give(struct space_account *account, uint64_t blocks)
{
    if (account)
        atomic_fetch_sub(&account->blocks, blocks);
}

bool space_account_exchange(struct space_account *account, uint64_t blocks, uint64_t instead_of)
{
    if (blocks > instead_of)
        return space_account_take(account, blocks - instead_of);
    space_account_give(account, instead_of - blocks);
    return true;
}

bool space_account_take_file(struct space_account *account)
{
    return !account || take(&account->files, account->max_files, 1, true) == 1;
}

void space_account_give_file(struct space_account *account)
{
    if (account)
        atomic_fetch_sub(&account->files, 1);
}

bool space_account_has_file(const struct space_account *account)
{
    return !account || atomic_load(&account->files) < account->max_files;
}

struct space_usage space_account_usage(const struct space_account *account)
{
    if (!account)
        return (struct space_usage){0, 0};
    return (struct space_usage){atomic_load(&account->blocks), atomic_load(&account->files)};
}
