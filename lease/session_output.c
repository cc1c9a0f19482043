/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What clients are sent: whose turn it is to send, and what is left.
 *
 * One thread at a time sends (`sending`), without the lock: the control thread, or a worker that has an answer and
 * finds nothing before it. What cannot be sent at once is kept in `out`, and what others say meanwhile goes behind it.
 * The rest of a worker's message goes before all that: a part of it is sent already.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lease/lock_order.h"
#include "lease/service_private.h"
#include "lease/tls.h"

static ssize_t send_plain(int fd, const char *bytes, size_t length)
{
    ssize_t sent;

    lock_none_held();
    do
        sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* Bytes, or a negative errno; -EAGAIN: not now. */
static ssize_t send_some(struct session *session, const char *bytes, size_t length)
{
    ssize_t sent;

    if (!session->tls)
        return send_plain(session->fd, bytes, length);
    lock_none_held();
    /* GnuTLS has the record that it could not send and only wants to be asked again. */
    sent = session->tls_stuck ? tls_send(session->tls, NULL, 0) : tls_send(session->tls, bytes, length);
    session->tls_stuck = sent == -EAGAIN;
    return sent;
}

static bool begin_sending(struct session *session)
{
    bool mine;

    pthread_mutex_lock(&session->output_lock);
    mine = !session->sending;
    session->sending = true;
    pthread_mutex_unlock(&session->output_lock);
    return mine;
}

static void end_sending(struct session *session)
{
    pthread_mutex_lock(&session->output_lock);
    session->sending = false;
    pthread_mutex_unlock(&session->output_lock);
}

/* 0: all is sent. */
static int send_output(struct session *session)
{
    while (session->out_sent < session->out_length) {
        ssize_t sent = send_some(session, session->out + session->out_sent, session->out_length - session->out_sent);

        if (sent < 0)
            return (int)sent;
        session->out_sent += (size_t)sent;
    }
    session->out_sent = session->out_length = 0;
    return 0;
}

int session_flush(struct session *session)
{
    int error;

    if (!begin_sending(session))
        return 0; /* whoever sends comes back to the rest */
    error = send_output(session);
    end_sending(session);
    if (error && error != -EAGAIN)
        return error;
    return sd_event_source_set_io_events(session->io, error ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Behind what is to be sent, or before it. */
static int insert_output_locked(struct session *session, bool before, const char *bytes, size_t length)
{
    char *place;

    if (session->out_sent) {
        session->out_length -= session->out_sent;
        memmove(session->out, session->out + session->out_sent, session->out_length);
        session->out_sent = 0;
    }
    if (length > SESSION_MAX_OUTPUT - session->out_length)
        return -ENOBUFS;
    if (session->out_length + length > session->out_size) {
        size_t size = 2 * (session->out_length + length);
        char *bigger = realloc(session->out, size);

        if (!bigger)
            return -ENOMEM;
        session->out = bigger;
        session->out_size = size;
    }
    place = session->out + (before ? 0 : session->out_length);
    memmove(place + length, place, before ? session->out_length : 0);
    memcpy(place, bytes, length);
    session->out_length += length;
    return 0;
}

/* Steals message. NULL: no memory. */
static char *line_of(json_t *message)
{
    char *line = message ? jsonrpc_line(message) : NULL;

    json_decref(message);
    return line;
}

/* Steals the line. NULL: there was no memory for it. */
static void send_line(struct session *session, char *line)
{
    size_t length = line ? strlen(line) : 0;
    int error = -ENOMEM;

    if (session->fd >= 0) {
        if (line) {
            pthread_mutex_lock(&session->output_lock);
            error = insert_output_locked(session, false, line, length);
            pthread_mutex_unlock(&session->output_lock);
        }
        if (!error)
            error = session_flush(session);
        if (error < 0) /* a lost reply would leave the client waiting: better it learns now */
            shutdown(session->fd, SHUT_RDWR);
    }
    free(line);
}

void session_send(struct session *session, json_t *message)
{
    send_line(session, line_of(message));
}

void session_answer(struct session *session, const json_t *id, json_t *message)
{
    if (id)
        session_send(session, message);
    else
        json_decref(message);
}

struct message_mail {
    struct mail mail;
    struct session *session;
    char *line; /* NULL: what is left to be sent */
};

static void deliver_message(struct mail *mail)
{
    struct message_mail *m = container(mail, struct message_mail, mail);
    struct session *session = m->session;

    pthread_mutex_lock(&session->output_lock);
    session->mailed--;
    pthread_mutex_unlock(&session->output_lock);
    if (m->line)
        send_line(session, m->line);
    else if (session->fd >= 0 && session_flush(session) < 0)
        shutdown(session->fd, SHUT_RDWR);
    session_unref(session);
    free(m);
}

/* The descriptor is there as long as the session. */
static void hang_up(struct session *session)
{
    int fd;

    pthread_mutex_lock(&session->output_lock);
    fd = session->fd;
    pthread_mutex_unlock(&session->output_lock);
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR);
}

/* Steals the line. */
static struct mail *make_letter(struct session *session, char *line)
{
    struct message_mail *m = calloc(1, sizeof(*m));

    if (!m) {
        free(line);
        hang_up(session);
        return NULL;
    }
    m->mail.deliver = deliver_message;
    m->session = session_ref(session);
    m->line = line;
    pthread_mutex_lock(&session->output_lock);
    session->mailed++;
    pthread_mutex_unlock(&session->output_lock);
    return &m->mail;
}

struct mail *session_letter(struct session *session, json_t *message)
{
    char *line = line_of(message);

    if (!line)
        hang_up(session);
    return line ? make_letter(session, line) : NULL;
}

/* The turn to send, if nothing is to be sent before; -1: there is, or the client is gone. */
static int begin_sending_first(struct session *session)
{
    int fd = -1;

    pthread_mutex_lock(&session->output_lock);
    /* A TLS session is for one thread. */
    if (session->fd >= 0 && !session->tls && !session->sending && !session->mailed && !session->out_length) {
        session->sending = true;
        fd = session->fd;
    }
    pthread_mutex_unlock(&session->output_lock);
    return fd;
}

static int keep_rest(struct session *session, const char *rest, size_t length)
{
    int error = 0;

    pthread_mutex_lock(&session->output_lock);
    if (length && session->fd >= 0)
        error = insert_output_locked(session, true, rest, length);
    pthread_mutex_unlock(&session->output_lock);
    return error;
}

/* True: the control thread has something to send. */
static bool end_sending_first(struct session *session)
{
    bool more;

    pthread_mutex_lock(&session->output_lock);
    session->sending = false;
    more = session->fd >= 0 && session->out_length > 0;
    pthread_mutex_unlock(&session->output_lock);
    return more;
}

/* The answer from the thread that has it: one thread less to wake. False: it has to go by mail. */
static bool send_first(struct session *session, const char *line)
{
    int fd = begin_sending_first(session);
    size_t length = strlen(line);
    struct mail *rest;
    ssize_t sent;

    if (fd < 0)
        return false;
    sent = send_plain(fd, line, length);
    if (sent == -EAGAIN)
        sent = 0;
    if (sent >= 0)
        sent = keep_rest(session, line + sent, length - (size_t)sent);
    if (sent < 0) /* as in send_line() */
        shutdown(fd, SHUT_RDWR);
    if (end_sending_first(session)) {
        rest = make_letter(session, NULL);
        if (rest)
            mail_post(session->service, rest);
    }
    return true;
}

void session_mail_line(struct session *session, char *line)
{
    struct mail *letter;

    if (!line) {
        hang_up(session);
    } else if (send_first(session, line)) {
        free(line);
    } else {
        letter = make_letter(session, line);
        if (letter)
            mail_post(session->service, letter);
    }
}

void session_mail(struct session *session, json_t *message)
{
    session_mail_line(session, line_of(message));
}
