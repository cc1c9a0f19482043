/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "rdma/connection.h"
#include "rdma/internal.h"
#include "rdma/sync.h"

static void narrow(struct helper_job *job)
{
    struct exposure_session *session = (struct exposure_session *)job;
    struct fabric *fabric = session->fabric;

    pthread_mutex_lock(&fabric->lock);
    session->narrows = false; /* what changes from here on brings another job */
    pthread_mutex_unlock(&fabric->lock);
    connection_fit_rights(session);
    fabric_session_unref(session);
}

int session_open(void *arg, uint64_t session_id, const struct sockaddr *reached, struct exposure_session **ret_session)
{
    struct fabric *fabric = arg;
    struct exposure_session *session = calloc(1, sizeof(*session));
    bool refused;

    if (!session)
        return -ENOMEM;
    session->narrowing.run = narrow;
    session->fabric = fabric;
    session->id = session_id;
    session->refs = 1;
    session->listen_id = addresses_listen(fabric, reached);
    session->pd = ibv_alloc_pd(fabric->verbs);
    if (!session->pd) {
        int r = errno ? -errno : -ENOMEM;

        free(session);
        return r;
    }
    pthread_mutex_lock(&fabric->lock);
    refused = fabric->device_gone || fabric->stopping;
    if (!refused) {
        LIST_INSERT_HEAD(&fabric->sessions, session, link);
        fabric->n_objects++;
    }
    pthread_mutex_unlock(&fabric->lock);
    if (refused) {
        ibv_dealloc_pd(session->pd);
        free(session);
        return -ENODEV;
    }
    *ret_session = session;
    return 0;
}

void session_ref_locked(struct exposure_session *session)
{
    session->refs++;
}

void fabric_session_unref(struct exposure_session *session)
{
    struct fabric *fabric = session->fabric;
    bool last;

    pthread_mutex_lock(&fabric->lock);
    last = --session->refs == 0;
    pthread_mutex_unlock(&fabric->lock);
    if (!last)
        return;
    if (ibv_dealloc_pd(session->pd))
        fabric_log("session %llu: its protection domain cannot be freed", (unsigned long long)session->id);
    free(session);
    pthread_mutex_lock(&fabric->lock);
    fabric->n_objects--;
    pthread_cond_broadcast(&fabric->changed);
    pthread_mutex_unlock(&fabric->lock);
}

void session_add_writer(struct exposure_session *session)
{
    pthread_mutex_lock(&session->fabric->lock);
    session->writers++;
    pthread_mutex_unlock(&session->fabric->lock);
    connection_fit_rights(session);
}

/* Nobody waits for the QP to be narrowed: the MR is what the lease was, and it is gone. */
void session_remove_writer(struct exposure_session *session)
{
    struct fabric *fabric = session->fabric;

    pthread_mutex_lock(&fabric->lock);
    if (--session->writers == 0 && !session->narrows) {
        session->narrows = true;
        session_ref_locked(session);
        helper_submit(fabric->closers, &session->narrowing);
    }
    pthread_mutex_unlock(&fabric->lock);
}

static int random_cookie(uint8_t cookie[LEASEFS_COOKIE_SIZE])
{
    ssize_t n;

    do
        n = getrandom(cookie, LEASEFS_COOKIE_SIZE, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == LEASEFS_COOKIE_SIZE ? 0 : -EIO;
}

static void store_address(const struct sockaddr *address, struct sockaddr_storage *to)
{
    memset(to, 0, sizeof(*to));
    memcpy(to, address, address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
}

int session_connect(struct exposure_session *session, struct exposure_address *ret_address)
{
    struct fabric *fabric = session->fabric;
    uint8_t cookie[LEASEFS_COOKIE_SIZE];
    bool gone;
    int r = random_cookie(cookie);

    if (r < 0)
        return r;
    pthread_mutex_lock(&fabric->lock);
    gone = fabric->device_gone;
    if (!gone) {
        memcpy(session->cookie, cookie, sizeof(cookie));
        session->cookie_expires_ns = fabric->now_ns() + LEASEFS_COOKIE_LIFETIME_MS * NS_PER_MS;
        session->cookie_valid = true;
    }
    pthread_mutex_unlock(&fabric->lock);
    if (gone)
        return -ENODEV;
    store_address(rdma_get_local_addr(session->listen_id), &ret_address->address);
    memcpy(ret_address->cookie, cookie, sizeof(cookie));
    return 0;
}

/* Takes the same time wherever the first difference is. */
static bool cookies_equal(const uint8_t *a, const uint8_t *b)
{
    volatile uint8_t difference = 0;

    for (size_t i = 0; i < LEASEFS_COOKIE_SIZE; i++)
        difference |= a[i] ^ b[i];
    return difference == 0;
}

struct exposure_session *session_take_cookie(struct fabric *fabric, const uint8_t cookie[LEASEFS_COOKIE_SIZE])
{
    struct exposure_session *session, *found = NULL;

    pthread_mutex_lock(&fabric->lock);
    LIST_FOREACH(session, &fabric->sessions, link)
    {
        /* All are compared, so that the time tells nothing about how many there are in front. */
        bool equal = cookies_equal(session->cookie, cookie);

        if (session->cookie_valid && equal)
            found = session;
    }
    if (found) {
        bool expired = fabric->now_ns() >= found->cookie_expires_ns;

        found->cookie_valid = false;
        explicit_bzero(found->cookie, sizeof(found->cookie));
        if (expired)
            found = NULL;
        else
            session_ref_locked(found);
    }
    pthread_mutex_unlock(&fabric->lock);
    return found;
}

void session_close(struct exposure_session *session)
{
    struct fabric *fabric = session->fabric;

    pthread_mutex_lock(&fabric->lock);
    LIST_REMOVE(session, link);
    session->cookie_valid = false;
    connection_condemn_session_locked(session);
    pthread_mutex_unlock(&fabric->lock);
    fabric_session_unref(session);
}
