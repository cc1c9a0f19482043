#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""From samples to ratios, verdicts on the targets, a table, JSON and a plot. See README.md."""

import argparse
import fnmatch
import json
import statistics
import sys

import targets

OURS = "leasefs"


def merged(documents):
    """The parts of one run, which were measured on different machines; what is said of the machine is the first's."""
    whole = documents[0]
    for part in documents[1:]:
        for metric, subjects in part["metrics"].items():
            whole["metrics"].setdefault(metric, {}).update(subjects)
        whole["skipped"].update(part["skipped"])
        whole["absent"] += part["absent"]
        whole.update({key: value for key, value in part.items() if key not in whole})
    return whole


def median(series):
    return statistics.median(series["passes"])


def lower_is_better(series):
    return series["unit"] not in ("MB/s", "ops/s")


def best_of(subjects, names):
    """The name of the best of those that were measured, by median; None if there is none."""
    there = [name for name in names if name in subjects]
    if not there:
        return None
    choose = min if lower_is_better(subjects[there[0]]) else max
    return choose(there, key=lambda name: median(subjects[name]))


def ratio_of(ours, reference):
    """Of the medians: what disturbs single passes, of either side, does not show."""
    return median(ours) / median(reference) if median(reference) else None


def judge(metrics, target, metric):
    """One row of the result: the figure that the target speaks of, and whether it is as wanted."""
    subjects = metrics.get(metric, {})
    row = {"metric": metric, "against": target.against, "relation": target.relation, "bound": target.bound,
           "figure": None, "reference": None, "met": False}
    if OURS not in subjects:
        return row
    if target.against == "absolute":
        row["figure"] = median(subjects[OURS])
    elif target.against == "smallest":
        smallest = min(targets.sizes_of(metrics, metric))
        row["reference"] = f"{metric.rpartition('.')[0]}.{smallest}"
        row["figure"] = ratio_of(subjects[OURS], metrics[row["reference"]][OURS])
    else:
        row["reference"] = best_of(subjects, targets.PEERS.get(target.against, (target.against,)))
        if row["reference"]:
            row["figure"] = ratio_of(subjects[OURS], subjects[row["reference"]])
    if row["figure"] is not None:
        row["figure"] = round(row["figure"], 4)
        row["met"] = row["figure"] >= target.bound if target.relation == ">=" else row["figure"] <= target.bound
    return row


def judge_all(document):
    """A pattern that fits no metric gives a row too: what was not measured was not met."""
    metrics, rows = document["metrics"], []
    for target in targets.targets_of(document):
        if target.metric.startswith(tuple(document.get("absent", []))):
            continue
        names = fnmatch.filter(metrics, target.metric)
        if "only" in document and not names:
            continue
        if target.against == "smallest":
            names = [name for name in names if int(name.rpartition(".")[2]) == max(targets.sizes_of(metrics, name))]
        rows += [judge(metrics, target, metric) for metric in names or [target.metric]]
    return rows


def short(figure):
    if figure is None:
        return "-"
    for limit, divisor, letter in ((1e7, 1e6, "M"), (1e4, 1e3, "k")):
        if figure >= limit:
            return f"{figure / divisor:.0f}{letter}"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def verdict(row):
    if row["figure"] is None:
        return f"{row['against']} {row['relation']} {row['bound']:g}: NOT MEASURED"
    about = {"absolute": "", "smallest": f" of {row['reference']}"}.get(row["against"], f" of {row['reference']}")
    return f"{short(row['figure'])}{about} ({row['relation']} {row['bound']:g}: {'met' if row['met'] else 'MISSED'})"


def table_of(document):
    """As Markdown, so that it can be shown anywhere."""
    metrics, rows = document["metrics"], document["targets"]
    names = [OURS] + list(dict.fromkeys(name for subjects in metrics.values() for name in subjects if name != OURS))
    cells = [["", "unit", *names, "leasefs against its targets"]]
    for metric, subjects in metrics.items():
        unit = next(iter(subjects.values()))["unit"]
        verdicts = "; ".join(verdict(row) for row in rows if row["metric"] == metric)
        cells.append([metric, unit, *(short(median(subjects[name])) if name in subjects else "" for name in names),
                      verdicts])
    for row in rows:
        if row["metric"] not in metrics:
            cells.append([row["metric"], "", *("" for _ in names), verdict(row)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    lines = ["| " + " | ".join([cell.ljust(width) for cell, width in zip(line, widths)] + line[-1:]) + " |"
             for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|---|")
    return "\n".join(lines)


def lines_of(cells, numbers):
    """The same without padding; columns of numbers to the right."""
    rule = "|".join("--:" if column in numbers else "---" for column in range(len(cells[0])))
    return ["| " + " | ".join(cells[0]) + " |", f"|{rule}|", *("| " + " | ".join(line) + " |" for line in cells[1:])]


def size_of(metric):
    """The bytes that a metric's name ends with, if it does: "revoke.rereg.p50.4096"."""
    last = metric.rpartition(".")[2]
    return int(last) if last.isdigit() and int(last) >= 4096 else None


def words_of(size):
    for limit, letter in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if size >= limit:
            return f"{size // limit}{letter}"
    return str(size)


def beside(subjects, other):
    """ "205 / 110 (1.9)": leasefs, the bare verbs, the ratio."""
    if OURS not in subjects or other not in subjects:
        return "-"
    ratio = ratio_of(subjects[OURS], subjects[other])
    return f"{short(median(subjects[OURS]))} / {short(median(subjects[other]))} ({short(ratio)})"


def sized_table(metrics):
    """A row for each family of metrics that differ in size alone; another for the calls alone, where there are some."""
    sizes = sorted({size_of(metric) for metric in metrics})
    cells = [["us: leasefs / verbs (ratio)", *(words_of(size) for size in sizes)]]
    for family in dict.fromkeys(metric.rpartition(".")[0] for metric in metrics):
        members = [metrics.get(f"{family}.{size}", {}) for size in sizes]
        cells.append([family, *(beside(subjects, "verbs") for subjects in members)])
        if any("calls" in subjects for subjects in members):
            cells.append([f"{family} / calls alone", *(beside(subjects, "calls") for subjects in members)])
    return lines_of(cells, range(1, len(cells[0])))


def readme_of(document):
    """The part that README.md shows: what comes in many sizes has a line for all of them; what grows with directories
    and was met is left to the words around it."""
    metrics, rows = document["metrics"], document["targets"]
    sized = {metric: subjects for metric, subjects in metrics.items()
             if size_of(metric) and metric.startswith(("grant.", "revoke."))}
    plain = {metric: subjects for metric, subjects in metrics.items()
             if metric not in sized and not metric.startswith("grown.")}
    names = [OURS] + list(dict.fromkeys(name for subjects in plain.values() for name in subjects if name != OURS))
    cells = [["", "unit", *names, "leasefs against its targets"]]
    for metric, subjects in plain.items():
        cells.append([metric, next(iter(subjects.values()))["unit"],
                      *(short(median(subjects[name])) if name in subjects else "" for name in names),
                      "; ".join(verdict(row) for row in rows if row["metric"] == metric)])
    lines = lines_of(cells, range(2, 2 + len(names)))
    if sized:
        lines += ["", *sized_table(sized)]
    return "\n".join(lines)


def summary_of(document):
    rows = document["targets"]
    missed = sum(not row["met"] for row in rows)
    lines = [f"{document['bench']}: kernel {document['kernel']}, {document['cpus']} CPUs, {document['started']}; "
             f"medians; {len(rows) - missed} of {len(rows)} targets met"]
    if document.get("clock") == "instructions":
        lines.append("leases and what is counted: on one CPU, by a clock that counts instructions; a us is 1000 of them")
    if "only" in document:
        lines.append(f"only {' '.join(document['only'])} was to be measured")
    lines += [f"not measured: {what}: {reason}" for what, reason in document["skipped"].items()]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", nargs="+", help="the parts of one run")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    parser.add_argument("--readme")
    parser.add_argument("--strict", action="store_true")
    options = parser.parse_args()
    parts = []
    for name in options.samples:
        with open(name, encoding="utf-8") as file:
            parts.append(json.load(file))
    document = merged(parts)
    document["targets"] = judge_all(document)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
    print(table_of(document))
    print()
    print(summary_of(document))
    if options.readme:
        with open(options.readme, "w", encoding="utf-8") as file:
            file.write(f"{readme_of(document)}\n\n{summary_of(document)}\n")
    if options.plot:
        import plot  # pylint: disable=import-outside-toplevel  # slow to load

        plot.draw(document, options.plot)
    if options.strict and not all(row["met"] for row in document["targets"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
