/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fuse_ring.h"

#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fused/awake.h"
#include "fused/fuse_ring_entry.h"
#include "lease/lock_order.h"

#define QUEUE_THREADS      4u  /* so many requests of one processor may work long or wait for locks side by side */
#define MANY_PROCESSORS    16u /* from there on fewer: */
#define FEW_QUEUE_THREADS  2u
#define SUBMISSION_ENTRIES 16u                 /* answers sent with one call; more take more calls */
#define FIRST_KNOCK        (UINT64_C(1) << 62) /* requests of programs have small numbers */
#define RARELY             16u                 /* so many requests of the thread lie between two uses */

struct ring_thread {
    struct fuse_ring *ring;
    unsigned number;
    pthread_t thread;
    struct io_uring uring;
    int err;                            /* why it has none */
    unsigned available;                 /* entries that Linux has */
    uint64_t served;                    /* requests */
    int bell;                           /* eventfd: there is mail, or stop */
    pthread_mutex_t lock;               /* guards the rest */
    SLIST_HEAD(, ring_entry) entries;   /* all */
    STAILQ_HEAD(mail, ring_entry) mail; /* answered by other threads */
};

enum state { PREPARED, OPEN, STOPPING };

struct fuse_ring {
    struct fuse_ring_config config;
    size_t payload_room;
    _Atomic uint64_t next_knock, known; /* a number for one; a regular file that Linux knows, or did */
    struct awake *awake;
    unsigned n_queues,
        served_queues;    /* those of processors that are there, the first ones, have threads of their own */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    unsigned ready;           /* threads that have a ring, or failed to */
    _Atomic enum state state; /* also looked at without it */
    unsigned n_threads;
    struct ring_thread threads[];
};

static _Thread_local struct ring_entry *serving;

/* ---- entries ---- */

static struct io_uring_sqe *next_submission(struct ring_thread *thread)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&thread->uring);

    if (!sqe) {
        io_uring_submit(&thread->uring);
        sqe = io_uring_get_sqe(&thread->uring);
    }
    return sqe;
}

/* With the next submission Linux gets the entry: as a new one, or with an answer. */
static void give(struct ring_thread *thread, struct ring_entry *entry, enum ring_command_code what)
{
    struct io_uring_sqe *sqe = next_submission(thread);
    struct ring_command command = {.queue = entry->queue};

    if (!sqe)
        return; /* there is always room after a submission, unless the ring is broken */
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, 0, NULL, 0, 0);
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->cmd_op = what;
    if (what == REGISTER) {
        sqe->addr = (uintptr_t)entry->parts;
        sqe->len = 2;
    } else {
        command.commit_id = entry->header->entry.commit_id;
    }
    /* The command's place goes on behind the struct: the ring has large ones. */
    memcpy((char *)sqe + offsetof(struct io_uring_sqe, cmd), &command, sizeof(command));
    io_uring_sqe_set_data(sqe, entry);
    thread->available++;
}

static void add_entry(struct ring_thread *thread, unsigned queue)
{
    struct ring_entry *entry = ring_entry_new(thread->ring->payload_room, (uint16_t)queue);

    if (!entry)
        return;
    pthread_mutex_lock(&thread->lock);
    SLIST_INSERT_HEAD(&thread->entries, entry, next);
    pthread_mutex_unlock(&thread->lock);
    give(thread, entry, REGISTER);
}

/* ---- answers ---- */

static void ring_bell(struct ring_thread *thread)
{
    uint64_t one = 1;

    (void)!write(thread->bell, &one, sizeof(one));
}

/* Of a request that waits. */
static bool answer_by_mail(struct ring_thread *thread, uint64_t unique, const struct iovec *iov, int count)
{
    struct ring_entry *entry;

    pthread_mutex_lock(&thread->lock);
    entry = SLIST_FIRST(&thread->entries);
    while (entry && atomic_load_explicit(&entry->unique, memory_order_relaxed) != unique)
        entry = SLIST_NEXT(entry, next);
    if (entry) {
        ring_entry_answer(entry, iov, count);
        atomic_store_explicit(&entry->unique, 0, memory_order_relaxed);
        STAILQ_INSERT_TAIL(&thread->mail, entry, mail);
    }
    pthread_mutex_unlock(&thread->lock);
    if (entry)
        ring_bell(thread);
    return entry;
}

bool fuse_ring_reply(struct fuse_ring *ring, const struct iovec *iov, int count)
{
    uint64_t unique = ((const struct fuse_out_header *)iov[0].iov_base)->unique;
    struct ring_entry *entry = serving;

    if (unique == 0) /* a notification */
        return false;
    if (entry && atomic_load_explicit(&entry->unique, memory_order_relaxed) == unique) {
        ring_entry_answer(entry, iov, count);
        atomic_store_explicit(&entry->unique, 0, memory_order_relaxed);
        entry->answered = true;
        return true;
    }
    for (unsigned i = 0; i < ring->n_threads; i++)
        if (answer_by_mail(&ring->threads[i], unique, iov, count))
            return true;
    return false;
}

/* ---- a thread ---- */

/* The request waits, perhaps for long, and others may come to do so: what it has brought was copied. */
static void keep_little(struct ring_thread *thread, struct ring_entry *entry)
{
    pthread_mutex_lock(&thread->lock);
    if (atomic_load_explicit(&entry->unique, memory_order_relaxed)) /* its answer is not there yet */
        ring_entry_shrink(entry);
    pthread_mutex_unlock(&thread->lock);
}

/* Linux takes the entry that was used last. Where many requests wait, or did, there are as many entries, and most are
 * used only when all of them go on at once: these do not keep what a request has brought. */
static bool is_rarely_used(struct ring_thread *thread, struct ring_entry *entry)
{
    bool rarely = thread->served - entry->used > RARELY;

    entry->used = thread->served++;
    return rarely;
}

static bool ask_for_nothing(struct fuse_ring *ring, uint64_t file)
{
    struct {
        struct fuse_out_header header;
        struct fuse_notify_retrieve_out body;
    } message = {
        .header = {.len = sizeof(message), .error = FUSE_NOTIFY_RETRIEVE},
        .body = {.notify_unique = atomic_fetch_add(&ring->next_knock, 2), .nodeid = file},
    };

    lock_none_held();
    return write(ring->config.fd, &message, sizeof(message)) == sizeof(message);
}

/* Linux looks after requests that have found no entry only when an answer comes, not when a new entry does. If all
 * entries are out with requests that wait, none comes. So we have Linux put a request into the queue of this processor
 * and answer that: it shall send us no bytes of a file's, one that it was told of last if this request has none. */
static void knock(struct ring_thread *thread, uint64_t file)
{
    struct fuse_ring *ring = thread->ring;

    io_uring_submit(&thread->uring); /* so that there is an entry for it */
    if (!ask_for_nothing(ring, file))
        ask_for_nothing(ring, atomic_load_explicit(&ring->known, memory_order_relaxed));
}

static void answer_here(struct ring_thread *thread, struct ring_entry *entry, uint64_t unique, int error)
{
    struct fuse_out_header out = {.len = sizeof(out), .unique = unique, .error = error};

    ring_entry_answer(entry, &(struct iovec){&out, sizeof(out)}, 1);
    give(thread, entry, COMMIT_AND_FETCH);
}

/* From what was answered: who comes to wait without a file of his own (unlink, rename) has looked one up. */
static void note_file(struct fuse_ring *ring, const struct ring_entry *entry, const struct fuse_in_header *in)
{
    const struct fuse_out_header *out = (const struct fuse_out_header *)entry->header->in_out;
    const struct fuse_entry_out *found = (const struct fuse_entry_out *)entry->payload;
    uint64_t file = 0;

    switch (in->opcode) {
    case FUSE_OPEN:
        file = in->nodeid;
        break;
    case FUSE_LOOKUP:
    case FUSE_MKNOD:
    case FUSE_CREATE:
        if (!out->error && entry->header->entry.payload_size >= sizeof(*found) && S_ISREG(found->attr.mode))
            file = found->nodeid;
        break;
    default:
        break;
    }
    if (file)
        atomic_store_explicit(&ring->known, file, memory_order_relaxed);
}

static void serve(struct ring_thread *thread, struct ring_entry *entry)
{
    struct fuse_ring *ring = thread->ring;
    struct fuse_in_header in = *(const struct fuse_in_header *)entry->header->in_out; /* the answer goes there, too */
    bool forget = is_rarely_used(thread, entry) && entry->header->entry.payload_size > RING_ENTRY_KEPT;
    size_t size;
    char *request = ring_entry_request(entry, &size);

    if (!request || in.opcode == FUSE_NOTIFY_REPLY) { /* nonsense, or our knock */
        answer_here(thread, entry, in.unique, request ? 0 : -EIO);
        return;
    }
    awake_note(ring->awake);
    entry->answered = false;
    atomic_store_explicit(&entry->unique, in.unique, memory_order_relaxed);
    serving = entry;
    ring->config.serve(ring->config.arg, request, size);
    serving = NULL;
    if (entry->answered) {
        note_file(ring, entry, &in);
        if (forget && entry->header->entry.payload_size <= RING_ENTRY_KEPT)
            ring_entry_shrink(entry);
        give(thread, entry, COMMIT_AND_FETCH);
        return;
    }
    keep_little(thread, entry);
    if (thread->available == 0)
        add_entry(thread, entry->queue);
    knock(thread, in.nodeid);
}

static void listen_for_bell(struct ring_thread *thread)
{
    struct io_uring_sqe *sqe = next_submission(thread);

    if (!sqe)
        return;
    io_uring_prep_poll_add(sqe, thread->bell, POLLIN);
    io_uring_sqe_set_data(sqe, NULL);
}

static void take_mail(struct ring_thread *thread)
{
    struct mail mail = STAILQ_HEAD_INITIALIZER(mail);
    struct ring_entry *entry;
    uint64_t n;

    (void)!read(thread->bell, &n, sizeof(n));
    pthread_mutex_lock(&thread->lock);
    STAILQ_CONCAT(&mail, &thread->mail);
    pthread_mutex_unlock(&thread->lock);
    while ((entry = STAILQ_FIRST(&mail))) {
        STAILQ_REMOVE_HEAD(&mail, mail);
        give(thread, entry, COMMIT_AND_FETCH);
    }
    listen_for_bell(thread);
}

static void take(struct ring_thread *thread, struct io_uring_cqe *cqe)
{
    struct ring_entry *entry = io_uring_cqe_get_data(cqe);
    int result = cqe->res;

    io_uring_cqe_seen(&thread->uring, cqe);
    if (!entry) {
        take_mail(thread);
        return;
    }
    thread->available--;
    if (result == 0)
        serve(thread, entry);
    /* Else the connection has ended; or, at the start, Linux did not want the entry, and goes on by read(2). */
}

/* The queues of processors that are not there now, but might come, are served on the side: Linux wants all to be. */
static void add_entries(struct ring_thread *thread)
{
    struct fuse_ring *ring = thread->ring;

    add_entry(thread, thread->number % ring->served_queues);
    for (unsigned queue = ring->served_queues + thread->number; queue < ring->n_queues; queue += ring->n_threads)
        add_entry(thread, queue);
}

static void work(struct ring_thread *thread)
{
    struct io_uring_cqe *cqe;

    add_entries(thread);
    listen_for_bell(thread);
    while (atomic_load(&thread->ring->state) != STOPPING) {
        io_uring_submit_and_wait(&thread->uring, 1);
        while (io_uring_peek_cqe(&thread->uring, &cqe) == 0)
            take(thread, cqe);
    }
}

static void stay_on_processor(unsigned number)
{
    cpu_set_t *set = CPU_ALLOC(number + 1);

    if (!set)
        return;
    CPU_ZERO_S(CPU_ALLOC_SIZE(number + 1), set);
    CPU_SET_S(number, CPU_ALLOC_SIZE(number + 1), set);
    /* If we may not be there, anywhere else will do. */
    pthread_setaffinity_np(pthread_self(), CPU_ALLOC_SIZE(number + 1), set);
    CPU_FREE(set);
}

static int make_uring(struct ring_thread *thread)
{
    struct io_uring_params params = {
        .flags =
            IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    };
    int err = io_uring_queue_init_params(SUBMISSION_ENTRIES, &thread->uring, &params);

    if (err)
        return err;
    err = io_uring_register_files(&thread->uring, &thread->ring->config.fd, 1);
    if (err)
        io_uring_queue_exit(&thread->uring);
    else
        io_uring_register_ring_fd(&thread->uring); /* a little faster; not everywhere */
    return err;
}

static bool wait_until_open(struct fuse_ring *ring)
{
    bool open;

    pthread_mutex_lock(&ring->lock);
    ring->ready++;
    pthread_cond_broadcast(&ring->changed);
    while (ring->state == PREPARED)
        pthread_cond_wait(&ring->changed, &ring->lock);
    open = ring->state == OPEN;
    pthread_mutex_unlock(&ring->lock);
    return open;
}

/* It makes its ring itself: a ring obeys one thread. */
static void *ring_thread(void *arg)
{
    struct ring_thread *thread = arg;
    bool open;

    pthread_setname_np(pthread_self(), "leasefs-ring");
    stay_on_processor(thread->number % thread->ring->served_queues);
    thread->err = make_uring(thread);
    open = wait_until_open(thread->ring);
    if (thread->err)
        return NULL;
    if (open)
        work(thread);
    io_uring_queue_exit(&thread->uring);
    return NULL;
}

/* ---- all of them ---- */

static int start_thread(struct fuse_ring *ring)
{
    struct ring_thread *thread = &ring->threads[ring->n_threads];
    int err;

    thread->ring = ring;
    thread->number = ring->n_threads;
    SLIST_INIT(&thread->entries);
    STAILQ_INIT(&thread->mail);
    thread->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (thread->bell < 0)
        return -errno;
    pthread_mutex_init(&thread->lock, NULL);
    lock_rank(&thread->lock, LOCK_RING, 0);
    err = -pthread_create(&thread->thread, NULL, ring_thread, thread);
    if (err) {
        pthread_mutex_destroy(&thread->lock);
        close(thread->bell);
        return err;
    }
    ring->n_threads++;
    return 0;
}

static int wait_until_ready(struct fuse_ring *ring)
{
    int err = 0;

    pthread_mutex_lock(&ring->lock);
    while (ring->ready < ring->n_threads)
        pthread_cond_wait(&ring->changed, &ring->lock);
    for (unsigned i = 0; i < ring->n_threads && !err; i++)
        err = ring->threads[i].err;
    pthread_mutex_unlock(&ring->lock);
    return err;
}

static unsigned processors(int name)
{
    long n = sysconf(name);

    return n > 0 ? (unsigned)n : 1;
}

int fuse_ring_new(const struct fuse_ring_config *config, struct fuse_ring **ret_ring)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned served = processors(_SC_NPROCESSORS_ONLN);
    unsigned n_threads = served * (served < MANY_PROCESSORS ? QUEUE_THREADS : FEW_QUEUE_THREADS);
    struct fuse_ring *ring = calloc(1, sizeof(*ring) + n_threads * sizeof(ring->threads[0]));
    int err;

    if (!ring)
        return -ENOMEM;
    ring->config = *config;
    ring->next_knock = FIRST_KNOCK;
    ring->payload_room = (config->largest + page - 1) / page * page;
    ring->served_queues = served;
    ring->n_queues = processors(_SC_NPROCESSORS_CONF);
    pthread_mutex_init(&ring->lock, NULL);
    lock_rank(&ring->lock, LOCK_RING, 0);
    pthread_cond_init(&ring->changed, NULL);
    err = awake_new(&ring->awake);
    while (!err && ring->n_threads < n_threads)
        err = start_thread(ring);
    if (!err)
        err = wait_until_ready(ring);
    if (err) {
        fuse_ring_stop(ring);
        fuse_ring_free(ring);
        return err;
    }
    *ret_ring = ring;
    return 0;
}

static void set_state(struct fuse_ring *ring, enum state state)
{
    pthread_mutex_lock(&ring->lock);
    ring->state = state;
    pthread_cond_broadcast(&ring->changed);
    pthread_mutex_unlock(&ring->lock);
}

void fuse_ring_open(struct fuse_ring *ring)
{
    set_state(ring, OPEN);
}

void fuse_ring_stop(struct fuse_ring *ring)
{
    if (!ring)
        return;
    set_state(ring, STOPPING);
    for (unsigned i = 0; i < ring->n_threads; i++)
        ring_bell(&ring->threads[i]);
    for (unsigned i = 0; i < ring->n_threads; i++)
        pthread_join(ring->threads[i].thread, NULL);
}

static void free_thread(struct ring_thread *thread)
{
    struct ring_entry *entry;

    while ((entry = SLIST_FIRST(&thread->entries))) {
        SLIST_REMOVE_HEAD(&thread->entries, next);
        ring_entry_free(entry);
    }
    close(thread->bell);
    pthread_mutex_destroy(&thread->lock);
}

void fuse_ring_free(struct fuse_ring *ring)
{
    if (!ring)
        return;
    awake_free(ring->awake);
    for (unsigned i = 0; i < ring->n_threads; i++)
        free_thread(&ring->threads[i]);
    pthread_cond_destroy(&ring->changed);
    pthread_mutex_destroy(&ring->lock);
    free(ring);
}
