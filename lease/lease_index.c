/* SPDX-License-Identifier: BSD-2-Clause */
/* Where leases are found: by id, by deadline, by inode and range, by session. */
#include "lease/lease_private.h"

#include <errno.h>
#include <stdlib.h>

#ifndef __unused /* a BSD name that sys/tree.h takes for granted */
#define __unused __attribute__((unused))
#endif

static int compare_ids(const struct lease *a, const struct lease *b)
{
    return a->lease_id < b->lease_id ? -1 : a->lease_id > b->lease_id;
}

static int compare_deadlines(const struct lease *a, const struct lease *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns ? -1 : 1;
    return compare_ids(a, b);
}

RB_PROTOTYPE_STATIC(lease_ids, lease, by_id, compare_ids);
RB_GENERATE_STATIC(lease_ids, lease, by_id, compare_ids)
RB_PROTOTYPE_STATIC(lease_deadlines, lease, by_deadline, compare_deadlines);
RB_GENERATE_STATIC(lease_deadlines, lease, by_deadline, compare_deadlines)

struct lease *lease_find(struct lease_table *table, uint64_t lease_id)
{
    struct lease key = {.lease_id = lease_id};

    return RB_FIND(lease_ids, &table->ids, &key);
}

int lease_find_own(struct lease_table *table, uint64_t session_id, uint64_t lease_id, uint32_t sequence,
                   struct lease **ret_lease)
{
    struct lease *lease = lease_find(table, lease_id);

    if (!lease || lease->session_id != session_id)
        return -ENOENT;
    if (sequence > lease->sequence)
        return -EINVAL;
    *ret_lease = lease;
    return 0;
}

struct lease *lease_after(struct lease *lease)
{
    return RB_NEXT(lease_ids, NULL, lease);
}

struct lease *lease_lowest(struct lease_table *table)
{
    return RB_MIN(lease_ids, &table->ids);
}

struct lease *lease_first_deadline(struct lease_table *table)
{
    return RB_MIN(lease_deadlines, &table->deadlines);
}

struct lease *lease_after_deadline(struct lease *lease)
{
    return RB_NEXT(lease_deadlines, NULL, lease);
}

static uint64_t deadline_of(const struct lease_table *table, const struct lease *lease)
{
    switch (lease->state) {
    case LEASE_ACTIVE:
        return lease->courtesy ? later(lease->expires_at_ns, table->limits.courtesy_ns) : lease->expires_at_ns;
    case LEASE_RECALLED:
        return lease->recall_deadline_ns < lease->expires_at_ns ? lease->recall_deadline_ns : lease->expires_at_ns;
    case LEASE_FENCING:
        return lease->overrun ? NO_DEADLINE : lease->fence_overrun_ns;
    case LEASE_GRANTING:
        return lease->cut && lease->recall_by_ns && !lease->doomed ? lease->recall_by_ns : NO_DEADLINE;
    case LEASE_QUARANTINED:
        break;
    }
    return NO_DEADLINE;
}

void lease_set_deadline(struct lease_table *table, struct lease *lease)
{
    lease_touch(table, lease->inode);
    if (lease->deadline_ns != NO_DEADLINE)
        RB_REMOVE(lease_deadlines, &table->deadlines, lease);
    lease->deadline_ns = deadline_of(table, lease);
    if (lease->deadline_ns == NO_DEADLINE)
        return;
    RB_INSERT(lease_deadlines, &table->deadlines, lease);
    if (lease_first_deadline(table) == lease)
        lease_post(table, lease, LEASE_EVENT_DEADLINE);
}

struct lease_inode *lease_inode_find(struct lease_table *table, uint64_t inode)
{
    struct lease_inode *entry;

    HASH_FIND(hh, table->inodes, &inode, sizeof(inode), entry);
    return entry;
}

struct lease_inode *lease_inode_get(struct lease_table *table, uint64_t inode)
{
    struct lease_inode *entry = lease_inode_find(table, inode);

    if (entry)
        return entry;
    entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    entry->inode = inode;
    HASH_ADD(hh, table->inodes, inode, sizeof(entry->inode), entry);
    if (entry->hh.tbl)
        return entry;
    free(entry);
    return NULL;
}

void lease_inode_put(struct lease_table *table, struct lease_inode *entry)
{
    if (!lease_tree_empty(&entry->tree) || entry->places)
        return;
    lease_untouch(entry);
    HASH_DELETE(hh, table->inodes, entry);
    free(entry);
}

static struct lease_session *session_get(struct lease_table *table, uint64_t session_id)
{
    struct lease_session *session;

    HASH_FIND(hh, table->sessions, &session_id, sizeof(session_id), session);
    if (session)
        return session;
    session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->session_id = session_id;
    HASH_ADD(hh, table->sessions, session_id, sizeof(session->session_id), session);
    if (session->hh.tbl)
        return session;
    free(session);
    return NULL;
}

static void session_put(struct lease_table *table, struct lease_session *session)
{
    if (session->count)
        return;
    HASH_DELETE(hh, table->sessions, session);
    free(session);
}

static struct lease_owner *owner_get(struct lease_table *table, uint32_t number)
{
    struct lease_owner *owner;

    HASH_FIND(hh, table->owners, &number, sizeof(number), owner);
    if (owner)
        return owner;
    owner = calloc(1, sizeof(*owner));
    if (!owner)
        return NULL;
    owner->owner = number;
    HASH_ADD(hh, table->owners, owner, sizeof(owner->owner), owner);
    if (owner->hh.tbl)
        return owner;
    free(owner);
    return NULL;
}

static void owner_put(struct lease_table *table, struct lease_owner *owner)
{
    if (owner->count)
        return;
    HASH_DELETE(hh, table->owners, owner);
    free(owner);
}

static bool over(uint64_t used, uint64_t more, uint64_t max)
{
    return max && more && (used > max || more > max - used);
}

static int check_limits(const struct lease_table *table, const struct lease_session *session,
                        const struct lease_owner *owner, uint64_t bytes)
{
    const struct lease_limits *limits = &table->limits;

    if (session->count >= limits->max_session_leases)
        return -EMFILE;
    if (over(owner->count, 1, limits->max_owner_leases) || over(owner->bytes, bytes, limits->max_owner_bytes) ||
        over(session->bytes, bytes, limits->max_session_bytes))
        return -EDQUOT;
    return table->n_leases >= limits->max_leases || over(table->bytes, bytes, limits->max_bytes) ? -ENFILE : 0;
}

static void link_lease(struct lease_table *table, struct lease *lease, struct lease_session *session)
{
    lease_touch(table, lease->inode);
    lease_tree_insert(&lease->inode->tree, &lease->node);
    RB_INSERT(lease_ids, &table->ids, lease);
    lease->session = session;
    lease->next = session->leases;
    lease->prev = &session->leases;
    if (lease->next)
        lease->next->prev = &lease->next;
    session->leases = lease;
    session->count++;
    session->bytes += lease->node.range.length;
    lease->owner->count++;
    lease->owner->bytes += lease->node.range.length;
    table->bytes += lease->node.range.length;
    table->n_leases++;
}

int lease_add(struct lease_table *table, const struct lease_request *request, struct lease **ret_lease)
{
    struct lease_session *session = session_get(table, request->session_id);
    struct lease_owner *owner = owner_get(table, request->owner);
    struct lease_inode *entry = NULL;
    struct lease *lease = NULL;
    int error = session && owner ? check_limits(table, session, owner, request->range.length) : -ENOMEM;

    if (!error) {
        entry = lease_inode_get(table, request->inode);
        lease = entry ? calloc(1, sizeof(*lease)) : NULL;
        error = lease ? 0 : -ENOMEM;
    }
    if (error)
        goto undo;
    *lease = (struct lease){
        .lease_id = ++table->last_id,
        .session_id = request->session_id,
        .inode_number = request->inode,
        .process = request->process,
        .mode = request->mode,
        .policy = request->policy,
        .state = LEASE_GRANTING,
        .sequence = 1,
        .deadline_ns = NO_DEADLINE,
        .inode = entry,
        .owner = owner,
        .node = {.range = request->range, .key = table->last_id},
    };
    link_lease(table, lease, session);
    *ret_lease = lease;
    return 0;

undo:
    if (entry)
        lease_inode_put(table, entry);
    if (owner)
        owner_put(table, owner);
    if (session)
        session_put(table, session);
    return error;
}

struct lease *lease_add_beside(struct lease_table *table, const struct lease *of, struct lease_range range)
{
    struct lease *lease = calloc(1, sizeof(*lease));

    if (!lease)
        return NULL;
    *lease = (struct lease){
        .lease_id = ++table->last_id,
        .session_id = of->session_id,
        .inode_number = of->inode_number,
        .process = of->process,
        .mode = of->mode,
        .policy = of->policy,
        .state = LEASE_GRANTING,
        .sequence = 1,
        .granted_at_ns = of->granted_at_ns,
        .expires_at_ns = of->expires_at_ns,
        .deadline_ns = NO_DEADLINE,
        .inode = of->inode,
        .owner = of->owner,
        .node = {.range = range, .key = table->last_id},
    };
    link_lease(table, lease, of->session);
    return lease;
}

void lease_narrow(struct lease_table *table, struct lease *lease, struct lease_range range)
{
    uint64_t less = lease->node.range.length - range.length;

    lease_touch(table, lease->inode);
    lease_tree_remove(&lease->inode->tree, &lease->node);
    lease->node.range = range;
    lease_tree_insert(&lease->inode->tree, &lease->node);
    lease->session->bytes -= less;
    lease->owner->bytes -= less;
    table->bytes -= less;
}

bool lease_fits_one_more(const struct lease_table *table, const struct lease *beside)
{
    return check_limits(table, beside->session, beside->owner, 0) == 0;
}

void lease_unlink(struct lease_table *table, struct lease *lease)
{
    if (!lease->session)
        return;
    lease_touch(table, lease->inode);
    lease_tree_remove(&lease->inode->tree, &lease->node);
    *lease->prev = lease->next;
    if (lease->next)
        lease->next->prev = lease->prev;
    lease->session->count--;
    lease->session->bytes -= lease->node.range.length;
    session_put(table, lease->session);
    lease->session = NULL;
}

void lease_destroy(struct lease_table *table, struct lease *lease)
{
    lease_unlink(table, lease);
    if (lease->deadline_ns != NO_DEADLINE)
        RB_REMOVE(lease_deadlines, &table->deadlines, lease);
    RB_REMOVE(lease_ids, &table->ids, lease);
    table->n_fencing -= lease->state == LEASE_FENCING;
    lease->owner->count--;
    lease->owner->bytes -= lease->node.range.length;
    owner_put(table, lease->owner);
    table->bytes -= lease->node.range.length;
    table->n_leases--;
    free(lease);
}
