/* SPDX-License-Identifier: BSD-2-Clause */
/* Labels: security */
/* What clients must not be able to do to the control service, and what the start must not do to others' files. */
#include "service_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* In the place of the C library's: counts, and finds no descriptors left when told to. */
static atomic_int accepts, no_descriptors;

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{

    accepts++;
    if (no_descriptors) {
        errno = EMFILE;
        return -1;
    }
    fd = accept(fd, address, length);
    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
                    ((flags & SOCK_NONBLOCK) && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)))
        return -1;
    return fd;
}

static struct client bystander; /* lives through everything that the others do */

static int start_with_bystander(void **state)
{
    setup(state);
    client_open(&bystander);
    return 0;
}

static int end_with_bystander(void **state)
{
    client_result(&bystander, "status", "{}", "uptime_ms");
    client_hang_up(&bystander);
    return teardown(state);
}

static void expect_error(struct client *client, int code)
{
    json_t *message = client_hear(client);

    assert_non_null(message);
    assert_int_equal(json_integer_value(member(message, "error", "code")), code);
    json_decref(message);
}

/* ---- messages ---- */

static void garbage_gets_an_error_and_costs_nothing(void **state)
{
    static const struct {
        const char *line;
        int code;
    } lines[] = {
        {"garbage", LEASEFS_RPC_PARSE_ERROR},
        {"{", LEASEFS_RPC_PARSE_ERROR},
        {"\xff\xfe\x80", LEASEFS_RPC_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"method\":\"status\"}", LEASEFS_RPC_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":99999999999999999999,\"method\":\"status\"}", LEASEFS_RPC_PARSE_ERROR},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"stat\\u0000us\"}", LEASEFS_RPC_PARSE_ERROR},
        {"{} {}", LEASEFS_RPC_PARSE_ERROR},
        {"null", LEASEFS_RPC_PARSE_ERROR}, /* RFC 4627's JSON texts are objects and arrays */
        {"[]", LEASEFS_RPC_INVALID_REQUEST},
        {"[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}]", LEASEFS_RPC_INVALID_REQUEST},
        {"{}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"status\"}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"status\"}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"id\":1,\"method\":\"status\"}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":[]}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"status\"}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"status\"}", LEASEFS_RPC_INVALID_REQUEST},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\"}", LEASEFS_RPC_METHOD_NOT_FOUND},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"format_disk\"}", LEASEFS_RPC_METHOD_NOT_FOUND},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease\"}", LEASEFS_RPC_INVALID_PARAMS},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"renew\"}", LEASEFS_RPC_INVALID_PARAMS},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"return\",\"params\":{\"lease\":\"1\"}}",
         LEASEFS_RPC_INVALID_PARAMS},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"return\",\"params\":{\"lease\":1,\"sequence\":-1}}",
         LEASEFS_RPC_INVALID_PARAMS},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"revoke\",\"params\":{}}", LEASEFS_RPC_INVALID_PARAMS},
        {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"commit\",\"params\":{\"lease\":1,\"size\":-1}}",
         LEASEFS_RPC_INVALID_PARAMS},
    };
    struct client client;

    (void)state;
    client_open(&client);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        client_say(&client, lines[i].line);
        client_say(&client, "\n");
        expect_error(&client, lines[i].code);
    }
    client_say(&client, "\n\n\n"); /* nothing is no message */
    client_result(&client, "status", "{}", "uptime_ms");
    client_hang_up(&client);
}

static void parameters_of_wrong_kinds_are_refused(void **state)
{
    static const char *const params[] = {
        "{\"path\":\"/a\"}",
        "{\"mode\":\"read\"}",
        "{\"path\":\"/a\",\"mode\":\"append\"}",
        "{\"path\":\"a\",\"mode\":\"read\"}",
        "{\"path\":\"\",\"mode\":\"read\"}",
        "{\"path\":7,\"mode\":\"read\"}",
        "{\"path\":\"/a\",\"file\":1,\"mode\":\"read\"}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":-1}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":1.5}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":\"0\"}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"wait\":1}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"prepare\":null}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"policy\":\"anarchy\"}",
        "{\"path\":\"/a\",\"mode\":\"read\",\"policy\":1}",
    };
    struct client client;

    (void)state;
    client_open(&client);
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++) {
        client_send(&client, "lease", params[i]);
        expect_error(&client, LEASEFS_RPC_INVALID_PARAMS);
    }
    /* The largest numbers there are do not wrap round. */
    client_refused(&client, "lease",
                   "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":9223372036854775807,\"length\":9223372036854775807}",
                   "EINVAL", LEASEFS_REASON_BEYOND_EOF);
    client_refused(&client, "lease", "{\"path\":\"/a\",\"mode\":\"read\",\"offset\":1,\"length\":9223372036854775806}",
                   "EPERM", LEASEFS_REASON_BEYOND_EOF);
    assert_int_equal(world.holds, 0);
    client_hang_up(&client);
}

static void ids_come_back_as_they_were_and_without_one_there_is_no_answer(void **state)
{
    static const char *const ids[] = {"0", "-1", "9223372036854775807", "\"\"", "\"a\\\"b\\n\"", "null"};
    struct client client;
    char line[256];

    (void)state;
    client_open(&client);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        json_t *wanted = json_loads(ids[i], JSON_DECODE_ANY, NULL), *message;

        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"status\"}\n", ids[i]);
        client_say(&client, line);
        message = client_hear(&client);
        assert_true(json_equal(json_object_get(message, "id"), wanted));
        assert_non_null(json_object_get(message, "result"));
        json_decref(message);
        json_decref(wanted);
    }
    client_say(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"status\"}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"renew\",\"params\":{\"lease\":1}}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"return\",\"params\":{\"lease\":1}}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"revoke\",\"params\":{}}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"connect\"}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"session\"}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"no_such\"}\n"
                        "{\"jsonrpc\":\"2.0\",\"method\":\"lease\"}\n");
    client_result(&client, "status", "{}", "uptime_ms"); /* the next message is this one's answer */
    client_hang_up(&client);
}

static void a_message_may_come_in_pieces_or_many_at_once(void **state)
{
    static const char two[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"renew\",\"params\":{\"lease\":1}}\n"
                              "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"renew\",\"params\":{\"lease\":1}}\n";
    struct client client;

    (void)state;
    client_open(&client);
    for (const char *byte = two; *byte; byte++)
        client_write(&client, byte, 1);
    expect_refusal(client_answer(&client, 7), "ENOENT", NULL);
    expect_refusal(client_answer(&client, 8), "ENOENT", NULL);
    client_say(&client, two);
    expect_refusal(client_answer(&client, 7), "ENOENT", NULL);
    expect_refusal(client_answer(&client, 8), "ENOENT", NULL);
    client_say(&client, "{\"jsonrpc\":\"2.0\",\"id\":9,"); /* and never goes on */
    client_hang_up(&client);
}

/* A status request, filled up with blanks to `length` bytes and LF. */
static void say_padded(struct client *client, size_t length)
{
    static const char start[] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"";
    char *line = malloc(length + 1);

    assert_non_null(line);
    memset(line, ' ', length);
    memcpy(line, start, sizeof(start) - 1);
    line[length - 1] = '}';
    line[length] = '\n';
    for (size_t sent = 0; sent < length + 1;) {
        ssize_t now = send(client->fd, line + sent, length + 1 - sent, MSG_NOSIGNAL);

        if (now <= 0)
            break; /* it has hung up already */
        sent += (size_t)now;
    }
    free(line);
}

static void a_message_may_be_as_long_as_the_limit_and_no_longer(void **state)
{
    struct client client;
    json_t *message;

    (void)state;
    client_open(&client);
    say_padded(&client, LEASEFS_MAX_MESSAGE - 1);
    message = client_hear(&client);
    assert_non_null(json_object_get(message, "result"));
    json_decref(message);
    say_padded(&client, LEASEFS_MAX_MESSAGE);
    expect_error(&client, LEASEFS_RPC_INVALID_REQUEST);
    assert_null(client_hear(&client));
    client_hang_up(&client);
}

static void deep_nesting_is_refused(void **state)
{
    struct client client;
    char *line = malloc(LEASEFS_MAX_MESSAGE);

    (void)state;
    assert_non_null(line);
    client_open(&client);
    for (int i = 0; i < 2; i++) {
        memset(line, "[{"[i], LEASEFS_MAX_MESSAGE - 1);
        line[LEASEFS_MAX_MESSAGE - 1] = '\n';
        client_write(&client, line, LEASEFS_MAX_MESSAGE);
        expect_error(&client, LEASEFS_RPC_PARSE_ERROR);
    }
    client_hang_up(&client);
    free(line);
}

/* ---- connections ---- */

static void a_reader_too_slow_for_its_answers_is_dropped(void **state)
{
    struct client slow;
    char *line = malloc(LEASEFS_MAX_MESSAGE);
    size_t sent = 0;

    (void)state;
    assert_non_null(line);
    client_open(&slow);
    /* Each answer repeats the id. */
    snprintf(line, LEASEFS_MAX_MESSAGE, "{\"jsonrpc\":\"2.0\",\"id\":\"%060000d\",\"method\":\"none\"}\n", 0);
    while (sent < (size_t)1 << 30 && send(slow.fd, line, strlen(line), MSG_NOSIGNAL) > 0)
        sent += strlen(line);
    assert_true(sent >= 16 << 20); /* what it may leave unread */
    assert_true(sent < (size_t)64 << 20);
    client_hang_up(&slow);
    free(line);
}

static void a_flood_of_requests_is_answered_or_refused_one_by_one(void **state)
{
    enum { REQUESTS = 5000 };
    struct client flood;
    int answers = 0, results = 0;
    char *lines = malloc(REQUESTS * 64), *end = lines;

    (void)state;
    assert_non_null(lines);
    client_open(&flood);
    for (int i = 0; i < REQUESTS; i++)
        end += sprintf(end, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"probe\"}\n", i);
    client_write(&flood, lines, (size_t)(end - lines));
    for (; answers < REQUESTS; answers++) {
        json_t *message = client_hear(&flood);

        assert_non_null(message);
        if (json_object_get(message, "result"))
            results++;
        else
            assert_string_equal(json_string_value(json_object_get(member(message, "error", "data"), "reason")),
                                "limit");
        json_decref(message);
    }
    assert_true(results > 0);
    client_hang_up(&flood);
    free(lines);
}

/* Workers, and between them the service's own thread, send what they have for it until its socket is full. */
static void answers_wait_for_a_slow_reader_and_stay_whole(void **state)
{
    enum { REQUESTS = 200, DIGITS = 50000 };
    char *line = malloc(LEASEFS_MAX_MESSAGE);
    struct client slow;
    bool seen[REQUESTS] = {false};

    (void)state;
    assert_non_null(line);
    client_open(&slow);
    for (int i = 0; i < REQUESTS; i++) { /* each answer repeats the id */
        snprintf(line, LEASEFS_MAX_MESSAGE, "{\"jsonrpc\":\"2.0\",\"id\":\"%0*d\",\"method\":\"%s\"}\n", DIGITS, i,
                 i % 2 ? "probe" : "none");
        client_say(&slow, line);
    }
    for (int i = 0; i < REQUESTS; i++) {
        json_t *message = client_hear(&slow);
        const char *id = json_string_value(json_object_get(message, "id"));

        assert_int_equal(strlen(id), DIGITS);
        assert_in_range(atoi(id + DIGITS - 9), 0, REQUESTS - 1);
        assert_false(seen[atoi(id + DIGITS - 9)]);
        seen[atoi(id + DIGITS - 9)] = true;
        json_decref(message);
    }
    client_hang_up(&slow);
    free(line);
}

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;

    assert_non_null(directory);
    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

static void a_session_has_a_limited_number_of_requests_that_wait(void **state)
{
    enum { REQUESTS = 1024 };
    struct client greedy;
    json_t *recall, *refusal;

    (void)state;
    client_lease(&bystander, "/a", "write");
    client_open(&greedy);
    for (int i = 0; i <= REQUESTS; i++)
        client_send(&greedy, "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
    refusal = client_hear(&greedy);
    assert_int_equal(json_integer_value(json_object_get(refusal, "id")), greedy.last_id);
    expect_refusal(refusal, "EAGAIN", LEASEFS_REASON_LIMIT);
    client_hang_up(&greedy);
    recall = client_hear(&bystander);
    assert_string_equal(json_string_value(json_object_get(recall, "method")), "recall");
    json_decref(recall);
    json_decref(client_hear(&bystander)); /* and its cancelling: everything of the greedy one's is gone */
}

static void who_asks_and_does_not_stay_for_the_answer_hurts_nobody(void **state)
{
    int descriptors = open_descriptors();
    struct client hasty;

    (void)state;
    for (int i = 0; i < 20; i++) {
        client_open(&hasty);
        for (int j = 0; j < 20; j++)
            client_send(&hasty, j % 2 ? "status" : "lease", "{\"path\":\"/a\",\"mode\":\"read\"}");
        client_hang_up(&hasty); /* SIGPIPE would end this process, as it would the daemon */
    }
    UNTIL(world.pins == 0 && world.holds == 0);
    UNTIL(open_descriptors() == descriptors);
}

static void too_many_connections_are_turned_away_with_a_word(void **state)
{
    struct rlimit limit = {0};
    struct client late;
    int *fds = malloc(LEASEFS_MAX_SESSIONS * sizeof(*fds));
    json_t *message;

    (void)state;
    assert_non_null(fds);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 2 * LEASEFS_MAX_SESSIONS + 100) {
        free(fds);
        skip();
    }
    for (size_t i = 0; i < LEASEFS_MAX_SESSIONS - 1; i++) { /* and the bystander */
        client_dial(&late);
        fds[i] = late.fd;
    }
    client_dial(&late);
    message = client_hear(&late);
    assert_string_equal(json_string_value(json_object_get(member(message, "error", "data"), "reason")), "limit");
    json_decref(message);
    assert_null(client_hear(&late));
    client_hang_up(&late);
    for (size_t i = 0; i < LEASEFS_MAX_SESSIONS - 1; i++)
        close(fds[i]);
    free(fds);
}

static void without_descriptors_the_service_goes_on_and_accepts_later(void **state)
{
    struct client late;
    int before;

    (void)state;
    no_descriptors = 1;
    before = accepts;
    client_dial(&late); /* into the queue of the socket */
    UNTIL(accepts > before);
    before = accepts;
    for (int i = 0; i < 500; i++)
        client_result(&bystander, "status", "{}", "uptime_ms");
    assert_true(accepts - before < 250); /* and not at every turn of the loop */
    no_descriptors = 0;
    client_result(&late, "session", "{\"version\":1}", "session");
    client_hang_up(&late);
}

/* ---- the start ---- */

static char *refused_start(const char *path)
{
    struct lease_service_config config = world_config();
    struct lease_service *service;
    char *why = NULL;

    config.control_path = path;
    assert_true(lease_service_new(&config, &service, &why) < 0);
    assert_non_null(why);
    assert_non_null(strstr(why, path));
    return why;
}

static void a_regular_file_at_the_sockets_path_is_kept(void **state)
{
    static const char name[] = "test_service.precious";
    struct stat now;
    int fd;

    (void)state;
    unlink(name);
    fd = open(name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "data", 4), 4);
    close(fd);
    free(refused_start(name));
    assert_int_equal(stat(name, &now), 0);
    assert_int_equal(now.st_size, 4);
    unlink(name);
}

static void a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not(void **state)
{
    struct lease_service_config config = world_config();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct client client;
    struct stat now;
    char *why;

    (void)state;
    strcpy(address.sun_path, world.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    world_start(&config);
    assert_int_equal(stat(world.path, &now), 0);
    assert_int_equal(now.st_mode & 0777, 0600);
    {
        struct lease_service *second;

        assert_int_equal(lease_service_new(&config, &second, &why), -EADDRINUSE);
        assert_non_null(strstr(why, "another leasefs"));
        free(why);
    }
    client_open(&client);
    client_hang_up(&client);
    world_end();
}

static void a_path_that_cannot_be_is_refused_with_the_reason(void **state)
{
    char long_path[256];
    char *why;

    (void)state;
    memset(long_path, 'x', sizeof(long_path) - 1);
    long_path[sizeof(long_path) - 1] = 0;
    free(refused_start(long_path));
    why = refused_start("no/such/directory/control");
    assert_non_null(strstr(why, "directory"));
    free(why);
}

/* ---- connections that open no session ---- */

#define OPEN_TIMEOUT_MS 100

static atomic_bool held; /* sessions are not opened for now */

static int held_session_open(void *fabric, uint64_t session_id, const struct sockaddr *reached,
                             struct exposure_session **ret_session)
{
    UNTIL(!held);
    return fake_session_open(fabric, session_id, reached, ret_session);
}

static int start_impatient(void **state)
{
    static struct exposure_ops exposure;
    struct lease_service_config config = world_config();

    (void)state;
    exposure = fake_exposure;
    exposure.session_open = held_session_open;
    config.exposure = &exposure;
    config.open_timeout_us = OPEN_TIMEOUT_MS * 1000;
    world_start(&config);
    return 0;
}

static void who_opens_no_session_is_hung_up_on(void **state)
{
    struct client silent, babbler;

    (void)state;
    client_dial(&silent);
    client_dial(&babbler);
    client_say(&babbler, "{\"jsonrpc\":\"2.0\",");
    assert_null(client_hear(&silent));
    assert_null(client_hear(&babbler));
    client_hang_up(&silent);
    client_hang_up(&babbler);
}

/* It is not silent: the server is slow. */
static void who_waits_for_a_session_is_not(void **state)
{
    struct client client;
    struct pollfd ready;
    int id;

    (void)state;
    held = true;
    client_dial(&client);
    id = client_send(&client, "session", "{\"client\":\"test\",\"version\":1}");
    ready = (struct pollfd){.fd = client.fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 5 * OPEN_TIMEOUT_MS), 0);
    held = false;
    json_decref(client_answer(&client, id));
    client_hang_up(&client);
}

#define HOSTILE(name) cmocka_unit_test_setup_teardown(name, start_with_bystander, end_with_bystander)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(garbage_gets_an_error_and_costs_nothing),
        HOSTILE(parameters_of_wrong_kinds_are_refused),
        HOSTILE(ids_come_back_as_they_were_and_without_one_there_is_no_answer),
        HOSTILE(a_message_may_come_in_pieces_or_many_at_once),
        HOSTILE(a_message_may_be_as_long_as_the_limit_and_no_longer),
        HOSTILE(deep_nesting_is_refused),
        HOSTILE(a_reader_too_slow_for_its_answers_is_dropped),
        HOSTILE(a_flood_of_requests_is_answered_or_refused_one_by_one),
        HOSTILE(answers_wait_for_a_slow_reader_and_stay_whole),
        HOSTILE(a_session_has_a_limited_number_of_requests_that_wait),
        HOSTILE(who_asks_and_does_not_stay_for_the_answer_hurts_nobody),
        HOSTILE(too_many_connections_are_turned_away_with_a_word),
        HOSTILE(without_descriptors_the_service_goes_on_and_accepts_later),
        cmocka_unit_test_setup_teardown(who_opens_no_session_is_hung_up_on, start_impatient, teardown),
        cmocka_unit_test_setup_teardown(who_waits_for_a_session_is_not, start_impatient, teardown),
        cmocka_unit_test(a_regular_file_at_the_sockets_path_is_kept),
        cmocka_unit_test(a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not),
        cmocka_unit_test(a_path_that_cannot_be_is_refused_with_the_reason),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
