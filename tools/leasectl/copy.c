/* SPDX-License-Identifier: BSD-2-Clause */

/* get and put: a file across, whole or not at all, with its checksum. */

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/leasectl/leasectl.h"
#include "tools/leasectl/local_file.h"
#include "tools/leasectl/pipeline.h"
#include "tools/leasectl/progress.h"
#include "tools/leasectl/target.h"
#include "tools/leasectl/units.h"
#include <leasefs/protocol.h>

#define N_BUFFERS   4
#define SHA256_SIZE 32

/* Bytes of a buffer, tried in turn: the limit of locked memory (8 MiB in many systems) is not to stop a copy. */
static const size_t buffer_sizes[] = {4u << 20, 1u << 20, 256u << 10, 64u << 10};

struct copy {
    /* From the command line. */
    const char *from, *to;
    bool prepare;

    struct target target;
    struct leasefs_session *session;
    struct leasefs_lease *lease;
    uint64_t size; /* bytes to move */
    void *buffers[N_BUFFERS];
    size_t buffer_size;
    int fd; /* the local file */
    gnutls_hash_hd_t hash;
    struct progress progress;
    double seconds;
    char sha256[2 * SHA256_SIZE + 1];
};

/* ---- stages ---- */

static int stage_remote_read(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct copy *copy = context;
    int status = leasefs_read(copy->lease, buffer, length, position);

    if (status)
        snprintf(message, PIPELINE_MESSAGE_MAX, "%s: at byte %llu: %s", copy->from, (unsigned long long)position,
                 leasefs_error());
    return status;
}

static int stage_remote_write(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct copy *copy = context;
    int status = leasefs_write(copy->lease, buffer, length, position);

    if (status)
        snprintf(message, PIPELINE_MESSAGE_MAX, "%s: at byte %llu: %s", copy->to, (unsigned long long)position,
                 leasefs_error());
    progress_update(&copy->progress, position + length);
    return status;
}

static int stage_hash(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct copy *copy = context;
    int error = gnutls_hash(copy->hash, buffer, length);

    (void)position;
    if (error < 0) {
        snprintf(message, PIPELINE_MESSAGE_MAX, "SHA-256: %s", gnutls_strerror(error));
        return -EIO;
    }
    return 0;
}

static int stage_local_read(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct copy *copy = context;

    for (size_t done = 0; done < length;) {
        ssize_t got = pread(copy->fd, (char *)buffer + done, length - done, (off_t)(position + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int status = -errno;

            snprintf(message, PIPELINE_MESSAGE_MAX, "%s: %s", copy->from, strerror(-status));
            return status;
        }
        if (got == 0) {
            snprintf(message, PIPELINE_MESSAGE_MAX, "%s: became shorter while it was copied. Try again.", copy->from);
            return -EIO;
        }
        done += (size_t)got;
    }
    return 0;
}

/* In order, so that pipes do as well as files. */
static int stage_local_write(void *context, void *buffer, size_t length, uint64_t position, char *message)
{
    struct copy *copy = context;

    for (size_t done = 0; done < length;) {
        ssize_t put = write(copy->fd, (char *)buffer + done, length - done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0) {
            int status = -errno;

            snprintf(message, PIPELINE_MESSAGE_MAX, "%s: %s", copy->to, strerror(-status));
            return status;
        }
        done += (size_t)put;
    }
    progress_update(&copy->progress, position + length);
    return 0;
}

/* ---- moving the bytes ---- */

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void free_buffers(struct copy *copy)
{
    for (size_t i = 0; i < N_BUFFERS; i++) {
        leasefs_buffer_free(copy->session, copy->buffers[i]);
        copy->buffers[i] = NULL;
    }
}

static int make_buffers_of(struct copy *copy, size_t size)
{
    for (size_t i = 0; i < N_BUFFERS; i++) {
        int status = leasefs_buffer_new(copy->session, size, &copy->buffers[i]);

        if (status) {
            free_buffers(copy);
            return status;
        }
    }
    copy->buffer_size = size;
    return 0;
}

static int make_buffers(struct copy *copy)
{
    int status = -ENOMEM;

    for (size_t i = 0; i < sizeof(buffer_sizes) / sizeof(*buffer_sizes) && status == -ENOMEM; i++) {
        /* A small file needs no large buffers; the next smaller ones do if they still hold it whole. */
        if (i + 1 < sizeof(buffer_sizes) / sizeof(*buffer_sizes) && copy->size <= buffer_sizes[i + 1])
            continue;
        status = make_buffers_of(copy, buffer_sizes[i]);
    }
    return status;
}

static void finish_hash(struct copy *copy)
{
    unsigned char digest[SHA256_SIZE];

    gnutls_hash_deinit(copy->hash, digest);
    for (size_t i = 0; i < SHA256_SIZE; i++)
        sprintf(copy->sha256 + 2 * i, "%02x", digest[i]);
}

/* Runs the stages over copy->size bytes; returns an exit code. */
static int move_bytes(struct copy *copy, const struct pipeline_stage *stages, size_t n_stages)
{
    struct pipeline pipeline = {
        .buffers = copy->buffers,
        .n_buffers = N_BUFFERS,
        .stages = stages,
        .n_stages = n_stages,
        .total = copy->size,
    };
    char message[PIPELINE_MESSAGE_MAX];
    double started = seconds_now();
    int status = 0;

    if (gnutls_hash_init(&copy->hash, GNUTLS_DIG_SHA256) < 0)
        return output_failure(-EIO, "SHA-256 is not available");
    if (copy->size) {
        status = make_buffers(copy);
        if (status) {
            finish_hash(copy);
            return output_error(status, NULL);
        }
        progress_start(&copy->progress, base_name(copy->target.path), copy->size);
        pipeline.buffer_size = copy->buffer_size;
        status = pipeline_run(&pipeline, message);
        progress_end(&copy->progress);
    }
    finish_hash(copy);
    free_buffers(copy);
    copy->seconds = seconds_now() - started;
    return status ? output_failure(status, "%s", message) : 0;
}

static void tell_result(const struct copy *copy, const char *command)
{
    double rate = copy->seconds > 0 ? (double)copy->size / copy->seconds / 1e6 : 0;
    char size[32];

    output_text("%s -> %s: %llu bytes (%s) in %.3f s, %.1f MB/s", copy->from, copy->to, (unsigned long long)copy->size,
                format_size(copy->size, size, sizeof(size)), copy->seconds, rate);
    output_text("sha256 %s", copy->sha256);
    output_json(json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:s}", "event", command, "source", copy->from, "destination",
                          copy->to, "bytes", (json_int_t)copy->size, "seconds", copy->seconds, "mb_per_s", rate,
                          "sha256", copy->sha256));
}

/* ---- get ---- */

/* An empty file has no bytes to lease: the whole of it is beyond its end. */
static bool is_empty_file(int status)
{
    json_t *data = status && leasefs_error_data() ? json_loads(leasefs_error_data(), 0, NULL) : NULL;
    const char *reason = json_string_value(json_object_get(data, "reason"));
    bool empty = reason && !strcmp(reason, LEASEFS_REASON_BEYOND_EOF);

    json_decref(data);
    return empty;
}

static int open_source(struct copy *copy)
{
    const struct leasefs_lease_options options = {.mode = LEASEFS_READ, .prepare = copy->prepare};
    struct leasefs_layout layout;
    int status = leasefs_lease_open(copy->session, copy->target.path, &options, &copy->lease);

    if (is_empty_file(status)) {
        copy->size = 0;
        return 0;
    }
    if (status)
        return output_error(status, copy->from);
    leasefs_lease_layout(copy->lease, &layout);
    copy->size = layout.file_size;
    return 0;
}

static int get_into(struct copy *copy, struct local_file *file)
{
    const struct pipeline_stage stages[] = {
        {stage_remote_read, copy},
        {stage_hash, copy},
        {stage_local_write, copy},
    };
    char message[PIPELINE_MESSAGE_MAX];
    int code, status;

    copy->fd = file->fd;
    code = move_bytes(copy, stages, 3);
    if (code) {
        local_file_abandon(file);
        return code;
    }
    status = local_file_publish(file, message);
    return status ? output_failure(status, "%s", message) : 0;
}

static int run_get(struct copy *copy)
{
    struct local_file file;
    char message[PIPELINE_MESSAGE_MAX];
    int code = open_session(copy->target.control, copy->target.host, &copy->session), status;

    if (code)
        return code;
    code = open_source(copy);
    if (!code) {
        status = local_file_create(copy->to, base_name(copy->target.path), copy->size, &file, message);
        code = status ? output_failure(status, "%s", message) : get_into(copy, &file);
    }
    if (!code)
        tell_result(copy, "get");
    leasefs_session_close(copy->session);
    return code;
}

static error_t parse_get(int key, char *arg, struct argp_state *state)
{
    struct copy *copy = state->input;

    switch (key) {
    case 'p':
        copy->prepare = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            copy->from = arg;
        else if (state->arg_num == 1)
            copy->to = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (!copy->to)
            argp_error(state, "what is to be copied where?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&common_argp, 0, NULL, 0}, {0}};

int command_get(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"prepare", 'p', NULL, 0, "Make the file eligible first: fill holes with zeros (needs write permission)", 0},
        {0},
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse_get,
        .children = children,
        .args_doc = "SERVER:PATH LOCAL",
        .doc = "Copy a file from a leasefs server by RDMA. LOCAL is a file, a directory, or - for stdout.",
    };
    struct copy copy = {.fd = -1};
    int code;

    if (argp_parse(&argp, argc, argv, 0, NULL, &copy))
        return EXIT_USAGE;
    if (!strcmp(copy.to, "-"))
        output_use_stderr();
    code = target_take(copy.from, &copy.target);
    if (!code)
        code = run_get(&copy);
    target_clear(&copy.target);
    return code;
}

/* ---- put ---- */

static int open_local(struct copy *copy, mode_t *ret_mode)
{
    struct stat stat_now;

    copy->fd = open(copy->from, O_RDONLY | O_CLOEXEC);
    if (copy->fd < 0 || fstat(copy->fd, &stat_now))
        return output_failure(-errno, "%s: %s", copy->from, strerror(errno));
    if (!S_ISREG(stat_now.st_mode))
        return output_failure(
            -EINVAL, "%s: not a regular file: its size is not known beforehand. Copy it to one first.", copy->from);
    copy->size = (uint64_t)stat_now.st_size;
    *ret_mode = stat_now.st_mode & 0777;
    posix_fadvise(copy->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

static int put_bytes(struct copy *copy, mode_t mode)
{
    const struct pipeline_stage stages[] = {
        {stage_local_read, copy},
        {stage_hash, copy},
        {stage_remote_write, copy},
    };
    int code, status = leasefs_create(copy->session, copy->target.path, mode, copy->size, &copy->lease);

    if (status)
        return output_error(status, copy->to);
    code = move_bytes(copy, stages, 3);
    if (code)
        return code;
    status = leasefs_publish(copy->lease);
    return status ? output_error(status, copy->to) : 0;
}

static int run_put(struct copy *copy)
{
    mode_t mode = 0;
    int code = open_local(copy, &mode);

    if (!code)
        code = open_session(copy->target.control, copy->target.host, &copy->session);
    if (!code) {
        code = put_bytes(copy, mode);
        /* Without its name the file vanishes with the session. */
        leasefs_session_close(copy->session);
    }
    if (!code)
        tell_result(copy, "put");
    if (copy->fd >= 0)
        close(copy->fd);
    return code;
}

int command_put(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse_get,
        .children = children,
        .args_doc = "LOCAL SERVER:PATH",
        .doc = "Copy a file to a leasefs server by RDMA. It appears under its name when it is whole, replacing what "
               "had the name. A PATH that ends in / is a directory.",
    };
    struct copy copy = {.fd = -1};
    int code;

    if (argp_parse(&argp, argc, argv, 0, NULL, &copy))
        return EXIT_USAGE;
    code = target_take(copy.to, &copy.target);
    if (!code && target_complete(&copy.target, copy.from))
        code = output_failure(-ENOMEM, "out of memory");
    if (!code)
        code = run_put(&copy);
    target_clear(&copy.target);
    return code;
}
