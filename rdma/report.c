/* SPDX-License-Identifier: BSD-2-Clause */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include "rdma/connection.h"
#include "rdma/internal.h"

static const char *mechanism_note(const struct fabric *fabric, const struct revoke_mechanism *mechanism)
{
    if (mechanism->run == revoke_by_rereg)
        return rereg_path_name(fabric->rereg);
    return mechanism->note;
}

/* "kind" is what the self-test has shown the mechanism to be here, or what it is taken for without one. */
static json_t *mechanism_json(const struct fabric *fabric, size_t index)
{
    const struct revoke_mechanism *mechanism = &fabric_mechanisms[index];
    const struct proof *proof = &fabric->proofs[index];
    bool works = proof->state != PROOF_NOT_TRIED && proof->state != PROOF_FAILED;

    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:i, s:i, s:i, s:I, s:I, s:s}", "name", mechanism->name, "kind",
                     proof_kind_name(proof->kind), "self_test", proof_state_name(proof->state), "available", works,
                     "chosen", revoke_ladder_has(&fabric->ladder, mechanism->name), "trials", (int)proof->trials,
                     "trials_late", (int)proof->late, "trials_inconclusive", (int)proof->inconclusive, "latency_us",
                     (json_int_t)(proof->latency_ns / 1000), "deadline_ms",
                     (json_int_t)(mechanism->allowed_ns / 1000000), "note", mechanism_note(fabric, mechanism));
}

static json_t *mechanisms_json(const struct fabric *fabric)
{
    json_t *list = json_array();

    for (size_t i = 0; i < FABRIC_MECHANISMS; i++) {
        if (json_array_append_new(list, mechanism_json(fabric, i)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *odp_json(const struct fabric *fabric)
{
    struct ibv_device_attr_ex attr = {0};

    if (ibv_query_device_ex(fabric->verbs, NULL, &attr))
        memset(&attr, 0, sizeof(attr));
    uint64_t general = attr.odp_caps.general_caps;
    uint32_t rc = attr.odp_caps.per_transport_caps.rc_odp_caps;

    return json_pack("{s:b, s:b, s:b, s:b}", "supported", (general & IBV_ODP_SUPPORT) != 0, "implicit",
                     (general & IBV_ODP_SUPPORT_IMPLICIT) != 0, "remote_read", (rc & IBV_ODP_SUPPORT_READ) != 0,
                     "remote_write", (rc & IBV_ODP_SUPPORT_WRITE) != 0);
}

static json_t *memlock_json(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return json_string("unlimited");
    return json_integer((json_int_t)limit.rlim_cur);
}

static void print_address(const struct fabric *fabric, char *text, socklen_t size, unsigned *ret_port)
{
    const struct sockaddr *address = rdma_get_local_addr(fabric->listen_id);
    const void *number = address->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)address)->sin_addr
                                                       : &((const struct sockaddr_in6 *)address)->sin6_addr;

    if (!inet_ntop(address->sa_family, number, text, size))
        snprintf(text, size, "?");
    *ret_port = ntohs(rdma_get_src_port(fabric->listen_id));
}

json_t *report_probe(void *arg)
{
    const struct fabric *fabric = arg;
    char address[INET6_ADDRSTRLEN];
    struct utsname host = {.release = "?"};
    unsigned port;
    json_t *probe;

    print_address(fabric, address, sizeof(address), &port);
    uname(&host);
    probe = json_pack(
        "{s:s, s:s, s:i, s:s, s:i, s:s, s:o, s:o, s:i, s:I, s:i, s:i, s:o, s:s}", "device",
        ibv_get_device_name(fabric->verbs->device), "driver", fabric->driver, "device_port",
        (int)fabric->listen_id->port_num, "address", address, "port", (int)port, "kernel", host.release, "mechanisms",
        mechanisms_json(fabric), "odp", odp_json(fabric), "max_mr", fabric->attr.max_mr, "max_mr_size",
        (json_int_t)(fabric->attr.max_mr_size > INT64_MAX ? INT64_MAX : fabric->attr.max_mr_size), "max_qp",
        fabric->attr.max_qp, "max_reads_in_flight", fabric->attr.max_qp_rd_atom, "memlock_limit", memlock_json(),
        "remote_addresses", atomic_load(&fabric->no_iova) ? "memory addresses" : "file offsets");
#ifdef LEASEFS_HAZARD
    json_object_set_new(probe, "hazard", json_true());
#endif
    return probe;
}

static json_t *rejects_json(const struct fabric_counters *counters)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "malformed", (json_int_t)counters->rejected[LEASEFS_REJECT_MALFORMED],
                     "cookie", (json_int_t)counters->rejected[LEASEFS_REJECT_COOKIE], "device",
                     (json_int_t)counters->rejected[LEASEFS_REJECT_DEVICE], "resources",
                     (json_int_t)counters->rejected[LEASEFS_REJECT_RESOURCES]);
}

static json_t *windows_json(struct windows *windows)
{
    json_int_t mappings, kept, reused;

    pthread_mutex_lock(&windows->lock);
    mappings = (json_int_t)windows->used;
    kept = windows->n_kept;
    reused = (json_int_t)windows->reused;
    pthread_mutex_unlock(&windows->lock);
    return json_pack("{s:I, s:I, s:I}", "mappings", mappings, "kept", kept, "reused", reused);
}

json_t *report_status(void *arg)
{
    struct fabric *fabric = arg;
    struct fabric_counters counters;
    struct spares spares;
    uint64_t pinned;
    unsigned half_open, writable;
    bool gone;

    pthread_mutex_lock(&fabric->lock);
    counters = fabric->counters;
    half_open = fabric->n_half_open;
    writable = connection_count_writable_locked(fabric);
    gone = fabric->device_gone;
    pinned = fabric->pinned_bytes;
    spares = fabric->spares;
    pthread_mutex_unlock(&fabric->lock);

    json_t *connections = json_pack(
        "{s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:I, s:o}", "accepted", (json_int_t)counters.accepted, "established",
        (json_int_t)counters.established, "replaced", (json_int_t)counters.replaced, "half_open", (int)half_open,
        "writable", (int)writable, "half_open_expired", (json_int_t)counters.half_open_expired, "violations",
        (json_int_t)counters.violations, "broken", (json_int_t)counters.broken, "rejected", rejects_json(&counters));
    json_t *exposures = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "now", (json_int_t)counters.exposures_now,
                                  "bytes_now", (json_int_t)counters.bytes_now, "total", (json_int_t)counters.exposures,
                                  "bytes_total", (json_int_t)counters.bytes, "failed",
                                  (json_int_t)counters.expose_failed, "pinned_bytes", (json_int_t)pinned);

    json_t *spares_now = json_pack("{s:i, s:I, s:I}", "now", (int)spares.count, "bytes_now", (json_int_t)spares.bytes,
                                   "taken", (json_int_t)spares.taken);

    return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o}", "device_gone", gone, "connections", connections, "exposures",
                     exposures, "windows", windows_json(&fabric->windows), "spares", spares_now, "revocations",
                     revoke_status(&fabric->ladder));
}
