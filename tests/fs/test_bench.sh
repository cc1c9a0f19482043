#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# tools/bench local measures every row that it has a target for, and its ratios are those of its samples. How fast
# anything is, is not looked at: this runs on loaded machines.
. "$(dirname "$0")/lib.sh"
bench=$(cd "$(dirname "$0")/../.." && pwd)/tools/bench
build=$(cd "$(dirname "$LEASEFS")/.." && pwd)
command -v fio >/dev/null || skip "no fio"
! sanitized || skip "a sanitizer's speed is of no interest, and what it may find test_stress and test_parallel do"

refused_with "nothing to measure" "$bench" durability
refused_with "unknown measurement" "$bench" frobnicate
refused_with "unknown option" "$bench" local --frobnicate
refused_with "needs 'time' or 'instructions'" "$bench" rdma --clock sun
refused_with "is for 'rdma'" "$bench" local --clock time

[ -d /dev/shm ] || skip "no /dev/shm"
shm=$(mktemp -d -p /dev/shm)
trap 'status=$?; rmdir "$shm" 2>/dev/null; (exit $status); clean_up' EXIT
"$bench" local --quick --build "$build" --dir "$shm" --json "$dir/json" >"$dir/table" 2>"$dir/errors" || {
    cat "$dir/errors"
    fail "tools/bench local"
}
[ -z "$(ls "$shm")" ] || fail "scratch files are left: $(ls "$shm")"

python3 - "$dir/json" "$dir/table" <<'P'
import json
import statistics
import sys

document, table = json.load(open(sys.argv[1])), open(sys.argv[2]).read()
metrics, targets = document["metrics"], document["targets"]
data = {"stream.read", "stream.write", "random.read.1", "random.read.4", "random.write.1", "random.write.4",
        "cached.read"}
names = {f"meta.{operation}.{threads}" for threads in (1, 4)
         for operation in ("create", "stat", "open_close", "readdir_stat", "rename", "unlink")}
for metric in data | names:
    assert set(metrics[metric]) - {"leasefs_read"} == {"leasefs", "tmpfs", "passthrough_ll", "passthrough_fh"}, metric
    for subject, series in metrics[metric].items():
        assert series["passes"] and all(figure > 0 for figure in series["passes"]), (metric, subject)
    assert any(row["metric"] == metric for row in targets), metric
    assert any(line.startswith(f"| {metric} ") for line in table.splitlines()), metric


def passes(metric, subject):
    return metrics[metric][subject]["passes"]


# Over io_uring, where Linux offers it, and without.
assert all(("leasefs_read" in metrics[metric]) == document["io_uring"] for metric in data | names)
bounds = {row["bound"] for row in targets if row["metric"].startswith("random.")}
assert bounds == {1.8 if document["io_uring"] else 1}, bounds
assert {row["against"] for row in targets} == {"tmpfs", "examples", "smallest", "absolute"}
for row in targets:
    ours, other = passes(row["metric"], "leasefs"), row["reference"]
    if row["against"] == "absolute":
        wanted = statistics.median(ours)
    else:
        if row["against"] == "examples":
            other = max(("passthrough_ll", "passthrough_fh"), key=lambda n: statistics.median(passes(row["metric"], n)))
            assert row["reference"] == other, row
        theirs = passes(other, "leasefs") if row["against"] == "smallest" else passes(row["metric"], other)
        wanted = statistics.median(ours) / statistics.median(theirs)
    assert abs(row["figure"] - wanted) <= 1e-4 * wanted + 1e-4, (row, wanted)
    assert row["met"] == (row["figure"] >= row["bound"] if row["relation"] == ">=" else row["figure"] <= row["bound"])
P

# Only some of it. A run that fails reports what it has, and fails.
refused_with "needs a pattern" "$bench" local --only
refused_with "is for 'local'" "$bench" rdma --only 'x*'
"$bench" local --quick --only 'random.write.?' --only stream.read --build "$build" --dir "$shm" --json "$dir/some" \
    >"$dir/table" 2>"$dir/errors" || fail "tools/bench local --only: $(cat "$dir/errors")"
python3 - "$dir/some" <<'P'
import json
import sys

document = json.load(open(sys.argv[1]))
assert set(document["metrics"]) == {"random.write.1", "random.write.4", "stream.read"}, document["metrics"]
assert {row["metric"] for row in document["targets"]} == set(document["metrics"])
P
mkdir -p "$dir/partial/fused" "$dir/partial/tools/bench.d"
ln -s "$LEASEFS" "$dir/partial/fused/leasefs"
ln -s /bin/false "$dir/partial/tools/bench.d/metadata_bench"
if "$bench" local --quick --build "$dir/partial" --dir "$shm" >"$dir/table" 2>"$dir/errors"; then
    fail "a run without names succeeds"
fi
grep -q '^| cached.read ' "$dir/table" || fail "what it got done is not shown: $(cat "$dir/table" "$dir/errors")"

# What was not measured was not met: --strict says so, and nothing else does.
report=$(dirname "$bench")/bench.d/report.py
python3 -B "$report" "$dir/json" >/dev/null
python3 - "$dir/json" "$dir/fast" "$dir/lame" <<'P'
import json
import sys

document = json.load(open(sys.argv[1]))
for metric, subjects in document["metrics"].items():
    grown = metric.startswith("grown.")
    for subject, series in subjects.items():
        # One pass in three was disturbed, which a median does not see.
        plain = grown or metric.startswith("memory") or subject != "leasefs"
        series["passes"] = [1, 1, 1] if plain else [2, 0.01, 2]
json.dump(document, open(sys.argv[2], "w"))
del document["metrics"]["cached.read"]["leasefs"]
json.dump(document, open(sys.argv[3], "w"))
P
python3 -B "$report" --strict "$dir/fast" >"$dir/table" || fail "all targets are met, and --strict fails: $(cat "$dir/table")"
refused python3 -B "$report" --strict "$dir/lame"
python3 -B "$report" "$dir/lame" >"$dir/table"
grep -q 'NOT MEASURED' "$dir/table" || fail "the table does not say what was not measured"

# The measurements that need a guest, by their report: what the device cannot do is no target, what leasefs lacks is.
python3 - "$dir/rdma" "$dir/lacking" "$dir/bytes" "$dir/leases" <<'P'
import json
import sys

metrics = {f"bandwidth.{way}.{size}": {"leasefs": [20], "verbs": [20], "nfs": [10]}
           for way in ("read", "write") for size in ("64K", "1M")}
metrics |= {f"server_cpu.{way}.1M": {"leasefs": [0.01], "nfs": [1]} for way in ("read", "write")}
metrics |= {f"latency.read.4K.{p}": {"leasefs": [100], "verbs": [100], "nfs": [2000]} for p in ("p50", "p99")}
for size in (4096, 1 << 30):
    metrics[f"grant.pinned.p50.{size}"] = {"leasefs": [size / 1000], "verbs": [size / 1000], "calls": [size / 2000]}
    for mechanism in ("rereg", "dereg"):
        for p in ("p50", "p99"):
            metrics[f"revoke.{mechanism}.{p}.{size}"] = {"leasefs": [40], "verbs": [30]}
unit = {"bandwidth": "MB/s", "server_cpu": "s/GiB"}
document = {"bench": "rdma", "started": "", "kernel": "", "cpus": 2, "skipped": {},
            "absent": ["revoke.odp.", "grant.odp.", "revoke.mw.", "grant.mw."],
            "metrics": {metric: {subject: {"unit": unit.get(metric.split(".")[0], "us"), "passes": passes}
                                 for subject, passes in subjects.items()} for metric, subjects in metrics.items()}}
json.dump(document, open(sys.argv[1], "w"))
document["absent"] = document["absent"][:2]
json.dump(document, open(sys.argv[2], "w"))
# As two guests leave it, one of which counts instructions.
parts = {False: {"skipped": {"NFS": "too old"}, "absent": []},
         True: {"absent": ["revoke.odp.", "grant.odp.", "revoke.mw.", "grant.mw."], "cpus": 1, "clock": "instructions"}}
for leases, name in zip((False, True), sys.argv[3:]):
    of_this = {metric: subjects for metric, subjects in document["metrics"].items()
               if metric.startswith(("grant.", "revoke.")) == leases}
    if leases:
        of_this |= {f"latency.counted.4K.{p}": document["metrics"][f"latency.read.4K.{p}"] for p in ("p50", "p99")}
        of_this |= {metric.replace("bandwidth.", "bandwidth.counted."): {"leasefs": subjects["leasefs"], "nfs": subjects["nfs"]}
                    for metric, subjects in document["metrics"].items() if metric.startswith("bandwidth.")}
    json.dump(document | parts[leases] | {"metrics": of_this}, open(name, "w"))
P
python3 -B "$report" --strict "$dir/rdma" >"$dir/table" || fail "all targets are met, and --strict fails: $(cat "$dir/table")"
refused python3 -B "$report" --strict "$dir/lacking"
! grep -q 'instructions' "$dir/table" || fail "a clock that counts time is said to count instructions"
python3 -B "$report" --strict --json "$dir/whole" --readme "$dir/readme" "$dir/bytes" "$dir/leases" >"$dir/table2" ||
    fail "all targets are met in two parts, and --strict fails: $(cat "$dir/table2")"
diff <(grep '^|' "$dir/table" | grep -v 'latency\|bandwidth') <(grep '^|' "$dir/table2" | grep -v 'latency\|bandwidth') ||
    fail "two parts give another table than one"
# By what was counted, if it was, is a read compared with bare verbs, and bandwidth with NFS.
grep -q '^| bandwidth.read.1M .* of verbs (>= 0.97: met); .* of nfs (>= 1: met) |$' "$dir/table" ||
    fail "no target of bandwidth by time"
grep -q '^| bandwidth.read.1M .* of verbs (>= 0.97: met) |$' "$dir/table2" || fail "bandwidth by time is judged twice, or not"
grep -q '^| bandwidth.counted.read.1M .* of nfs (>= 1: met) |$' "$dir/table2" || fail "no target of counted bandwidth"
grep -q '^| latency.counted.4K.p50 .* of verbs (<= 1.05: met) |$' "$dir/table2" || fail "no target for what was counted"
! grep -q '^| latency.read.4K.* of verbs' "$dir/table2" || fail "one target is judged twice"
grep -q '^| latency.read.4K.p50 .* of nfs (<= 0.1: met) |$' "$dir/table2" || fail "the target by time is gone"
for file in readme table2; do
    [ "$(grep -c 'counts instructions' "$dir/$file")" = 1 ] || fail "the clock is not said once: $(cat "$dir/$file")"
    grep -q 'not measured: NFS: too old' "$dir/$file" || fail "what the first part skipped is lost: $(cat "$dir/$file")"
done
[ "$(python3 -B -c 'import json, sys; print(json.load(open(sys.argv[1]))["clock"])' "$dir/whole")" = instructions ] ||
    fail "the JSON does not say which clock"
refused python3 -B "$report" --strict "$dir/bytes"

# What README shows: all sizes of one measure in one line; of what was saved as of what was just measured.
python3 -B "$report" --readme "$dir/readme" "$dir/rdma" >"$dir/table"
for line in '| latency.read.4K.p50 | us | 100 | 100 | 2000 | 1 of verbs (<= 1.05: met); 0.05 of nfs (<= 0.1: met) |' \
    '| us: leasefs / verbs (ratio) | 4K | 1G |' '| revoke.rereg.p99 | 40 / 30 (1.33) | 40 / 30 (1.33) |' \
    '| grant.pinned.p50 | 4.1 / 4.1 (1) | 1074k / 1074k (1) |' \
    '| grant.pinned.p50 / calls alone | 4.1 / 2.05 (2) | 1074k / 537k (2) |'; do
    grep -qxF "$line" "$dir/readme" || fail "README's table lacks '$line': $(cat "$dir/readme")"
done
python3 -B "$report" --readme "$dir/readme" "$dir/json" >"$dir/table"
grep -q '^| meta.stat.4 |' "$dir/readme" || fail "README's table lacks meta.stat.4"
! grep -q '^| grown' "$dir/readme" || fail "README's table has rows that README has words for"
