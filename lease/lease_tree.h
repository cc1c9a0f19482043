/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEASEFS_LEASE_TREE_H
#define LEASEFS_LEASE_TREE_H

/*
 * An interval tree: ranges that may overlap, found by overlap in O(log n + found). Nodes are embedded by the caller
 * and keep their range while they are in the tree. Not locked.
 */

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lease/range.h"

struct lease_tree_node {
    RB_ENTRY(lease_tree_node) link;
    struct lease_range range;
    uint64_t key;         /* breaks ties between equal offsets; unique in the tree */
    uint64_t subtree_end; /* the greatest range_end() in this node's subtree */
};

struct lease_tree {
    struct lease_tree_node *rbh_root; /* named by sys/tree.h */
};

void lease_tree_insert(struct lease_tree *tree, struct lease_tree_node *node);
void lease_tree_remove(struct lease_tree *tree, struct lease_tree_node *node);

/* The overlapping nodes in order of (offset, key): the first, and the next after `node`. NULL: none. */
struct lease_tree_node *lease_tree_first(const struct lease_tree *tree, struct lease_range range);
struct lease_tree_node *lease_tree_next(struct lease_tree_node *node, struct lease_range range);

static inline bool lease_tree_empty(const struct lease_tree *tree)
{
    return tree->rbh_root == NULL;
}

/* Order, colours' consequence (depth is not checked) and every subtree_end. */
bool lease_tree_valid(const struct lease_tree *tree);

#endif
