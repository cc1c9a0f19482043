/* SPDX-License-Identifier: BSD-2-Clause */

/* What perftest's ib_read_bw and its kin measure, through libleasefs; and how long leases take. Used by tools/bench.
 *
 * Prints one JSON object: either "bytes" and "seconds", or lists of microseconds. With --steps it says "ready" before
 * it moves the first byte, and waits there, and again behind the JSON, for a line on standard input: whoever started
 * it then knows what the server spent on bytes alone. */

#include <argp.h>
#include <err.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>
#include <leasefs/leasefs.h>

#define RANDOM_SEED 88172645463325252u

struct settings {
    const char *measure, *control, *path, *mechanism;
    bool write, steps;
    uint64_t size; /* bytes of one work request, or of a lease */
    uint64_t bytes;
    unsigned depth, count;
};

struct peer {
    const struct settings *settings;
    struct leasefs_session *session;
    struct leasefs_lease *lease;
    struct leasefs_layout layout;
    void *buffer;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void must(int status, const char *what)
{
    if (status)
        errx(1, "%s: %s", what, leasefs_error());
}

static double *samples_new(unsigned count)
{
    double *samples = calloc(count, sizeof(*samples));

    if (!samples)
        err(1, "memory");
    return samples;
}

static void print_samples(const char *name, const double *samples, unsigned count, bool last)
{
    printf("\"%s\": [", name);
    for (unsigned i = 0; i < count; i++)
        printf("%s%.3f", i ? ", " : "", samples[i]);
    printf("]%s", last ? "" : ", ");
}

static struct leasefs_session *open_session(const struct settings *settings)
{
    const struct leasefs_session_options options = {
        .control = settings->control,
        .depth = settings->depth,
        .chunk = settings->size < (1u << 30) ? settings->size : 0,
    };
    struct leasefs_session *session;

    must(leasefs_session_open(&options, &session), "session");
    return session;
}

/* What the holder of a lease was told of its end. */
struct news {
    pthread_mutex_t lock;
    pthread_cond_t told;
    unsigned ended; /* leases */
};

static enum leasefs_recall_action note_end(struct leasefs_lease *lease, enum leasefs_notice notice,
                                           unsigned deadline_ms, const char *reason, void *arg)
{
    struct news *news = arg;

    (void)lease;
    (void)deadline_ms;
    (void)reason;
    pthread_mutex_lock(&news->lock);
    news->ended += notice == LEASEFS_NOTICE_REVOKED;
    pthread_cond_signal(&news->told);
    pthread_mutex_unlock(&news->lock);
    return LEASEFS_RECALL_KEEP;
}

/* news: NULL, or what is told of the lease's end. */
static struct leasefs_lease *open_lease(struct leasefs_session *session, const struct settings *settings,
                                        uint64_t length, struct news *news)
{
    const struct leasefs_lease_options options = {
        .mode = settings->write ? LEASEFS_WRITE : LEASEFS_READ,
        .length = length,
        .on_notice = news ? note_end : NULL,
        .arg = news,
    };
    struct leasefs_lease *lease;

    must(leasefs_lease_open(session, settings->path, &options, &lease), "lease");
    return lease;
}

static void peer_open(struct peer *peer, const struct settings *settings, uint64_t buffer_size)
{
    peer->settings = settings;
    peer->session = open_session(settings);
    peer->lease = open_lease(peer->session, settings, 0, NULL);
    leasefs_lease_layout(peer->lease, &peer->layout);
    if (!buffer_size)
        buffer_size = peer->layout.length;
    must(leasefs_buffer_new(peer->session, buffer_size, &peer->buffer), "buffer");
    memset(peer->buffer, 0x5a, buffer_size);
}

static void peer_close(struct peer *peer)
{
    leasefs_buffer_free(peer->session, peer->buffer);
    must(leasefs_lease_return(peer->lease), "return");
    leasefs_session_close(peer->session);
}

static void transfer(struct peer *peer, uint64_t length, uint64_t offset)
{
    if (peer->settings->write)
        must(leasefs_write(peer->lease, peer->buffer, length, offset), "write");
    else
        must(leasefs_read(peer->lease, peer->buffer, length, offset), "read");
}

/* ---- measures ---- */

static void step(const struct settings *settings)
{
    int c;

    if (!settings->steps)
        return;
    fflush(stdout);
    do
        c = getchar();
    while (c != '\n' && c != EOF);
}

static void submit(struct leasefs_queue *queue, struct peer *peer, char *buffer, uint64_t offset)
{
    uint64_t size = peer->settings->size;

    if (peer->settings->write)
        must(leasefs_submit_write(queue, peer->lease, buffer, size, offset, buffer), "write");
    else
        must(leasefs_submit_read(queue, peer->lease, buffer, size, offset, buffer), "read");
}

/* Requests of `size` bytes, `depth` of them in flight all the time, until `bytes` are moved. */
static uint64_t stream(struct leasefs_queue *queue, struct peer *peer)
{
    const struct settings *settings = peer->settings;
    uint64_t requests = settings->bytes / settings->size, span = peer->layout.length / settings->size;
    uint64_t submitted = 0, ended = 0;
    struct leasefs_event events[16];

    for (; submitted < settings->depth && submitted < requests; submitted++)
        submit(queue, peer, (char *)peer->buffer + submitted * settings->size, submitted % span * settings->size);
    while (ended < requests) {
        int n = leasefs_queue_wait(queue, events, 1, 16, -1);

        if (n <= 0)
            errx(1, "queue: %s", leasefs_error());
        ended += (unsigned)n;
        for (int i = 0; i < n; i++) {
            must(events[i].status, "transfer");
            if (submitted < requests)
                submit(queue, peer, events[i].user, submitted++ % span * settings->size);
        }
    }
    return requests * settings->size;
}

static void measure_bandwidth(const struct settings *settings)
{
    struct leasefs_queue *queue;
    uint64_t started, moved;
    struct peer peer;

    peer_open(&peer, settings, settings->depth * settings->size);
    must(leasefs_queue_new(peer.session, &queue), "queue");
    transfer(&peer, settings->size, 0);
    if (settings->steps)
        puts("ready");
    step(settings);
    started = now_ns();
    moved = stream(queue, &peer);
    printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", (unsigned long long)moved, (double)(now_ns() - started) / 1e9);
    step(settings);
    leasefs_queue_free(queue);
    peer_close(&peer);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* One request at a time, at random places. */
static void measure_latency(const struct settings *settings)
{
    double *samples = samples_new(settings->count);
    uint64_t random = RANDOM_SEED;
    struct peer peer;

    peer_open(&peer, settings, settings->size);
    for (unsigned i = 0; i < settings->count; i++) {
        uint64_t offset = next_random(&random) % (peer.layout.length / settings->size) * settings->size;
        uint64_t started = now_ns();

        transfer(&peer, settings->size, offset);
        samples[i] = (double)(now_ns() - started) / 1e3;
    }
    putchar('{');
    print_samples("latency_us", samples, settings->count, true);
    puts("}");
    free(samples);
    peer_close(&peer);
}

/* A lease of the first `size` bytes, a byte read through it, given back; again and again over one connection. */
static void measure_grant(const struct settings *settings)
{
    double *grant = samples_new(settings->count), *first_byte = samples_new(settings->count);
    double *back = samples_new(settings->count);
    struct peer peer;

    peer_open(&peer, settings, 4096);
    must(leasefs_lease_return(peer.lease), "return");
    for (unsigned i = 0; i < settings->count; i++) {
        uint64_t started = now_ns(), granted, ended;

        peer.lease = open_lease(peer.session, settings, settings->size, NULL);
        granted = now_ns();
        transfer(&peer, 1, 0);
        first_byte[i] = (double)(now_ns() - started) / 1e3;
        grant[i] = (double)(granted - started) / 1e3;
        ended = now_ns();
        must(leasefs_lease_return(peer.lease), "return");
        back[i] = (double)(now_ns() - ended) / 1e3;
    }
    putchar('{');
    print_samples("grant_us", grant, settings->count, false);
    print_samples("first_byte_us", first_byte, settings->count, false);
    print_samples("return_us", back, settings->count, true);
    puts("}");
    leasefs_buffer_free(peer.session, peer.buffer);
    leasefs_session_close(peer.session);
    free(grant);
    free(first_byte);
    free(back);
}

/* What the server has spent on a mechanism so far, by its own clock, and how many leases it has exposed. */
struct spent {
    json_int_t count, total_ns, exposed;
};

static struct spent spent_on(struct leasefs_session *session, const char *mechanism)
{
    struct spent spent;
    char *text = NULL;
    json_t *status;

    must(leasefs_call(session, "status", NULL, &text), "status");
    status = json_loads(text, 0, NULL);
    if (json_unpack(status, "{s:{s:{s:{s:I, s:I}}, s:{s:I}}}", "fabric", "revocations", mechanism, "count",
                    &spent.count, "total_ns", &spent.total_ns, "exposures", "now", &spent.exposed))
        errx(77, "the server has no mechanism %s", mechanism);
    json_decref(status);
    free(text);
    return spent;
}

/* The holder is told when all is proven, also by the fence behind a gate, which must not run into the next round. Until
 * then nobody asks the server anything: that would take a processor from it. */
static struct spent await_revocation(struct leasefs_session *administrator, struct news *news, unsigned ended,
                                     const char *mechanism, json_int_t before)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct spent after;

    pthread_mutex_lock(&news->lock);
    while (news->ended == ended)
        pthread_cond_wait(&news->told, &news->lock);
    pthread_mutex_unlock(&news->lock);
    for (;;) {
        after = spent_on(administrator, mechanism);
        if (after.count != before && !after.exposed)
            return after;
        nanosleep(&pause, NULL);
    }
}

static void revoke_one(struct leasefs_session *administrator, struct leasefs_lease *lease)
{
    struct leasefs_layout layout;
    char *result = NULL, parameters[64];

    leasefs_lease_layout(lease, &layout);
    snprintf(parameters, sizeof(parameters), "{\"lease\": %llu}", (unsigned long long)layout.lease_id);
    must(leasefs_call(administrator, "revoke", parameters, &result), "revoke");
    free(result);
}

/* Rounds are as long as each other: without a pause of any length they would meet the timer's ticks (some ms) in every
 * tenth revocation, or in none. */
static void pause_a_moment(uint64_t *random)
{
    const struct timespec pause = {.tv_nsec = (long)(next_random(random) % 8000000)};

    nanosleep(&pause, NULL);
}

/* The server's administrator takes leases of `size` bytes away; the time is what the mechanism took, with all that the
 * server does around the verb. */
static void measure_revoke(const struct settings *settings)
{
    double *samples = samples_new(settings->count);
    struct leasefs_session *holder = open_session(settings), *administrator = open_session(settings);
    struct news news = {.lock = PTHREAD_MUTEX_INITIALIZER, .told = PTHREAD_COND_INITIALIZER};
    uint64_t random = RANDOM_SEED;

    for (unsigned i = 0; i < settings->count; i++) {
        struct leasefs_lease *lease = open_lease(holder, settings, settings->size, &news);
        struct spent before = spent_on(administrator, settings->mechanism), after;

        pause_a_moment(&random);
        revoke_one(administrator, lease);
        after = await_revocation(administrator, &news, i, settings->mechanism, before.count);
        samples[i] = (double)(after.total_ns - before.total_ns) / 1e3;
        leasefs_lease_return(lease); /* an error, but for a return that crosses the news that it is gone */
    }
    putchar('{');
    print_samples("revoke_us", samples, settings->count, true);
    puts("}");
    leasefs_session_close(administrator);
    leasefs_session_close(holder);
    free(samples);
}

static const struct measure {
    const char *name;
    void (*run)(const struct settings *settings);
} measures[] = {
    {"bandwidth", measure_bandwidth},
    {"latency", measure_latency},
    {"grant", measure_grant},
    {"revoke", measure_revoke},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct settings *settings = state->input;

    switch (key) {
    case 'c':
        settings->control = arg;
        return 0;
    case 's':
        settings->size = strtoull(arg, NULL, 10);
        return 0;
    case 'b':
        settings->bytes = strtoull(arg, NULL, 10);
        return 0;
    case 'd':
        settings->depth = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case 'n':
        settings->count = (unsigned)strtoul(arg, NULL, 10);
        return 0;
    case 'm':
        settings->mechanism = arg;
        return 0;
    case 'w':
        settings->write = true;
        return 0;
    case 'S':
        settings->steps = true;
        return 0;
    case ARGP_KEY_ARG:
        *(state->arg_num ? &settings->path : &settings->measure) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!settings->path || !settings->size || !settings->count)
            argp_error(state, "a measure, a path, a size and a count are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"control", 'c', "SOCKET", 0, "The server's control socket", 0},
        {"size", 's', "BYTES", 0, "Bytes of a work request, or of a lease (4096)", 0},
        {"bytes", 'b', "BYTES", 0, "Bytes to move (64 MiB)", 0},
        {"depth", 'd', "N", 0, "Work requests in flight (16)", 0},
        {"count", 'n', "N", 0, "Repetitions (100)", 0},
        {"mechanism", 'm', "NAME", 0, "Of revocation, to be measured (dereg)", 0},
        {"write", 'w', NULL, 0, "Write instead of read; leases are write leases", 0},
        {"steps", 'S', NULL, 0, "Of bandwidth: wait for a line before the first byte, and after the last", 0},
        {0},
    };
    static const struct argp argp = {.options = options,
                                     .parser = parse,
                                     .args_doc = "bandwidth|latency|grant|revoke PATH",
                                     .doc = "Measures libleasefs against a mounted leasefs."};
    struct settings settings = {.size = 4096, .bytes = 64u << 20, .depth = 16, .count = 100, .mechanism = "dereg"};

    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    for (size_t i = 0; i < sizeof(measures) / sizeof(*measures); i++) {
        if (!strcmp(measures[i].name, settings.measure)) {
            measures[i].run(&settings);
            return 0;
        }
    }
    errx(2, "no such measure: %s", settings.measure);
}
