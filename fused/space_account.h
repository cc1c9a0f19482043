/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_SPACE_ACCOUNT_H
#define LEASEFS_FUSED_SPACE_ACCOUNT_H

/*
 * What the files of one user take, and may: blocks, as st_blocks counts them (one that several files share counts for
 * each of them, as with the quotas of other filesystems), and files of all types. Taken before, given back after; exact
 * at any time. Thread-safe.
 *
 * NULL stands for an account without limits, in which nothing is counted: root's, and everybody's where there are none.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct space_account;
struct space_accounts;

/* 0: no limit. -ENOMEM. */
int space_accounts_new(uint64_t max_blocks, uint64_t max_files, struct space_accounts **ret_accounts);
void space_accounts_free(
    struct space_accounts *accounts); /* with all accounts; nothing is left in them. NULL is allowed */

/* Lives as long as the accounts. -ENOMEM. `accounts` may be NULL. */
int space_account_of(struct space_accounts *accounts, uid_t uid, struct space_account **ret_account);

bool space_account_take(struct space_account *account, uint64_t blocks);          /* all or none */
uint64_t space_account_take_some(struct space_account *account, uint64_t blocks); /* as many as may be */
void space_account_give(struct space_account *account, uint64_t blocks);

/* Takes what is more, gives what is less: `blocks` in place of `instead_of`, which were taken from the same. */
bool space_account_exchange(struct space_account *account, uint64_t blocks, uint64_t instead_of);

bool space_account_take_file(struct space_account *account);
void space_account_give_file(struct space_account *account);
bool space_account_has_file(const struct space_account *account); /* could one be taken now? */

struct space_usage {
    uint64_t blocks, files;
};
struct space_usage space_account_usage(const struct space_account *account); /* zeros for NULL */

#endif
