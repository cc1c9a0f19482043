# SPDX-License-Identifier: BSD-2-Clause
"""A run as a picture: every measure relative to the reference, on a logarithmic axis."""

import statistics

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  pylint: disable=wrong-import-position

COLOURS = {"leasefs": "#c0392b", "leasefs_read": "#e6a49b", "passthrough_ll": "#7f8c8d", "passthrough_fh": "#bdc3c7", "nfs": "#7f8c8d",
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


def curves(document, family):
    """{metric without its size: {subject: [(size, median)]}} of "revoke.rereg.p50.4096" and its kin."""
    found = {}
    for metric, subjects in document["metrics"].items():
        name, _, size = metric.rpartition(".")
        if name.startswith(f"{family}.") and name.endswith(".p50") and size.isdigit():
            for subject, series in subjects.items():
                found.setdefault(name.split(".")[1], {}).setdefault(subject, []).append((int(size), median(series)))
    return found


def draw_curves(axes, document, family, title):
    for index, (name, subjects) in enumerate(sorted(curves(document, family).items())):
        for subject, points in subjects.items():
            sizes, times = zip(*sorted(points))
            axes.plot(sizes, times, "o-" if subject == "leasefs" else "x--", color=f"C{index}", markersize=4,
                      label=f"{name}, {subject}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([4096, 1 << 18, 1 << 24, 1 << 28, 1 << 30], ["4K", "256K", "16M", "256M", "1G"])
    axes.set_xlabel("bytes of the lease")
    axes.set_ylabel("us of 1000 instructions, median" if document.get("clock") == "instructions" else "us, median")
    axes.grid(alpha=0.3)
    axes.set_title(title, fontsize=9)
    if axes.has_data():
        axes.legend(fontsize=7)


def draw_rdma(document, metrics):
    metrics = [metric for metric in metrics if not metric.startswith(("revoke.", "grant."))]
    figure, (bars, revoke, grant) = plt.subplots(3, 1, figsize=(8, 13), layout="constrained")
    if metrics:
        draw_bars(bars, document, metrics, "verbs")
    draw_curves(revoke, document, "revoke", "taking access away: leasefs beside the bare verb")
    draw_curves(grant, document, "grant", "first byte readable beside the exchange with bare verbs")
    return figure, bars


def draw_relative(document, metrics, reference):
    figure, axes = plt.subplots(figsize=(8, 0.8 + 0.3 * max(len(metrics), 4)), layout="constrained")
    draw_bars(axes, document, metrics, reference)
    return figure, axes


def draw(document, path):
    reference = REFERENCE[document["bench"]]
    metrics = [metric for metric, subjects in document["metrics"].items()
               if reference in subjects and len(subjects) > 1 and not metric.startswith("grown.")
               and all(median(series) for series in subjects.values())]
    if document["bench"] == "rdma":
        figure, axes = draw_rdma(document, metrics)
    else:
        figure, axes = draw_relative(document, metrics, reference)
    axes.set_title(f"tools/bench {document['bench']}: kernel {document['kernel']}, {document['cpus']} CPUs", fontsize=10)
    figure.savefig(path, format="png", dpi=90,
                   metadata={"Software": None, "Copyright": "SPDX-License-Identifier: BSD-2-Clause"})
