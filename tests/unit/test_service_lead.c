/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread hands over the lead and carries out itself what it read (service.c). */
#include "service_fixture.h"

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int entered; /* guarded by lock, as is the next */
    bool go;
    atomic_int left;
} stuck = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* Grants that do not come to an end: each keeps the thread that it is on. */
static void be_stuck(struct world *w, uint64_t first_byte)
{
    (void)w, (void)first_byte;
    pthread_mutex_lock(&stuck.lock);
    stuck.entered++;
    while (!stuck.go)
        pthread_cond_wait(&stuck.changed, &stuck.lock);
    pthread_mutex_unlock(&stuck.lock);
    stuck.left++;
}

static int stuck_now(void)
{
    int n;

    pthread_mutex_lock(&stuck.lock);
    n = stuck.entered - stuck.left;
    pthread_mutex_unlock(&stuck.lock);
    return n;
}

/* More than there may ever be threads to fence (I4). */
static void requests_that_are_stuck_hold_up_neither_messages_nor_returns(void **state)
{
    enum { ROUNDS = 80, MOST = 8 }; /* grant workers, and as many that were the control thread */
    struct client asking, holder;
    struct lease_service_config config = world_config();
    int64_t leases[ROUNDS];
    char params[64];

    (void)state;
    config.limits.max_session_leases = 4 * ROUNDS;
    world_start(&config);
    client_open(&asking);
    client_open(&holder);
    for (int i = 0; i < ROUNDS; i++)
        leases[i] = client_lease(&holder, "/b", "read");
    world.on_expose = be_stuck;
    for (int i = 0; i < ROUNDS; i++) {
        client_send(&asking, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
        if (i < MOST)
            UNTIL(stuck_now() == i + 1);
        snprintf(params, sizeof(params), "{\"lease\":%lld}", (long long)leases[i]);
        json_decref(client_call(&holder, "renew", params));
        client_return(&holder, leases[i]);
    }
    assert_int_equal(stuck_now(), MOST);
    pthread_mutex_lock(&stuck.lock);
    stuck.go = true;
    pthread_cond_broadcast(&stuck.changed);
    pthread_mutex_unlock(&stuck.lock);
    UNTIL(world.exposures == ROUNDS);
    client_hang_up(&asking);
    client_hang_up(&holder);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_are_stuck_hold_up_neither_messages_nor_returns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
