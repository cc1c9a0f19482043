/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/clone_tokens.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "lease/lock_order.h"

struct place {
    uint64_t ino; /* 0: free */
    uint64_t secret[2];
    uint64_t expires_ns;
    uid_t uid;
};

struct clone_tokens {
    pthread_mutex_t lock; /* guards all below */
    struct place places[CLONE_TOKENS];
};

int clone_tokens_new(struct clone_tokens **ret_tokens)
{
    struct clone_tokens *tokens = calloc(1, sizeof(*tokens));

    if (!tokens)
        return -ENOMEM;
    pthread_mutex_init(&tokens->lock, NULL);
    lock_rank(&tokens->lock, LOCK_CLONE_TOKENS, 0);
    *ret_tokens = tokens;
    return 0;
}

void clone_tokens_free(struct clone_tokens *tokens)
{
    if (!tokens)
        return;
    pthread_mutex_destroy(&tokens->lock);
    free(tokens);
}

static bool is_live(const struct place *place, uint64_t now_ns)
{
    return place->ino && place->expires_ns > now_ns;
}

/* NULL: none. */
static struct place *find_place_locked(struct clone_tokens *tokens, uid_t uid, uint64_t now_ns)
{
    struct place *vacant = NULL, *oldest = NULL;
    unsigned own = 0;

    for (unsigned i = 0; i < CLONE_TOKENS; i++) {
        struct place *place = &tokens->places[i];

        if (!is_live(place, now_ns)) {
            vacant = vacant ? vacant : place;
        } else if (place->uid == uid) {
            own++;
            if (!oldest || place->expires_ns < oldest->expires_ns)
                oldest = place;
        }
    }
    return own < CLONE_TOKENS_OF_USER && vacant ? vacant : oldest;
}

int clone_token_issue(struct clone_tokens *tokens, uint64_t ino, uid_t uid, uint64_t now_ns,
                      struct leasefs_clone_token *ret_token)
{
    struct place made = {.ino = ino, .uid = uid, .expires_ns = now_ns + CLONE_TOKEN_NS};
    struct place *place;

    if (getrandom(made.secret, sizeof(made.secret), 0) != sizeof(made.secret))
        return -EIO;
    pthread_mutex_lock(&tokens->lock);
    place = find_place_locked(tokens, uid, now_ns);
    if (place) {
        *place = made;
        *ret_token = (struct leasefs_clone_token){{(uint64_t)(place - tokens->places), made.secret[0], made.secret[1]}};
    }
    pthread_mutex_unlock(&tokens->lock);
    return place ? 0 : -EAGAIN;
}

int clone_token_take(struct clone_tokens *tokens, const struct leasefs_clone_token *token, uint64_t now_ns,
                     uint64_t *ret_ino)
{
    struct place *place;
    bool good;

    if (token->word[0] >= CLONE_TOKENS)
        return -ESTALE;
    place = &tokens->places[token->word[0]];
    pthread_mutex_lock(&tokens->lock);
    /* In constant time: how much of a guess is right does not show. */
    good = is_live(place, now_ns) && !((place->secret[0] ^ token->word[1]) | (place->secret[1] ^ token->word[2]));
    if (good) {
        *ret_ino = place->ino;
        *place = (struct place){0};
    }
    pthread_mutex_unlock(&tokens->lock);
    return good ? 0 : -ESTALE;
}
