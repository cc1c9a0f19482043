/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A peer for scenario scripts: commands on stdin, one a line; answers on stdout, one a line, flushed. See `help`.
 *
 *   ok WORD...              the command was done
 *   error ERRNO SENTENCE    it failed; the script goes on
 *   notice ...              came by itself, between answers
 *
 * It does not guard itself: its leases are unguarded unless that is asked for, so that what stops a transfer is the
 * server's NIC and nothing else. With LEASEFS_DRIVEN in its environment its session has no thread. It looks inside the
 * library for two things: `forge` uses a lease with another's key and address, `unrenewed` lets one expire while the
 * session lives.
 */

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rdma/initiator/session.h"
#include <leasefs/leasefs.h>

#define MAX_LEASES 64
#define MAX_WORDS  8
#define MAX_MOVE   (64u << 20) /* bytes of one command */

struct peer_lease {
    struct leasefs_lease *lease; /* NULL: free */
    atomic_bool ignore_recalls;
};

static struct leasefs_session *session;
static struct peer_lease leases[MAX_LEASES];
static unsigned char *buffer; /* registered, MAX_MOVE bytes */
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    va_list args;

    pthread_mutex_lock(&output);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&output);
}

static void say_error(int status)
{
    const char *name = strerrorname_np(-status);

    say("error %s %s", name ? name : "EIO", leasefs_error());
}

static void say_status(int status)
{
    if (status)
        say_error(status);
    else
        say("ok");
}

static enum leasefs_recall_action on_notice(struct leasefs_lease *lease, enum leasefs_notice notice,
                                            unsigned deadline_ms, const char *reason, void *arg)
{
    static const char *const names[] = {
        [LEASEFS_NOTICE_RECALL] = "recall",
        [LEASEFS_NOTICE_RECALL_CANCELLED] = "recall_cancelled",
        [LEASEFS_NOTICE_REVOKED] = "revoked",
        [LEASEFS_NOTICE_ORPHANED] = "orphaned",
    };
    const struct peer_lease *slot = arg;

    (void)lease;
    say("notice %s slot=%zd deadline_ms=%u clock_ms=%.3f %s", names[notice], slot - leases, deadline_ms, now_ms(),
        reason);
    return slot->ignore_recalls ? LEASEFS_RECALL_KEEP : LEASEFS_RECALL_RETURN;
}

/* ---- arguments ---- */

static bool number(const char *word, uint64_t *ret_number)
{
    char *end;

    if (!word || !isdigit((unsigned char)*word))
        return false;
    *ret_number = strtoull(word, &end, 0);
    return !*end;
}

static struct peer_lease *slot_of(const char *word)
{
    uint64_t index;

    if (!number(word, &index) || index >= MAX_LEASES || !leases[index].lease)
        return NULL;
    return &leases[index];
}

static struct peer_lease *free_slot(void)
{
    for (size_t i = 0; i < MAX_LEASES; i++)
        if (!leases[i].lease)
            return &leases[i];
    return NULL;
}

static bool has(char **words, const char *word)
{
    for (; *words; words++)
        if (!strcmp(*words, word))
            return true;
    return false;
}

static void usage(const char *text)
{
    say("error EINVAL usage: %s", text);
}

/* ---- commands: words[0] is the name ---- */

static void say_lease(const struct peer_lease *slot)
{
    struct leasefs_layout layout;

    leasefs_lease_layout(slot->lease, &layout);
    say("ok slot=%zd lease=%" PRIu64 " sequence=%u mode=%s offset=%" PRIu64 " length=%" PRIu64 " file_size=%" PRIu64
        " remote_address=%" PRIu64 " rkey=%u",
        slot - leases, layout.lease_id, layout.sequence, layout.mode == LEASEFS_WRITE ? "write" : "read", layout.offset,
        layout.length, layout.file_size, layout.remote_address, layout.rkey);
}

static void command_lease(char **words)
{
    struct leasefs_lease_options options = {.on_notice = on_notice};
    struct peer_lease *slot = free_slot();
    int status;

    if (!slot || !words[1] || !words[2] || !number(words[3], &options.offset) || !number(words[4], &options.length)) {
        usage("lease PATH read|write OFFSET LENGTH [prepare] [try] [ignore] [guarded]");
        return;
    }
    options.mode = strcmp(words[2], "write") ? LEASEFS_READ : LEASEFS_WRITE;
    options.prepare = has(words, "prepare");
    options.try_only = has(words, "try");
    options.unguarded = !has(words, "guarded");
    options.arg = slot;
    slot->ignore_recalls = has(words, "ignore");
    status = leasefs_lease_open(session, words[1], &options, &slot->lease);
    if (status)
        say_error(status);
    else
        say_lease(slot);
}

static void command_layout(char **words)
{
    const struct peer_lease *slot = slot_of(words[1]);

    if (slot)
        say_lease(slot);
    else
        usage("layout SLOT");
}

/* What byte a pattern has at a file offset: depends on all of the offset, so that displaced blocks show. */
static unsigned char pattern(uint64_t seed, uint64_t offset)
{
    uint64_t mixed = (offset / 8 + 1) * 0x9e3779b97f4a7c15u + seed * 0xc2b2ae3d27d4eb4fu;

    return (unsigned char)((mixed ^ mixed >> 29) >> (offset % 8 * 8));
}

static bool take_move(char **words, struct peer_lease **ret_slot, uint64_t *ret_offset, uint64_t *ret_length)
{
    *ret_slot = slot_of(words[1]);
    return *ret_slot && number(words[2], ret_offset) && number(words[3], ret_length) && *ret_length <= MAX_MOVE;
}

static void command_read(char **words)
{
    struct peer_lease *slot;
    uint64_t offset, length, sum = 14695981039346656037u;
    int status;

    if (!take_move(words, &slot, &offset, &length)) {
        usage("read SLOT OFFSET LENGTH");
        return;
    }
    status = leasefs_read(slot->lease, buffer, length, offset);
    if (status) {
        say_error(status);
        return;
    }
    for (uint64_t i = 0; i < length; i++)
        sum = (sum ^ buffer[i]) * 1099511628211u;
    say("ok fnv=%016" PRIx64 " first=%u", sum, length ? buffer[0] : 0);
}

static void command_write(char **words)
{
    struct peer_lease *slot;
    uint64_t offset, length, seed;

    if (!take_move(words, &slot, &offset, &length) || !number(words[4], &seed)) {
        usage("write SLOT OFFSET LENGTH SEED");
        return;
    }
    for (uint64_t i = 0; i < length; i++)
        buffer[i] = pattern(seed, offset + i);
    say_status(leasefs_write(slot->lease, buffer, length, offset));
}

static void command_check(char **words)
{
    struct peer_lease *slot;
    uint64_t offset, length, seed;
    int status;

    if (!take_move(words, &slot, &offset, &length) || !number(words[4], &seed)) {
        usage("check SLOT OFFSET LENGTH SEED");
        return;
    }
    status = leasefs_read(slot->lease, buffer, length, offset);
    if (status) {
        say_error(status);
        return;
    }
    for (uint64_t i = 0; i < length; i++) {
        if (buffer[i] != pattern(seed, offset + i)) {
            say("error EILSEQ byte %" PRIu64 " is %u, not %u", offset + i, buffer[i], pattern(seed, offset + i));
            return;
        }
    }
    say("ok");
}

/* Reads again and again until it is refused: how long after a notice do accesses still succeed? */
static void command_touch(char **words)
{
    struct peer_lease *slot;
    uint64_t offset, length, timeout_ms, touches = 0;
    double started = now_ms(), last = started;
    int status = 0;

    if (!take_move(words, &slot, &offset, &length) || !number(words[4], &timeout_ms)) {
        usage("touch SLOT OFFSET LENGTH TIMEOUT_MS");
        return;
    }
    while (!status && now_ms() - started < (double)timeout_ms) {
        status = leasefs_read(slot->lease, buffer, length, offset);
        if (!status) {
            touches++;
            last = now_ms();
        }
    }
    if (status)
        say("ok refused=%s touches=%" PRIu64 " last_ok_clock_ms=%.3f clock_ms=%.3f", strerrorname_np(-status), touches,
            last, now_ms());
    else
        say("error ETIMEDOUT never refused, touches=%" PRIu64, touches);
}

static void command_return(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);
    int status;

    if (!slot) {
        usage("return SLOT");
        return;
    }
    status = leasefs_lease_return(slot->lease);
    slot->lease = NULL;
    say_status(status);
}

/* Returns the lease behind the library's back: the handle stays and can show that the key does not work any more. */
static void command_return_keep(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);
    struct leasefs_layout layout;
    char params[96];

    if (!slot) {
        usage("return-keep SLOT");
        return;
    }
    leasefs_lease_layout(slot->lease, &layout);
    snprintf(params, sizeof(params), "{\"lease\":%" PRIu64 ",\"sequence\":%u}", layout.lease_id, layout.sequence);
    say_status(leasefs_call(session, "return", params, NULL));
}

static void command_commit(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);
    uint64_t size = UINT64_MAX;

    if (!slot || (words[2] && !number(words[2], &size)))
        usage("commit SLOT [SIZE]");
    else
        say_status(leasefs_commit(slot->lease, size));
}

static void command_create(char **words)
{
    struct peer_lease *slot = free_slot();
    uint64_t size;
    int status;

    if (!slot || !words[1] || !number(words[2], &size)) {
        usage("create PATH SIZE");
        return;
    }
    status = leasefs_create(session, words[1], 0644, size, &slot->lease);
    if (status)
        say_error(status);
    else
        say_lease(slot);
}

static void command_publish(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);
    int status;

    if (!slot) {
        usage("publish SLOT");
        return;
    }
    status = leasefs_publish(slot->lease);
    slot->lease = NULL;
    say_status(status);
}

/* Uses this lease with a key and an address of another (of another session, of an ended one, guessed). */
static void command_forge(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);
    uint64_t rkey, address;

    if (!slot || !number(words[2], &rkey) || !number(words[3], &address)) {
        usage("forge SLOT RKEY REMOTE_ADDRESS");
        return;
    }
    pthread_mutex_lock(&session->lock);
    slot->lease->layout.rkey = (uint32_t)rkey;
    slot->lease->layout.remote_address = address;
    slot->lease->layout.mode = LEASEFS_WRITE;
    pthread_mutex_unlock(&session->lock);
    say("ok");
}

static void command_ignore(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);

    if (!slot) {
        usage("ignore SLOT");
        return;
    }
    slot->ignore_recalls = true;
    say("ok");
}

static void command_unrenewed(char **words)
{
    struct peer_lease *slot = slot_of(words[1]);

    if (!slot) {
        usage("unrenewed SLOT");
        return;
    }
    pthread_mutex_lock(&session->lock);
    slot->lease->renew_at_ns = UINT64_MAX;
    pthread_mutex_unlock(&session->lock);
    say("ok");
}

static void command_call(char **words)
{
    char *answer = NULL;
    int status = words[1] ? leasefs_call(session, words[1], words[2], &answer) : -EINVAL;

    if (!words[1])
        usage("call METHOD [PARAMS without blanks]");
    else if (status)
        say_error(status);
    else
        say("ok %s", answer);
    free(answer);
}

static void command_kill(char **words)
{
    (void)words;
    raise(SIGKILL);
}

static void command_help(char **words);

static const struct {
    const char *name;
    void (*run)(char **words);
    const char *help;
} commands[] = {
    {"lease", command_lease,
     "PATH read|write OFFSET LENGTH [prepare] [try] [ignore] [guarded]: -> slot=N lease=ID ..."},
    {"layout", command_layout, "SLOT"},
    {"read", command_read, "SLOT OFFSET LENGTH: -> fnv=HASH first=BYTE"},
    {"write", command_write, "SLOT OFFSET LENGTH SEED: a pattern"},
    {"check", command_check, "SLOT OFFSET LENGTH SEED: reads and compares with the pattern"},
    {"touch", command_touch, "SLOT OFFSET LENGTH TIMEOUT_MS: reads until refused"},
    {"return", command_return, "SLOT"},
    {"return-keep", command_return_keep, "SLOT: returns it, keeps the handle"},
    {"commit", command_commit, "SLOT [SIZE]"},
    {"create", command_create, "PATH SIZE"},
    {"publish", command_publish, "SLOT"},
    {"ignore", command_ignore, "SLOT: from now on, do not answer recalls"},
    {"unrenewed", command_unrenewed, "SLOT: from now on, do not renew it"},
    {"forge", command_forge, "SLOT RKEY REMOTE_ADDRESS: use these instead"},
    {"call", command_call, "METHOD [PARAMS]"},
    {"kill", command_kill, "ends this process by SIGKILL"},
    {"help", command_help, ""},
};

static void command_help(char **words)
{
    (void)words;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        say("help %s %s", commands[i].name, commands[i].help);
    say("ok");
}

static void run_line(char *line)
{
    char *words[MAX_WORDS + 1] = {0}, *rest;
    size_t n = 0;

    for (char *word = strtok_r(line, " \t\n", &rest); word && n < MAX_WORDS; word = strtok_r(NULL, " \t\n", &rest))
        words[n++] = word;
    if (!n)
        return;
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        if (!strcmp(words[0], commands[i].name)) {
            commands[i].run(words);
            return;
        }
    }
    say("error EINVAL no command %s", words[0]);
}

/* A driven session's work between commands. */
static bool drive_until_input(void)
{
    struct pollfd ready[] = {{.fd = 0, .events = POLLIN}, {.fd = leasefs_session_fd(session), .events = POLLIN}};

    while (ready[1].fd >= 0 && !ready[0].revents)
        if (poll(ready, 2, -1) > 0 && ready[1].revents && leasefs_session_dispatch(session))
            ready[1].fd = -1; /* the server is gone; commands say so */
    return true;
}

int main(int argc, char **argv)
{
    struct leasefs_session_options options = {.client = "lease_peer"};
    char *line = NULL;
    size_t size = 0;
    int status;

    if (argc > 3) {
        fprintf(stderr, "usage: lease_peer [CONTROL_SOCKET [HOST]]\n");
        return 2;
    }
    options.server = getenv("LEASEFS_SERVER");
    options.caller_drives = getenv("LEASEFS_DRIVEN");
    setvbuf(stdin, NULL, _IONBF, 0); /* poll() is to know of each line */
    options.control = argc > 1 ? argv[1] : NULL;
    options.host = argc > 2 ? argv[2] : NULL;
    status = leasefs_session_open(&options, &session);
    if (!status)
        status = leasefs_buffer_new(session, MAX_MOVE, (void **)&buffer);
    if (status) {
        say_error(status);
        leasefs_session_close(session);
        return 1;
    }
    say("ok ready");
    while (drive_until_input() && getline(&line, &size, stdin) > 0)
        run_line(line);
    free(line);
    leasefs_buffer_free(session, buffer);
    leasefs_session_close(session);
    return 0;
}
