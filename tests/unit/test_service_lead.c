/* SPDX-License-Identifier: BSD-2-Clause */
/* The control thread hands over the lead and carries out itself what it read (service.c). */
#include <dirent.h>

#include "service_fixture.h"
#include "stuck_threads.h"

#include "lease/deputy.h"

/* Grants that do not come to an end: each keeps the thread that it is on. */
static void be_stuck(struct world *w, uint64_t first_byte)
{
    (void)w, (void)first_byte;
    stay();
}

#define BRIEF "{\"path\":\"/a\",\"mode\":\"read\",\"length\":4096}"

/* The lead is only on offer then, but it is not waited for. */
static void a_brief_grant_that_is_stuck_holds_up_nobody(void **state)
{
    struct client asking, other;
    struct lease_service_config config = world_config();

    (void)state;
    world_start(&config);
    client_open(&other);
    client_open(&asking);
    for (int i = 0; i < 3; i++) /* then the thread that leads does so again, and no other is on its way */
        client_return(&asking, client_result(&asking, "lease", BRIEF, "lease"));
    world.on_expose = be_stuck;
    client_send(&asking, "lease", BRIEF);
    UNTIL(stuck_now() == 1);
    json_decref(client_call(&other, "status", "{}"));
    assert_int_equal(stuck_now(), 1);
    let_go();
    client_hang_up(&asking);
    client_hang_up(&other);
    world_end();
    stuck.entered = 0;
    stuck.left = 0;
    stuck.go = false;
}

/* How often the threads that may lead have waited. */
static unsigned long waits_of_threads(void)
{
    unsigned long all = 0;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;

    while ((entry = readdir(tasks))) {
        char path[300], line[256];
        unsigned long waits = 0;
        bool may_lead = false;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file)) {
            may_lead |= strcmp(line, "Name:\tlfs-control\n") == 0;
            sscanf(line, "voluntary_ctxt_switches: %lu", &waits);
        }
        if (file)
            fclose(file);
        all += may_lead ? waits : 0;
    }
    closedir(tasks);
    return all;
}

/* One client who asks for little wakes one thread only. */
static void a_brief_grant_wakes_no_other_thread(void **state)
{
    enum { ROUNDS = 200 };
    struct lease_service_config config = world_config();
    unsigned long before;
    uint64_t started, most;
    struct client client;

    (void)state;
    world_start(&config);
    client_open(&client);
    client_return(&client, client_result(&client, "lease", BRIEF, "lease"));
    before = waits_of_threads();
    started = now_ns();
    for (int i = 0; i < ROUNDS; i++)
        client_return(&client, client_result(&client, "lease", BRIEF, "lease"));
    /* Whoever leads waits for a message, if it is not there yet, and nobody else does; who that is may change: on a
     * machine that is busy the deputy has the lead taken, every 10 ms at most, and a thread or two waits anew. */
    most = 2 * ROUNDS + ROUNDS / 2 + 3 * ((now_ns() - started) / (DEPUTY_PATIENCE_MS * MS));
    assert_true(waits_of_threads() - before < most);
    client_hang_up(&client);
    world_end();
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
    let_go();
    UNTIL(world.exposures == ROUNDS);
    client_hang_up(&asking);
    client_hang_up(&holder);
    world_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_brief_grant_that_is_stuck_holds_up_nobody),
        cmocka_unit_test(a_brief_grant_wakes_no_other_thread),
        cmocka_unit_test(requests_that_are_stuck_hold_up_neither_messages_nor_returns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
