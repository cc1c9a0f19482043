# SPDX-License-Identifier: BSD-2-Clause
"""What leasefs is held to, as ratios within one run on a machine with two cores."""

import collections

# metric: a pattern of fnmatch. against: a subject, a key of PEERS (the best of these), "absolute" (the figure itself)
# or "smallest" (the same measure of the smallest size).
Target = collections.namedtuple("Target", "metric against relation bound")

PEERS = {"examples": ("passthrough_ll", "passthrough_fh")}


def sizes_of(metrics, metric):
    """The sizes that the family of "grown.stat.1000" was measured with."""
    family = metric.rpartition(".")[0]
    return [int(name.rpartition(".")[2]) for name in metrics if name.rpartition(".")[0] == family]


# What is expected more of it where Linux asks by io_uring, and what otherwise.
BY_IO_URING = [
    Target("stream.*", "tmpfs", ">=", 0.6),
    Target("random.*", "examples", ">=", 1.8),
]
BY_READ = [
    Target("stream.read", "tmpfs", ">=", 0.5),
    Target("stream.write", "tmpfs", ">=", 0.4),
    Target("random.*", "examples", ">=", 1),
]

# What reads and writes are held to: by time, or where the clock counted instructions, but for what that leaves out.
BY_TIME = [
    Target("latency.read.4K.*", "verbs", "<=", 1.05),
    Target("bandwidth.*", "verbs", ">=", 0.97),
    Target("bandwidth.*", "nfs", ">=", 1),
]
COUNTED = [
    Target("latency.counted.4K.*", "verbs", "<=", 1.05),
    Target("bandwidth.[rw]*", "verbs", ">=", 0.97),  # by time: see rdma.py
    Target("bandwidth.counted.*", "nfs", ">=", 1),
]

TARGETS = {
    "local": [
        Target("stream.*", "examples", ">=", 2),
        Target("cached.read", "tmpfs", ">=", 0.5),
        Target("meta.*", "examples", ">=", 1.5),
        # Flat, from a thousand to a million files, but for noise.
        Target("grown.*", "smallest", "<=", 2),
        Target("memory.per_file", "absolute", "<=", 1024),
    ],
    "rdma": [
        Target("latency.read.4K.p50", "nfs", "<=", 0.1),
        Target("server_cpu.*", "nfs", "<=", 0.1),
        Target("grant.*.p50.*", "verbs", "<=", 1.3),
        Target("grant.odp.p50.*", "smallest", "<=", 2),
        Target("revoke.*", "verbs", "<=", 1.5),
        # Flat in size, but for noise.
        Target("revoke.rereg.p50.*", "smallest", "<=", 2),
        Target("revoke.mw.p50.*", "smallest", "<=", 2),
        Target("revoke.odp.p50.*", "smallest", "<=", 2),
    ],
}


def targets_of(document):
    """Of a run: of its bench, of how it was asked, and of its clock."""
    if document["bench"] == "rdma":
        return (COUNTED if document.get("clock") == "instructions" else BY_TIME) + TARGETS["rdma"]
    return (BY_IO_URING if document.get("io_uring") else BY_READ) + TARGETS["local"]
