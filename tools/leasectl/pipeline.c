/* SPDX-License-Identifier: BSD-2-Clause */
#include "tools/leasectl/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct run {
    const struct pipeline *pipeline;
    uint64_t n_pieces;
    char *message;

    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t done[PIPELINE_MAX_STAGES]; /* pieces that each stage is done with */
    int status;                         /* the first failure */
};

struct worker {
    struct run *run;
    size_t stage;
    pthread_t thread;
};

/* May this stage take this piece? */
static bool piece_ready(const struct run *run, size_t stage, uint64_t piece)
{
    if (stage)
        return run->done[stage - 1] > piece;
    return piece < run->pipeline->n_buffers ||
           run->done[run->pipeline->n_stages - 1] > piece - run->pipeline->n_buffers;
}

static bool await_piece(struct run *run, size_t stage, uint64_t piece)
{
    bool go;

    pthread_mutex_lock(&run->lock);
    while (!run->status && !piece_ready(run, stage, piece))
        pthread_cond_wait(&run->moved, &run->lock);
    go = !run->status;
    pthread_mutex_unlock(&run->lock);
    return go;
}

static void finish_piece(struct run *run, size_t stage, uint64_t piece, int status, const char *message)
{
    pthread_mutex_lock(&run->lock);
    run->done[stage] = piece + 1;
    if (status && !run->status) {
        run->status = status;
        snprintf(run->message, PIPELINE_MESSAGE_MAX, "%s", message);
    }
    pthread_cond_broadcast(&run->moved);
    pthread_mutex_unlock(&run->lock);
}

static void *run_stage(void *arg)
{
    const struct worker *worker = arg;
    struct run *run = worker->run;
    const struct pipeline *pipeline = run->pipeline;
    const struct pipeline_stage *stage = &pipeline->stages[worker->stage];

    for (uint64_t piece = 0; piece < run->n_pieces && await_piece(run, worker->stage, piece); piece++) {
        uint64_t position = piece * pipeline->buffer_size, left = pipeline->total - position;
        size_t length = left < pipeline->buffer_size ? (size_t)left : pipeline->buffer_size;
        char message[PIPELINE_MESSAGE_MAX] = "";
        int status =
            stage->run(stage->context, pipeline->buffers[piece % pipeline->n_buffers], length, position, message);

        finish_piece(run, worker->stage, piece, status, message);
    }
    return NULL;
}

int pipeline_run(const struct pipeline *pipeline, char *message)
{
    struct run run = {
        .pipeline = pipeline,
        .n_pieces = (pipeline->total + pipeline->buffer_size - 1) / pipeline->buffer_size,
        .message = message,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .moved = PTHREAD_COND_INITIALIZER,
    };
    struct worker workers[PIPELINE_MAX_STAGES];
    size_t last = pipeline->n_stages - 1, started;

    for (size_t i = 0; i < pipeline->n_stages; i++)
        workers[i] = (struct worker){.run = &run, .stage = i};
    for (started = 0; started < last; started++) {
        int status = -pthread_create(&workers[started].thread, NULL, run_stage, &workers[started]);

        if (status) {
            finish_piece(&run, last, 0, status, "no thread for the copy");
            break;
        }
    }
    run_stage(&workers[last]);
    while (started)
        pthread_join(workers[--started].thread, NULL);
    return run.status;
}
