# SPDX-License-Identifier: BSD-2-Clause
"""What a measurement hands over: for each metric and subject one figure a pass. See README.md."""

import fnmatch
import json
import os
import platform
import statistics
import subprocess
import sys
import time

STARTED = time.monotonic()


def percentile(samples, percent):
    """Of a non-empty list; the nearest rank."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Samples:
    """metric -> subject -> {"unit", "passes": [figure of each pass]}, and why something was not measured."""

    def __init__(self, bench, path=None):
        self.path = path
        self.document = {"bench": bench, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                         "kernel": platform.release(), "cpus": os.cpu_count(), "metrics": {}, "skipped": {},
                         "absent": []}

    def add(self, metric, subject, unit, figure):
        series = self.document["metrics"].setdefault(metric, {}).setdefault(subject, {"unit": unit, "passes": []})
        series["passes"].append(round(figure, 4))

    def add_latencies(self, metric, subject, microseconds, size=None):
        """A list of microseconds as two metrics: its median and its 99th percentile. The size ends their names."""
        end = f".{size}" if size else ""
        self.add(f"{metric}.p50{end}", subject, "us", statistics.median(microseconds))
        self.add(f"{metric}.p99{end}", subject, "us", percentile(microseconds, 99))

    def save(self):
        """So that a machine that is too slow leaves what it got done."""
        with open(f"{self.path}.new", "w", encoding="utf-8") as file:
            json.dump(self.document, file, indent=1)
        os.replace(f"{self.path}.new", self.path)

    def only(self, patterns):
        """What is to be measured, as patterns of fnmatch; none: all. The targets of the rest are not judged."""
        if patterns:
            self.document["only"] = list(patterns)

    def wanted(self, metric):
        return any(fnmatch.fnmatch(metric, pattern) for pattern in self.document.get("only", ["*"]))

    def skip(self, metric, reason):
        self.document["skipped"][metric] = reason

    def attempt(self, what, measure, *arguments):
        """What fails is skipped, and said; the rest is measured."""
        try:
            measure(*arguments)
        except (RuntimeError, OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as problem:
            say(f"{what}: {problem}")
            self.skip(what, str(problem))

    def absent(self, metric, reason):
        """Like skip, but leasefs is not to blame: no target speaks of these metrics here."""
        self.skip(metric, reason)
        self.document["absent"].append(metric)


def rotated(items, by):
    """Another order in each pass, so that no subject is always the first."""
    by %= len(items)
    return items[by:] + items[:by]


def say(text):
    print(f"[{time.monotonic() - STARTED:.0f} s] {text}", file=sys.stderr, flush=True)


def output_of(command, timeout=300):
    """What the command prints. Its standard error is shown when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, text=True, check=False)
    except subprocess.TimeoutExpired as expired:
        raise RuntimeError(f"{' '.join(map(str, command))}: no end after {timeout} s") from expired
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout
