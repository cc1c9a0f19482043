/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * An ioengine for fio: reads and writes files of a leasefs server one-sided over RDMA, under leases.
 *
 * A job has a session of its own, with a queue as deep as iodepth and its buffers in registered memory, and holds a
 * lease on its part of each file while the file is open. fio calls init, open, queue and getevents from the job's
 * thread, get_file_size from its main process, which must not have RDMA resources when jobs are forked.
 */
#include "fio.h"
#include "optgroup.h"

#include <jansson.h>

#include <leasefs/leasefs.h>
#include <leasefs/protocol.h>

struct leasefs_options {
    struct thread_data *td; /* fio's: no option may be at offset 0 */
    char *control, *server, *key, *host;
    unsigned prepare;
};

extern struct ioengine_ops ioengine;

static struct fio_option options[] = {
    {
        .name = "leasefs_control",
        .lname = "leasefs control socket",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct leasefs_options, control),
        .help = "Control socket of the server (default: leasectl's)",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "leasefs_server",
        .lname = "leasefs server",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct leasefs_options, server),
        .help = "Server on another host: HOST or HOST:PORT",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "leasefs_key",
        .lname = "leasefs key file",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct leasefs_options, key),
        .help = "File with the key for that server",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "leasefs_host",
        .lname = "leasefs RDMA address",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct leasefs_options, host),
        .help = "RDMA address of the server (default: the one that it tells)",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {
        .name = "leasefs_prepare",
        .lname = "leasefs prepare",
        .type = FIO_OPT_BOOL,
        .off1 = offsetof(struct leasefs_options, prepare),
        .help = "Fill holes with zeros and unshare blocks before leasing (needs write permission)",
        .def = "0",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_INVALID,
    },
    {.name = NULL},
};

struct engine {
    struct leasefs_session *session;
    struct leasefs_queue *queue;
    struct leasefs_event *events; /* [iodepth], of the last getevents */
    void *memory;
};

static int complain(struct thread_data *td, int status, const char *what)
{
    if (td->io_ops != &ioengine)
        return 1; /* has been said */
    log_err("leasefs: %s: %s\n", what, leasefs_error());
    td_verror(td, -status, "leasefs");
    return 1;
}

static int open_session(struct thread_data *td, struct leasefs_session **ret_session)
{
    const struct leasefs_options *o = td->eo;
    struct leasefs_session_options session = {.client = "fio"};

    /* fio checks the version of the interface only. This member lies behind all of the options: where it is not what it
     * should be, the layout of fio's structs is another. */
    if (td->io_ops != &ioengine) {
        log_err(
            "leasefs: this engine was built with the source of another fio: build it with the source of this one\n");
        return -EINVAL;
    }
    session.control = o->control;
    session.server = o->server;
    session.key = o->key;
    session.host = o->host;
    session.depth = td->o.iodepth < 1024 ? td->o.iodepth : 1024;
    return leasefs_session_open(&session, ret_session);
}

/* ---- before the jobs start ---- */

/* The number `name` in the answer to one call. */
static int ask_number(struct leasefs_session *session, const char *method, json_t *params, const char *name,
                      json_int_t *ret_number)
{
    char *text = json_dumps(params, JSON_COMPACT), *answer = NULL;
    int status = leasefs_call(session, method, text, &answer);
    json_t *result = status ? NULL : json_loads(answer, 0, NULL);

    if (!status)
        *ret_number = json_integer_value(json_object_get(result, name));
    json_decref(result);
    json_decref(params);
    free(answer);
    free(text);
    return status;
}

/* A new file of zeros: without a lease, and so without RDMA. */
static int make_file(struct leasefs_session *session, const char *path, uint64_t size)
{
    json_int_t file, inode;
    int status =
        ask_number(session, LEASEFS_METHOD_CREATE,
                   json_pack("{s:s, s:I, s:i}", "path", path, "size", (json_int_t)size, "mode", 0644), "file", &file);

    if (status)
        return status;
    return ask_number(session, LEASEFS_METHOD_PUBLISH, json_pack("{s:I, s:s}", "file", file, "path", path), "inode",
                      &inode);
}

/* How long a file has to be for the job: what fio works out later from the same options. */
static uint64_t needed_size(const struct thread_data *td)
{
    const struct thread_options *o = &td->o;

    if (o->file_size_high)
        return o->file_size_high;
    return o->start_offset + o->offset_increment * td->subjob_number + o->size / (o->nr_files ? o->nr_files : 1);
}

static int get_file_size(struct thread_data *td, struct fio_file *f)
{
    uint64_t wanted = needed_size(td);
    struct leasefs_session *session;
    json_int_t size;
    int status;

    if (fio_file_size_known(f))
        return 0;
    status = open_session(td, &session);
    if (status)
        return complain(td, status, "session");
    status = ask_number(session, LEASEFS_METHOD_MAP, json_pack("{s:s}", "path", f->file_name), "size", &size);
    if (status == -ENOENT && td_write(td) && wanted) {
        size = (json_int_t)wanted;
        status = make_file(session, f->file_name, wanted);
    }
    if (status)
        complain(td, status, f->file_name);
    leasefs_session_close(session);
    if (status)
        return 1;
    f->real_file_size = (uint64_t)size;
    fio_file_set_size_known(f);
    return 0;
}

/* ---- a job ---- */

static int init(struct thread_data *td)
{
    struct engine *engine;
    int status;

    engine = calloc(1, sizeof(*engine));
    if (engine)
        engine->events = calloc(td->o.iodepth, sizeof(*engine->events));
    if (!engine || !engine->events) {
        free(engine);
        td_verror(td, ENOMEM, "leasefs");
        return 1;
    }
    status = open_session(td, &engine->session);
    if (!status)
        status = leasefs_queue_new(engine->session, &engine->queue);
    if (status) {
        leasefs_session_close(engine->session);
        free(engine->events);
        free(engine);
        return complain(td, status, "session");
    }
    td->io_ops_data = engine;
    return 0;
}

static void cleanup(struct thread_data *td)
{
    struct engine *engine = td->io_ops_data;

    if (!engine)
        return;
    leasefs_session_close(engine->session); /* with the queue, and the leases of files still open */
    free(engine->events);
    free(engine);
    td->io_ops_data = NULL;
}

static int iomem_alloc(struct thread_data *td, size_t length)
{
    struct engine *engine = td->io_ops_data;
    int status = leasefs_buffer_new(engine->session, length, &engine->memory);

    if (status)
        return complain(td, status, "memory");
    td->orig_buffer = engine->memory;
    return 0;
}

static void iomem_free(struct thread_data *td)
{
    struct engine *engine = td->io_ops_data;

    if (engine && engine->memory)
        leasefs_buffer_free(engine->session, engine->memory);
    if (engine)
        engine->memory = NULL;
}

static int open_file(struct thread_data *td, struct fio_file *f)
{
    struct engine *engine = td->io_ops_data;
    const struct leasefs_options *o = td->eo;
    struct leasefs_lease_options lease_options = {
        .mode = td_write(td) ? LEASEFS_WRITE : LEASEFS_READ,
        .offset = f->file_offset,
        .length = f->io_size,
        .prepare = o->prepare,
    };
    struct leasefs_lease *lease;
    int status = leasefs_lease_open(engine->session, f->file_name, &lease_options, &lease);

    if (status)
        return complain(td, status, f->file_name);
    FILE_SET_ENG_DATA(f, lease);
    return 0;
}

static int close_file(struct thread_data *td, struct fio_file *f)
{
    struct leasefs_lease *lease = FILE_ENG_DATA(f);
    int status = leasefs_lease_return(lease);

    FILE_SET_ENG_DATA(f, NULL);
    return status ? complain(td, status, f->file_name) : 0;
}

/* ---- its I/O ---- */

static enum fio_q_status queue(struct thread_data *td, struct io_u *io_u)
{
    struct engine *engine = td->io_ops_data;
    struct leasefs_lease *lease = FILE_ENG_DATA(io_u->file);
    int status;

    fio_ro_check(td, io_u);
    switch (io_u->ddir) {
    case DDIR_READ:
        status = leasefs_submit_read(engine->queue, lease, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset, io_u);
        break;
    case DDIR_WRITE:
        status = leasefs_submit_write(engine->queue, lease, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset, io_u);
        break;
    case DDIR_SYNC:
    case DDIR_DATASYNC:
        status = leasefs_commit(lease, UINT64_MAX);
        if (!status)
            return FIO_Q_COMPLETED;
        break;
    default:
        status = -EOPNOTSUPP;
    }
    if (!status)
        return FIO_Q_QUEUED;
    io_u->error = -status;
    td_verror(td, io_u->error, "leasefs");
    return FIO_Q_COMPLETED;
}

static int getevents(struct thread_data *td, unsigned int min, unsigned int max, const struct timespec *t)
{
    struct engine *engine = td->io_ops_data;
    int timeout_ms = t ? (int)(t->tv_sec * 1000 + t->tv_nsec / 1000000) : -1;

    if (max > td->o.iodepth)
        max = td->o.iodepth;
    return max ? leasefs_queue_wait(engine->queue, engine->events, min, max, timeout_ms) : 0;
}

static struct io_u *event(struct thread_data *td, int number)
{
    struct engine *engine = td->io_ops_data;
    struct io_u *io_u = engine->events[number].user;

    io_u->error = (unsigned int)-engine->events[number].status;
    return io_u;
}

/* fio looks for this name. */
__attribute__((visibility("default"))) struct ioengine_ops ioengine = {
    .name = "leasefs",
    .version = FIO_IOOPS_VERSION,
    .flags = FIO_DISKLESSIO,
    .get_file_size = get_file_size,
    .init = init,
    .cleanup = cleanup,
    .iomem_alloc = iomem_alloc,
    .iomem_free = iomem_free,
    .open_file = open_file,
    .close_file = close_file,
    .queue = queue,
    .getevents = getevents,
    .event = event,
    .options = options,
    .option_struct_size = sizeof(struct leasefs_options),
};
