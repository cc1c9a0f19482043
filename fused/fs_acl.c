/* SPDX-License-Identifier: BSD-2-Clause */
#include "fused/fs_acl.h"

#include <endian.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdint.h>
#include <sys/stat.h>

typedef struct posix_acl_xattr_entry entry;

static size_t count_of(size_t size)
{
    return (size - sizeof(struct posix_acl_xattr_header)) / sizeof(entry);
}

static entry *entries_of(const void *value)
{
    return (entry *)((char *)value + sizeof(struct posix_acl_xattr_header));
}

static unsigned tag_of(const entry *e)
{
    return le16toh(e->e_tag);
}

static unsigned perm_of(const entry *e)
{
    return le16toh(e->e_perm);
}

static entry *find(const void *value, size_t size, unsigned tag)
{
    entry *e = entries_of(value);

    for (size_t n = count_of(size); n > 0; n--, e++) {
        if (tag_of(e) == tag)
            return e;
    }
    return NULL;
}

/* Tags in the order in which they must come; of the first, third and last exactly one. */
static int rank_of(unsigned tag)
{
    static const unsigned order[] = {ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER};

    for (int i = 0; i < (int)(sizeof(order) / sizeof(order[0])); i++) {
        if (order[i] == tag)
            return i;
    }
    return -1;
}

static bool may_repeat(unsigned tag)
{
    return tag == ACL_USER || tag == ACL_GROUP;
}

int acl_check(const void *value, size_t size)
{
    const struct posix_acl_xattr_header *header = value;
    const entry *e;
    int last = -1;
    bool named = false;

    if (size < sizeof(*header))
        return -EINVAL;
    if (le32toh(header->a_version) != POSIX_ACL_XATTR_VERSION)
        return -EOPNOTSUPP;
    if ((size - sizeof(*header)) % sizeof(*e))
        return -EINVAL;
    e = entries_of(value);
    for (size_t n = count_of(size); n > 0; n--, e++) {
        unsigned tag = tag_of(e);
        int rank = rank_of(tag);

        if (rank < last || rank < 0 || (rank == last && !may_repeat(tag)) || (perm_of(e) & ~7u))
            return -EINVAL;
        named = named || may_repeat(tag);
        last = rank;
    }
    if (!find(value, size, ACL_USER_OBJ) || !find(value, size, ACL_GROUP_OBJ) || !find(value, size, ACL_OTHER))
        return -EINVAL;
    return named && !find(value, size, ACL_MASK) ? -EINVAL : 0;
}

bool acl_is_plain(size_t size)
{
    return count_of(size) == 3;
}

/* The group bits of the mode are the mask, where there is one. */
static entry *group_bits(const void *value, size_t size)
{
    entry *mask = find(value, size, ACL_MASK);

    return mask ? mask : find(value, size, ACL_GROUP_OBJ);
}

mode_t acl_to_mode(const void *value, size_t size, mode_t mode)
{
    return (mode & ~(mode_t)0777) | perm_of(find(value, size, ACL_USER_OBJ)) << 6 |
           perm_of(group_bits(value, size)) << 3 | perm_of(find(value, size, ACL_OTHER));
}

static void set_perm(entry *e, unsigned perm)
{
    e->e_perm = htole16((uint16_t)perm);
}

void acl_follow_mode(void *value, size_t size, mode_t mode)
{
    set_perm(find(value, size, ACL_USER_OBJ), mode >> 6 & 7);
    set_perm(group_bits(value, size), mode >> 3 & 7);
    set_perm(find(value, size, ACL_OTHER), mode & 7);
}

mode_t acl_inherit(void *value, size_t size, mode_t mode)
{
    mode_t both = mode & acl_to_mode(value, size, 0777);

    acl_follow_mode(value, size, both);
    return (mode & ~(mode_t)0777) | both;
}

static bool applies_to_group(const entry *e, gid_t group, const struct acl_who *who)
{
    if (tag_of(e) == ACL_GROUP_OBJ)
        return who->in_group(who->arg, group);
    return tag_of(e) == ACL_GROUP && who->in_group(who->arg, le32toh(e->e_id));
}

/* The first of owner, named users, groups that fits decides; of the groups, any that grants all. */
unsigned acl_granted(const void *value, size_t size, uid_t owner, gid_t group, const struct acl_who *who,
                     unsigned wanted)
{
    const entry *first = entries_of(value), *end = first + count_of(size);
    const entry *mask_entry = find(value, size, ACL_MASK);
    unsigned mask = mask_entry ? perm_of(mask_entry) : 7;
    bool in_some_group = false;

    if (who->uid == owner)
        return perm_of(find(value, size, ACL_USER_OBJ));
    for (const entry *e = first; e < end; e++) {
        if (tag_of(e) == ACL_USER && le32toh(e->e_id) == who->uid)
            return perm_of(e) & mask;
    }
    for (const entry *e = first; e < end; e++) {
        if (!applies_to_group(e, group, who))
            continue;
        in_some_group = true;
        if ((perm_of(e) & mask & wanted) == wanted)
            return perm_of(e) & mask;
    }
    return in_some_group ? 0 : perm_of(find(value, size, ACL_OTHER));
}
