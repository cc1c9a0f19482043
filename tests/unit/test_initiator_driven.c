/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A session without a thread: its caller drives it, against the real service. Each blocking call, the descriptor,
 * recalls, renewals, callbacks, the end.
 */
#include "service_fixture.h"

#include <dirent.h>
#include <leasefs/leasefs.h>

static struct leasefs_session *open_session(bool driven)
{
    const struct leasefs_session_options options = {.control = world.path, .caller_drives = driven};
    struct leasefs_session *session;

    assert_int_equal(leasefs_session_open(&options, &session), 0);
    return session;
}

static unsigned recalls, revocations;
static struct leasefs_session *callback_asks; /* a call that waits, with this session */
static int callback_status;

static enum leasefs_recall_action on_notice(struct leasefs_lease *lease, enum leasefs_notice notice,
                                            unsigned deadline_ms, const char *reason, void *arg)
{
    (void)lease, (void)deadline_ms, (void)reason;
    assert_true(pthread_equal(pthread_self(), *(pthread_t *)arg));
    recalls += notice == LEASEFS_NOTICE_RECALL;
    revocations += notice == LEASEFS_NOTICE_REVOKED;
    if (callback_asks)
        callback_status = leasefs_call(callback_asks, "status", NULL, NULL);
    return LEASEFS_RECALL_RETURN;
}

static pthread_t here;

static struct leasefs_lease *open_lease(struct leasefs_session *session, const char *path, enum leasefs_mode mode)
{
    const struct leasefs_lease_options options = {
        .mode = mode, .length = 4 * BLOCK, .no_rdma = true, .on_notice = on_notice, .arg = &here};
    struct leasefs_lease *lease;

    here = pthread_self();
    recalls = revocations = 0;
    if (leasefs_lease_open(session, path, &options, &lease))
        fail_msg("%s", leasefs_error());
    return lease;
}

static uint64_t id_of(const struct leasefs_lease *lease)
{
    struct leasefs_layout layout;

    leasefs_lease_layout(lease, &layout);
    return layout.lease_id;
}

/* Drives it as a program does, until the condition holds or for so long. */
#define DRIVE(session, condition, ms)                                                                                  \
    do {                                                                                                               \
        uint64_t until_ = now_ns() + (ms)*MS;                                                                          \
        while (!(condition) && now_ns() < until_) {                                                                    \
            struct pollfd ready_ = {.fd = leasefs_session_fd(session), .events = POLLIN};                              \
            assert_true(ready_.fd >= 0);                                                                               \
            if (poll(&ready_, 1, 10) == 1)                                                                             \
                leasefs_session_dispatch(session);                                                                     \
        }                                                                                                              \
    } while (0)

static bool readable(struct leasefs_session *session, int timeout_ms)
{
    struct pollfd ready = {.fd = leasefs_session_fd(session), .events = POLLIN};

    return poll(&ready, 1, timeout_ms) == 1;
}

static unsigned threads_named(const char *name)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    unsigned n = 0;

    assert_non_null(tasks);
    while ((task = readdir(tasks))) {
        char path[300], comm[32] = "";
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/task/%s/comm", task->d_name);
        file = fopen(path, "re");
        if (!file)
            continue;
        n += fgets(comm, sizeof(comm), file) && strncmp(comm, name, strlen(name)) == 0;
        fclose(file);
    }
    closedir(tasks);
    return n;
}

static void it_has_no_thread_and_every_call_works(void **state)
{
    struct leasefs_session *other = open_session(false), *session = open_session(true);
    struct leasefs_lease *lease, *rest;
    char *answer;

    (void)state;
    assert_int_equal(threads_named("leasefs-session"), 1); /* the other's */
    lease = open_lease(session, "/a", LEASEFS_WRITE);
    assert_int_equal(leasefs_commit(lease, UINT64_MAX), 0);
    assert_int_equal(leasefs_lease_return_range(lease, BLOCK, BLOCK, &rest), 0);
    assert_non_null(rest);
    assert_int_equal(leasefs_lease_downgrade(lease), 0);
    assert_int_equal(leasefs_call(session, "status", NULL, &answer), 0);
    free(answer);
    assert_int_equal(leasefs_lease_return(rest), 0);
    assert_int_equal(leasefs_lease_return(lease), 0);
    open_lease(session, "/b", LEASEFS_READ); /* closing gives it back */
    leasefs_session_close(session);
    UNTIL(world.exposures == 0);
    leasefs_session_close(other);
}

static void a_session_with_a_thread_is_not_driven(void **state)
{
    struct leasefs_session *session = open_session(false);

    (void)state;
    assert_int_equal(leasefs_session_fd(session), -EINVAL);
    assert_int_equal(leasefs_session_dispatch(session), -EINVAL);
    leasefs_session_close(session);
}

static void a_recall_makes_the_descriptor_readable_and_is_answered_in_dispatch(void **state)
{
    struct leasefs_session *session = open_session(true);
    struct leasefs_lease *lease = open_lease(session, "/a", LEASEFS_READ);
    struct client client;
    int id;

    (void)state;
    while (readable(session, 0)) /* what is left of the opening */
        assert_int_equal(leasefs_session_dispatch(session), 0);
    client_open(&client);
    id = client_send(&client, "lease", "{\"path\":\"/a\",\"mode\":\"write\",\"wait\":true}");
    assert_true(readable(session, PATIENCE_MS));
    assert_int_equal(recalls, 0); /* nobody but the caller hears it */
    DRIVE(session, recalls == 1, PATIENCE_MS);
    json_decref(client_answer(&client, id));
    assert_int_equal(recalls, 1);
    leasefs_lease_return(lease);
    client_hang_up(&client);
    leasefs_session_close(session);
}

/* Another client, which gives back what it holds only when it has got what it asks for. */
struct bargainer {
    struct client client;
    int64_t held;
    int asked;
};

static void *bargain(void *arg)
{
    struct bargainer *b = arg;
    bool got = false, wanted = false;

    while (!got || !wanted) {
        json_t *message = client_hear(&b->client);

        got |= json_integer_value(json_object_get(message, "id")) == b->asked;
        wanted |= json_integer_value(member(message, "params", "lease")) == b->held;
        json_decref(message);
    }
    client_return(&b->client, b->held);
    return NULL;
}

static void who_waits_in_a_call_answers_recalls_meanwhile(void **state)
{
    struct leasefs_session *session = open_session(true);
    struct leasefs_lease *ours = open_lease(session, "/a", LEASEFS_READ), *wanted;
    struct bargainer other;
    pthread_t thread;

    (void)state;
    client_open(&other.client);
    other.held = client_lease(&other.client, "/b", "write");
    other.asked = client_send(&other.client, "lease", "{\"path\":\"/a\",\"mode\":\"write\",\"wait\":true}");
    assert_int_equal(pthread_create(&thread, NULL, bargain, &other), 0);
    wanted = open_lease(session, "/b", LEASEFS_READ);
    pthread_join(thread, NULL);
    assert_int_equal(leasefs_lease_return(wanted), 0);
    leasefs_lease_return(ours);
    client_hang_up(&other.client);
    leasefs_session_close(session);
}

static void a_callback_must_not_wait(void **state)
{
    struct leasefs_session *session = open_session(true);
    struct leasefs_lease *lease = open_lease(session, "/a", LEASEFS_READ);
    uint64_t id = id_of(lease);

    (void)state;
    callback_asks = session;
    callback_status = 0;
    assert_int_equal(lease_revoke(the_table(), id, now_ns()), 0);
    DRIVE(session, revocations == 1, PATIENCE_MS);
    callback_asks = NULL;
    assert_int_equal(revocations, 1);
    assert_int_equal(callback_status, -EDEADLK);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
}

static void leases_are_renewed_when_the_descriptor_says_so_and_else_not(void **state)
{
    struct leasefs_session *session = open_session(true);
    struct leasefs_lease *lease = open_lease(session, "/a", LEASEFS_READ);
    uint64_t id = id_of(lease);
    struct lease_info info;

    (void)state;
    DRIVE(session, false, 4000);
    assert_int_equal(lease_get(the_table(), id, &info), 0);
    assert_int_equal(info.state, LEASE_ACTIVE);
    assert_int_equal(revocations, 0);
    UNTIL(lease_get(the_table(), id, &info) || info.state != LEASE_ACTIVE); /* nobody drives */
    DRIVE(session, revocations == 1, PATIENCE_MS);
    assert_int_equal(revocations, 1);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
}

static void the_servers_end_is_told(void **state)
{
    struct leasefs_session *session = open_session(true);
    struct leasefs_lease *lease = open_lease(session, "/a", LEASEFS_READ);
    int status = 0;

    (void)state;
    lease_service_stop(world.service);
    DRIVE(session, (status = leasefs_session_dispatch(session)) != 0, PATIENCE_MS);
    assert_int_equal(status, -ENOTCONN);
    assert_int_equal(revocations, 1);
    assert_true(readable(session, 0));
    assert_int_equal(leasefs_call(session, "status", NULL, NULL), -ENOTCONN);
    leasefs_lease_return(lease);
    leasefs_session_close(session);
}

static int setup_with_short_leases(void **state)
{
    struct lease_service_config config = world_config();

    (void)state;
    config.limits.lease_time_ns = 1500 * MS;
    world_start(&config);
    return 0;
}

#define STORY(story) cmocka_unit_test_setup_teardown(story, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STORY(it_has_no_thread_and_every_call_works),
        STORY(a_session_with_a_thread_is_not_driven),
        STORY(a_recall_makes_the_descriptor_readable_and_is_answered_in_dispatch),
        STORY(who_waits_in_a_call_answers_recalls_meanwhile),
        STORY(a_callback_must_not_wait),
        cmocka_unit_test_setup_teardown(leases_are_renewed_when_the_descriptor_says_so_and_else_not,
                                        setup_with_short_leases, teardown),
        STORY(the_servers_end_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
