# SPDX-License-Identifier: BSD-2-Clause
"""What leasefs is held to, as ratios within one run on a machine with two cores."""

import collections

# metric: a pattern of fnmatch. against: a subject, a key of PEERS (the best of these), "absolute" (the figure itself)
# or "smallest" (the same measure in the smallest directory).
Target = collections.namedtuple("Target", "metric against relation bound")

PEERS = {"examples": ("passthrough_ll", "passthrough_fh")}


def sizes_of(metrics, metric):
    """The sizes that the family of "grown.stat.1000" was measured with."""
    family = metric.rpartition(".")[0]
    return [int(name.rpartition(".")[2]) for name in metrics if name.rpartition(".")[0] == family]


TARGETS = {
    "local": [
        Target("stream.read", "tmpfs", ">=", 0.5),
        Target("stream.write", "tmpfs", ">=", 0.4),
        Target("stream.*", "examples", ">=", 2),
        Target("random.*", "examples", ">=", 1),
        Target("cached.read", "tmpfs", ">=", 0.5),
        Target("meta.*", "examples", ">=", 1.5),
        # Flat, from a thousand to a million files, but for noise.
        Target("grown.*", "smallest", "<=", 2),
        Target("memory.per_file", "absolute", "<=", 1024),
    ],
}
