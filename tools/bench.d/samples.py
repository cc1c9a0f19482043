# SPDX-License-Identifier: BSD-2-Clause
"""What a measurement hands over: for each metric and subject one figure a pass. See README.md."""

import os
import platform
import statistics
import subprocess
import sys
import time


def percentile(samples, percent):
    """Of a non-empty list; the nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Samples:
    """metric -> subject -> {"unit", "passes": [figure of each pass]}, and why something was not measured."""

    def __init__(self, bench):
        self.document = {"bench": bench, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                         "kernel": platform.release(), "cpus": os.cpu_count(), "metrics": {}, "skipped": {},
                         "notes": []}

    def add(self, metric, subject, unit, figure):
        series = self.document["metrics"].setdefault(metric, {}).setdefault(subject, {"unit": unit, "passes": []})
        series["passes"].append(round(figure, 4))

    def add_latencies(self, metric, subject, microseconds):
        """A list of microseconds as two metrics: its median and its 99th percentile."""
        self.add(f"{metric}.p50", subject, "us", statistics.median(microseconds))
        self.add(f"{metric}.p99", subject, "us", percentile(microseconds, 99))

    def skip(self, metric, reason):
        self.document["skipped"][metric] = reason


def rotated(items, by):
    """Another order in each pass, so that no subject is always the first."""
    by %= len(items)
    return items[by:] + items[:by]


def say(text):
    print(text, file=sys.stderr, flush=True)


def output_of(command, timeout=300, **more):
    """What the command prints. Its standard error is shown when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, text=True,
                          check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout
