/* SPDX-License-Identifier: BSD-2-Clause */
/* "status" and "map": what there is, for people and monitors. */
#include <errno.h>
#include <stdlib.h>

#include "lease/key_file.h"
#include "lease/service_private.h"

#define MAP_EXTENTS 256 /* of one answer */

static json_t *pool_json(const struct lease_service_config *c)
{
    struct layout_usage usage = c->layout->usage(c->fs);

    return json_pack("{s:I, s:I, s:I, s:I}", "total_bytes", (json_int_t)usage.total_bytes, "free_bytes",
                     (json_int_t)usage.free_bytes, "held_bytes", (json_int_t)usage.held_bytes, "quarantined_bytes",
                     (json_int_t)usage.quarantined_bytes);
}

static json_t *lease_json(const struct lease_info *info, uint64_t now_ns)
{
    json_t *json =
        json_pack("{s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:I}", "lease", (json_int_t)info->lease_id, "session",
                  (json_int_t)info->session_id, "inode", (json_int_t)info->inode, "mode", lease_mode_name(info->mode),
                  "state", lease_state_name(info->state), "offset", (json_int_t)info->range.offset, "length",
                  (json_int_t)info->range.length, "sequence", (json_int_t)info->sequence);

    if (json && info->expires_at_ns > now_ns)
        json_object_set_new(json, "expires_in_ms",
                            json_integer((json_int_t)((info->expires_at_ns - now_ns) / 1000000)));
    if (json && info->recall_deadline_ns)
        json_object_set_new(json, "recall_deadline_ms",
                            json_integer(info->recall_deadline_ns > now_ns
                                             ? (json_int_t)((info->recall_deadline_ns - now_ns) / 1000000)
                                             : 0));
    if (json && info->courtesy)
        json_object_set_new(json, "courtesy", json_true());
    if (json && info->policy)
        json_object_set_new(json, "policy", json_string(lease_policy_name(info->policy)));
    if (json && info->orphaned.length) {
        json_object_set_new(json, "orphaned_offset", json_integer((json_int_t)info->orphaned.offset));
        json_object_set_new(json, "orphaned_length", json_integer((json_int_t)info->orphaned.length));
    }
    return json;
}

/* Of one inode; 0: all. */
static json_t *leases_json(struct lease_table *table, uint64_t inode)
{
    size_t max = lease_list(table, inode, NULL, 0) + 16, count;
    struct lease_info *infos = calloc(max, sizeof(*infos));
    json_t *array = json_array();
    uint64_t now_ns = service_now_ns();

    if (infos) {
        count = lease_list(table, inode, infos, max);
        for (size_t i = 0; i < count && i < max; i++)
            json_array_append_new(array, lease_json(&infos[i], now_ns));
    }
    free(infos);
    return array;
}

static json_t *counters_json(struct lease_table *table)
{
    struct lease_counts n;

    lease_counts(table, &n);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "leases",
                     (json_int_t)n.leases, "leased_bytes", (json_int_t)n.bytes, "waiters", (json_int_t)n.waiters,
                     "quarantined", (json_int_t)n.quarantined, "granted", (json_int_t)n.granted, "returned",
                     (json_int_t)n.returned, "recalls", (json_int_t)n.recalls, "recall_timeouts",
                     (json_int_t)n.recall_timeouts, "expired", (json_int_t)n.expired, "revoked", (json_int_t)n.revoked,
                     "orphaned", (json_int_t)n.orphaned, "returned_parts", (json_int_t)n.parts, "downgraded",
                     (json_int_t)n.downgraded);
}

/* A remote client is told of the sessions and leases of its own key, and of sums; the rest is others' business. */
static bool may_see(const struct session *asking, const struct session *other)
{
    return !asking->key || session_same_key(asking, other);
}

static void hide_leases(struct session *asking, json_t *leases)
{
    struct lease_service *service = asking->service;

    for (size_t i = json_array_size(leases); i-- > 0;) {
        json_int_t id = json_integer_value(json_object_get(json_array_get(leases, i), "session"));
        const struct session *holder = session_find(service, (uint64_t)id);

        if (!holder || !may_see(asking, holder))
            json_array_remove(leases, i);
    }
}

/* The list of sessions is the control thread's: it finishes the answer. */
struct status_mail {
    struct mail mail;
    struct request *request;
    json_t *status;
};

static json_t *session_json(const struct session *s, uint64_t now_ns)
{
    json_t *json = json_pack("{s:I, s:s*, s:I, s:I, s:I}", "session", (json_int_t)s->id, "client", s->client, "uid",
                             (json_int_t)s->who.uid, "pid", (json_int_t)s->who.pid, "age_ms",
                             (json_int_t)((now_ns - s->opened_at_ns) / 1000000));

    if (json && s->key)
        json_object_set_new(json, "key", json_string(s->key->name));
    return json;
}

static void deliver(struct mail *mail)
{
    struct status_mail *m = container(mail, struct status_mail, mail);
    struct session *asking = m->request->session;
    struct lease_service *service = asking->service;
    json_t *array = json_array();
    uint64_t now_ns = service_now_ns();

    for (struct session *s = service->sessions; s; s = s->next)
        if (may_see(asking, s))
            json_array_append_new(array, session_json(s, now_ns));
    json_object_set_new(m->status, "sessions", array);
    if (asking->key)
        hide_leases(asking, json_object_get(m->status, "leases"));
    request_result(m->request, m->status);
    free(m);
}

void status_step(struct request *request)
{
    struct lease_service *service = request->session->service;
    const struct lease_service_config *c = &service->config;
    struct status_mail *m = calloc(1, sizeof(*m));
    json_t *status = json_pack("{s:s, s:I, s:I, s:s, s:o, s:o, s:o}", "server", LEASEFS_VERSION, "boot_epoch",
                               (json_int_t)c->boot_epoch, "uptime_ms",
                               (json_int_t)((service_now_ns() - service->started_at_ns) / 1000000), "policy",
                               lease_policy_name(c->limits.policy), "pool", pool_json(c), "leases",
                               leases_json(service->table, 0), "counters", counters_json(service->table));

    if (!m || !status) {
        free(m);
        json_decref(status);
        request_fail(request, -ENOMEM);
        return;
    }
    if (c->exposure && !request->session->key)
        json_object_set_new(status, "fabric", c->exposure->status(c->fabric));
    *m = (struct status_mail){.mail.deliver = deliver, .request = request, .status = status};
    mail_post(service, &m->mail);
}

static json_t *extents_json(const struct layout_extent *extents, int count)
{
    json_t *array = json_array();

    for (int i = 0; i < count; i++)
        json_array_append_new(
            array, json_pack("{s:I, s:I, s:I, s:s, s:b}", "offset", (json_int_t)extents[i].offset, "length",
                             (json_int_t)extents[i].length, "pool_offset", (json_int_t)extents[i].pool_offset, "state",
                             extents[i].unwritten ? "unwritten" : "written", "shared", (int)extents[i].shared));
    return array;
}

void map_step(struct request *request)
{
    struct lease_service *service = request->session->service;
    const struct lease_service_config *c = &service->config;
    struct layout_extent *extents = calloc(MAP_EXTENTS, sizeof(*extents));
    int count = 0, error = extents ? grant_pin(request) : -ENOMEM;
    struct layout_attr attr;
    json_t *map;

    if (!error)
        error = c->layout->getattr(c->fs, request->inode, &attr);
    if (!error) {
        count = c->layout->extents(c->fs, request->inode, request->offset, extents, MAP_EXTENTS);
        error = count < 0 ? count : 0;
    }
    if (error) {
        free(extents);
        request_fail(request, error);
        return;
    }
    map = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "path", request->path, "inode", (json_int_t)request->inode,
                    "size", (json_int_t)attr.size, "data_version", (json_int_t)attr.data_version, "extents",
                    extents_json(extents, count), "leases", leases_json(service->table, request->inode));
    if (map && count == MAP_EXTENTS)
        json_object_set_new(map, "next_offset",
                            json_integer((json_int_t)(extents[count - 1].offset + extents[count - 1].length)));
    free(extents);
    request_result(request, map);
}
