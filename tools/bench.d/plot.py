# SPDX-License-Identifier: BSD-2-Clause
"""A run as a picture: every measure relative to the reference, on a logarithmic axis."""

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  pylint: disable=wrong-import-position

COLOURS = {"leasefs": "#c0392b", "passthrough_ll": "#7f8c8d", "passthrough_fh": "#bdc3c7", "nfs": "#7f8c8d",
           "tmpfs": "#2c3e50", "verbs": "#2c3e50"}
REFERENCE = {"local": "tmpfs", "rdma": "verbs"}


def median(series):
    return statistics.median(series["passes"])


def speed(series, reference):
    """How many times the reference's speed, whatever the unit."""
    ratio = median(series) / median(reference)
    return 1 / ratio if series["unit"] == "us" else ratio


def draw_bars(axes, document, metrics, reference):
    names = list(dict.fromkeys(name for metric in metrics for name in document["metrics"][metric]
                               if name != reference))
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [row + (index - (len(names) - 1) / 2) * height for row, metric in enumerate(metrics)
                  if name in document["metrics"][metric]]
        values = [speed(document["metrics"][metric][name], document["metrics"][metric][reference])
                  for metric in metrics if name in document["metrics"][metric]]
        axes.barh(places, values, height * 0.92, color=COLOURS.get(name), label=name)
    axes.axvline(1, color=COLOURS[reference], linewidth=1)
    axes.set_yticks(range(len(metrics)), metrics)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"speed relative to {reference} (= 1), one run, medians of interleaved passes")
    axes.legend(loc="lower right", fontsize=8)


def draw(document, path):
    reference = REFERENCE[document["bench"]]
    metrics = [metric for metric, subjects in document["metrics"].items()
               if reference in subjects and len(subjects) > 1 and not metric.startswith("grown.")
               and all(median(series) for series in subjects.values())]
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.3 * max(len(metrics), 4)), layout="constrained")
    draw_bars(axes, document, metrics, reference)
    axes.set_title(f"tools/bench {document['bench']}: kernel {document['kernel']}, {document['cpus']} CPUs", fontsize=10)
    figure.savefig(path, format="png", dpi=90,
                   metadata={"Software": None, "Copyright": "SPDX-License-Identifier: BSD-2-Clause"})
