/* SPDX-License-Identifier: BSD-2-Clause */
#include "lease/lease_tree.h"

/* sys/tree.h calls RB_AUGMENT on the nodes that a rotation moves, children first. That alone leaves ancestors of the
 * changed place stale, so insert and remove below walk from there to the root. */
static void augment(struct lease_tree_node *node);
#undef RB_AUGMENT
#define RB_AUGMENT(node) augment(node)

static int compare(const struct lease_tree_node *a, const struct lease_tree_node *b)
{
    if (a->range.offset != b->range.offset)
        return a->range.offset < b->range.offset ? -1 : 1;
    return a->key < b->key ? -1 : a->key > b->key;
}

#ifndef __unused /* a BSD name that sys/tree.h takes for granted */
#define __unused __attribute__((unused))
#endif
RB_PROTOTYPE_STATIC(lease_tree, lease_tree_node, link, compare);
RB_GENERATE_STATIC(lease_tree, lease_tree_node, link, compare)

static uint64_t computed_end(const struct lease_tree_node *node)
{
    uint64_t end = range_end(node->range);
    const struct lease_tree_node *left = RB_LEFT(node, link), *right = RB_RIGHT(node, link);

    if (left && left->subtree_end > end)
        end = left->subtree_end;
    if (right && right->subtree_end > end)
        end = right->subtree_end;
    return end;
}

static void augment(struct lease_tree_node *node)
{
    if (node)
        node->subtree_end = computed_end(node);
}

static void augment_to_root(struct lease_tree_node *node)
{
    for (; node; node = RB_PARENT(node, link))
        augment(node);
}

void lease_tree_insert(struct lease_tree *tree, struct lease_tree_node *node)
{
    node->subtree_end = range_end(node->range);
    RB_INSERT(lease_tree, tree, node);
    augment_to_root(node);
}

/* The deepest node whose subtree the removal changes: where the walk to the root has to start. */
static struct lease_tree_node *removal_point(struct lease_tree_node *node)
{
    struct lease_tree_node *successor;

    if (!RB_LEFT(node, link) || !RB_RIGHT(node, link))
        return RB_PARENT(node, link);
    /* Its in-order successor takes its place and leaves a gap where it was. */
    successor = RB_RIGHT(node, link);
    while (RB_LEFT(successor, link))
        successor = RB_LEFT(successor, link);
    return RB_PARENT(successor, link) == node ? successor : RB_PARENT(successor, link);
}

void lease_tree_remove(struct lease_tree *tree, struct lease_tree_node *node)
{
    struct lease_tree_node *point = removal_point(node);

    RB_REMOVE(lease_tree, tree, node);
    augment_to_root(point);
}

/* Leftmost overlapping node of a subtree. */
static struct lease_tree_node *leftmost(struct lease_tree_node *node, struct lease_range range)
{
    while (node && node->subtree_end > range.offset) {
        struct lease_tree_node *left = RB_LEFT(node, link);

        if (left && left->subtree_end > range.offset) {
            node = left; /* if nothing there overlaps, then all of it starts too late, and so does the rest */
            continue;
        }
        if (node->range.offset >= range_end(range))
            return NULL;
        if (range_overlaps(node->range, range))
            return node;
        node = RB_RIGHT(node, link);
    }
    return NULL;
}

struct lease_tree_node *lease_tree_first(const struct lease_tree *tree, struct lease_range range)
{
    return range.length ? leftmost(tree->rbh_root, range) : NULL;
}

struct lease_tree_node *lease_tree_next(struct lease_tree_node *node, struct lease_range range)
{
    for (;;) {
        struct lease_tree_node *found = leftmost(RB_RIGHT(node, link), range);
        struct lease_tree_node *parent;

        if (found)
            return found;
        for (parent = RB_PARENT(node, link); parent && RB_RIGHT(parent, link) == node; parent = RB_PARENT(node, link))
            node = parent;
        if (!parent || parent->range.offset >= range_end(range))
            return NULL;
        if (range_overlaps(parent->range, range))
            return parent;
        node = parent;
    }
}

static bool valid_below(const struct lease_tree_node *node)
{
    const struct lease_tree_node *left, *right;

    if (!node)
        return true;
    left = RB_LEFT(node, link);
    right = RB_RIGHT(node, link);
    if (left && (RB_PARENT(left, link) != node || compare(left, node) >= 0))
        return false;
    if (right && (RB_PARENT(right, link) != node || compare(node, right) >= 0))
        return false;
    return node->subtree_end == computed_end(node) && valid_below(left) && valid_below(right);
}

bool lease_tree_valid(const struct lease_tree *tree)
{
    return valid_below(tree->rbh_root);
}
