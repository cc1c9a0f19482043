# SPDX-License-Identifier: BSD-2-Clause
"""Tries a table of rules on a directory: conformance.py TABLE DIRECTORY KINDS

A line is      SOURCE | COMMANDS | RESULT        '#' starts a comment. The result is the last command's (commands.py), and
any of some if " or " is between them. Commands are separated by ';'; each rule starts in an empty directory that all
may write to. "KIND:" before a source restricts the rule to filesystems of that kind, "-KIND:" to others. A filesystem may
be of several: leasefs,writeback.
"""
import os, sys
from commands import Commands, in_child, remove


def last_result(commands):
    run = Commands()
    return [run.evaluate(command) for command in commands.split(";")][-1]


def main():
    table, directory, kinds = sys.argv[1:4]
    failed = tried = 0
    for number, line in enumerate(open(table), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        source, commands, expected = (part.strip() for part in line.split("|"))
        if ":" in source:
            only, source = source.split(":", 1)
            if (only.lstrip("-") in kinds.split(",")) == only.startswith("-"):
                continue
        place = os.path.join(directory, f"rule{number}")
        os.mkdir(place)
        os.chmod(place, 0o777)
        got = in_child(place, lambda: last_result(commands))
        tried += 1
        if got not in expected.split(" or "):
            failed += 1
            print(f"{table}:{number}: {source}: {commands}\n    expected {expected}, got {got}")
        remove(place)
    print(f"{tried} rules, {failed} broken on {kinds}")
    sys.exit(failed > 0)


main()
