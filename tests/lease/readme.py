# SPDX-License-Identifier: BSD-2-Clause
"""Runs the examples of README.md: readme.py README WORD. Those are its blocks

    ```console WORD
    $ command
    what it prints
    ```

Commands run in order, in one directory, and must succeed. What they print is compared with the text below them, up to
numbers (any number is as good), lengths of blanks, and "...", which stands for any text, alone on a line for any lines. /mnt/lfs is a
directory of the test's. A command that ends in & goes on; the commands after it wait until its first line is there."""

import os
import re
import subprocess
import sys
import tempfile
import time


def examples(text, word):
    """[(command, [expected line])]"""
    found = []
    for block in re.findall(r"^```console %s\n(.*?)^```" % re.escape(word), text, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shape(line):
    line = re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{16,}\b", "N", line)
    line = re.sub(r"[0-9]+(\.[0-9]+)?", "N", line)
    return re.sub(r"\s+|-{2,}", " ", line).strip()


def same(expected, printed):
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(shape(line)).replace(r"\.\.\.", ".*") + "\n"
                      for line in expected)
    return re.fullmatch(pattern, "".join(shape(line) + "\n" for line in printed)) is not None


def run(command, directory, running):
    background = command.endswith("&")
    output = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(["bash", "-c", command.rstrip("& ")], cwd=directory, stdin=subprocess.DEVNULL,
                               stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    end = time.monotonic() + 100
    if background:
        running.append(process)
        while process.poll() is None and time.monotonic() < end and not os.fstat(output.fileno()).st_size:
            time.sleep(0.05)
        return 0, []
    status = process.wait(100)
    output.seek(0)
    return status, output.read().splitlines()


def main():
    readme, word = sys.argv[1:3]
    mount, directory = os.environ["README_MOUNT"], os.environ["README_DIRECTORY"]
    found = examples(open(readme).read(), word)
    if len(found) < 3:
        sys.exit(f"only {len(found)} commands found in {readme}: the examples are not where they were")
    failures, running = 0, []
    for command, expected in found:
        print(f"$ {command}", flush=True)
        status, printed = run(command.replace("/mnt/lfs", mount), directory, running)
        printed = [line.replace(mount, "/mnt/lfs") for line in printed]
        print("\n".join(printed), flush=True)
        if status or not (same(expected, printed) or command.endswith("&")):
            print(f"FAILED: status {status}; README.md has:", *expected, sep="\n", file=sys.stderr)
            failures += 1
    for process in running:
        process.terminate()
        process.wait(20)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
