/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_FUSED_CLONE_TOKENS_H
#define LEASEFS_FUSED_CLONE_TOKENS_H

/*
 * Tokens that stand for a file which their bearer may read
 * (include/leasefs/ioctl.h). A token is a place in a table and a secret; it is
 * good once, and for CLONE_TOKEN_NS. Each user has CLONE_TOKENS_OF_USER places
 * at most: who asks for more loses his own oldest, so nobody takes another's
 * away. Thread-safe; the clock is passed in.
 */

#include <stdint.h>
#include <sys/types.h>

#include <leasefs/ioctl.h>

#define CLONE_TOKENS         4096u
#define CLONE_TOKENS_OF_USER 16u
#define CLONE_TOKEN_NS       UINT64_C(10000000000)

struct clone_tokens;

int clone_tokens_new(struct clone_tokens **ret_tokens);
void clone_tokens_free(struct clone_tokens *tokens); /* NULL is allowed */

/* -EAGAIN: other users have them all. */
int clone_token_issue(struct clone_tokens *tokens, uint64_t ino, uid_t uid, uint64_t now_ns,
                      struct leasefs_clone_token *ret_token);

/* Ends the token. -ESTALE: there is no such. */
int clone_token_take(struct clone_tokens *tokens, const struct leasefs_clone_token *token, uint64_t now_ns,
                     uint64_t *ret_ino);

#endif
